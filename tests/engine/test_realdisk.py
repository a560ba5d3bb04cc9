"""The real files: what the protocol promises, on the machine that runs the test."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest

from tests.crash.simdisk import SimDisk
from treestore.engine.realdisk import RealDisk, RealFile


@pytest.fixture(params=["real", "simulated"])
def place(request, tmp_path):
    """A disk and an empty directory on it: both implementations keep the same promises."""
    if request.param == "real":
        return RealDisk(), str(tmp_path)
    disk = SimDisk()
    disk.make_directory("/d")
    return disk, "/d"


def test_write_and_read(place):
    disk, directory = place
    file = disk.open(f"{directory}/f", create=True)
    assert file.path == f"{directory}/f"
    file.write_at(3, [b"abc", bytearray(b"de"), memoryview(b"xfgx")[1:3], b""])
    file.sync()
    assert file.size() == 10
    assert file.read_at(0, 100) == b"\0\0\0abcdefg"
    assert file.read_at(4, 2) == b"bc"
    assert file.read_at(10, 5) == file.read_at(99, 5) == b""
    file.write_at(3, [b"X"])
    file.close()
    file.close()
    assert disk.open(f"{directory}/f", read_only=True).read_at(3, 3) == b"Xbc"


def test_allocate_and_truncate(place):
    disk, directory = place
    file = disk.open(f"{directory}/f", create=True)
    file.write_at(0, [b"abc"])
    file.allocate(5000)
    assert file.read_at(0, 6000) == b"abc".ljust(5000, b"\0")
    file.allocate(10)
    assert file.size() == 5000
    file.truncate(2)
    assert file.read_at(0, 10) == b"ab"
    file.allocate(4)
    assert file.read_at(0, 10) == b"ab\0\0"


def test_names(place):
    disk, directory = place
    a, b = f"{directory}/a", f"{directory}/b"
    disk.open(b, create=True).write_at(0, [b"b"])
    disk.open(a, create=True).write_at(0, [b"a"])
    assert disk.list(directory) == ["a", "b"]
    disk.rename(a, b)
    disk.sync_directory(directory)
    assert disk.list(directory) == ["b"]
    assert disk.open(b).read_at(0, 1) == b"a"
    assert (disk.exists(a), disk.exists(b), disk.exists(directory)) == (False, True, True)
    disk.unlink(b)
    assert disk.list(directory) == []
    disk.make_directory(f"{directory}/sub")
    disk.make_directory(f"{directory}/sub")
    assert disk.list(f"{directory}/sub") == []
    assert disk.free_bytes(directory) > 0


def test_errors(place):
    disk, directory = place
    path = f"{directory}/f"
    with pytest.raises(FileNotFoundError):
        disk.open(path)
    for act in (lambda: disk.unlink(path), lambda: disk.rename(path, path + "2")):
        with pytest.raises(FileNotFoundError):
            act()
    with pytest.raises(FileNotFoundError):
        disk.list(f"{directory}/missing")
    with pytest.raises(FileNotFoundError):
        disk.open(f"{directory}/missing/f", create=True)
    file = disk.open(path, create=True)
    with pytest.raises(FileExistsError):
        disk.open(path, create=True)
    with pytest.raises(OSError, match="Bad file"):
        disk.open(path, read_only=True).write_at(0, [b"x"])
    file.close()
    for act in (lambda: file.read_at(0, 1), lambda: file.write_at(0, [b"x"]), file.sync):
        with pytest.raises(OSError, match="Bad file"):
            act()


def test_locks(place):
    disk, directory = place
    path = f"{directory}/lock"
    lock = disk.lock(path)
    with pytest.raises(BlockingIOError):
        disk.lock(path)
    other = disk.lock(f"{directory}/other")
    lock.release()
    lock.release()
    again = disk.lock(path)
    lock.release()
    with pytest.raises(BlockingIOError):
        disk.lock(path)
    again.release()
    other.release()


def test_two_disks_of_one_process_share_locks(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    lock = RealDisk().lock(str(tmp_path / "lock"))
    with pytest.raises(BlockingIOError, match="this process"):
        RealDisk().lock(str(tmp_path / "link" / "lock"))
    lock.release()


def test_another_process_is_refused(tmp_path):
    path = str(tmp_path / "lock")
    program = (
        "import sys\n"
        "from treestore.engine.realdisk import RealDisk\n"
        "try:\n    RealDisk().lock(sys.argv[1])\n"
        "except BlockingIOError as error:\n    print(error.strerror)\n"
        "else:\n    print('free')\n"
    )

    def ask() -> str:
        command = [sys.executable, "-c", program, path]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    lock = RealDisk().lock(path)
    assert ask() == "held by another process"
    lock.release()
    assert ask() == "free"


def test_many_buffers_and_partial_writes(tmp_path, monkeypatch):
    file = RealDisk().open(str(tmp_path / "f"), create=True)
    buffers = [bytes([n % 251]) * (n % 7) for n in range(5000)]
    file.write_at(1, buffers)
    assert file.read_at(1, 1 << 20) == b"".join(buffers)
    real = os.pwritev
    calls = []

    def partial(fd, views, offset):
        calls.append(len(views))
        return real(fd, [b"".join(views)[:1000]], offset)

    monkeypatch.setattr(os, "pwritev", partial)
    file.write_at(100_000, buffers)
    assert file.read_at(100_000, 1 << 20) == b"".join(buffers)
    assert len(calls) == -(-len(b"".join(buffers)) // 1000)
    assert max(calls) <= 1024
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    with pytest.raises(OSError, match="wrote nothing"):
        file.write_at(0, [b"x"])


def test_short_reads_are_continued(tmp_path, monkeypatch):
    file = RealDisk().open(str(tmp_path / "f"), create=True)
    file.write_at(0, [bytes(range(100))])
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: real(fd, min(n, 7), at))
    assert file.read_at(10, 60) == bytes(range(10, 70))
    assert file.read_at(90, 60) == bytes(range(90, 100))


def test_file_systems_without_allocation(tmp_path, monkeypatch):
    file = RealDisk().open(str(tmp_path / "f"), create=True)
    file.write_at(0, [b"abc"])

    def refuse(fd, offset, size):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    file.allocate(3 << 20)
    assert file.read_at(0, 4 << 20) == b"abc".ljust(3 << 20, b"\0")

    def full(fd, offset, size):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="full"):
        file.allocate(4 << 20)
    assert file.size() == 3 << 20


def test_files_are_private_and_not_inherited(tmp_path):
    disk = RealDisk()
    disk.make_directory(str(tmp_path / "d"))
    file = disk.open(str(tmp_path / "d" / "f"), create=True)
    assert os.stat(tmp_path / "d").st_mode & 0o077 == 0
    assert os.stat(tmp_path / "d" / "f").st_mode & 0o077 == 0
    assert isinstance(file, RealFile)
    assert not os.get_inheritable(file._fd)
    file.close()


def test_a_directory_cannot_be_made_over_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(FileExistsError):
        RealDisk().make_directory(str(tmp_path / "f"))


def test_reads_from_many_threads(tmp_path):
    file = RealDisk().open(str(tmp_path / "f"), create=True)
    file.write_at(0, [bytes([n]) * 4096 for n in range(200)])
    wrong: list[int] = []

    def read(start):
        blocks = [file.read_at(n * 4096, 4096) for n in range(start, 200)]
        wrong.extend(n for n, block in enumerate(blocks, start) if block != bytes([n]) * 4096)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
