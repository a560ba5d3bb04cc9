"""The log's decision table: what opening it finds, and what that means."""

from __future__ import annotations

from typing import Final

from treestore.engine.decision import Outcome, Row, Table
from treestore.errors import CorruptionError, InvalidArgument

_HINT = (
    "but the checkpoint needs what follows record {start}. Nothing was changed. If files were "
    "moved away, put them back."
)
_SALVAGE = (
    "Nothing was changed. Keep a copy of the directory; `treestore repair` salvages what can be "
    "read into a new one."
)
_ENDS = "The log file {file} ends after record {lsn} (at byte {offset}), but the checkpoint "

FACTS: Final = {
    "found": "Is there a segment?",
    "readable": "Are headers and sizes of the segments that are needed as they were written?",
    "known": "Are they of this format version?",
    "same_database": "Do they carry this database's uuid?",
    "same_timeline": "And its timeline?",
    "reaches_back": "Does the dense end of the log begin at or before the checkpoint's position?",
    "reaches_segment": "Is the segment there that the position names, or a later one?",
    "chained": "Does each segment lead to exactly what its successor follows?",
    "later_group": "Is there, behind the last whole group g of the last segment, a valid header "
    "of group g+2 or later (a marker too)?",
    "reaches_record": "Does the log reach the last record that the checkpoint's pages hold "
    "changes of?",
    "remains": "Is there, behind g, a block that is not zeros, or a header of this activation?",
}

_OURS = dict.fromkeys(("found", "readable", "known", "same_database", "same_timeline"), True)
_DENSE = {**_OURS, "reaches_back": True, "reaches_segment": True}
_WHOLE = {**_DENSE, "chained": True, "later_group": False}

TABLE: Final = Table(
    FACTS,
    (
        Row(
            "log missing",
            {"found": False},
            Outcome.REFUSE,
            "The log in {directory} has no segments, " + _HINT,
            CorruptionError,
        ),
        Row(
            "header damaged",
            {"found": True, "readable": False},
            Outcome.REFUSE,
            "{problem}",
            CorruptionError,
        ),
        Row(
            "log of another version",
            {"found": True, "readable": True, "known": False},
            Outcome.REFUSE,
            "{problem}",
            InvalidArgument,
        ),
        Row(
            "log of another database",
            {"found": True, "readable": True, "known": True, "same_database": False},
            Outcome.REFUSE,
            "The log file {file} belongs to another database ({uuid}). Nothing was changed. Put "
            "this database's own log files back.",
            CorruptionError,
        ),
        Row(
            "log of another timeline",
            {**_OURS, "same_timeline": False},
            Outcome.REFUSE,
            "The log file {file} is of timeline {timeline}, the database of timeline {wanted}. "
            "Nothing was changed. Put this database's own log files back.",
            CorruptionError,
        ),
        Row(
            "log begins too late",
            {**_OURS, "reaches_back": False},
            Outcome.REFUSE,
            "The log in {directory} begins after record {lsn} (segment {sequence}) and a segment "
            "before it is missing or damaged, " + _HINT,
            CorruptionError,
        ),
        Row(
            "log ends too early",
            {**_OURS, "reaches_back": True, "reaches_segment": False},
            Outcome.REFUSE,
            "The log in {directory} ends with segment {sequence} and segment {wanted} is missing, "
            + _HINT,
            CorruptionError,
        ),
        Row(
            "damage before a segment",
            {**_DENSE, "chained": False},
            Outcome.REFUSE,
            "The log file {file} is damaged behind record {lsn} (at byte {offset}); {next} follows "
            "record {follows}, so what stood here was acknowledged. " + _SALVAGE,
            CorruptionError,
        ),
        Row(
            "damage before a group",
            {**_DENSE, "chained": True, "later_group": True},
            Outcome.REFUSE,
            "The log file {file} is damaged behind record {lsn} (at byte {offset}): a later group "
            "at byte {later} proves that what stood here was acknowledged. " + _SALVAGE,
            CorruptionError,
        ),
        Row(
            "log ends before the checkpoint",
            {**_WHOLE, "reaches_record": False},
            Outcome.REFUSE,
            _ENDS + "holds record {wanted}. " + _SALVAGE,
            CorruptionError,
        ),
        Row(
            "torn tail",
            {**_WHOLE, "reaches_record": True, "remains": True},
            Outcome.CUT,
            "The log ended in pieces of a group that was never acknowledged; they were saved "
            "aside.",
        ),
        Row(
            "clean",
            {**_WHOLE, "reaches_record": True, "remains": False},
            Outcome.OPEN,
            "The log ended with a whole group.",
        ),
    ),
)
