"""Results of tools: one record a run, listed by case, tool, policy, node and time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from treestore.errors import InvalidArgument, NotFound
from treestore.model.metadata import ToolResult
from treestore.model.page import Page
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import packed_name, packed_node_id
from treestore.stores.json_values import Json, JsonObject, encode
from treestore.stores.keys import Keyspace, pack
from treestore.stores.metadata import tool_statistics
from treestore.stores.records.fields import (
    to_flag,
    to_flag_or_none,
    to_json,
    to_json_object,
    to_latency,
    to_name,
    to_name_or_none,
    to_text_or_none,
)
from treestore.stores.records.ids import key_of, new_id
from treestore.stores.records.listing import list_records
from treestore.stores.records.moments import Moment, Period, to_moment

_NONE = pack(None)


class Brief(msgspec.Struct):
    """Of a record, what its place in indexes and statistics depends on."""

    tool_result_id: str
    case_id: str
    tool_name: str
    success: bool = True
    latency_ms: float | None = None
    policy_id: str | None = None
    node_id: str | None = None

    def index_keys(self) -> list[bytes]:
        """Every key of an index that leads to the record."""
        id = key_of(self.tool_result_id, "tool_result_id")
        keys = [
            Keyspace.TOOL_RESULTS_BY_CASE + packed_name("case_id", self.case_id) + id,
            Keyspace.TOOL_RESULTS_BY_TOOL + packed_name("tool_name", self.tool_name) + id,
        ]
        if self.policy_id is not None:
            policy = Keyspace.TOOL_RESULTS_BY_NODE + packed_name("policy_id", self.policy_id)
            keys.append(policy + _NONE + id)
            if self.node_id is not None:
                keys.append(policy + packed_node_id(self.node_id) + id)
        return keys


decode_brief = msgspec.msgpack.Decoder(Brief).decode


def check_node(policy_id: Any, node_id: Any, version_id: Any = None) -> None:
    """Raise `InvalidArgument` unless these name a policy, a node of one, or nothing."""
    if policy_id is None:
        if node_id is not None or version_id is not None:
            raise InvalidArgument(
                "node_id and version_id are those of a policy; give its policy_id as well."
            )
        return
    to_name(policy_id, "policy_id")
    to_name_or_none(version_id, "version_id")
    if node_id is not None:
        packed_node_id(node_id)


def store_tool_result(
    txn: Write,
    case_id: str,
    tool_name: str,
    result: Json,
    *,
    arguments: Json = None,
    success: bool = True,
    error: str | None = None,
    latency_ms: float | None = None,
    policy_id: str | None = None,
    node_id: str | None = None,
    version_id: str | None = None,
    executed_at: Moment | None = None,
    metadata: JsonObject | None = None,
) -> ToolResult:
    """Record that a tool was run; the answer has the record's new ``tool_result_id``.

    Args:
        case_id: the case that it was run for; 1 to 200 bytes of UTF-8, like all names here.
        tool_name: which tool.
        result: what it gave: any JSON value of up to 16 MiB.
        arguments: what it was given: any JSON value.
        success: whether it did what it was to do.
        error: why not.
        latency_ms: how long it took, in milliseconds.
        policy_id: the policy that it was about; it need not be stored.
        node_id: the node of that policy.
        version_id: the version of that policy.
        executed_at: when it was run; None: now.
        metadata: whatever else there is to know, JSON-like.

    Raises:
        InvalidArgument: a value is no JSON (NaN and bytes are none), or a parameter is wrong.
    """
    check_node(policy_id, node_id, version_id)
    at = txn.now if executed_at is None else to_moment(executed_at, "executed_at")
    fields = {
        "tool_result_id": "",
        "case_id": to_name(case_id, "case_id"),
        "tool_name": to_name(tool_name, "tool_name"),
        "result": to_json(result, "result"),
        "arguments": to_json(arguments, "arguments"),
        "success": to_flag(success, "success"),
        "error": to_text_or_none(error, "error"),
        "latency_ms": to_latency(latency_ms),
        "policy_id": policy_id,
        "node_id": node_id,
        "version_id": version_id,
        "executed_at": at,
        "metadata": to_json_object(metadata, "metadata"),
    }
    id = fields["tool_result_id"] = new_id(txn, Keyspace.TOOL_RESULTS, at)
    record = encode(fields)
    brief = decode_brief(record)
    txn.put(Keyspace.TOOL_RESULTS + key_of(id, "tool_result_id"), record)
    for key in brief.index_keys():
        txn.put(key, b"")
    tool_statistics.count(txn, brief.tool_name, at.date(), brief.success, brief.latency_ms, 1)
    return txn.load(ToolResult, record)


def find_tool_result(txn: Read, tool_result_id: str) -> bytes:
    """The record of one result.

    Raises:
        NotFound: there is none.
    """
    record = txn.get(Keyspace.TOOL_RESULTS + key_of(tool_result_id, "tool_result_id"))
    if record is None:
        raise NotFound(f"There is no tool result {tool_result_id!r}.", ids=[tool_result_id])
    return record


def get_tool_result(txn: Read, tool_result_id: str) -> ToolResult:
    """One tool result.

    Raises:
        NotFound: there is none with this id.
    """
    return txn.load(ToolResult, find_tool_result(txn, tool_result_id))


def get_tool_results(
    txn: Read,
    case_id: str | None = None,
    *,
    tool_name: str | None = None,
    policy_id: str | None = None,
    node_id: str | None = None,
    success: bool | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    newest_first: bool = False,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[ToolResult]:
    """Tool results in order of time, the oldest first.

    Args:
        case_id: only those of this case.
        tool_name: only those of this tool.
        policy_id: only those about this policy.
        node_id: only those about this node of the policy.
        success: only those that were successes, or failures.
        since: only those executed then or later; of a day, from its start (UTC).
        until: only those executed then or before; of a day, to its end.
        newest_first: the other way round.
        limit: at most this many, 1 to 10,000. A page may hold fewer though others follow: as long
            as there is a ``next_cursor``, go on.
        cursor: ``next_cursor`` of the page before; stays good while others write.
    """
    check_node(policy_id, node_id)
    to_flag_or_none(success, "success")
    asked = {"case_id": case_id, "tool_name": tool_name, "policy_id": policy_id, "node_id": node_id}
    index, answered = _index(case_id, tool_name, policy_id, node_id)
    wanted: dict[str, Any] = {
        name: value for name, value in asked.items() if value is not None and name not in answered
    }
    if success is not None:
        wanted["success"] = success
    return list_records(
        txn,
        index=index,
        period=Period.of(since, until),
        scope=("tool_results", *asked.values(), success),
        limit=limit,
        cursor=cursor,
        newest_first=newest_first,
        load=_loader(txn, wanted),
    )


def _index(
    case_id: str | None, tool_name: str | None, policy_id: str | None, node_id: str | None
) -> tuple[bytes, set[str]]:
    """The index that leads to the fewest records, and which of the parameters it answers."""
    by_tool = None if tool_name is None else packed_name("tool_name", tool_name)
    if case_id is not None:
        return Keyspace.TOOL_RESULTS_BY_CASE + packed_name("case_id", case_id), {"case_id"}
    if policy_id is not None:
        policy = Keyspace.TOOL_RESULTS_BY_NODE + packed_name("policy_id", policy_id)
        if node_id is not None:
            return policy + packed_node_id(node_id), {"policy_id", "node_id"}
        return policy + _NONE, {"policy_id"}
    if by_tool is not None:
        return Keyspace.TOOL_RESULTS_BY_TOOL + by_tool, {"tool_name"}
    return Keyspace.TOOL_RESULTS, set()


def _loader(txn: Read, wanted: dict[str, Any]) -> Callable[[bytes, bytes], ToolResult | None]:
    def load(id: bytes, value: bytes) -> ToolResult | None:
        record = value or txn.get(Keyspace.TOOL_RESULTS + id)
        assert record is not None
        if wanted:
            brief = decode_brief(record)
            for name, value in wanted.items():
                if getattr(brief, name) != value:
                    return None
        return txn.load(ToolResult, record)

    return load


def delete_tool_results(txn: Write, case_id: str) -> int:
    """Remove a case's results and what they add to the statistics; how many there were."""
    index = Keyspace.TOOL_RESULTS_BY_CASE + packed_name("case_id", case_id)
    keys = [
        Keyspace.TOOL_RESULTS + key[len(index) :] for key, _ in txn.scan(index, index + b"\xff")
    ]
    for key in keys:
        record = txn.get(key)
        assert record is not None
        brief = decode_brief(record)
        txn.delete(key)
        for entry in brief.index_keys():
            txn.delete(entry)
        day = tool_statistics.day_of(brief.tool_result_id)
        tool_statistics.count(txn, brief.tool_name, day, brief.success, brief.latency_ms, -1)
    return len(keys)
