"""What every test can ask for, and how Hypothesis runs.

`TREESTORE_TEST_DATA` names the folder of real documents; `TREESTORE_HYPOTHESIS_PROFILE` is
``default``, ``ci`` or ``long``. Every run with random examples prints the seed that repeats them.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

CHECKOUT = Path(__file__).resolve().parent.parent

SLOW_MACHINE = [HealthCheck.too_slow]  # a busy machine is not a badly written test

settings.register_profile(
    "default", deadline=None, derandomize=False, max_examples=60, suppress_health_check=SLOW_MACHINE
)
# A change is judged by the same examples each time, so that what fails is the change. New ones are
# looked for wherever else the tests run.
settings.register_profile(
    "ci",
    settings.get_profile("default"),
    derandomize=True,
    print_blob=True,
    database=None,
)
settings.register_profile(
    "long", settings.get_profile("default"), max_examples=3000, print_blob=True
)

PROFILE = os.environ.get("TREESTORE_HYPOTHESIS_PROFILE") or "default"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Load the profile, and choose a seed where the command line gives none.

    pytest-xdist hands the options of the main process on to its workers, so that all of them run
    with the one seed that is printed. It is chosen before Hypothesis's own plugin reads it.
    """
    if PROFILE not in ("default", "ci", "long"):
        raise pytest.UsageError(
            f"TREESTORE_HYPOTHESIS_PROFILE is {PROFILE!r}, but must be default, ci or long"
        )
    settings.load_profile(PROFILE)
    if config.option.hypothesis_seed is None:
        # What is not Hypothesis's own takes the seed as well.
        chosen = 1 if PROFILE == "ci" else random.SystemRandom().getrandbits(32)
        config.option.hypothesis_seed = chosen


UNTRACED = frozenset({"crash", "properties", "simulation", "torture", "typing"})
"""Folders of tests that go on for long over lines which others reach, or in other processes: to
count the lines again would only slow them down."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where lines are counted, leave out `UNTRACED`."""
    if config.pluginmanager.hasplugin("_cov"):
        for item in items:
            if UNTRACED.intersection(item.path.relative_to(CHECKOUT).parts):
                item.add_marker("no_cover")


def _seed_line(config: pytest.Config) -> str:
    if PROFILE == "ci":
        return "hypothesis profile ci: the same examples each time"
    seed = config.option.hypothesis_seed
    return f"hypothesis profile {PROFILE}; repeat these examples with --hypothesis-seed={seed}"


def pytest_report_header(config: pytest.Config) -> str:
    return _seed_line(config)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Say the seed again where something failed: the header is far up by then."""
    if exitstatus != pytest.ExitCode.OK:
        terminalreporter.write_line(_seed_line(config))


@pytest.fixture(scope="session")
def data_directory() -> Path:
    """The folder of real documents; without it, the test is skipped."""
    named = os.environ.get("TREESTORE_TEST_DATA")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        where = (
            f"TREESTORE_TEST_DATA names {named}, which is no folder"
            if named
            else "TREESTORE_TEST_DATA is not set and ../shared/data does not exist"
        )
        pytest.skip(f"no real documents to test with: {where}")
    return folder
