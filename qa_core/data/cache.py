"""Files that are made once on a machine and shared by every trial on it.

A file is written under a lock to a temporary name, flushed to the disk and moved into place, so that a reader
sees the whole file or none. A damaged file is made again. What is in the files is the business of
`windows.py` and `tokenizers.py`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from filelock import FileLock

from qa_core import heartbeat
from qa_core.errors import StorageError

Value = TypeVar("Value")
Content = TypeVar("Content")


class DamagedFile(Exception):
    """A cached file is not what it should be; raised by `read` functions, never seen by callers."""


def read_or_make(
    path: Path,
    *,
    read: Callable[[Path], Value],
    make: Callable[[], Content],
    write: Callable[[BinaryIO, Content], None],
) -> Value:
    """Return `read(path)`, after making the file where it is absent or damaged.

    Args:
        path: the file; its folder is created.
        read: opens the file; raises `DamagedFile` when the content is not complete.
        make: computes the content; called by one process at a time.
        write: writes the content to a binary file.

    Raises:
        StorageError: the folder cannot be written to: no space, no permission, not a folder.
    """
    with suppress(DamagedFile, FileNotFoundError, NotADirectoryError):
        return read(path)
    with _storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        heartbeat.acquire(lock)
    try:
        with suppress(DamagedFile, FileNotFoundError):  # another process made it while this one waited
            return read(path)
        content = make()
        with _storage_errors(path.parent):
            _write_atomically(path, lambda file: write(file, content))
        return read(path)
    finally:
        lock.release()


def _write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    temporary = path.with_name(path.name + ".tmp")  # the caller holds the lock; a leftover is overwritten
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into a message that names the folder."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cache folder {folder}: cannot be written: {error.strerror or error}; allowed: a folder with "
            "free space and write permission"
        ) from error
