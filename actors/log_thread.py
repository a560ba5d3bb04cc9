"""The log thread: one thread that does everything that waits for the log's disk.

Jobs run strictly one after the other, in the order they were given, so that group g + 1 is
written only after the sync of group g returned. A thread of our own rather than trio's pool: the
log belongs to one thread, and a pool thread costs a hand-over through trio's cache each time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import trio

Done = Callable[[Any, BaseException | None], None]
"""Called on the event loop with a job's result, or its exception."""


class LogThread:
    """Runs jobs on its own thread and reports back to the event loop.

    Resource handling:
        Made and stopped on the event loop. `stop` waits for the jobs that were submitted; a sync
        under way is never abandoned.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Done] | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._run, name="treestore-log", daemon=True)
        self._thread.start()
        self._stopped = False

    def submit(self, job: Callable[[], Any], done: Done) -> None:
        """Run ``job`` after those submitted before; ``done`` follows on the event loop."""
        if self._stopped:
            raise AssertionError("the log thread was stopped")
        self._jobs.put((job, done))

    def _run(self) -> None:
        while True:
            item = self._jobs.get()
            if item is None:
                return
            job, done = item
            result: Any = None
            failure: BaseException | None = None
            try:
                result = job()
            except BaseException as error:  # noqa: ASYNC103
                failure = error
            # Not kept alive until the next job comes.
            del item, job
            try:
                self._token.run_sync_soon(done, result, failure)
            except trio.RunFinishedError:
                return
            del done, result, failure

    async def stop(self) -> None:
        """Let the submitted jobs finish, then end the thread."""
        if self._stopped:
            return
        self._stopped = True
        self._jobs.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)
