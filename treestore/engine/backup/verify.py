"""Verifying a backup: its files against their checksums, then as a store that is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from treestore.engine.backup.files import disk_errors
from treestore.engine.backup.founding import Founding, open_and_check, successor
from treestore.engine.backup.manifest import INDEX, PAGES, Backup, open_chain
from treestore.engine.backup.view import PagesView, ViewDisk
from treestore.engine.check import CheckReport
from treestore.engine.directory import PAGES as PAGE_FILE
from treestore.engine.log import LogIdentity
from treestore.engine.options import MEBIBYTE, EngineOptions, Environment

_DIRECTORY = "/view"

_OPTIONS = EngineOptions(
    cache_size_bytes=16 * MEBIBYTE,
    log_segment_size_bytes_min=1 << 16,
    log_segment_size_bytes_max=1 << 16,
)
"""Small: its log is kept in memory, and pages are looked at once."""


def verify_backup(
    environment: Environment, path: str, progress: Callable[[int], None] | None = None
) -> tuple[list[Backup], CheckReport]:
    """Check a backup and everything that it builds on.

    Args:
        progress: called with the number of pages that were checked.

    Returns:
        The chain, the newest first, and what the check of its state counted.

    Raises:
        NotFound: there is no whole backup.
        CorruptionError: something is not as it was written.
        InvalidArgument: it is of another format version.
    """
    with disk_errors(path):
        chain = open_chain(environment.disk, path)
        for backup in chain:
            backup.check(INDEX)
            backup.check(PAGES)
        return chain, open_view(environment, chain, progress)


def open_view(
    environment: Environment, chain: Sequence[Backup], progress: Callable[[int], None] | None = None
) -> CheckReport:
    """Open the state of the newest backup of a chain, without changing it, and check it.

    Raises:
        CorruptionError: something is wrong.
    """
    manifest = chain[0].manifest
    index = chain[0].index(len(chain))
    files = [backup.open(PAGES) for backup in chain]
    try:
        view = PagesView(f"{_DIRECTORY}/{PAGE_FILE}", index, files, manifest.page_size_bytes)
        view.allocate(manifest.page_count * manifest.page_size_bytes)
        disk = ViewDisk(view)
        disk.make_directory(_DIRECTORY)
        inside = attrs.evolve(environment, disk=disk)
        tip = manifest.log_position.tip
        history = successor(manifest.history, manifest.timeline + 1, tip, inside)
        identity = LogIdentity(history.database_uuid, history.last.number)
        founding = Founding(inside, _DIRECTORY, manifest, index, identity, _OPTIONS)
        try:
            founding.finish(history)
        finally:
            founding.close()
        return open_and_check(inside, _DIRECTORY, _OPTIONS, progress)
    finally:
        for file in files:
            file.close()
