"""The formats of procedure codes: CPT (HCPCS Level I), HCPCS Level II, and their modifiers.

CPT, as its publisher, the American Medical Association, describes it ("CPT overview and code
approval"): Category I codes are five digits, in six sections by number; Category II (performance
measurement) four digits and F; Category III (emerging technology) four digits and T; proprietary
laboratory analyses (PLA) four digits and U; administrative multianalyte assays with algorithmic
analyses (MAAA) four digits and M. HCPCS Level II, as CMS describes it ("HCPCS Level II Coding
Process & Criteria"): one letter from A to V and four digits; W to Z were for local codes, which
ended in 2003, and F, I, N and O are not in use. Modifiers are two characters: two digits, a letter
and a digit or letter (``LT``, ``E1``), a digit and P (``2P``), or P and a digit (``P3``); a claim
line has room for four (form CMS-1500, item 24D).

Only formats and ranges are checked here: the lists of CPT codes are the AMA's.
"""

from __future__ import annotations

import re

from treestore.tools.coding import CODE_SIZE_MAX, CheckedCode, as_digits, as_letters, compact

MODIFIERS_MAX = 4

_SECTIONS = (
    (100, 1999, "Anesthesia"),
    (10004, 69990, "Surgery"),
    (70010, 79999, "Radiology"),
    (80047, 89398, "Pathology and Laboratory"),
    (90281, 99199, "Medicine"),
    (99202, 99499, "Evaluation and Management"),
    (99500, 99607, "Medicine"),
)
"""First and last number of each section of Category I."""

_SUFFIXES = {
    "F": "Category II",
    "T": "Category III",
    "U": "Proprietary Laboratory Analyses",
    "M": "Multianalyte Assay with Algorithmic Analysis",
}

_LEVEL_II = {
    "A": "Transportation, supplies and administrative",
    "B": "Enteral and parenteral therapy",
    "C": "Outpatient prospective payment system",
    "D": "Dental procedures",
    "E": "Durable medical equipment",
    "G": "Temporary procedures and professional services",
    "H": "Alcohol and drug abuse treatment, behavioral health",
    "J": "Drugs administered other than by mouth",
    "K": "Temporary, for durable medical equipment contractors",
    "L": "Orthotics and prosthetics",
    "M": "Medical services and quality measures",
    "P": "Pathology and laboratory",
    "Q": "Temporary, miscellaneous services",
    "R": "Diagnostic radiology",
    "S": "Temporary, of private payers",
    "T": "State Medicaid agencies",
    "U": "Laboratory tests for new diseases",
    "V": "Vision, hearing and speech-language pathology",
}
"""Letters of HCPCS Level II in use, and what they are for."""

_MODIFIER = re.compile(r"[0-9]{2}|[A-V][A-Z0-9]|[1238]P|X[EPSU]")
# 00 to 21 are no modifiers: the numbers of CPT begin at 22.
_FIRST_NUMERIC_MODIFIER = 22


def check_cpt(given: str) -> CheckedCode:
    """Check the format of one CPT code, with or without modifiers (``99213-25``)."""
    return _check("CPT", given)


def check_hcpcs(given: str) -> CheckedCode:
    """Check the format of one HCPCS Level II code, with or without modifiers (``J1100-JW``)."""
    return _check("HCPCS", given)


def check_modifier(given: str) -> CheckedCode:
    """Check the format of one modifier."""
    code = compact(given[:CODE_SIZE_MAX]).removeprefix("-")
    problem = _modifier_problem(code)
    if problem:
        guess = as_letters(code[:1]) + code[1:]
        suggested = (guess,) if not _modifier_problem(guess) else ()
        return CheckedCode(
            system="modifier", given=given[:CODE_SIZE_MAX], problems=(problem,), suggested=suggested
        )
    kind = "CPT" if code.isdigit() or code[1] == "P" else "HCPCS"
    return CheckedCode(system="modifier", given=given, code=code, valid=True, kind=kind)


def _modifier_problem(code: str) -> str:
    if not _MODIFIER.fullmatch(code) or (code.isdigit() and int(code) < _FIRST_NUMERIC_MODIFIER):
        return (
            "A modifier is two characters: digits from 22 up, or a letter and a letter or digit, "
            "or a digit and P."
        )
    return ""


def _check(system: str, given: str) -> CheckedCode:
    if len(given) > CODE_SIZE_MAX:
        problem = f"A code has 5 characters, not {len(given)}."
        return CheckedCode(system=system, given=given[:CODE_SIZE_MAX], problems=(problem,))
    code, modifiers = _split(compact(given))
    kind, problem = _kind_of(system, code)
    problems = [problem] if problem else []
    if len(modifiers) > MODIFIERS_MAX:
        problems.append(f"A code has at most {MODIFIERS_MAX} modifiers, not {len(modifiers)}.")
    problems += [
        f"{modifier!r} is no modifier. {wrong}"
        for modifier in modifiers
        if (wrong := _modifier_problem(modifier))
    ]
    shown = code if not problem else ""
    suggested = _guesses(system, code) if problem else ()
    return CheckedCode(
        system=system,
        given=given,
        code=shown,
        valid=not problems,
        kind=kind,
        problems=tuple(problems),
        suggested=suggested,
        modifiers=modifiers if not problems else (),
    )


def _split(written: str) -> tuple[str, tuple[str, ...]]:
    """``99213-25-59`` as code and modifiers; a comma parts them as well."""
    code, *modifiers = re.split(r"[-,]", written)
    return code, tuple(filter(None, modifiers))


def _kind_of(system: str, code: str) -> tuple[str, str]:
    """Which part of the system a code's format belongs to, and what is wrong with it."""
    return _cpt_kind(code) if system == "CPT" else _hcpcs_kind(code)


def _cpt_kind(code: str) -> tuple[str, str]:
    if re.fullmatch(r"[0-9]{4}[FTUM]", code):
        return _SUFFIXES[code[4]], ""
    if re.fullmatch(r"[0-9]{5}", code):
        number = int(code)
        for first, last, section in _SECTIONS:
            if first <= number <= last:
                return section, ""
        return "", f"No section of CPT has the number {code}."
    if re.fullmatch(r"[A-Z][0-9]{4}", code) and code[0] in _LEVEL_II:
        return "", f"{code} is a code of HCPCS Level II, not of CPT."
    return "", "A CPT code is five digits, or four digits and F, T, U or M."


def _hcpcs_kind(code: str) -> tuple[str, str]:
    if re.fullmatch(r"[A-Z][0-9]{4}", code):
        if code[0] in _LEVEL_II:
            return _LEVEL_II[code[0]], ""
        if code[0] in "WXYZ":
            return "", f"Codes with {code[0]} were local codes, which ended in 2003."
        return "", f"HCPCS Level II has no codes with {code[0]}."
    if not _cpt_kind(code)[1]:
        return "", f"{code} is a CPT code (HCPCS Level I), not of Level II."
    return "", "A HCPCS Level II code is a letter from A to V and four digits."


def _guesses(system: str, code: str) -> tuple[str, ...]:
    """Codes of valid format that a small mistake makes into ``code``."""
    bare = re.sub(r"[^A-Z0-9]", "", code)
    candidates = [bare]
    if system == "CPT":
        candidates += [as_digits(bare), as_digits(bare[:4]) + bare[4:]]
        if len(bare) == 4 and bare.isdigit():
            candidates.append(bare.zfill(5))
        if re.fullmatch(r"[FTUM][0-9]{4}", bare):
            candidates.append(bare[1:] + bare[0])
    else:
        candidates.append(as_letters(bare[:1]) + as_digits(bare[1:]))
    if len(bare) == 7:
        # A code and its modifier that were written together.
        candidates.append(bare[:5])
    good = dict.fromkeys(guess for guess in candidates if not _kind_of(system, guess)[1])
    good.pop(code, None)
    return tuple(good)[:5]
