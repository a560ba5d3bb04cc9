"""The languages that there are. Imports no search library: storing a document needs none."""

from __future__ import annotations

from typing import Final

from treestore.errors import InvalidArgument

STEMMED: Final = (
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian",
    "italian", "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "tamil",
    "turkish",
)  # fmt: skip
CHINESE: Final = "chinese"
PLAIN: Final = "none"
TURKISH: Final = "turkish"
MARKED: Final = ("tamil", PLAIN)
"""Languages in whose words marks stand that are no letters by themselves, as the dot that takes a
consonant's vowel away in the scripts of India; of ``none``, at least some are."""

LANGUAGES: Final = tuple(sorted((*STEMMED, CHINESE, PLAIN)))


def check_language(language: object) -> str:
    """The name of a language that there is.

    Raises:
        InvalidArgument: there is none of that name; the message lists them.
    """
    if isinstance(language, str) and language in LANGUAGES:
        return language
    raise InvalidArgument(
        f"There is no language {language!r:.60}. There are {', '.join(LANGUAGES)}; "
        f'"{PLAIN}" takes words as they are, for any other language.'
    )


def language_or_plain(language: str) -> str:
    """``language`` where it is known, else `PLAIN`."""
    return language if language in LANGUAGES else PLAIN
