"""Directories that appear under their name only when they are whole.

They are made under another name beside it, and everything in them is synced before the rename. What
an attempt that died left behind is removed by the next one.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Generator
from contextlib import contextmanager

from treestore.engine.disk import Disk
from treestore.errors import AlreadyExists, InvalidArgument

UNFINISHED = ".unfinished"
"""Suffix of a directory that is being written."""


@contextmanager
def new_directory(disk: Disk, path: str, ours: Callable[[str], bool]) -> Generator[str]:
    """Make ``path`` in the ``with``, which gets its name until then; gone where that raises.

    Raises:
        AlreadyExists, InvalidArgument: see `begin_directory`.
    """
    unfinished = begin_directory(disk, path, ours)
    try:
        yield unfinished
        finish_directory(disk, unfinished)
    except BaseException:
        if disk.exists(unfinished):
            remove_tree(disk, unfinished)
        raise


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
