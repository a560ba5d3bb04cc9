"""The write-ahead log. The format and its argument: ``docs/log-format.md``."""

from treestore.engine.log.failure import LogFailed
from treestore.engine.log.group import LogGroup, Piece
from treestore.engine.log.log import Log
from treestore.engine.log.options import LogOptions, LogStatistics
from treestore.engine.log.position import LogIdentity, LogPosition
from treestore.engine.log.record import LogRecord, Transaction, group_bytes
from treestore.engine.log.recovery import Clean, Recovered, TornTail

__all__ = [
    "Log",
    "LogIdentity",
    "LogOptions",
    "LogPosition",
    "LogStatistics",
    "LogFailed",
    "LogRecord",
    "LogGroup",
    "Piece",
    "Transaction",
    "group_bytes",
    "Clean",
    "Recovered",
    "TornTail",
]
