"""The format of ICD-10-CM diagnosis codes.

The rules are those of the *ICD-10-CM Official Guidelines for Coding and Reporting* (CMS and NCHS),
section I.A: I.A.2 "Format and Structure" (categories of 3 characters, codes of 3 to 7, a point
after the third), I.A.4 "Placeholder character" (an X fills what is empty before a 7th character)
and I.A.5 "7th Characters" (it is always in the 7th place). The guidelines do not say which letters
stand where; that is taken from the published tabular list:

* the first character is any letter, the second a digit, the third a digit or A or B (``C4A``,
  ``C7B``, ``M1A``, ``Z3A``);
* U holds a few codes for new diseases (``U07.1``) and nothing else;
* no code ends with the placeholder X, and none has an I or O after its fourth character, nor an L;
* all codes of chapters S and V to X, and those of T but for five categories, have a 7th
  character; S takes the letters of injuries and fractures there, V to X take A, D or S, and the
  chapter on pregnancy takes a digit (which fetus).
"""

from __future__ import annotations

import re
from itertools import chain

from treestore.tools.coding import (
    CODE_SIZE_MAX,
    CheckedCode,
    as_digits,
    as_letters,
    compact,
    only_ascii_alnum,
)

SYSTEM = "ICD-10-CM"

_CHAPTERS = (
    ("A00", "Infectious and parasitic diseases"),
    ("C00", "Neoplasms"),
    ("D50", "Blood and immune mechanism"),
    ("E00", "Endocrine, nutritional and metabolic diseases"),
    ("F00", "Mental and behavioral disorders"),
    ("G00", "Nervous system"),
    ("H00", "Eye and adnexa"),
    ("H60", "Ear and mastoid process"),
    ("I00", "Circulatory system"),
    ("J00", "Respiratory system"),
    ("K00", "Digestive system"),
    ("L00", "Skin and subcutaneous tissue"),
    ("M00", "Musculoskeletal system and connective tissue"),
    ("N00", "Genitourinary system"),
    ("O00", "Pregnancy, childbirth and the puerperium"),
    ("P00", "Perinatal period"),
    ("Q00", "Congenital malformations"),
    ("R00", "Symptoms, signs and abnormal findings"),
    ("S00", "Injury, poisoning and other external consequences"),
    ("U00", "Codes for special purposes"),
    ("V00", "External causes of morbidity"),
    ("Z00", "Factors influencing health status"),
)
"""First category of each chapter, and its subject."""

_CATEGORY = re.compile(r"[A-Z][0-9][0-9AB]")
_ENCOUNTERS = "ADS"
_INJURY_SEVENTHS = "ABCDEFGHJKMNPQRS"
_NEVER_LATE = frozenset("ILO")
_WITHOUT_SEVENTH = frozenset({"T30", "T31", "T32", "T86", "T87"})


def check_icd10(given: str) -> CheckedCode:
    """Check the format of one ICD-10-CM code; blanks, case and a missing point are forgiven."""
    if len(given) > CODE_SIZE_MAX:
        problem = f"A code has at most 7 characters, not {len(given)}."
        return CheckedCode(system=SYSTEM, given=given[:CODE_SIZE_MAX], problems=(problem,))
    written = compact(given)
    bare = written.replace(".", "")
    if not only_ascii_alnum(bare):
        problem = "A code holds letters and digits, and one point after the third character."
        guesses = _guesses(re.sub(r"[^A-Z0-9]", "", bare))
        return CheckedCode(system=SYSTEM, given=given, problems=(problem,), suggested=guesses)
    problems = (*_point_problems(written), *find_problems(bare))
    code = with_point(bare)
    if problems:
        return CheckedCode(
            system=SYSTEM, given=given, code=code, problems=problems, suggested=_guesses(bare)
        )
    return CheckedCode(system=SYSTEM, given=given, code=code, valid=True, kind=chapter_of(bare))


def with_point(bare: str) -> str:
    """``S72001A`` as ``S72.001A``."""
    return f"{bare[:3]}.{bare[3:]}" if len(bare) > 3 else bare


def chapter_of(bare: str) -> str:
    """The subject of the chapter that a code's category lies in."""
    subject = _CHAPTERS[0][1]
    for first, name in _CHAPTERS:
        if bare[:3] >= first:
            subject = name
    return subject


def _point_problems(written: str) -> tuple[str, ...]:
    at = written.find(".")
    if at < 0 or (at == 3 and written.count(".") == 1 and len(written) > 4):
        return ()
    return ("The point stands after the third character, once, and something follows it.",)


def find_problems(bare: str) -> list[str]:
    """What is wrong with a code (without its point, in upper case), as sentences."""
    if not 3 <= len(bare) <= 7:
        return [f"A code has 3 to 7 characters, not {len(bare)}."]
    if bare.isdigit():
        return ["A code begins with a letter; this looks like ICD-9-CM, which is another system."]
    problems = _category_problems(bare)
    rest = bare[3:]
    late = sorted(_NEVER_LATE & set(rest[1:]))
    if late:
        problems.append(f"No code has the letter {' or '.join(late)} after its fourth character.")
    if rest.endswith("X"):
        problems.append(
            "The placeholder X fills empty places before a further character; no code ends in it."
        )
    elif len(bare) == 7:
        problems += _seventh_problems(bare)
    elif needs_seventh(bare):
        filled = " (with X in the empty places before it)" if len(bare) < 6 else ""
        problems.append(f"Codes of category {bare[:3]} need a 7th character{filled}.")
    return problems


def _category_problems(bare: str) -> list[str]:
    problems = []
    if not bare[0].isalpha():
        problems.append("The first character is a letter.")
    if not bare[1].isdigit():
        problems.append("The second character is a digit.")
    if not (bare[2].isdigit() or bare[2] in "AB"):
        problems.append("The third character is a digit (or A or B in a few categories).")
    return problems


def needs_seventh(bare: str) -> bool:
    """Whether every code of the category has seven characters."""
    return bare[0] in "SVWX" or (bare[0] == "T" and bare[:3] not in _WITHOUT_SEVENTH)


def _seventh_problems(bare: str) -> list[str]:
    allowed = sevenths_of(bare)
    if not allowed or bare[6] in allowed:
        return []
    shown = "a digit" if allowed.isdigit() else f"one of {', '.join(allowed)}"
    return [f"The 7th character of category {bare[:3]} is {shown}, not {bare[6]}."]


def sevenths_of(bare: str) -> str:
    """The 7th characters that a chapter knows; "" where that depends on the code."""
    if bare[0] == "S":
        return _INJURY_SEVENTHS
    if bare[0] in "VWX" or (bare[0] == "T" and bare[:3] not in _WITHOUT_SEVENTH):
        return _ENCOUNTERS
    return "0123456789" if bare[0] == "O" else ""


# --- suggestions -----------------------------------------------------------------------------


def _guesses(bare: str) -> tuple[str, ...]:
    """Codes of valid format that a small mistake makes into ``bare``."""
    read = _reread(bare)
    candidates = chain(
        (bare, read),
        _with_placeholders(bare),
        _with_placeholders(read),
        _with_placeholders(read.rstrip("X")),
        (read[:7], read.rstrip("X")),
    )
    good = dict.fromkeys(code for code in candidates if not find_problems(code))
    return tuple(map(with_point, good))[:5]


def _reread(bare: str) -> str:
    """With letters and digits that are easily mistaken for each other put right."""
    if len(bare) < 3:
        return bare
    third = bare[2] if bare[2] in "AB" else as_digits(bare[2])
    rest = bare[3:]
    last = ""
    if len(rest) == 4 and rest[3].isalpha():
        rest, last = rest[:3], rest[3]
    # Letters that no code has so late, and what they are mistaken for.
    digits = rest[:1] + "".join(as_digits(c) if c in _NEVER_LATE else c for c in rest[1:])
    return as_letters(bare[0]) + as_digits(bare[1]) + third + digits + last


def _with_placeholders(bare: str) -> list[str]:
    """With the 7th character that is missing, or with the one that came too early moved there."""
    if not 3 <= len(bare) <= 6 or not _CATEGORY.fullmatch(bare[:3]) or not needs_seventh(bare):
        return []
    body, last = bare[:-1], bare[-1]
    if len(bare) > 3 and last in sevenths_of(bare):
        body = body.rstrip("X") if len(body) > 3 else body
        return [body.ljust(6, "X") + last]
    return [bare.ljust(6, "X") + encounter for encounter in _ENCOUNTERS]
