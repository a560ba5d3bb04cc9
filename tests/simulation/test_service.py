"""The whole service in simulated worlds: nothing is broken, and a seed is a world."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

from scripts.simulation.service import Plan, replay_command, run

SEEDS = range(100, 112)

world = cache(run)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_is_kept(seed: int) -> None:
    result = world(seed)
    assert not result.violations, "\n".join([*result.violations, replay_command(seed)])
    assert result.lives > 1
    assert result.calls > 100


def test_all_kinds_of_calls_and_faults_come_up() -> None:
    results = [world(seed) for seed in SEEDS]
    faults = {fault for result in results for fault in result.faults}
    outcomes = {outcome for result in results for outcome in result.outcomes}
    assert {"power_fails", "process_is_killed", "disk_fails", "connections_are_cut"} <= faults
    kinds = ("get", "put", "delete", "batch", "scan", "snapshot", "append", "list", "store", "read")
    assert {f"{kind} ok" for kind in (*kinds, "transact")} <= outcomes
    assert {f"{kind} unknown" for kind in ("put", "append", "batch", "transact")} <= outcomes
    assert "transact failed" in outcomes


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_is_the_same_world(seed: int) -> None:
    plan = Plan(duration_s=4)
    first, second = run(seed, plan), run(seed, plan)
    assert first == second
    assert run(seed + 1, plan).digest != first.digest


def test_the_same_seed_is_the_same_world_in_another_process() -> None:
    program = (
        "from scripts.simulation.service import Plan, run; print(run(7, Plan(duration_s=4)).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert digests == {run(7, Plan(duration_s=4)).digest + "\n"}
