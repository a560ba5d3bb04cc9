"""Backups and restores on a simulated disk, whole in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, close_checked, contents, environment, open_small
from treestore.engine.backup.archive import Archive
from treestore.engine.backup.copy import BackupCopy, Source
from treestore.engine.backup.manifest import Backup
from treestore.engine.backup.restore import RestoreReport, Target, restore
from treestore.engine.directory import OpenStore, open_engine
from treestore.engine.options import EngineOptions

ARCHIVED = attrs.evolve(
    SMALL,
    archive_directory="/archive",
    log_segment_size_bytes_min=1 << 14,
    log_segment_size_bytes_max=1 << 16,
)
"""Small segments, so that many are closed."""


def archived_disk(seed: int = 0) -> SimDisk:
    """A disk with an empty archive directory."""
    disk = SimDisk(seed)
    disk.make_directory("/archive")
    disk.sync_directory("/")
    return disk


def open_archived(disk: SimDisk, *, seed: int = 0) -> OpenStore:
    """Open (or create) the store ``/db``, which is archived."""
    return open_small(disk, ARCHIVED, seed=seed)


def archive_of(store: OpenStore, directory: str = "/db") -> Archive:
    """The archive of a store, its position known."""
    engine = store.engine
    archive = Archive(engine.environment.disk, "/archive", directory, engine.identity)
    archive.open(engine.log)
    return archive


def back_up(
    store: OpenStore,
    path: str,
    parent: str | None = None,
    between: Callable[[], object] = lambda: None,
) -> Backup:
    """Make a backup of the newest state; ``between`` is called between its slices."""
    engine = store.engine
    engine.checkpoint_now()
    source = Source.of(engine)
    try:
        copy = BackupCopy(engine.environment, source, path, parent)
        copy.slice_runs = 16
        more = True
        while more:
            more = copy.step()
            between()
        sealed = copy.seal()
        copy.publish()
    finally:
        source.pin.close()
    return attrs.evolve(sealed, path=path)


def restore_to(
    disk: SimDisk,
    backup: str,
    data: str = "/new",
    *,
    archive: str | None = None,
    options: EngineOptions = SMALL,
    seed: int = 7,
    **target: Any,
) -> RestoreReport:
    """Restore with small options."""
    return restore(
        environment(disk, seed),
        backup,
        data,
        archive=archive,
        target=Target(**target),
        options=options,
    )


def open_at(disk: SimDisk, directory: str, options: EngineOptions = SMALL) -> OpenStore:
    """Open a store that must exist."""
    return open_engine(directory, options, environment(disk, 9), create=False)


def contents_at(disk: SimDisk, directory: str) -> dict[bytes, bytes]:
    """What the store in a directory holds; it is checked, too."""
    store = open_at(disk, directory)
    found = contents(store)
    close_checked(store)
    return found
