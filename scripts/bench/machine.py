"""On what the numbers were measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from pathlib import Path


def describe_machine(directory: Path) -> dict[str, str]:
    """Cores, memory, kernel and versions, in words."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "?"),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system(directory),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "trio": importlib.metadata.version("trio"),
        "msgspec": importlib.metadata.version("msgspec"),
        "sqlite3": sqlite3.sqlite_version,
        "py-lmdb": importlib.metadata.version("lmdb"),
        "asyncpg": importlib.metadata.version("asyncpg"),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def file_system(directory: Path) -> str:
    """The type of the file system that holds ``directory`` (Linux), such as ``ext4``."""
    best, found = "", "unknown"
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return found
    for line in mounts:
        _, mount, kind, *_ = line.split()
        inside = str(directory.resolve()).startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, found = mount, kind
    return found
