"""How keys of the tree read as changes: one decoder per service.

The log knows puts, deletes and deleted ranges of keys. A `Decoder` is shown those in its keyspaces,
in order, and says what they mean. Keyspaces that no decoder names (indexes, the table of answers)
mean nothing to anybody outside.

What a later store adds: a decoder, or an `Entities`, in `treestore.stores.changes.services`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, Protocol

from treestore.stores.keys import Element, unpack

Fields = dict[str, Any]
"""Of a `Change`: those that differ from change to change. ``service`` is added by the reader."""


class Decoder(Protocol):
    """Reads the notes of one service, transaction by transaction."""

    keyspaces: bytes
    """First bytes of the keys that it is shown."""
    remembers: bool
    """Whether `finish` may tell of what it was shown."""

    def note(self, key: bytes, value: bytes | None) -> Fields | None:
        """A key was put (``value``) or deleted (None); the change that it is, if any."""
        ...

    def cleared(self, start: bytes, end: bytes | None) -> Fields | None:
        """Every key in ``start <= key < end`` was deleted; the range touches its keyspaces."""
        ...

    def finish(self) -> Iterator[Fields]:
        """The transaction ends: changes that only all of it could tell. Forgets it."""
        ...


class KeyValues:
    """The ``kv`` service: keys are the caller's own."""

    remembers = False

    def __init__(self, keyspace: bytes, *, prefix: bytes | None, values: bool) -> None:
        """Made for one feed.

        Args:
            keyspace: of the service.
            prefix: only keys that begin with it.
            values: whether changes carry the new value.
        """
        self.keyspaces = keyspace
        self._prefix = keyspace + (prefix or b"")
        self._all = not prefix
        self._values = values

    def note(self, key: bytes, value: bytes | None) -> Fields | None:
        """See `Decoder.note`."""
        if not self._all and not key.startswith(self._prefix):
            return None
        if value is None:
            return {"entity": "key", "kind": "delete", "key": key[1:]}
        if self._values:
            return {"entity": "key", "kind": "put", "key": key[1:], "value": value}
        return {"entity": "key", "kind": "put", "key": key[1:]}

    def cleared(self, start: bytes, end: bytes | None) -> Fields | None:
        """See `Decoder.cleared`."""
        first = max(start, self._prefix)
        if end is not None and end <= first:
            return None
        if start > self._prefix and not start.startswith(self._prefix):
            return None  # It begins behind all keys of the prefix.
        inside = end is not None and end[:1] == self.keyspaces
        last = end[1:] if end is not None and inside else None
        return {"entity": "key", "kind": "clear", "key": first[1:], "end_key": last}

    def finish(self) -> Iterator[Fields]:
        """See `Decoder.finish`."""
        return iter(())


class Entities:
    """Records whose key is a packed tuple: each of them is an entity, its key says which."""

    remembers = False

    def __init__(
        self,
        kinds: dict[bytes, tuple[str, tuple[str, ...]]],
        *,
        policy_id: str | None = None,
        collection: str | None = None,
    ) -> None:
        """Made for one feed.

        Args:
            kinds: keyspace → what its records are called, and the fields of `Change` that the
                key's first elements are; the others are its ``entity_id``.
            policy_id, collection: only changes with that.
        """
        self.keyspaces = b"".join(kinds)
        self._kinds = {keyspace[0]: kind for keyspace, kind in kinds.items()}
        self._wanted = {"policy_id": policy_id, "collection": collection}
        self._wanted = {name: value for name, value in self._wanted.items() if value is not None}

    def note(self, key: bytes, value: bytes | None) -> Fields | None:
        """See `Decoder.note`."""
        return self._change(key, "delete" if value is None else "put")

    def cleared(self, start: bytes, end: bytes | None) -> Fields | None:
        """See `Decoder.cleared`."""
        if start[0] not in self._kinds:
            return None
        return self._change(start, "clear")

    def _change(self, key: bytes, kind: str) -> Fields | None:
        entity, names = self._kinds[key[0]]
        fields: Fields = {"entity": entity, "kind": kind}
        try:
            elements: list[Element] = list(unpack(key[1:]))
        except (ValueError, IndexError, OverflowError):
            elements = [key[1:]]
            names = ()
        for name in names:
            if not elements or not isinstance(elements[0], str):
                break
            fields[name] = elements.pop(0)
        if elements:
            fields["entity_id"] = shown_id(elements)
        if any(fields.get(name) != value for name, value in self._wanted.items()):
            return None
        return fields

    def finish(self) -> Iterator[Fields]:
        """See `Decoder.finish`."""
        return iter(())


def shown_id(elements: list[Element]) -> str:
    """Elements of a key as an id: one is itself, several are a JSON array."""
    plain = [_plain(element) for element in elements]
    if len(plain) == 1 and plain[0] is not None:
        return str(plain[0])
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def _plain(element: Element) -> str | int | None:
    if isinstance(element, bytes):
        return element.hex()
    if isinstance(element, date | datetime):
        return element.isoformat()
    return element
