"""What the validators of medical codes have in common."""

from __future__ import annotations

from typing import Any

import attrs

CODE_SIZE_MAX = 32
"""A longer string is no code of any of these systems; it is not looked at further."""


@attrs.frozen(kw_only=True)
class CheckedCode:
    """One code after the check of its format.

    Attributes:
        system: ``ICD-10-CM``, ``CPT``, ``HCPCS`` or ``modifier``.
        given: as it came.
        code: in the usual writing (upper case, the point where it belongs); "" where it cannot
            be read as a code at all.
        valid: whether the format is that of a code that can be reported. Whether the code is in
            this year's list is another question, which a format cannot answer.
        kind: which part of the system: ``Category III``, ``Surgery``, a chapter's title.
        problems: what is wrong, as sentences.
        suggested: codes of valid format that may have been meant, the likeliest first.
        modifiers: of a procedure code that came with some.
    """

    system: str
    given: str
    code: str = ""
    valid: bool = False
    kind: str = ""
    problems: tuple[str, ...] = ()
    suggested: tuple[str, ...] = ()
    modifiers: tuple[str, ...] = ()

    def as_result(self) -> dict[str, Any]:
        """As part of a tool's result."""
        result = attrs.asdict(self, filter=lambda _, value: value != () and value != "")
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in result.items()
        }


def compact(given: str) -> str:
    """``given`` in upper case without the blanks that people and models put around and inside."""
    return "".join(given.split()).upper()


_AS_DIGIT = str.maketrans("OQDILZSB", "00011258")
_AS_LETTER = str.maketrans("0158", "OISB")


def as_digits(text: str) -> str:
    """The letters that are mistaken for digits, read as those digits."""
    return text.translate(_AS_DIGIT)


def as_letters(text: str) -> str:
    """The digits that are mistaken for letters, read as those letters."""
    return text.translate(_AS_LETTER)


def only_ascii_alnum(text: str) -> bool:
    """Whether there is nothing but A-Z and 0-9 (and at least one of them)."""
    return text.isascii() and text.isalnum()
