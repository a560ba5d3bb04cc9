"""A server process that can be given another clock, besides being killed and stopped."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from treestore.loadtest import server

JUMPING_CLOCK = Path(__file__).resolve().parent / "jumping_clock"


@attrs.define
class ServerProcess(server.ServerProcess):
    """``treestore serve`` on a data directory, over several lives.

    Attributes:
        clock_file: where given, an offset such as ``+3600`` that the server's clock follows.
    """

    clock_file: Path | None = None

    def environment(self) -> dict[str, str]:
        """With the clock, where there is one."""
        environment = super().environment()
        if self.clock_file is not None:
            path = [str(JUMPING_CLOCK), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
            environment["TREESTORE_CHAOS_CLOCK"] = str(self.clock_file)
        return environment
