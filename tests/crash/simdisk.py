"""A simulated medium behind the `Disk` protocol, for crash tests.

Every file has two images: *live* is what a reader sees, *durable* is what is certainly on the
medium. Writes change the live image and mark 512-byte sectors as unsynced; `File.sync` copies
them. Names work alike: creating, renaming and removing change the live names at once and the
durable ones at `sync_directory` (syncing a file does not make its name durable).

- `SimDisk.crash` is a power failure: it gives a *new* disk with an image that the medium may
  legally hold. Each unsynced sector is kept, lost or torn on its own; each unsynced change of a
  size or name happened or did not.
- `SimDisk.restart` is the death of the process only: the live images stay, *still unsynced*.
- A sync that fails (`fail_next`) writes some sectors and then forgets which were unsynced, as
  operating systems do: the live image keeps bytes that no later sync will write.

Each call that changes something is a step. `on_step` sees its number before it happens and may
raise `Crash`; from then on the disk does nothing any more, so that clean-up code of what is
being tested cannot act after the power is gone. Everything random comes from the seed.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

SECTOR = 512

CHANGES = (
    *("open", "write", "allocate", "truncate", "sync"),
    *("make_directory", "remove_directory", "rename", "unlink", "sync_directory"),
)
"""The operations that are steps (``open`` only where it creates)."""

Buffer = bytes | bytearray | memoryview


class Crash(BaseException):
    """The power is gone. Not an `Exception`: nothing that is tested may handle it."""


@dataclass(eq=False)
class Inode:
    """A file's two images, and the sectors in which a crash may show either."""

    live: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: set[int] = field(default_factory=set)

    def touch(self, begin: int, end: int) -> None:
        """Mark the sectors of a range of bytes as unsynced."""
        self.unsynced.update(range(begin // SECTOR, -(-end // SECTOR)))

    def resize(self, size: int) -> None:
        """Change the live size; new bytes are zeros."""
        present = len(self.live)
        if size > present:
            self.live.extend(bytes(size - present))
            self.touch(present, size)
        else:
            del self.live[size:]
            self.unsynced = {sector for sector in self.unsynced if sector * SECTOR < size}

    def settle(self, sectors: set[int]) -> None:
        """Put these sectors, and the size, on the medium; nothing counts as unsynced after."""
        size = len(self.live)
        if len(self.durable) < size:
            self.durable.extend(bytes(size - len(self.durable)))
        del self.durable[size:]
        for sector in sectors:
            begin = sector * SECTOR
            self.durable[begin : begin + SECTOR] = self.live[begin : begin + SECTOR]
        self.unsynced = set()

    def after_crash(self, random: Random) -> Inode:
        """What may be on the medium after a power failure."""
        size = random.choice([len(self.durable), len(self.live)])
        image = self.durable[:size]
        image.extend(bytes(size - len(image)))
        kept = random.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        torn = random.choice([0.0, 0.0, 0.3])
        for sector in sorted(self.unsynced):
            begin = sector * SECTOR
            end = min(begin + SECTOR, size)
            old, new = bytes(image[begin:end]), bytes(self.live[begin:end])
            if end <= begin or old == new:
                continue
            if random.random() < torn:
                image[begin:end] = _torn(old, new.ljust(end - begin, b"\0"), random)
            elif random.random() < kept:
                image[begin:end] = new.ljust(end - begin, b"\0")
        return Inode(bytearray(image), bytearray(image))


def _torn(old: bytes, new: bytes, random: Random) -> bytes:
    cut = random.randrange(len(new) + 1)
    kind = random.randrange(3)
    if kind == 0:
        return new[:cut] + old[cut:]
    if kind == 1:
        return old[:cut] + new[cut:]
    return new[:cut] + random.randbytes(len(new) - cut)


@dataclass(eq=False)
class Change:
    """An unsynced change of a name: of ``inode`` from ``source`` to ``target`` ("" for none)."""

    inode: Inode | None
    source: str
    target: str

    @property
    def directory(self) -> str:
        return posixpath.dirname(self.target or self.source)

    def apply(self, names: dict[str, Inode | None]) -> None:
        """Do it, unless what it needs never happened."""
        if self.source:
            if names.get(self.source, self) is not self.inode:
                return
            del names[self.source]
        if self.target:
            names[self.target] = self.inode
        if self.source and self.inode is None:
            # A directory takes along what is in it, or is gone with it.
            for name in [name for name in names if name.startswith(self.source + "/")]:
                inode = names.pop(name)
                if self.target:
                    names[self.target + name[len(self.source) :]] = inode


@dataclass
class Failure:
    """A failure that waits for its call."""

    op: str
    errno: int
    path: str
    skip: int


class SimFile:
    """An open file of a `SimDisk`; see `treestore.engine.disk.File`."""

    def __init__(self, disk: SimDisk, path: str, inode: Inode, read_only: bool) -> None:
        self.path = path
        self.inode = inode
        self._disk = disk
        self._life = disk.life
        self._read_only = read_only
        self._open = True

    def _check(self, writing: bool = True) -> None:
        if self._life != self._disk.life:
            raise self._disk.gone("a file of a process that is gone")
        if not self._open or (writing and self._read_only):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self.path)

    def read_at(self, offset: int, size: int) -> bytes:
        self._check(writing=False)
        self._disk.fail_if_due("read", self.path)
        return bytes(self.inode.live[offset : offset + size])

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self._check()
        data = b"".join(buffers)
        inode = self.inode

        def write(size: int) -> None:
            if offset + size > len(inode.live):
                self._disk.check_room(offset + size - len(inode.live), self.path)
                inode.resize(offset + size)
            inode.live[offset : offset + size] = data[:size]
            inode.touch(offset, offset + size)

        self._disk.step("write", self.path, lambda: write(self._disk.random.randrange(len(data))))
        write(len(data))

    def size(self) -> int:
        self._check(writing=False)
        return len(self.inode.live)

    def allocate(self, size: int) -> None:
        self._check()
        self._disk.step("allocate", self.path)
        if size > len(self.inode.live):
            self._disk.check_room(size - len(self.inode.live), self.path)
            self.inode.resize(size)

    def truncate(self, size: int) -> None:
        self._check()
        self._disk.step("truncate", self.path)
        self.inode.resize(size)

    def sync(self) -> None:
        self._check()
        inode, random = self.inode, self._disk.random

        def forget() -> None:
            inode.settle({sector for sector in sorted(inode.unsynced) if random.random() < 0.5})

        self._disk.step("sync", self.path, forget)
        inode.settle(inode.unsynced)

    def forget(self, offset: int, size: int) -> None:
        self._check(writing=False)

    def close(self) -> None:
        self._open = False


class SimLock:
    """A held lock of a `SimDisk`; see `treestore.engine.disk.Lock`."""

    def __init__(self, disk: SimDisk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._life = disk.life
        self._held = True

    def release(self) -> None:
        if self._held and self._life == self._disk.life:
            self._disk.locks.discard(self._path)
        self._held = False


class SimDisk:
    """See the head of this file, and `treestore.engine.disk.Disk`.

    Attributes:
        steps: how many steps were begun.
        on_step: called with number (from 1), operation and path before each step.
        capacity_bytes: sum of the file sizes above which writing gives ENOSPC; None: no limit.
        random: for what failed calls leave behind.
        life: counts processes; files and locks of an earlier one are dead.
        dead: whether nothing can be done with it any more.
        gone: makes the exception that is then raised. An `OSError` lets what is tested end by
            itself, where several lives of it go on in one process.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)
        self.steps = 0
        self.on_step: Callable[[int, str, str], None] | None = None
        self.capacity_bytes: int | None = None
        self.locks: set[str] = set()
        self.life = 0
        self.dead = False
        self.gone: Callable[[str], BaseException] = Crash
        # A directory is a name without an inode. The root always exists.
        self._names: dict[str, Inode | None] = {"/": None}
        self._durable_names: dict[str, Inode | None] = {"/": None}
        self._changes: list[Change] = []
        self._failures: list[Failure] = []

    # -- what tests do to it --------------------------------------------------------------------

    def crash(self, random: Random) -> SimDisk:
        """A new disk with what may be on the medium if the power fails now."""
        names = dict(self._durable_names)
        if random.random() < 0.5:  # a journal keeps the order
            chosen = self._changes[: random.randint(0, len(self._changes))]
        else:  # nothing promises that it does
            chosen = [change for change in self._changes if random.random() < 0.5]
        for change in chosen:
            change.apply(names)
        other = SimDisk(random.getrandbits(32))
        images: dict[Inode, Inode] = {}
        for path, inode in sorted(names.items()):
            if inode is not None and inode not in images:
                images[inode] = inode.after_crash(random)
            if path == "/" or posixpath.dirname(path) in other._names:
                other._names[path] = None if inode is None else images[inode]
        other._durable_names = dict(other._names)
        other.capacity_bytes = self.capacity_bytes
        return other

    def killed(self) -> SimDisk:
        """A new disk as the next process finds it where this one dies now, and nothing else.

        What was not synced is still there, and still not synced.
        """
        other = SimDisk(self.random.getrandbits(32))
        copies: dict[Inode, Inode] = {}

        def copy(inode: Inode | None) -> Inode | None:
            if inode is not None and inode not in copies:
                copies[inode] = Inode(inode.live[:], inode.durable[:], set(inode.unsynced))
            return None if inode is None else copies[inode]

        other._names = {path: copy(inode) for path, inode in self._names.items()}
        other._durable_names = {path: copy(inode) for path, inode in self._durable_names.items()}
        other._changes = [
            Change(copy(change.inode), change.source, change.target) for change in self._changes
        ]
        other.capacity_bytes = self.capacity_bytes
        return other

    def restart(self) -> None:
        """The process is gone, its locks too; the operating system keeps what it had."""
        self.life += 1
        self.locks.clear()
        self.dead = False
        self.on_step = None
        self._failures.clear()

    def hand_over(self) -> SimDisk:
        """`restart`, but for a process that may not know yet that it is gone: this disk is dead,
        and a new one has all that the operating system had, still unsynced."""
        other = SimDisk(self.random.getrandbits(32))
        other._names, other._durable_names = self._names, self._durable_names
        other._changes = self._changes
        other.capacity_bytes = self.capacity_bytes
        self.dead = True
        self._names, self._durable_names, self._changes = {"/": None}, {"/": None}, []
        return other

    def fail_next(self, op: str, number: int, path: str = "", skip: int = 0) -> None:
        """Let a call fail: the next ``op`` (or "read") on a path that contains ``path``.

        Args:
            op: one of `CHANGES`, or "read".
            number: of the error, such as ``errno.EIO``.
            path: part of the path; "" for any.
            skip: how many such calls succeed before.
        """
        if op not in (*CHANGES, "read"):
            raise ValueError(op)
        self._failures.append(Failure(op, number, path, skip))

    def heal(self) -> None:
        """Forget the failures that were ordered and did not happen yet."""
        self._failures.clear()

    def image(self, path: str) -> bytes:
        """A file's live bytes."""
        return bytes(self._inode(path).live)

    def durable_image(self, path: str) -> bytes:
        """A file's bytes that are certainly on the medium."""
        return bytes(self._inode(path).durable)

    def poke(self, path: str, offset: int, data: bytes) -> None:
        """Change bytes on the medium behind everybody's back."""
        inode = self._inode(path)
        inode.live[offset : offset + len(data)] = data
        inode.durable[offset : offset + len(data)] = data

    def clone(self) -> SimDisk:
        """A copy with the same live images, all of them durable."""
        other = SimDisk(self.random.getrandbits(32))
        for path, inode in self._names.items():
            copy = None if inode is None else Inode(inode.live[:], inode.live[:])
            other._names[path] = other._durable_names[path] = copy
        return other

    def used_bytes(self) -> int:
        """The sum of the sizes of all files."""
        # A list first: other threads may create and remove files meanwhile.
        inodes = list(self._names.values())
        return sum(len(inode.live) for inode in inodes if inode is not None)

    # -- what its files use ---------------------------------------------------------------------

    def step(self, op: str, path: str, spoil: Callable[[], None] | None = None) -> None:
        """Begin a step; where it is to fail, first do ``spoil``."""
        if self.dead:
            raise self.gone("the power is gone")
        self.steps += 1
        if self.on_step is not None:
            try:
                self.on_step(self.steps, op, path)
            except Crash:
                self.dead = True
                raise
        self.fail_if_due(op, path, spoil)

    def fail_if_due(self, op: str, path: str, spoil: Callable[[], None] | None = None) -> None:
        """Raise the failure that a test ordered for this call, if any."""
        if self.dead:
            raise self.gone("the power is gone")
        for failure in self._failures:
            if failure.op == op and failure.path in path:
                if failure.skip:
                    failure.skip -= 1
                    continue
                self._failures.remove(failure)
                if spoil is not None and failure.errno != errno.ENOSPC:
                    spoil()
                raise OSError(failure.errno, os.strerror(failure.errno), path)

    def check_room(self, growth: int, path: str) -> None:
        """Raise ENOSPC where the files would outgrow the capacity."""
        if self.capacity_bytes is not None and self.used_bytes() + growth > self.capacity_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _inode(self, path: str) -> Inode:
        inode = self._names.get(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return inode

    def _change(self, inode: Inode | None, source: str, target: str) -> None:
        change = Change(inode, source, target)
        change.apply(self._names)
        self._changes.append(change)

    # -- the protocol ---------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> SimFile:
        if create:
            self.step("open", path)
            if path in self._names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            if self._names.get(posixpath.dirname(path), self) is not None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._change(Inode(), "", path)
        return SimFile(self, path, self._inode(path), read_only)

    def exists(self, path: str) -> bool:
        return path in self._names

    def list(self, directory: str) -> list[str]:
        if self._names.get(directory, self) is not None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
        names = (name for name in self._names if name != "/")
        return sorted(posixpath.basename(n) for n in names if posixpath.dirname(n) == directory)

    def make_directory(self, path: str) -> None:
        self.step("make_directory", path)
        if path not in self._names:
            if posixpath.dirname(path) not in self._names:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._change(None, "", path)

    def remove_directory(self, path: str) -> None:
        self.step("remove_directory", path)
        if self.list(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        self._change(None, path, "")

    def rename(self, source: str, target: str) -> None:
        self.step("rename", source)
        if self._names.get(source, self) is None:
            self._rename_directory(source, target)
        else:
            self._change(self._inode(source), source, target)

    def _rename_directory(self, source: str, target: str) -> None:
        if target in self._names and self.list(target):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), target)
        # Which unsynced names are in it after a crash is not simulated: nobody may rely on it.
        if any(f"{change.directory}/".startswith(f"{source}/") for change in self._changes):
            raise AssertionError(f"{source} is renamed before its names were synced")
        self._change(None, source, target)

    def unlink(self, path: str) -> None:
        self.step("unlink", path)
        self._change(self._inode(path), path, "")

    def sync_directory(self, path: str) -> None:
        self.step("sync_directory", path)
        waiting = []
        for change in self._changes:
            if change.directory == path:
                change.apply(self._durable_names)
            else:
                waiting.append(change)
        self._changes = waiting

    def lock(self, path: str, *, create: bool = True) -> SimLock:
        if path not in self._names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._change(Inode(), "", path)
        if path in self.locks:
            raise BlockingIOError(errno.EWOULDBLOCK, "held", path)
        self.locks.add(path)
        return SimLock(self, path)

    def free_bytes(self, path: str) -> int:
        capacity = 1 << 40 if self.capacity_bytes is None else self.capacity_bytes
        return max(0, capacity - self.used_bytes())
