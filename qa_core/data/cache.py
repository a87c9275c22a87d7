"""Files that are made once on a machine and shared by every trial on it.

A file is written under a lock to a temporary name, flushed to the disk and moved into place, so that a reader sees the
whole file or none. A damaged file is made again. What is in the files is the business of `windows.py` and
`tokenizers.py`.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from filelock import FileLock

from qa_core.errors import StorageError

Value = TypeVar("Value")


class DamagedFile(Exception):
    """A cached file cannot be read as what it should be; raised by `read` functions, never seen by callers."""


def read_or_make(path: Path, *, read: Callable[[Path], Value], make: Callable[[BinaryIO], None]) -> Value:
    """Return `read(path)`, after making the file where it is absent or damaged.

    Args:
        path: the file; its folder is created.
        read: opens the file; raises `DamagedFile` when the content is not complete.
        make: writes the content to a binary file.

    Raises:
        StorageError: the folder cannot be written to: no space, no permission, not a folder.
    """
    with suppress(DamagedFile, FileNotFoundError, NotADirectoryError):
        return read(path)
    with _storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        lock.acquire()
    try:
        with suppress(DamagedFile, FileNotFoundError):  # another process made it while this one waited
            return read(path)
        _write_atomically(path, make)
        return read(path)
    finally:
        lock.release()


def _write_atomically(path: Path, make: Callable[[BinaryIO], None]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with _storage_errors(path.parent), temporary.open("wb") as file:
            make(file)
            file.flush()
            os.fsync(file.fileno())
        with _storage_errors(path.parent):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _storage_errors:  # noqa: N801 - reads as a statement
    """Turn the operating system's refusal to write into a message that names the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StorageError(
                f"cache folder {self.folder}: cannot be written: {error.strerror or error}; allowed: a folder with "
                "free space and write permission"
            ) from error
