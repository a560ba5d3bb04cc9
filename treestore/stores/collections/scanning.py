"""Going over an index: what the query engine reads."""

from __future__ import annotations

from collections.abc import Iterator

from treestore.stores.access import Read
from treestore.stores.collections.indexes import Index
from treestore.stores.collections.layout import AFTER


def scan(
    txn: Read, index: Index, low: bytes = b"", high: bytes | None = None, *, reverse: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    """Entries with ``low <= values < high`` in order: their values and the packed id of their
    document (``collection.documents + packed_id`` is its key).

    Args:
        low, high: of encoded values, or what those begin with; None: no end.
    """
    prefix, split = index.prefix, index.split
    end = prefix + (AFTER if high is None else high)
    for keys, _ in txn.batches(prefix + low, end, reverse=reverse):
        for key in keys:
            yield split(key)
