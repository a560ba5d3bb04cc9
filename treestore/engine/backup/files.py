"""What the operating system says, in errors for people; and small files that carry a checksum."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from collections.abc import Generator
from typing import Any

from treestore.engine.disk import Disk
from treestore.errors import (
    CorruptionError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)

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
