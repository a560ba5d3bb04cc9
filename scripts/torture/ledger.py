"""What clients know of what they wrote, to be held against what is found later.

A write whose answer never came may take effect, or not, until everything that was on its way is
known to have arrived: so each key has a set of possible values. An acknowledged write is the only
possible value of its key from then on, together with writes of unknown outcome that may still be
under way. After a verification what was found is certain.
"""

from __future__ import annotations

import attrs

ABSENT = None

Value = bytes | None


@attrs.define
class Loss:
    """Something that is not as it was acknowledged."""

    what: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.what}: found {self.found}, expected {self.expected}"


@attrs.define
class Ledger:
    """Single keys, batches and documents."""

    certain: dict[bytes, Value] = attrs.Factory(dict)
    """Key -> its last acknowledged (or found) value; None where it is deleted."""
    unsure: dict[bytes, list[Value]] = attrs.Factory(dict)
    """Key -> values of writes under way, or without an answer since the last verification."""
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    losses: list[Loss] = attrs.Factory(list)

    def attempt(self, key: bytes, value: Value) -> None:
        """A write begins."""
        self.unsure.setdefault(key, []).append(value)

    def succeed(self, key: bytes, value: Value) -> None:
        """It was acknowledged."""
        self.acknowledged += 1
        self.certain[key] = value
        self._settle(key, value)

    def refuse(self, key: bytes, value: Value) -> None:
        """The server said that nothing was changed."""
        self.refused += 1
        self._settle(key, value)

    def _settle(self, key: bytes, value: Value) -> None:
        waiting = self.unsure.get(key)
        if waiting is not None and value in waiting:  # No verification came in between.
            waiting.remove(value)

    def possible(self, key: bytes) -> set[Value]:
        """What a read may find."""
        return {self.certain.get(key), *self.unsure.get(key, ())}

    def found(self, key: bytes, value: Value) -> None:
        """What a read found when nothing was on its way any more: certain from now on."""
        if value not in self.possible(key):
            expected = ", ".join(sorted(map(repr, self.possible(key))))
            self.lose(f"key {key!r}", repr(value), expected)
        self.certain[key] = value
        self.unsure.pop(key, None)

    def lose(self, what: str, found: str, expected: str) -> None:
        """Note a loss."""
        self.losses.append(Loss(what, found, expected))
