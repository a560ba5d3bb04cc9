"""What each byte of a small store's files is good for, worked out from the documents alone.

It reads the page file by ``docs/file-format.md`` with its own few lines, so that it can disagree
with the engine; of the log it uses the reader, and draws the conclusions itself.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Any

import attrs
import msgspec

from treestore.engine.log import format as log_format
from treestore.engine.log.header import SegmentHeader
from treestore.engine.log.position import Tip
from treestore.engine.log.reader import walk
from treestore.engine.memorydisk import Images, MemoryDisk


class Use(Enum):
    """What a change of a byte must lead to."""

    UNUSED = "nothing at all"
    SLOT = "the other slot is used, nothing is lost, the check warns"
    PAGE = "damage of this page is reported"
    LIST = "the list of free space is rebuilt, nothing is lost"
    LOG = "the log is refused as damaged"
    TAIL = "the last group is taken for a torn one"
    BEHIND = "a torn tail is reported, nothing is lost"


@attrs.frozen
class Span:
    """Bytes of one use.

    Attributes:
        path: the file.
        begin, end: offsets.
        use: see `Use`.
        page: of the run they belong to, in the page file.
        head: whether they are a header.
    """

    path: str
    begin: int
    end: int
    use: Use
    page: int = 0
    head: bool = False


PAGE_HEADER = struct.Struct("<IB3xQQII")
_BRANCH, _LEAF_WITH_LARGE = 2, 3


def map_store(images: Images, directory: str, touched: set[bytes]) -> list[Span]:
    """The spans that are in use; all other bytes are `Use.UNUSED`.

    Args:
        images: the files of the store.
        directory: where it is.
        touched: keys that the log behind the newest checkpoint sets or removes. The large values
            that the checkpoint has for them are of no use any more.
    """
    data = images[f"{directory}/pages"]
    assert data is not None
    slots = [slot for slot in (_slot(data, 0), _slot(data, 4096)) if slot is not None]
    page_size, meta = max(slots, key=lambda slot: slot[1][2])
    path = f"{directory}/pages"
    spans = [Span(path, at, at + 512, Use.SLOT, head=True) for at in (0, 4096)]
    for page, pages in _tree(data, page_size, meta[4], touched):
        spans += _run(path, page, pages, page_size, Use.PAGE)
    for page, pages, _ in meta[8]:
        spans += _run(path, page, pages, page_size, Use.LIST)
    return spans + _log(images, directory, meta[9])


def _run(path: str, page: int, pages: int, page_size: int, use: Use) -> list[Span]:
    begin, end = page * page_size, (page + pages) * page_size
    return [
        Span(path, begin, begin + PAGE_HEADER.size, use, page, head=True),
        Span(path, begin + PAGE_HEADER.size, end, use, page),
    ]


def _slot(data: bytes, at: int) -> tuple[int, list[Any]] | None:
    raw = data[at : at + 512]
    if raw[:8] != b"TreeStor":
        return None
    page_size, _, size = struct.unpack_from("<III", raw, 12)
    return page_size, msgspec.msgpack.decode(raw[24 : 24 + size])


def _tree(data: bytes, page_size: int, root: int, touched: set[bytes]) -> list[tuple[int, int]]:
    """First page and number of pages of every run of a tree that is still needed."""
    found, todo = [], [root]
    while todo:
        page = todo.pop()
        found.append((page, 1))
        at = page * page_size
        _, kind, _, _, size, _ = PAGE_HEADER.unpack_from(data, at)
        payload = msgspec.msgpack.decode(data[at + PAGE_HEADER.size : at + PAGE_HEADER.size + size])
        if kind == _BRANCH:
            todo += payload[1]
        elif kind == _LEAF_WITH_LARGE:
            for key, cell in zip(*payload, strict=True):
                if isinstance(cell, list) and key not in touched:
                    found += [(cell[i], cell[i + 1]) for i in range(2, len(cell), 3)]
    return found


# -- the log --------------------------------------------------------------------------------------


def _log(images: Images, directory: str, position: list[int]) -> list[Span]:
    disk = MemoryDisk(images)
    paths = sorted(
        path for path in images if path.startswith(f"{directory}/log/") and path.endswith(".log")
    )
    headers = [SegmentHeader.decode(disk.open(path).read_at(0, 4096), path) for path in paths]
    start = position[0]
    first = max(i for i, header in enumerate(headers) if header.follows.lsn <= start)
    spans: list[Span] = []
    for index in range(first, len(paths)):
        path, header = paths[index], headers[index]
        spans.append(Span(path, 0, log_format.BLOCK_BYTES, Use.LOG, head=True))
        limit = headers[index + 1].follows.lsn if index + 1 < len(paths) else None
        here = (header.sequence, header.epoch) == (position[4], position[5])
        if index == first and here:
            offset, tip = position[6], Tip(*position[:4])
        else:
            offset, tip = log_format.BLOCK_BYTES, header.follows
        spans += _groups(disk, path, header, offset, tip, limit)
    return spans


def _groups(
    disk: MemoryDisk, path: str, header: SegmentHeader, offset: int, tip: Tip, limit: int | None
) -> list[Span]:
    whole: list[list[Span]] = []
    end = offset
    if limit is None or tip.lsn < limit:
        for group in walk(disk.open(path), header, offset, tip):
            head = group.offset + log_format.GROUP_HEADER_BYTES
            whole.append(
                [
                    Span(path, group.offset, head, Use.LOG, head=True),
                    Span(path, head, head + group.size, Use.LOG),
                ]
            )
            end = group.end
            if limit is not None and group.tip.lsn >= limit:
                break
    if limit is None:
        # Nothing proves that the last group was acknowledged; behind it a block of zeros stands.
        if whole:
            whole[-1] = [attrs.evolve(span, use=Use.TAIL) for span in whole[-1]]
        stop = min(end + log_format.BLOCK_BYTES, header.size_bytes)
        whole.append([Span(path, end, stop, Use.BEHIND)] if stop > end else [])
    return [span for group in whole for span in group]
