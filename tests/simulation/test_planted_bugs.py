"""Each planted bug is found: the judge is tested, and with it what the simulation provokes."""

from __future__ import annotations

import pytest

from scripts.simulation.service import Plan, run
from tests.simulation import plants
from tests.simulation.plants import PLANTS, Plant

SEEDS_MAX = 60
"""Each is found in one of two to one of eight worlds; that none of so many shows it is less likely
than one in a thousand."""

LOSS = Plan(
    duration_s=6,
    fault_pause_s=0.4,
    faults=frozenset(("power_fails", "process_is_killed", "disk_is_slow", "checkpoint_is_hit")),
)
RETRIES = Plan(
    4,
    3,
    duration_s=6,
    fault_pause_s=0.15,
    faults=frozenset(
        ("connections_are_reset", "connections_are_cut", "network_is_slow", "process_is_killed")
    ),
)
LOSS_AMONG_MANY = Plan(
    4, 3, duration_s=6, fault_pause_s=0.25, faults=frozenset(("power_fails", "disk_is_slow"))
)
CROWD = Plan(4, 3, duration_s=4, fault_pause_s=0.3, faults=frozenset(("disk_is_slow",)))
LONG = Plan(4, 3, duration_s=12, fault_pause_s=1.0, faults=frozenset(("disk_is_slow",)))

CHECKPOINTS = Plan(
    duration_s=6, fault_pause_s=0.3, faults=frozenset(("checkpoint_is_hit", "disk_is_slow"))
)

WORLDS: dict[Plant, Plan] = {
    plants.publish_before_sync: LOSS_AMONG_MANY,
    plants.forget_an_answer: RETRIES,
    plants.show_changes_before_sync: LOSS_AMONG_MANY,
    plants.read_what_is_not_published: LOSS_AMONG_MANY,
    plants.apply_a_batch_in_halves: CROWD,
    plants.flip_before_the_pages_are_synced: CHECKPOINTS,
    plants.reuse_pinned_pages: LONG,
    plants.skip_the_range_check: CROWD,
    plants.validate_a_stale_read_set: CROWD,
    plants.validate_against_what_is_durable_only: CROWD,
    plants.take_no_notice_of_what_a_delete_found: CROWD,
    plants.take_a_lost_commit_for_none: RETRIES,
}
"""The worlds in which a bug shows soonest; `LOSS` for all others."""


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    world = WORLDS.get(plant, LOSS)
    assert any(run(seed, world).violations for seed in range(SEEDS_MAX))
