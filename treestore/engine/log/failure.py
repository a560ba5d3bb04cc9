"""What the log raises once it can no longer promise anything."""

from __future__ import annotations


class LogFailed(Exception):
    """A write or sync of the log failed, so nothing more may be appended to it.

    The outcome of the group that was being appended is *unknown*: its bytes may or may not be
    on the medium. It is settled by opening the log again, never by syncing again: after a
    failed sync the operating system may report success for pages that it has dropped.

    Attributes:
        cause: the error that the disk reported first.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(
            f"the log failed ({cause}); what was being written has an unknown outcome and "
            "nothing more can be written until the store is opened again"
        )
        self.cause = cause
