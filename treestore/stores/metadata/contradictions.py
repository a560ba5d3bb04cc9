"""Contradictions: evidence of a criterion that cannot all be true, and how that was settled.

Keys::

    CONTRADICTIONS         id                 -> the Contradiction
    CONTRADICTIONS_BY_CASE case criterion id  -> nothing; once more with None for the criterion
    CONTRADICTIONS_BY_NODE policy node id     -> nothing, for each node that is evidence; once more
                                                 with None for the node
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, get_args

import attrs
import msgspec

from treestore.errors import InvalidArgument, NotFound
from treestore.model.metadata import Contradiction, Evidence, Severity
from treestore.model.page import Page
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import packed_name, packed_node_id
from treestore.stores.json_values import JsonObject, check_inside, encode, shown
from treestore.stores.keys import Keyspace, pack
from treestore.stores.metadata.tool_results import check_node
from treestore.stores.metadata.trajectories import as_map, as_maps
from treestore.stores.operation import Wire
from treestore.stores.records.fields import (
    to_flag_or_none,
    to_json_object,
    to_name,
    to_text,
)
from treestore.stores.records.ids import key_of, new_id
from treestore.stores.records.listing import list_records
from treestore.stores.records.moments import Moment, Period

EVIDENCE_MAX: Final = 1000
"""Pieces of evidence of one contradiction."""

HISTORY_MAX: Final = 1000
"""Resolutions of one contradiction."""

_NONE: Final = pack(None)
_SEVERITIES: Final = get_args(Severity)
_EVIDENCE_FIELDS: Final = frozenset(field.name for field in attrs.fields(Evidence))

EvidenceList = Annotated[
    Sequence[Evidence | Mapping[str, Any]],
    Wire(type=list[dict[str, Any]], encode=as_maps, check=check_inside("metadata")),
]
"""A list of `Evidence`, or of dicts with their fields."""


class _Place(msgspec.Struct):
    """Of a piece of evidence, where it was found."""

    policy_id: str | None = None
    node_id: str | None = None


class Brief(msgspec.Struct):
    """Of a contradiction, what its place in indexes depends on."""

    contradiction_id: str
    case_id: str
    criterion_id: str
    resolved: bool = False
    evidence: list[_Place] = msgspec.field(default_factory=list)

    def index_keys(self) -> list[bytes]:
        """Every key of an index that leads to the record."""
        id = key_of(self.contradiction_id, "contradiction_id")
        case = Keyspace.CONTRADICTIONS_BY_CASE + packed_name("case_id", self.case_id)
        keys = {
            case + _NONE + id: None,
            case + packed_name("criterion_id", self.criterion_id) + id: None,
        }
        for piece in self.evidence:
            if piece.policy_id is None:
                continue
            policy = Keyspace.CONTRADICTIONS_BY_NODE + packed_name("policy_id", piece.policy_id)
            keys[policy + _NONE + id] = None
            if piece.node_id is not None:
                keys[policy + packed_node_id(piece.node_id) + id] = None
        return list(keys)


decode_brief = msgspec.msgpack.Decoder(Brief).decode
_decode_map = msgspec.msgpack.Decoder(dict[str, Any]).decode


def _to_evidence(value: Any, where: str) -> dict[str, Any]:
    value = as_map(value)
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{where} is a dict of a piece's fields, not {type(value).__name__}.")
    for name in value:
        if name not in _EVIDENCE_FIELDS:
            raise InvalidArgument(
                f"{where} has no field {shown(name)}; a piece of evidence has "
                f"{', '.join(sorted(_EVIDENCE_FIELDS))} (put anything else into metadata)."
            )
    places = value.get("policy_id"), value.get("node_id"), value.get("version_id")
    try:
        check_node(*places)
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}: {error.message}") from None
    return {
        "policy_id": places[0],
        "node_id": places[1],
        "version_id": places[2],
        "snippet": to_text(value.get("snippet") or "", f"{where}.snippet"),
        "stance": to_text(value.get("stance") or "", f"{where}.stance"),
        "metadata": to_json_object(value.get("metadata"), f"{where}.metadata"),
    }


def store_contradiction(
    txn: Write,
    case_id: str,
    criterion_id: str,
    evidence: EvidenceList,
    *,
    severity: Severity = "medium",
    description: str = "",
    metadata: JsonObject | None = None,
) -> Contradiction:
    """Record that pieces of evidence cannot all be true; the answer has the ``contradiction_id``.

    Args:
        case_id: the case.
        criterion_id: the criterion that they are evidence of.
        evidence: 1 to 1,000 `Evidence` or dicts with their fields: ``policy_id``, ``node_id``,
            ``version_id`` (none of which has to be stored), ``snippet``, ``stance``, ``metadata``.
        severity: "low", "medium", "high" or "critical".
        description: in words.
        metadata: whatever else there is to know, JSON-like.

    Raises:
        InvalidArgument: there is no evidence, or something is wrong with it; the message names it.
    """
    if isinstance(evidence, str | bytes | Mapping) or not isinstance(evidence, Sequence):
        raise InvalidArgument(f"evidence is a list, not {type(evidence).__name__}.")
    if not 1 <= len(evidence) <= EVIDENCE_MAX:
        raise InvalidArgument(
            f"evidence has {len(evidence)} pieces; there are 1 to {EVIDENCE_MAX} of them."
        )
    if severity not in _SEVERITIES:
        raise InvalidArgument(
            f"severity is one of {', '.join(_SEVERITIES)}, not {shown(severity)}."
        )
    fields = {
        "contradiction_id": "",
        "case_id": to_name(case_id, "case_id"),
        "criterion_id": to_name(criterion_id, "criterion_id"),
        "evidence": [
            _to_evidence(piece, f"evidence[{index}]") for index, piece in enumerate(evidence)
        ],
        "severity": severity,
        "description": to_text(description, "description"),
        "metadata": to_json_object(metadata, "metadata"),
        "created_at": txn.now,
        "resolved": False,
        "resolution": None,
        "resolved_by": None,
        "resolved_at": None,
        "history": [],
    }
    id = new_id(txn, Keyspace.CONTRADICTIONS, txn.now)
    fields["contradiction_id"] = id
    record = encode(fields)
    txn.put(Keyspace.CONTRADICTIONS + key_of(id, "contradiction_id"), record)
    for key in decode_brief(record).index_keys():
        txn.put(key, b"")
    return txn.load(Contradiction, record)


def _find(txn: Read, contradiction_id: str) -> tuple[bytes, bytes]:
    key = Keyspace.CONTRADICTIONS + key_of(contradiction_id, "contradiction_id")
    record = txn.get(key)
    if record is None:
        raise NotFound(f"There is no contradiction {contradiction_id!r}.", ids=[contradiction_id])
    return key, record


def get_contradiction(txn: Read, contradiction_id: str) -> Contradiction:
    """One contradiction.

    Raises:
        NotFound: there is none with this id.
    """
    return txn.load(Contradiction, _find(txn, contradiction_id)[1])


def resolve_contradiction(
    txn: Write, contradiction_id: str, resolution: str, *, resolved_by: str = ""
) -> Contradiction:
    """Say how a contradiction was settled.

    Settled again, it takes the new resolution, and the one before goes to ``history``: judgements
    are overturned, and nothing is lost. The same words by the same person change nothing.

    Args:
        resolution: in words, at least one.
        resolved_by: who settled it.

    Raises:
        NotFound: there is no such contradiction.
    """
    if not to_text(resolution, "resolution").strip():
        raise InvalidArgument("resolution says in words how it was settled; it is empty.")
    to_text(resolved_by, "resolved_by")
    key, record = _find(txn, contradiction_id)
    fields = _decode_map(record)
    if fields["resolved"]:
        if (fields["resolution"], fields["resolved_by"]) == (resolution, resolved_by):
            return txn.load(Contradiction, record)
        if len(fields["history"]) >= HISTORY_MAX:
            raise InvalidArgument(
                f"Contradiction {contradiction_id!r} was settled {HISTORY_MAX + 1} times, the most."
            )
        before = {name: fields[name] for name in ("resolution", "resolved_by", "resolved_at")}
        fields["history"].append(before)
    resolved_at: datetime = txn.now
    fields.update(
        resolved=True, resolution=resolution, resolved_by=resolved_by, resolved_at=resolved_at
    )
    record = encode(fields)
    txn.put(key, record)
    return txn.load(Contradiction, record)


def get_contradictions(
    txn: Read,
    case_id: str | None = None,
    criterion_id: str | None = None,
    *,
    policy_id: str | None = None,
    node_id: str | None = None,
    resolved: bool | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    newest_first: bool = False,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[Contradiction]:
    """Contradictions in the order in which they were stored.

    Args:
        case_id: only those of this case.
        criterion_id: only those of this criterion.
        policy_id: only those with evidence in this policy.
        node_id: only those with evidence in this node of the policy.
        resolved: only those that are settled, or that are not.
        since: only those stored then or later; of a day, from its start (UTC).
        until: only those stored then or before; of a day, to its end.
        newest_first: the other way round.
        limit: at most this many, 1 to 10,000. A page may hold fewer though others follow: as long
            as there is a ``next_cursor``, go on.
        cursor: ``next_cursor`` of the page before; stays good while others write.
    """
    check_node(policy_id, node_id)
    to_flag_or_none(resolved, "resolved")
    criterion = None if criterion_id is None else packed_name("criterion_id", criterion_id)
    index = Keyspace.CONTRADICTIONS
    if case_id is not None:
        index = Keyspace.CONTRADICTIONS_BY_CASE + packed_name("case_id", case_id)
        index += criterion or _NONE
    elif policy_id is not None:
        index = Keyspace.CONTRADICTIONS_BY_NODE + packed_name("policy_id", policy_id)
        index += _NONE if node_id is None else packed_node_id(node_id)

    def wanted(brief: Brief) -> bool:
        return (
            (resolved is None or brief.resolved is resolved)
            and (criterion_id is None or brief.criterion_id == criterion_id)
            and (
                policy_id is None
                or any(
                    piece.policy_id == policy_id and node_id in (None, piece.node_id)
                    for piece in brief.evidence
                )
            )
        )

    def load(id: bytes, value: bytes) -> Contradiction | None:
        record = value or txn.get(Keyspace.CONTRADICTIONS + id)
        assert record is not None
        return txn.load(Contradiction, record) if wanted(decode_brief(record)) else None

    return list_records(
        txn,
        index=index,
        period=Period.of(since, until),
        scope=("contradictions", case_id, criterion_id, policy_id, node_id, resolved),
        limit=limit,
        cursor=cursor,
        newest_first=newest_first,
        load=load,
    )


def delete_contradictions(txn: Write, case_id: str) -> int:
    """Remove a case's contradictions; how many there were."""
    index = Keyspace.CONTRADICTIONS_BY_CASE + packed_name("case_id", case_id) + _NONE
    keys = [
        Keyspace.CONTRADICTIONS + key[len(index) :] for key, _ in txn.scan(index, index + b"\xff")
    ]
    for key in keys:
        record = txn.get(key)
        assert record is not None
        for entry in decode_brief(record).index_keys():
            txn.delete(entry)
        txn.delete(key)
    return len(keys)
