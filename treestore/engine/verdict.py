"""The data directory's decision table: what opening it finds before it looks at the log."""

from __future__ import annotations

from typing import Final

from treestore.engine.decision import Outcome, Row, Table
from treestore.errors import CorruptionError, InvalidArgument, NotFound

FACTS: Final = {
    "pages": "Is there a page file?",
    "creating": "Is there the file CREATING: was a creation not finished?",
    "foreign": "Without both: is there anything but a lock and a log?",
    "log": "Is there a log?",
    "may_create": "May a store be created?",
    "known": "Is every whole meta slot of this format version?",
    "slot": "Is there a valid meta slot?",
    "whole": "Is the page file as long as the newest valid slot says?",
    "both_slots": "Are both slots valid?",
}

_EMPTY = {"pages": False, "creating": False, "foreign": False}
_SLOT = {"pages": True, "known": True, "slot": True}

TABLE: Final = Table(
    FACTS,
    (
        Row(
            "somebody else's",
            {"pages": False, "creating": False, "foreign": True},
            Outcome.REFUSE,
            "{directory} is not empty and is no TreeStore data directory (it contains {name}); "
            "choose another directory.",
            InvalidArgument,
        ),
        Row(
            "page file missing",
            {**_EMPTY, "log": True},
            Outcome.REFUSE,
            "{directory} has a log but its page file is missing. Put the file back or restore a "
            "backup; nothing was changed.",
            CorruptionError,
        ),
        Row(
            "no store",
            {**_EMPTY, "log": False, "may_create": False},
            Outcome.REFUSE,
            "There is no store at {directory}.",
            NotFound,
        ),
        Row(
            "new store",
            {**_EMPTY, "log": False, "may_create": True},
            Outcome.CREATE,
            "There was nothing; a store was created.",
        ),
        Row(
            "creation unfinished",
            {"pages": False, "creating": True, "may_create": True},
            Outcome.CREATE,
            "A creation had been interrupted; it was begun again.",
        ),
        Row(
            "no store, creation unfinished",
            {"pages": False, "creating": True, "may_create": False},
            Outcome.REFUSE,
            "There is no store at {directory}: its creation was interrupted. Open it for writing "
            "to begin again, or remove the directory.",
            NotFound,
        ),
        Row(
            "page file of another version",
            {"pages": True, "known": False},
            Outcome.REFUSE,
            "{problem}",
            InvalidArgument,
        ),
        Row(
            "no meta slot",
            {"pages": True, "known": True, "slot": False},
            Outcome.REFUSE,
            "{problem}",
            CorruptionError,
        ),
        Row(
            "page file cut",
            {**_SLOT, "whole": False},
            Outcome.REFUSE,
            "{file} ends at {offset} bytes but should have at least {wanted}: it was cut. Restore "
            "a backup.",
            CorruptionError,
        ),
        Row(
            "one meta slot",
            {**_SLOT, "whole": True, "both_slots": False},
            Outcome.OPEN,
            "One meta slot was blank, torn or damaged; the other one was taken.",
        ),
        Row(
            "both meta slots",
            {**_SLOT, "whole": True, "both_slots": True},
            Outcome.OPEN,
            "The newer meta slot was taken.",
        ),
    ),
)
