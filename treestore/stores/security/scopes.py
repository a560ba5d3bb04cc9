"""Scopes: what an API key may do. The grammar is drawn in ``docs/security.md``::

    scope    = right [ ":" kind [ "/" pattern ] ]
    right    = "read" | "write" | "admin"
    kind     = "collections" | "kv" | "metadata" | "namespaces" | "policies" | "prompts" | "server"
    pattern  = name | prefix "*"          with %XX for any byte; literally: "%25" and "%2A"

``write`` includes ``read`` of the same resources, ``admin`` includes everything and cannot be
restricted. A right without a kind is for everything. Patterns are compared as bytes, byte for
byte: no case folding, no normalisation, no ``*`` but the last character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote_from_bytes, unquote_to_bytes

import attrs

from treestore.errors import InvalidArgument
from treestore.stores.keys import successor
from treestore.stores.operation import Right

RIGHTS: Final[tuple[Right, ...]] = ("read", "write", "admin")

KINDS: Final = ("collections", "kv", "metadata", "namespaces", "policies", "prompts", "server")
"""What rights can be restricted to. ``policies`` are documents and versions, by policy_id;
``metadata`` is named by case_id, ``prompts`` by prompt_id, ``kv`` by key; ``server`` has no
names."""

SCOPES_MAX: Final = 100
SCOPE_SIZE_MAX: Final = 1024

_bad_percent = re.compile(r"%(?![0-9A-Fa-f]{2})").search


@attrs.frozen
class Names:
    """Resources of one kind: that name, or all whose names begin with it."""

    kind: str
    name: bytes
    prefix: bool = False

    def covers(self, other: Names | KeyRange) -> bool:
        """Whether everything in ``other`` is in here."""
        if self.kind != other.kind:
            return False
        if isinstance(other, KeyRange):
            return self.prefix and other.is_within(self.name)
        if self.prefix:
            return other.name.startswith(self.name)
        return not other.prefix and other.name == self.name


@attrs.frozen
class KeyRange:
    """Keys of ``kv`` from ``low`` (included) to ``high`` (excluded; None: no end)."""

    low: bytes
    high: bytes | None
    kind: Literal["kv"] = "kv"

    def is_within(self, prefix: bytes) -> bool:
        """Whether every key in it begins with ``prefix``."""
        end = successor(prefix)
        return self.low >= prefix and (end is None or (self.high is not None and self.high <= end))


Resource = Names | KeyRange

EVERYTHING: Final = Names("*", b"", prefix=True)
"""What only an unrestricted right covers: no scope can name this kind."""


def whole(kind: str) -> Names:
    """All resources of a kind."""
    return Names(kind, b"", prefix=True)


@attrs.frozen
class Scope:
    """One scope, parsed.

    Attributes:
        right: read, write or admin.
        on: what it is restricted to; None: nothing.
    """

    right: Right
    on: Names | None

    def __str__(self) -> str:
        if self.on is None:
            return self.right
        if self.on.prefix and not self.on.name:
            return f"{self.right}:{self.on.kind}"
        # What is safe to see stays readable; everything else as %XX.
        name = quote_from_bytes(self.on.name, safe="/:@!$&'()+,;= ")
        return f"{self.right}:{self.on.kind}/{name}{'*' if self.on.prefix else ''}"


def parse_scope(text: Any) -> Scope:
    """The scope that a string means.

    Raises:
        InvalidArgument: it means none; the sentence shows the grammar.
    """
    if not isinstance(text, str):
        raise InvalidArgument(f"A scope is a string, not {type(text).__name__}.")
    if len(text) > SCOPE_SIZE_MAX:
        raise InvalidArgument(f"A scope has at most {SCOPE_SIZE_MAX} characters.")
    right, colon, resource = text.partition(":")
    for known in RIGHTS:
        if right == known:
            return Scope(known, _resource_of(text, known, resource) if colon else None)
    raise InvalidArgument(
        f"Scope {text!r:.80} begins with no right: write read, write or admin, or restrict one as "
        "in read:collections/people* or write:policies/acme-*."
    )


def _resource_of(text: str, right: Right, resource: str) -> Names:
    if right == "admin":
        raise InvalidArgument("The scope admin is for everything; it cannot be restricted.")
    kind, slash, pattern = resource.partition("/")
    if kind not in KINDS:
        raise InvalidArgument(
            f"Scope {text!r:.80} names no kind of resource; there are: {', '.join(KINDS)}."
        )
    if not slash:
        return whole(kind)
    if kind == "server":
        raise InvalidArgument("A scope for the server has no names: write read:server.")
    prefix = pattern.endswith("*")
    name = pattern[:-1] if prefix else pattern
    if "*" in name:
        raise InvalidArgument(
            f"Scope {text!r:.80} has a * that is not its last character; write %2A for one in a "
            "name."
        )
    if _bad_percent(name):
        raise InvalidArgument(
            f"Scope {text!r:.80} has a % without two hexadecimal digits; write %25 for one in a "
            "name."
        )
    if not prefix and not name:
        raise InvalidArgument(
            f"Scope {text!r:.80} ends where a name should be; for all of them write {kind}/*."
        )
    try:
        raw = unquote_to_bytes(name)
    except UnicodeEncodeError:
        raise InvalidArgument("A scope holds half of a surrogate pair.") from None
    return Names(kind, raw, prefix)


def parse_scopes(scopes: Any) -> tuple[Scope, ...]:
    """Several scopes; at least one.

    Raises:
        InvalidArgument: there is none, there are too many, or one is wrong.
    """
    if isinstance(scopes, str | bytes) or not isinstance(scopes, Sequence | set | frozenset):
        raise InvalidArgument('scopes is a list of strings, such as ["read", "write:kv/app/*"].')
    parsed = tuple(dict.fromkeys(parse_scope(scope) for scope in scopes))
    if not parsed:
        raise InvalidArgument('A key needs at least one scope; give ["read"], for example.')
    if len(parsed) > SCOPES_MAX:
        raise InvalidArgument(f"A key has at most {SCOPES_MAX} scopes, not {len(parsed)}.")
    return parsed


class Grants:
    """What all scopes of a key come to.

    Args:
        scopes: parsed ones.
    """

    __slots__ = ("_reads", "_rights", "_writes")

    def __init__(self, scopes: Iterable[Scope]) -> None:
        free: set[str] = set()
        reads: list[Names] = []
        writes: list[Names] = []
        for scope in scopes:
            if scope.on is None:
                free.add(scope.right)
            else:
                reads.append(scope.on)
                if scope.right == "write":
                    writes.append(scope.on)
        if "admin" in free:
            free |= {"read", "write"}
        if "write" in free:
            free.add("read")
        self._rights = frozenset(free)
        self._reads = tuple(reads)
        self._writes = tuple(writes)

    def is_free(self, right: Right) -> bool:
        """Whether it has this right on everything."""
        return right in self._rights

    def has_any(self, right: Right) -> bool:
        """Whether it has this right on anything."""
        return self.is_free(right) or bool(self._on(right))

    def covers(self, right: Right, resource: Resource) -> bool:
        """Whether it has this right on all of a resource."""
        return right in self._rights or any(names.covers(resource) for names in self._on(right))

    def _on(self, right: Right) -> tuple[Names, ...]:
        if right == "read":
            return self._reads
        return self._writes if right == "write" else ()
