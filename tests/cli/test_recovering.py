"""What commands show of a recovery that takes long."""

from __future__ import annotations

import sys
from random import Random

import attrs
import pytest
import structlog

from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, Clock, close_checked, open_small, put_now
from treestore.cli.recovering import recovering
from treestore.engine.directory import open_engine
from treestore.engine.options import Environment, OpenProgress


def test_opening_tells_how_far_it_has_come() -> None:
    disk = SimDisk()
    options = attrs.evolve(
        SMALL, log_segment_size_bytes_max=16 << 20, log_segment_size_bytes_min=16 << 20
    )
    store = open_small(disk, options)
    # More than PROGRESS_BYTES in a segment.
    for number in range(12):
        put_now(store, [(b"%d" % number, bytes(900_000))])
    disk.restart()
    seen: list[OpenProgress] = []
    store = open_engine("/db", SMALL, Environment(disk, Clock(), Random(1), progress=seen.append))
    phases = [progress.phase for progress in seen]
    assert phases == sorted(phases, key=["verifying", "replaying", "done"].index)
    assert set(phases) == {"verifying", "replaying", "done"}
    assert seen[-1].share == 1.0
    for phase in ("verifying", "replaying"):
        shares = [progress.share for progress in seen if progress.phase == phase]
        assert shares == sorted(shares)
        assert 0 < shares[0] < shares[-1] <= 1
    close_checked(store)


def test_a_log_line_every_two_seconds_where_there_is_no_terminal() -> None:
    now = 0.0
    with structlog.testing.capture_logs() as lines, recovering(lambda: now) as progress:
        for step in range(50):
            now = step * 0.1
            progress(OpenProgress("replaying", step, 50))
        progress(OpenProgress("done", 0, 0))
    assert [(line["phase"], line["percent"]) for line in lines] == [
        ("replaying", 10),
        ("replaying", 50),
        ("replaying", 90),
    ]


def test_a_quick_recovery_shows_nothing() -> None:
    with structlog.testing.capture_logs() as lines, recovering(lambda: 0.0) as progress:
        for step in range(50):
            progress(OpenProgress("replaying", step, 50))
    assert lines == []


def test_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    now = 0.0
    with recovering(lambda: now) as progress:
        now = 1.0
        progress(OpenProgress("verifying", 1, 4))
        progress(OpenProgress("replaying", 3, 4))
        progress(OpenProgress("done", 0, 0))
    shown = capsys.readouterr().err
    assert "recovering" in shown
    assert "75%" in shown
