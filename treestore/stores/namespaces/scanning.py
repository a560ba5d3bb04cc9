"""Going over a namespace's documents: all of them, or those that satisfy a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from treestore.query.partial import decoder_of, weight_of
from treestore.stores.access import Read
from treestore.stores.namespaces.catalog import Opened
from treestore.stores.namespaces.filters import NamespaceFilter
from treestore.stores.namespaces.layout import AFTER, attributes_of, unpacked_id

Found = tuple[bytes, bytes]
"""A packed id and the document's record."""

BYTES_PER_LOOKUP = 2000
"""Going over so much of a record takes as long as a look-up."""


@lru_cache(maxsize=256)
def attributes_decoder(names: frozenset[str]) -> Callable[[bytes], dict[str, Any]]:
    """Decodes some attributes of a record, and skips the others."""
    decode = decoder_of(names)
    return lambda record: decode(attributes_of(record))


def documents(
    txn: Read, there: Opened, *, after: bytes = b"", reverse: bool = False
) -> Iterator[list[Found]]:
    """All documents in the order of their ids, a leaf at a time.

    Args:
        after: only those behind this packed id (in the direction of the scan).
    """
    prefix = there.space.documents
    at = len(prefix)
    start, end = prefix, prefix + AFTER
    if after:
        start, end = (start, prefix + after) if reverse else (prefix + after + b"\0", end)
    for keys, records in txn.batches(start, end, reverse=reverse):
        yield [(key[at:], record) for key, record in zip(keys, records, strict=True)]


def matching(
    txn: Read,
    there: Opened,
    filter: NamespaceFilter,
    *,
    after: bytes = b"",
    reverse: bool = False,
) -> Iterator[list[Found]]:
    """The documents that satisfy a filter, in the order of their ids; lists may be empty."""
    batches = documents(txn, there, after=after, reverse=reverse)
    if filter.everything:
        yield from batches
        return
    decode = attributes_decoder(filter.names)
    weight = weight_of(filter.expression)
    matches, by_id = filter.matches, filter.by_id
    for batch in batches:
        size_bytes = sum(len(record) for _, record in batch)
        txn.spend((len(batch) // 2 + size_bytes // BYTES_PER_LOOKUP) * weight)
        if by_id:
            yield [
                (packed, record)
                for packed, record in batch
                if matches(unpacked_id(packed), decode(record))
            ]
        else:
            yield [found for found in batch if matches(0, decode(found[1]))]
