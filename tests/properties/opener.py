"""Opens and closes data directories, as told on standard input: one process of several.

``open DIR`` answers ``opened N`` (N is how often that was done, whoever did it) or ``refused``;
``close`` answers ``closed``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from treestore.engine.directory import OpenStore, open_engine
from treestore.engine.options import EngineOptions
from treestore.engine.realdisk import real_environment
from treestore.errors import Unavailable

COUNT = b"opened"


def opened(directory: Path) -> tuple[OpenStore, int]:
    """Open the store, and count that in it, durably.

    Raises:
        Unavailable: somebody else has it.
    """
    options = EngineOptions(
        log_segment_size_bytes_min=1 << 16,
        log_size_bytes_max=1 << 22,
        transaction_size_bytes_max=1 << 20,
    )
    store = open_engine(str(directory), options, real_environment())
    txn = store.engine.begin()
    count = int(txn.get(COUNT) or b"0") + 1
    txn.put(COUNT, b"%d" % count)
    store.engine.write_now(txn)
    return store, count


def main() -> None:
    """Until the end of the input."""
    store: OpenStore | None = None
    for line in sys.stdin:
        command, _, argument = line.rstrip("\n").partition(" ")
        if command == "close":
            assert store is not None
            store.close()
            answer = "closed"
        else:
            try:
                store, count = opened(Path(argument))
                answer = f"opened {count}"
            except Unavailable:
                answer = "refused"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
