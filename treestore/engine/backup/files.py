"""Directories that appear under their name only when they are whole, and small checked files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os.path
from collections.abc import Callable, Generator
from typing import Any

from treestore.engine.disk import Disk
from treestore.errors import (
    AlreadyExists,
    CorruptionError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)

UNFINISHED = ".unfinished"
"""Suffix of a directory that is being written."""

JSON_SIZE_BYTES_MAX = 256 << 20


@contextlib.contextmanager
def disk_errors(path: str) -> Generator[None]:
    """Turn what the operating system says about ``path`` into errors for people."""
    try:
        yield
    except OSError as error:
        text = f"{path}: {error.strerror or error}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceExhausted(f"There is no room on the disk for {path}.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise PermissionDenied(f"{text} Give this user the permission.") from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EBUSY):
            raise InvalidArgument(f"{text} Choose another path.") from error
        raise Unavailable(text) from error


def begin_directory(disk: Disk, path: str, ours: Callable[[str], bool]) -> str:
    """Make the directory that will become ``path``; its name until then.

    Args:
        ours: whether a name is one that an earlier attempt can have left there.

    Raises:
        AlreadyExists: ``path`` is there and not an empty directory.
        InvalidArgument: the folder to make it in is not there, or what stands in the way is not
            ours.
    """
    parent = os.path.dirname(path) or "."
    if not disk.exists(parent):
        raise InvalidArgument(f"There is no folder {parent} to make {path} in; create it first.")
    if disk.exists(path) and _names(disk, path) != []:
        raise AlreadyExists(
            f"{path} exists and is not an empty directory; choose another path or remove it."
        )
    unfinished = path + UNFINISHED
    if disk.exists(unfinished):
        names = _names(disk, unfinished)
        if names is None or not all(map(ours, names)):
            raise InvalidArgument(
                f"{unfinished} stands in the way and is no remains of an earlier attempt; move it "
                "away or choose another path."
            )
        remove_tree(disk, unfinished)
    disk.make_directory(unfinished)
    disk.sync_directory(parent)
    return unfinished


def finish_directory(disk: Disk, unfinished: str) -> str:
    """Give a directory, everything in which was synced, its name, durably."""
    path = unfinished.removesuffix(UNFINISHED)
    disk.sync_directory(unfinished)
    disk.rename(unfinished, path)
    disk.sync_directory(os.path.dirname(path) or ".")
    return path


def _names(disk: Disk, path: str) -> list[str] | None:
    """What is in a directory; None where it is none."""
    try:
        return disk.list(path)
    except (NotADirectoryError, FileNotFoundError):
        return None


def remove_tree(disk: Disk, path: str) -> None:
    """Remove a directory with everything in it, durably."""
    for name in disk.list(path):
        inner = f"{path}/{name}"
        if _names(disk, inner) is None:
            disk.unlink(inner)
        else:
            remove_tree(disk, inner)
    disk.sync_directory(path)
    disk.remove_directory(path)
    disk.sync_directory(os.path.dirname(path) or ".")


def json_checksum(document: dict[str, Any]) -> str:
    """The sha256 that a document carries: of itself without the field ``checksum``."""
    bare = {name: value for name, value in document.items() if name != "checksum"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(disk: Disk, path: str, document: dict[str, Any]) -> None:
    """Write a new file that carries its own checksum, and sync it (not its directory)."""
    document = {**document, "checksum": json_checksum(document)}
    file = disk.open(path, create=True)
    try:
        file.write_at(0, [json.dumps(document, indent=1).encode() + b"\n"])
        file.sync()
    finally:
        file.close()


def read_json(disk: Disk, path: str) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        NotFound: there is no such file.
        CorruptionError: it is not as it was written.
    """
    try:
        file = disk.open(path, read_only=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"There is no {path}.") from error
    try:
        raw = file.read_at(0, min(file.size(), JSON_SIZE_BYTES_MAX))
    finally:
        file.close()
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("checksum") != json_checksum(document):
        raise CorruptionError(
            f"{path} is damaged or was changed: its checksum does not match.", file=path, offset=0
        )
    return document
