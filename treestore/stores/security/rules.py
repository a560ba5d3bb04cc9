"""What an operation needs: a right, and the resources to have it on.

Both follow from the operation's one definition. The right follows from its kind (a query reads, a
command writes, an action is administration) unless the definition says another. The resources
follow from its service and its parameters: `RULES` says of each service which parameters hold
names. An operation of a service without a rule needs ``admin``: a new service is closed until
somebody thought about it, and ``tests/stores/test_security_rules.py`` fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final

import attrs
import msgspec

from treestore.stores.keys import successor
from treestore.stores.operation import Operation, Right
from treestore.stores.security.scopes import (
    EVERYTHING,
    KeyRange,
    Names,
    Resource,
    whole,
)

RIGHT_OF_KIND: Final[Mapping[str, Right]] = {
    "query": "read",
    "awaited": "read",
    "stream": "read",
    "feed": "read",
    "command": "write",
    "prepared": "write",
    "action": "admin",
}

Value = Callable[[str], Any]
"""A parameter's value by its name; None where the operation has no such parameter."""


@attrs.frozen
class Named:
    """Resources that parameters name.

    Attributes:
        kind: what they are.
        names: parameters that each hold a name, or a list of names. None, or no such parameter,
            means all that there are.
        prefix: a parameter that says what all names begin with, where no other names them.
        beyond: parameters that lead to what has another name, where they are given: with them an
            operation touches all that there are.
    """

    kind: str
    names: tuple[str, ...] = ()
    prefix: str | None = None
    beyond: tuple[str, ...] = ()

    def resources(self, value: Value, parameters: Sequence[str]) -> list[Resource]:
        """What an operation with these values touches."""
        if any(name in parameters and value(name) is not None for name in self.beyond):
            return [whole(self.kind)]
        found = [name for name in self.names if name in parameters]
        if not found and self.prefix is not None and self.prefix in parameters:
            return [Names(self.kind, _bytes(value(self.prefix)), prefix=True)]
        resources: list[Resource] = []
        for name in found:
            given = value(name)
            if isinstance(given, str):
                resources.append(Names(self.kind, _bytes(given)))
            elif isinstance(given, list | tuple) and given:
                resources += [Names(self.kind, _bytes(one)) for one in given]
            else:
                resources.append(whole(self.kind))
        return resources or [whole(self.kind)]


@attrs.frozen
class Keys:
    """Keys of ``kv``: single ones, lists of them, and ranges."""

    kind: str = "kv"

    def resources(self, value: Value, parameters: Sequence[str]) -> list[Resource]:
        """What an operation with these values touches."""
        if "key" in parameters:
            return [Names("kv", _bytes(value("key")))]
        if "puts" in parameters:
            # Pairs and keys of a batch; what is neither, the operation refuses.
            puts, deletes = value("puts") or (), value("deletes") or ()
            keys = [pair[0] if isinstance(pair, list | tuple) and pair else b"" for pair in puts]
            return [Names("kv", _bytes(key)) for key in (*keys, *deletes)]
        return [_range(value)]


def _range(value: Value) -> Resource:
    """The keys between ``start`` and ``end`` that begin with ``prefix``."""
    low = _bytes(value("start"))
    high = None if value("end") is None else _bytes(value("end"))
    prefix = _bytes(value("prefix"))
    after = successor(prefix) if prefix else None
    low = max(low, prefix)
    if after is not None and (high is None or after < high):
        high = after
    return KeyRange(low, high)


@attrs.frozen
class Watched:
    """Changes: of what a feed's own selection leaves."""

    kind: str = "*"

    def resources(self, value: Value, parameters: Sequence[str]) -> list[Resource]:
        """What a feed with these values shows."""
        service, policy, collection = value("service"), value("policy_id"), value("collection")
        prefix = value("prefix")
        if service == "kv" or (service is None and prefix is not None):
            return [Names("kv", _bytes(prefix), prefix=True)]
        if service in ("documents", "versions") or (service is None and policy is not None):
            return [whole("policies") if policy is None else Names("policies", _bytes(policy))]
        if service is None and collection is not None:
            return [Names(kind, _bytes(collection)) for kind in ("collections", "namespaces")]
        if service in ("collections", "namespaces"):
            return [whole(service) if collection is None else Names(service, _bytes(collection))]
        if isinstance(service, str) and service in RULES:
            return [whole(RULES[service].kind)]
        return [EVERYTHING]


@attrs.frozen
class Across:
    """Nodes and what is known of them: of the policies that are named, and of those that their
    references lead to."""

    kind: str = "policies"

    def resources(self, value: Value, parameters: Sequence[str]) -> list[Resource]:
        """What an operation with these values touches."""
        if "nodes" in parameters:
            # (policy, version, node) of each; what is no such thing, the operation refuses.
            nodes = value("nodes") or ()
            return [
                Names("policies", _bytes(node[0] if isinstance(node, list | tuple) and node else 0))
                for node in nodes
            ]
        policy = value("policy_id")
        if "node_ids" in parameters and policy is not None:
            return [Names("policies", _bytes(policy)), whole("metadata")]
        return [whole("policies"), whole("metadata")]


@attrs.frozen
class Nothing:
    """Whoever is let in may do it: it touches only what is the session's own."""

    kind: str = "*"

    def resources(self, value: Value, parameters: Sequence[str]) -> list[Resource]:
        """None."""
        return []


Rule = Named | Keys | Watched | Across | Nothing

RULES: Final[Mapping[str, Rule]] = {
    "admin": Named("server"),
    "agents": Named("metadata", ("case_id",), beyond=("trajectory_id",)),
    "collections": Named("collections", ("name", "collection"), prefix="prefix"),
    "db": Watched(),
    "documents": Named("policies", ("policy_id",), prefix="prefix"),
    "kv": Keys(),
    "metadata": Named("metadata", ("case_id",)),
    "namespaces": Named("namespaces", ("name", "namespace", "source"), prefix="prefix"),
    "prompts": Named("prompts", ("prompt_id",), prefix="prefix"),
    "queries": Across(),
    "session": Nothing(),
    "versions": Named("policies", ("policy_id",), prefix="prefix"),
}
"""Service → which of its parameters name what."""


def _bytes(value: Any) -> bytes:
    """A name as it is compared. What is no name, the operation itself refuses; here it becomes
    one that no scope but a whole kind covers."""
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return b""


@cache
def right_of(operation: Operation) -> Right:
    """The right that an operation needs."""
    if operation.name.partition(".")[0] not in RULES:
        return "admin"
    return operation.right or RIGHT_OF_KIND.get(operation.kind, "admin")


def resources_of(operation: Operation, arguments: msgspec.Struct | Mapping[str, Any]) -> list[Any]:
    """The resources that an operation with these arguments (as they travel) touches."""
    rule, parameters = _rule_of(operation)
    if rule is None:
        return [EVERYTHING]
    if isinstance(arguments, msgspec.Struct):
        return rule.resources(partial(_attribute, arguments), parameters)
    return rule.resources(arguments.get, parameters)


@cache
def _rule_of(operation: Operation) -> tuple[Rule | None, tuple[str, ...]]:
    return RULES.get(operation.name.partition(".")[0]), operation.parameters.__struct_fields__


def _attribute(arguments: msgspec.Struct, name: str) -> Any:
    return getattr(arguments, name, None)
