"""What each operation needs of an API key: a rule for every one, and none forgotten."""

from __future__ import annotations

from typing import Any

import pytest

import treestore.services
import treestore.stores.changes.service  # noqa: F401 - the two define the operations
from treestore.stores.operation import OPERATIONS, Operation
from treestore.stores.security.rules import (
    RIGHT_OF_KIND,
    RULES,
    Named,
    resources_of,
    right_of,
)
from treestore.stores.security.scopes import (
    EVERYTHING,
    KINDS,
    Grants,
    KeyRange,
    Names,
    parse_scopes,
    whole,
)

NAMES = sorted(
    # Not those that tests define.
    name
    for name, operation in OPERATIONS.items()
    if operation.function.__module__.startswith("treestore.")
)

# Operations of services with names that touch all of them, whatever their parameters: nobody who
# is restricted to some may do them. A new operation that appears in neither this list nor with a
# parameter that names something fails below, so that somebody decides.
WHOLE = {
    "metadata.append_step",
    "metadata.complete_trajectory",
    "metadata.delete",
    "metadata.delete_cross_reference",
    "metadata.delete_cross_references",
    "metadata.find",
    "metadata.get",
    "metadata.get_contradiction",
    "metadata.get_cross_references",
    "metadata.get_tool_result",
    "metadata.get_trajectory",
    "metadata.resolve_contradiction",
    "metadata.set",
    "metadata.store_cross_reference",
    "metadata.store_cross_references",
    "metadata.tool_stats",
    "metadata.trajectory_stats",
    "prompts.delete_case",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_has_a_rule(name: str) -> None:
    operation = OPERATIONS[name]
    service = name.partition(".")[0]
    assert service in RULES, f"say in RULES what the operations of {service} touch"
    assert operation.kind in RIGHT_OF_KIND, f"say which right goes with kind {operation.kind}"
    assert right_of(operation) in ("read", "write", "admin")
    rule = RULES[service]
    if isinstance(rule, Named) and rule.names and right_of(operation) != "admin":
        parameters = operation.parameters.__struct_fields__
        named = [found for found in (*rule.names, rule.prefix) if found in parameters]
        assert bool(named) != (name in WHOLE), (
            f"{name} names nothing that a scope can be restricted to: mend RULES, or add it to "
            "WHOLE where it is meant for unrestricted keys"
        )


def test_the_list_of_whole_operations_is_not_stale() -> None:
    assert set(OPERATIONS) >= WHOLE


def arguments_of(operation: Operation, name: str) -> dict[str, Any]:
    """Arguments that name one resource throughout."""
    rule = RULES[operation.name.partition(".")[0]]
    values: dict[str, Any] = {}
    for parameter in operation.parameters.__struct_fields__:
        if operation.name.startswith("kv."):
            values[parameter] = {
                "key": name.encode(),
                "prefix": name.encode(),
                "puts": [(name.encode(), b"")],
                "deletes": [name.encode()],
            }.get(parameter)
        elif operation.name == "db.watch":
            values[parameter] = {"service": "kv", "prefix": name.encode()}.get(parameter)
        elif isinstance(rule, Named) and parameter in (*rule.names, rule.prefix):
            values[parameter] = name
        else:
            values[parameter] = None
    return values


def allowed(scopes: list[str], operation: Operation, arguments: dict[str, Any]) -> bool:
    grants, right = Grants(parse_scopes(scopes)), right_of(operation)
    return all(grants.covers(right, resource) for resource in resources_of(operation, arguments))


@pytest.mark.parametrize("name", NAMES)
def test_the_matrix_of_scopes(name: str) -> None:
    """Every operation, with every kind of scope: what each right allows and does not."""
    operation = OPERATIONS[name]
    right, rule = right_of(operation), RULES[name.partition(".")[0]]
    arguments = arguments_of(operation, "acme-1")
    order = ["read", "write", "admin"]
    for scope in order:
        enough = order.index(scope) >= order.index(right)
        assert allowed([scope], operation, arguments) == enough, scope
    if name.startswith("queries."):
        return  # Of several kinds at once: see below.
    kind = "kv" if name == "db.watch" else rule.kind
    others = [f"write:{other}" for other in KINDS if other != kind]
    if kind != "*":
        assert not allowed(others, operation, arguments)
        if right != "admin":
            assert allowed([f"write:{kind}"], operation, arguments)
            assert allowed([f"read:{kind}"], operation, arguments) == (right == "read")
        if kind != "server" and right != "admin":
            restricted = name not in WHOLE
            assert allowed([f"write:{kind}/acme-*"], operation, arguments) == restricted
            assert not allowed([f"write:{kind}/other-*"], operation, arguments)
            assert not allowed([f"write:{kind}/acme-12"], operation, arguments)


def test_reading_writing_and_administration() -> None:
    rights = {name: right_of(OPERATIONS[name]) for name in NAMES}
    assert {name for name, right in rights.items() if right == "admin"} == {
        "admin.audit",
        "admin.backup",
        "admin.backup_progress",
        "admin.check",
        "admin.checkpoint",
        "admin.compact",
        "admin.create_key",
        "admin.list_keys",
        "admin.revoke_key",
        "admin.snapshots",
    }
    assert rights["kv.get"] == rights["db.watch"] == rights["documents.get_subtree"] == "read"
    assert rights["kv.batch"] == rights["documents.store"] == rights["versions.erase"] == "write"


def kv(name: str, **arguments: Any) -> list[Any]:
    return resources_of(OPERATIONS[f"kv.{name}"], arguments)


def test_the_keys_that_an_operation_touches() -> None:
    assert kv("get", key=b"a") == [Names("kv", b"a")]
    assert kv("batch", puts=[(b"a", b"1"), (b"b", b"2")], deletes=[b"c"]) == [
        Names("kv", b"a"),
        Names("kv", b"b"),
        Names("kv", b"c"),
    ]
    assert kv("scan") == [KeyRange(b"", None)]
    assert kv("scan", prefix=b"a/") == [KeyRange(b"a/", b"a0")]
    assert kv("scan", prefix=b"a/", start=b"a/5", end=b"z") == [KeyRange(b"a/5", b"a0")]
    assert kv("scan", start=b"a/5", end=b"a/7") == [KeyRange(b"a/5", b"a/7")]
    assert kv("scan", prefix=b"\xff") == [KeyRange(b"\xff", None)]


def watched(**arguments: Any) -> list[Any]:
    return resources_of(OPERATIONS["db.watch"], arguments)


def test_the_changes_that_a_feed_shows() -> None:
    assert watched() == [EVERYTHING]
    assert watched(service="kv") == [whole("kv")]
    assert watched(prefix=b"a") == [Names("kv", b"a", prefix=True)]
    assert watched(policy_id="p") == [Names("policies", b"p")]
    assert watched(service="versions") == [whole("policies")]
    assert watched(service="metadata") == [whole("metadata")]
    assert watched(collection="c") == [Names("collections", b"c"), Names("namespaces", b"c")]
    assert watched(service="nothing") == [EVERYTHING]


def test_a_step_for_another_trajectory_is_for_unrestricted_keys() -> None:
    record = OPERATIONS["agents.record_call"]
    assert resources_of(record, {"case_id": "c"}) == [Names("metadata", b"c")]
    assert resources_of(record, {"case_id": "c", "trajectory_id": "t"}) == [whole("metadata")]


def queried(name: str, **arguments: Any) -> list[Any]:
    return resources_of(OPERATIONS[f"queries.{name}"], arguments)


def test_queries_across_stores_need_both_kinds() -> None:
    policy, metadata = Names("policies", b"p"), whole("metadata")
    assert queried("get_enriched", policy_id="p") == [policy, metadata]
    # References lead to nodes of any policy.
    assert queried("find_related", policy_id="p") == [whole("policies"), metadata]
    many = [("p", None, "1"), ("q", "v", "2")]
    assert queried("get_many", nodes=many) == [policy, Names("policies", b"q")]
    assert {name for name in NAMES if name.startswith("queries.")} == {
        "queries.find_related",
        "queries.get_enriched",
        "queries.get_many",
    }, "say in Across what the new one touches, and test it here"


def test_a_service_without_a_rule_is_closed() -> None:
    operation = OPERATIONS["kv.get"]
    unknown = Operation(
        "news.get", "query", operation.function, operation.parameters, bytes, operation.wires
    )
    assert right_of(unknown) == "admin"
    assert not allowed(["write:kv"], unknown, {})
