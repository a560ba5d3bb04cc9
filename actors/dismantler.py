"""The dismantler: takes apart what nobody reads any more, beside everything else.

See ``treestore/engine/remains.py``. Without it, whoever lets go of an old state stands still until
all of it is freed.
"""

from __future__ import annotations

from typing import Final

import trio

from treestore.engine.engine import Engine
from treestore.engine.remains import Remains

REST_S: Final = 0.005
"""Between two steps, which take a tenth of that, the event loop is everybody else's."""

LOOK_S_MAX: Final = 0.5
"""A state that somebody still reads is looked at this often, or more often."""


class Dismantler:
    """Lets go of one engine's old states."""

    def __init__(self, engine: Engine) -> None:
        self._filled = trio.Event()
        self._remains = engine.remains = Remains(self._on_first)

    def _on_first(self) -> None:
        self._filled.set()

    async def run(self) -> None:
        """Work through what there is, and wait for more; the actor's task."""
        look_s = REST_S
        try:
            while True:
                if not self._remains:
                    await self._filled.wait()
                    self._filled = trio.Event()
                    look_s = REST_S
                look_s = REST_S if self._remains.step() else min(2 * look_s, LOOK_S_MAX)
                await trio.sleep(look_s)
        finally:
            self._remains.clear()
