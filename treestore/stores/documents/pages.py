"""Pages: what a caller asks for, and which nodes touch them.

The index does not rest on parents containing their children, which real PageIndex output does not
keep. Intervals are sorted by the class of their length: ``level`` is the bit length of ``end -
start``, so an interval of level n is at most ``2**n - 1`` longer than one page, and those of level
n that touch ``[a, b]`` start between ``a - (2**n - 1)`` and ``b``. A lookup scans that run for each
level that occurs: work depends on how many intervals lie there, never on how large page numbers
or intervals are.

Key: ``PAGES place level start path``, level in 1 byte, start in 8 (with an offset, so negative
numbers sort). Value: the end, likewise.
"""

from __future__ import annotations

from typing import Final

from treestore.errors import InvalidArgument
from treestore.stores.access import Read
from treestore.stores.documents.layout import AFTER, Place

PARTS_MAX: Final = 1000
"""Parts of one page set, at most."""

PAGE_MAX: Final = (1 << 62) - 1
"""Largest page number; the smallest is its negative."""

_OFFSET: Final = 1 << 63

Ranges = list[tuple[int, int]]


def parse_pages(pages: int | str) -> Ranges:
    """A page set such as ``"1-3,7"`` as sorted ranges that do not touch; both ends inclusive.

    Raises:
        InvalidArgument: it is malformed; the sentence shows the part and an example.
    """
    if isinstance(pages, bool) or not isinstance(pages, int | str):
        raise InvalidArgument(
            f'pages is a number or a string such as "1-3,7", not {type(pages).__name__}.'
        )
    if isinstance(pages, int):
        if not 0 <= pages <= PAGE_MAX:
            raise InvalidArgument(f"{pages} is no page number; pages count from 1.")
        return [(pages, pages)]
    parts = pages.split(",", PARTS_MAX)
    if len(parts) > PARTS_MAX:
        raise InvalidArgument(f"pages has more than {PARTS_MAX} parts; ask for fewer at a time.")
    merged: Ranges = []
    for first, last in sorted(_parse_part(part.strip(), pages) for part in parts):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _parse_part(part: str, pages: str) -> tuple[int, int]:
    first, dash, last = part.partition("-")
    low = _parse_number(first, part, pages)
    high = _parse_number(last, part, pages) if dash else low
    if high < low:
        raise InvalidArgument(
            f'The page range {part!r} runs backwards; write "{high}-{low}".', part=part
        )
    return low, high


def _parse_number(text: str, part: str, pages: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 19 or int(digits) > PAGE_MAX:
        shown = pages if len(pages) <= 80 else pages[:77] + "..."
        raise InvalidArgument(
            f"{part[:40]!r} in pages {shown!r} is neither a page nor a range; "
            f'write it like "5", "1-3" or "1-3,7".',
            part=part[:40],
        )
    return int(digits)


def page_item(
    place: Place, path: bytes, start: int | None, end: int | None
) -> tuple[bytes, bytes] | None:
    """The index entry of a node with this range; None where it touches no page.

    Where only one of the two is known, the node touches that page.
    """
    if start is None:
        start = end
    if end is None:
        end = start
    if start is None or end is None or end < start:
        return None
    key = (
        place.pages
        + (end - start).bit_length().to_bytes(1, "big")
        + (start + _OFFSET).to_bytes(8, "big")
        + path
    )
    return key, (end + _OFFSET).to_bytes(8, "big")


def paths_on_pages(txn: Read, place: Place, ranges: Ranges) -> list[bytes]:
    """The paths of all nodes that touch one of ``ranges``, in document order, each once."""
    found: set[bytes] = set()
    prefix = place.pages
    at = len(prefix)
    levels = txn.cursor(prefix, prefix + AFTER)
    for key, _ in levels:
        level = key[at]
        for first, last in ranges:
            lowest = max(first - (1 << level) + 1, -_OFFSET)
            start = key[: at + 1] + (lowest + _OFFSET).to_bytes(8, "big")
            end = key[: at + 1] + (last + 1 + _OFFSET).to_bytes(8, "big")
            least = (first + _OFFSET).to_bytes(8, "big")
            found.update(k[at + 9 :] for k, until in txn.scan(start, end) if until >= least)
        levels.seek(prefix + bytes((level + 1,)))
    return sorted(found)
