"""Keys of the tree, for people."""

from __future__ import annotations

from treestore.stores.keys import Keyspace, unpack_one

_NAMES = {value: name.lower() for name, value in vars(Keyspace).items() if isinstance(value, bytes)}

SHOWN_BYTES_MAX = 60


def key_name(key: bytes | None) -> str:
    """A key as its keyspace and elements, as far as it has any: ``documents 'travel' '2024'``."""
    if key is None:
        return "the end"
    if not key:
        return "the start"
    name = _NAMES.get(key[:1])
    if name is None:
        return _raw(key)
    if name == "kv":
        return f"kv {_raw(key[1:])}"
    words = [name]
    at = 1
    while at < len(key):
        try:
            element, at = unpack_one(key, at)
        except (ValueError, IndexError, OverflowError):
            words.append(key[at : at + SHOWN_BYTES_MAX].hex())
            break
        words.append(repr(element) if isinstance(element, str | bytes) else str(element))
    return " ".join(words)


def _raw(data: bytes) -> str:
    shown = repr(data[:SHOWN_BYTES_MAX])[1:]
    return shown if len(data) <= SHOWN_BYTES_MAX else f"{shown} …"


def key_json(key: bytes | None) -> dict[str, str] | None:
    """The same for machines: hexadecimal, and the name."""
    return None if key is None else {"hex": key.hex(), "name": key_name(key)}
