"""Which archive a store keeps: remembered in its directory, so that no program forgets it.

A tool that opened the store without knowing of the archive would let go of log that is not in it
yet, and the archive would have a gap.
"""

from __future__ import annotations

from treestore.engine.disk import Disk
from treestore.errors import CorruptionError

ARCHIVE = "ARCHIVE"
"""The file in the data directory: the archive directory's path, UTF-8, and a line end."""

_PATH_SIZE_MAX = 1 << 16


def archive_of(disk: Disk, directory: str, given: str | None) -> str | None:
    """The archive directory of the store in ``directory``; None where it has none.

    Args:
        given: what is asked for, which is remembered; None: as it was; "": no archive any more.

    Raises:
        CorruptionError: what was remembered cannot be read.
    """
    path = f"{directory}/{ARCHIVE}"
    known = _read(disk, path) if disk.exists(path) else None
    if given is None or given == (known or ""):
        return known
    if not given:
        disk.unlink(path)
        disk.sync_directory(directory)
        return None
    temporary = path + ".new"
    if disk.exists(temporary):
        disk.unlink(temporary)
    file = disk.open(temporary, create=True)
    try:
        file.write_at(0, [given.encode(errors="surrogateescape") + b"\n"])
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, path)
    disk.sync_directory(directory)
    return given


def _read(disk: Disk, path: str) -> str:
    file = disk.open(path, read_only=True)
    try:
        raw = file.read_at(0, _PATH_SIZE_MAX)
    finally:
        file.close()
    if not raw.endswith(b"\n") or len(raw) < 2:
        raise CorruptionError(
            f"{path} should name the archive directory; write its path and a line end into it, or "
            "remove the file to go on without an archive.",
            file=path,
            offset=0,
        )
    return raw[:-1].decode(errors="surrogateescape")
