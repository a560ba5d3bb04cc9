"""Uses of prompts, and how well each version does.

Keys (an ``id`` is a moment and a number, see `treestore.stores.records.ids`)::

    PROMPT_USAGE           id                  -> the PromptUsage
    PROMPT_USAGE_BY_PROMPT prompt version id   -> nothing; once more with None for the version
    PROMPT_USAGE_BY_CASE   case id             -> nothing
    PROMPT_STATISTICS      prompt version      -> a `Row`, written with each use
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from treestore.errors import InvalidArgument, NotFound, ResourceExhausted
from treestore.model.page import Page
from treestore.model.prompts import PromptEffectiveness, PromptUsage
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import AFTER, packed_name
from treestore.stores.json_values import Json, JsonObject, encode
from treestore.stores.keys import Keyspace, pack, unpack
from treestore.stores.metadata.tool_results import decode_brief as decode_tool_result
from treestore.stores.prompts.versions import (
    VERSION_MAX,
    find_version,
    packed_prompt,
)
from treestore.stores.records.fields import (
    to_count_or_none,
    to_flag_or_none,
    to_json,
    to_json_object,
    to_latency,
    to_name,
    to_name_or_none,
)
from treestore.stores.records.ids import check_ids, key_of, new_id
from treestore.stores.records.listing import list_records
from treestore.stores.records.moments import Moment, Period, to_moment
from treestore.stores.records.sketch import Sketch

OUTCOMES_MAX: Final = 200
"""Different outcomes of one version."""

TOOL_RESULTS_MAX: Final = 1000
TOKENS_MAX: Final = 10**12

_NONE: Final = pack(None)


class Brief(msgspec.Struct):
    """Of a use, what its place in indexes and statistics depends on."""

    usage_id: str
    prompt_id: str
    version: int
    case_id: str
    outcome: str | None = None
    success: bool | None = None
    latency_ms: float | None = None
    tool_result_ids: list[str] = msgspec.field(default_factory=list)
    tool_results_succeeded: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None

    def index_keys(self) -> list[bytes]:
        """Every key of an index that leads to the record."""
        id = key_of(self.usage_id, "usage_id")
        prompt = Keyspace.PROMPT_USAGE_BY_PROMPT + packed_prompt(self.prompt_id)
        return [
            prompt + pack(self.version) + id,
            prompt + _NONE + id,
            Keyspace.PROMPT_USAGE_BY_CASE + packed_name("case_id", self.case_id) + id,
        ]

    @property
    def row_key(self) -> bytes:
        """Where it is counted."""
        return Keyspace.PROMPT_STATISTICS + packed_prompt(self.prompt_id) + pack(self.version)


class Row(msgspec.Struct, array_like=True):
    """Uses of one version, counted."""

    uses: int = 0
    outcomes: dict[str, int] = msgspec.field(default_factory=dict)
    judged: int = 0
    success_count: int = 0
    latencies: Sketch = msgspec.field(default_factory=Sketch)
    input_tokens: int = 0
    output_tokens: int = 0
    tool_results: int = 0
    tool_results_succeeded: int = 0

    def add(self, use: Brief, times: int) -> None:
        """Count a use, or with ``times`` of -1 take it out."""
        self.uses += times
        if use.outcome is not None:
            left = self.outcomes.get(use.outcome, 0) + times
            if left:
                self.outcomes[use.outcome] = left
            else:
                del self.outcomes[use.outcome]
        if use.success is not None:
            self.judged += times
            self.success_count += times * use.success
        if use.latency_ms is not None:
            self.latencies.add(use.latency_ms, times)
        self.input_tokens += times * (use.input_tokens or 0)
        self.output_tokens += times * (use.output_tokens or 0)
        self.tool_results += times * len(use.tool_result_ids)
        self.tool_results_succeeded += times * use.tool_results_succeeded


decode_brief = msgspec.msgpack.Decoder(Brief).decode
decode_row = msgspec.msgpack.Decoder(Row).decode


def _count(txn: Write, use: Brief, times: int) -> None:
    key = use.row_key
    record = txn.get(key)
    row = Row() if record is None else decode_row(record)
    row.add(use, times)
    if len(row.outcomes) > OUTCOMES_MAX:
        raise ResourceExhausted(
            f"Version {use.version} of prompt {use.prompt_id!r} has {OUTCOMES_MAX} different "
            f"outcomes, the most; an outcome is one of a few words, details go into metadata."
        )
    if row.uses:
        txn.put(key, encode(row))
    else:
        txn.delete(key)


def _success(outcome: str | None, success: Any) -> bool | None:
    """What is given, or what the outcome says by its name."""
    if success is None:
        return {"success": True, "failure": False}.get(outcome or "")
    return to_flag_or_none(success, "success")


def _succeeded(txn: Read, tool_result_ids: Any) -> tuple[list[str], int]:
    """Tool results, and how many of them are successes."""
    ids = check_ids(tool_result_ids, "tool_result_ids")
    if len(ids) > TOOL_RESULTS_MAX:
        raise InvalidArgument(f"There are {len(ids)} tool_result_ids; at most {TOOL_RESULTS_MAX}.")
    succeeded = 0
    unknown: list[str] = []
    for id in ids:
        record = txn.get(Keyspace.TOOL_RESULTS + key_of(id, "tool_result_ids"))
        if record is None:
            unknown.append(id)
        else:
            succeeded += decode_tool_result(record).success
    if unknown:
        raise NotFound(f"There is no tool result {', '.join(unknown[:5])}.", ids=unknown)
    return ids, succeeded


def record_usage(
    txn: Write,
    prompt_id: str,
    version: int,
    case_id: str,
    *,
    outcome: str | None = None,
    success: bool | None = None,
    latency_ms: float | None = None,
    tool_result_ids: Sequence[str] = (),
    filled_variables: JsonObject | None = None,
    response: Json = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    used_at: Moment | None = None,
    metadata: JsonObject | None = None,
) -> PromptUsage:
    """Record that a version of a prompt was used; the answer has the new ``usage_id``.

    Args:
        prompt_id: the prompt.
        version: the version that was used.
        case_id: the case that it was used for.
        outcome: what came of it: one of a few words (up to 200 different ones), such as "met".
        success: whether that was what it should. None: outcome "success" means yes, "failure" no,
            and any other that nobody knows.
        latency_ms: until the response, in milliseconds.
        tool_result_ids: tool results that came of it, as ``metadata.store_tool_result`` named them.
        filled_variables: what the prompt's variables stood for: name → JSON value.
        response: what came back: any JSON value.
        input_tokens: tokens of the prompt.
        output_tokens: tokens of the response.
        used_at: when; None: now.
        metadata: whatever else there is to know, JSON-like.

    Raises:
        NotFound: there is no such version, or no such tool result.
        InvalidArgument: a value is no JSON, or a parameter is wrong.
    """
    find_version(txn, prompt_id, version)
    ids, succeeded = _succeeded(txn, tool_result_ids)
    at = txn.now if used_at is None else to_moment(used_at, "used_at")
    to_name_or_none(outcome, "outcome")
    fields = {
        "usage_id": "",
        "prompt_id": prompt_id,
        "version": version,
        "case_id": to_name(case_id, "case_id"),
        "outcome": outcome,
        "success": _success(outcome, success),
        "latency_ms": to_latency(latency_ms),
        "tool_result_ids": ids,
        "tool_results_succeeded": succeeded,
        "filled_variables": to_json_object(filled_variables, "filled_variables"),
        "response": to_json(response, "response"),
        "input_tokens": to_count_or_none(input_tokens, "input_tokens", 0, TOKENS_MAX),
        "output_tokens": to_count_or_none(output_tokens, "output_tokens", 0, TOKENS_MAX),
        "used_at": at,
        "metadata": to_json_object(metadata, "metadata"),
    }
    id = new_id(txn, Keyspace.PROMPT_USAGE, at)
    fields["usage_id"] = id
    record = encode(fields)
    use = decode_brief(record)
    _count(txn, use, 1)
    txn.put(Keyspace.PROMPT_USAGE + key_of(id, "usage_id"), record)
    for key in use.index_keys():
        txn.put(key, b"")
    return txn.load(PromptUsage, record)


def get_usage(
    txn: Read,
    *,
    case_id: str | None = None,
    prompt_id: str | None = None,
    version: int | None = None,
    outcome: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    newest_first: bool = False,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[PromptUsage]:
    """Uses of prompts in order of time, the oldest first.

    Args:
        case_id: only those for this case.
        prompt_id: only those of this prompt.
        version: only those of this version of it.
        outcome: only those with this outcome.
        since: only those then or later; of a day, from its start (UTC).
        until: only those then or before; of a day, to its end.
        newest_first: the other way round.
        limit: at most this many, 1 to 10,000. A page may hold fewer though others follow: as long
            as there is a ``next_cursor``, go on.
        cursor: ``next_cursor`` of the page before; stays good while others write.
    """
    to_name_or_none(outcome, "outcome")
    to_count_or_none(version, "version", 1, VERSION_MAX)
    if version is not None and prompt_id is None:
        raise InvalidArgument("version is one of a prompt; give its prompt_id as well.")
    index = Keyspace.PROMPT_USAGE
    if prompt_id is not None:
        index = Keyspace.PROMPT_USAGE_BY_PROMPT + packed_prompt(prompt_id)
        index += _NONE if version is None else pack(version)
    if case_id is not None:
        index = Keyspace.PROMPT_USAGE_BY_CASE + packed_name("case_id", case_id)
    asked = {"case_id": case_id, "prompt_id": prompt_id, "version": version, "outcome": outcome}
    wanted = {name: value for name, value in asked.items() if value is not None}

    def load(id: bytes, value: bytes) -> PromptUsage | None:
        record = value or txn.get(Keyspace.PROMPT_USAGE + id)
        assert record is not None
        if wanted:
            brief = decode_brief(record)
            if any(getattr(brief, name) != value for name, value in wanted.items()):
                return None
        return txn.load(PromptUsage, record)

    return list_records(
        txn,
        index=index,
        period=Period.of(since, until),
        scope=("prompt_usage", *asked.values()),
        limit=limit,
        cursor=cursor,
        newest_first=newest_first,
        load=load,
    )


def effectiveness(txn: Read, prompt_id: str) -> list[PromptEffectiveness]:
    """What the uses of each version of a prompt came to, the lowest version first.

    Kept up to date as uses are recorded, so it costs no more when there are many. Counts and means
    are exact, percentiles within 1 %. A version that was never used has ``uses`` of 0.

    Raises:
        NotFound: there is no such prompt.
    """
    place = Keyspace.PROMPTS + packed_prompt(prompt_id)
    if txn.get(place + _NONE) is None:
        raise NotFound(f"There is no prompt {prompt_id!r}.", prompt_id=prompt_id)
    found: list[PromptEffectiveness] = []
    for key, _ in txn.scan(place + pack(1), place + AFTER):
        (version,) = unpack(key[len(place) :])
        assert isinstance(version, int)
        record = txn.get(Keyspace.PROMPT_STATISTICS + key[1:])
        found.append(_effect(prompt_id, version, Row() if record is None else decode_row(record)))
    return found


def _effect(prompt_id: str, version: int, row: Row) -> PromptEffectiveness:
    p50, p90, p99 = row.latencies.percentiles_ms(0.5, 0.9, 0.99)
    return PromptEffectiveness(
        prompt_id=prompt_id,
        version=version,
        uses=row.uses,
        outcomes=dict(sorted(row.outcomes.items())),
        judged=row.judged,
        success_count=row.success_count,
        success_rate=row.success_count / row.judged if row.judged else None,
        latency_count=row.latencies.count,
        latency_mean_ms=row.latencies.mean_ms,
        latency_p50_ms=p50,
        latency_p90_ms=p90,
        latency_p99_ms=p99,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        tool_results=row.tool_results,
        tool_results_succeeded=row.tool_results_succeeded,
        tool_success_rate=(
            row.tool_results_succeeded / row.tool_results if row.tool_results else None
        ),
    )


def delete_case(txn: Write, case_id: str) -> int:
    """Remove the uses of prompts for a case; how many there were. ``effectiveness`` is as if they
    had never been."""
    index = Keyspace.PROMPT_USAGE_BY_CASE + packed_name("case_id", case_id)
    keys = [Keyspace.PROMPT_USAGE + key[len(index) :] for key, _ in txn.scan(index, index + AFTER)]
    for key in keys:
        record = txn.get(key)
        assert record is not None
        use = decode_brief(record)
        _count(txn, use, -1)
        for entry in use.index_keys():
            txn.delete(entry)
        txn.delete(key)
    return len(keys)
