"""All runs of a page file, whoever refers to them."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from crc32c import crc32c

from treestore.engine import page as page_format
from treestore.engine.disk import File
from treestore.engine.meta import first_page
from treestore.engine.page import (
    HEADER_SIZE,
    PAGE_SIZE_BYTES,
    PAGE_SIZE_BYTES_MAX,
    PAGE_SIZE_BYTES_MIN,
)
from treestore.engine.transaction import VALUE_SIZE_BYTES_MAX

KIND_NAMES = {
    page_format.LEAF: "leaf",
    page_format.BRANCH: "branch",
    page_format.LEAF_WITH_LARGE: "leaf with large values",
    page_format.LARGE: "large value",
    page_format.FREE_SPACE: "free-space list",
}

NODE_KINDS = (page_format.LEAF, page_format.BRANCH, page_format.LEAF_WITH_LARGE)
LEAF_KINDS = (page_format.LEAF, page_format.LEAF_WITH_LARGE)

GUESS_BYTES = 1 << 20
"""How much of a file is looked at to guess its page size."""

CHUNK_BYTES = 1 << 20


@attrs.frozen
class Run:
    """One run, or one page that begins none.

    Attributes:
        page: its number.
        pages: how many pages; 1 where it is not whole.
        state: ``whole``; ``blank`` (zeros); ``no run`` (its content is not what its checksum says:
            damage, or a page inside of what was a larger run once).
        kind: see `KIND_NAMES`; 0 where it is not whole.
        born: commit number of birth.
        size: bytes of payload.
        checksum: what a reference to it must say.
    """

    page: int
    pages: int
    state: str
    kind: int = 0
    born: int = 0
    size: int = 0
    checksum: int = 0


def run_at(file: File, page: int, page_size: int, first: bytes | None = None) -> Run:
    """The run that begins at ``page``, judged by its own checksum only.

    Args:
        first: the bytes of the page, where they were read already.
    """
    data = file.read_at(page * page_size, page_size) if first is None else first
    if not data.strip(b"\0"):
        return Run(page, 1, "blank")
    if len(data) < page_size:
        return Run(page, 1, "no run")
    kind, number, born, size, pages = page_format.unpack_header(data)
    pages_max = 1 + -(-VALUE_SIZE_BYTES_MAX // (page_size - HEADER_SIZE))
    many = kind in (page_format.LARGE, page_format.FREE_SPACE)
    fits = 0 < pages <= (pages_max if many else 1) and size <= pages * page_size - HEADER_SIZE
    if number != page or kind not in KIND_NAMES or not fits:
        return Run(page, 1, "no run")
    checksum = crc32c(memoryview(data)[4:])
    offset, end = (page + 1) * page_size, (page + pages) * page_size
    while offset < end:
        chunk = file.read_at(offset, min(CHUNK_BYTES, end - offset))
        if not chunk:
            return Run(page, 1, "no run")
        checksum = crc32c(chunk, checksum)
        offset += len(chunk)
    if checksum != page_format.checksum_of(data):
        return Run(page, 1, "no run")
    return Run(page, pages, "whole", kind, born, size, checksum)


def scan_runs(file: File, page_size: int) -> Iterator[Run]:
    """Every page of the file once, as part of a run or by itself, in the order of the file."""
    end = -(-file.size() // page_size)
    page = first_page(page_size)
    start, data = page, b""
    while page < end:
        at = (page - start) * page_size
        if at + page_size > len(data):
            start, at = page, 0
            data = file.read_at(page * page_size, max(CHUNK_BYTES, page_size))
        run = run_at(file, page, page_size, data[at : at + page_size])
        yield run
        page += run.pages


def guess_page_size(file: File) -> int:
    """The page size with which most of the file's start is whole runs; else the default."""
    best, size = (0, PAGE_SIZE_BYTES), PAGE_SIZE_BYTES_MIN
    while size <= PAGE_SIZE_BYTES_MAX:
        end = min(GUESS_BYTES, file.size()) // size
        found = sum(
            run_at(file, page, size).state == "whole" for page in range(first_page(size), end)
        )
        best = max(best, (found * size, size))
        size *= 2
    return best[1]
