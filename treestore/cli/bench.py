"""``treestore bench``: the side-by-side benchmark, which lives in the checkout."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import click
import rich_click

from treestore.errors import Unavailable

CHECKOUT = Path(__file__).resolve().parents[2]


@click.command(
    cls=rich_click.RichCommand,
    # Its own parser explains its flags, so all of them are handed on, --help included.
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> int:
    """Compare TreeStore with other stores, side by side (from a checkout)."""
    if not (CHECKOUT / "scripts" / "bench" / "main.py").is_file():
        raise Unavailable(
            "The benchmark is not part of an installed TreeStore; run `make bench` in a checkout."
        )
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    # By name, since the package must not depend on the checkout's scripts.
    run = importlib.import_module("scripts.bench.main").run
    result = run(list(arguments))
    return result if isinstance(result, int) else 0
