"""Hostile input: 20,000 pieces here, any number with `scripts/chaos.py fuzz`."""

from __future__ import annotations

import pytest

from actors.session import Session
from protocol.connection import ServerConnection
from protocol.frames import FrameDecoder
from scripts.torture.fuzz import batch

MACHINE_INPUTS = 18_000
SESSION_INPUTS = 2_000
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_any_bytes_are_read_or_refused(part: int) -> None:
    each = MACHINE_INPUTS // PARTS
    result = batch("machine", 1, range(part * each, (part + 1) * each))
    assert not result.violations, result.violations
    assert result.inputs["machine"] == each
    # Both happen, so neither is all that is tried.
    assert result.outcomes["refused"] > each // 10
    assert result.outcomes["read"] > each // 10


@pytest.mark.parametrize("part", range(PARTS))
def test_any_bytes_harm_only_their_own_session(part: int) -> None:
    each = SESSION_INPUTS // PARTS
    result = batch("session", 1, range(part * each, (part + 1) * each))
    assert not result.violations, result.violations
    assert result.inputs["session"] == each
    # How many are answered before their connection ends depends a little on the moment.
    assert result.outcomes["Response"] > each // 20
    assert result.outcomes["error invalid_argument"] > each // 10


def test_a_decoder_that_loses_bytes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = FrameDecoder.feed
    monkeypatch.setattr(
        FrameDecoder, "feed", lambda self, data: feed(self, data[:-1] if len(data) == 17 else data)
    )
    assert batch("machine", 1, range(3000)).violations


def test_an_error_of_our_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = ServerConnection.receive_data

    def faulty(self: ServerConnection, data: bytes) -> object:
        if b"\xc1" in data:
            raise KeyError("planted")
        return receive(self, data)

    monkeypatch.setattr(ServerConnection, "receive_data", faulty)
    found = batch("machine", 1, range(3000)).violations
    assert "planted" in found[0]


def test_a_session_that_keeps_memory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "_free", lambda self: None)
    monkeypatch.setattr("scripts.torture.fuzz.HANG_S", 0.5)
    assert batch("session", 1, range(300)).violations
