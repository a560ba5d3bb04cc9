"""What the ``agents`` operations answer."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class RecordedConflict:
    """A conflict of evidence as it is stored.

    Attributes:
        contradiction_id: of the contradiction.
        resolution: how it was settled, in words; None while it is not.
    """

    contradiction_id: str
    resolution: str | None = None


@attrs.frozen(kw_only=True)
class RecordedCall:
    """The records that a call of a tool left.

    Attributes:
        tool_result_id: of the tool result.
        trajectory_id: of the trajectory; None where the call is in none.
        step_number: of the step in it; None likewise.
        conflicts: in the order given.
    """

    tool_result_id: str
    trajectory_id: str | None = None
    step_number: int | None = None
    conflicts: tuple[RecordedConflict, ...] = ()
