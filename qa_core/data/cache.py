"""Files that are made once on a machine and shared by every trial on it.

A file is written under a lock to a temporary name, flushed to the disk and moved into place, so that a reader
sees the whole file or none. A damaged file is made again. What is in the files is the business of
`windows.py` and `tokenizers.py`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from filelock import FileLock

from qa_core import files, heartbeat
from qa_core.errors import DataError, StorageError

Value = TypeVar("Value")
Content = TypeVar("Content")


class DamagedFile(Exception):
    """A cached file is not what it should be; raised by `read` functions, never seen by callers."""


def default_cache_dir() -> Path:
    """Return where tokenised data are shared: $QA_SWEEPS_CACHE, else the user's cache folder.

    Raises:
        StorageError: nothing is named, and the user has no home folder.
    """
    named = os.environ.get("QA_SWEEPS_CACHE")
    try:
        return Path(named) if named else Path.home() / ".cache" / "qa-sweeps"
    except RuntimeError as error:
        raise StorageError(
            f"QA_SWEEPS_CACHE: found nothing, and the user has no home folder: {error}"
        ) from error


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
    if found := _found(path, read):
        return found[0]
    with _storage_errors(path.parent):
        files.make_folder(path.parent)
        lock = FileLock(path.with_name(path.name + ".lock"))
        heartbeat.acquire(lock)
    try:
        if found := _found(path, read):  # another process made it while this one waited
            return found[0]
        content = make()
        files.remove_leftovers(path)
        with (
            _storage_errors(path.parent),
            files.written_file(path) as temporary,
            temporary.open("wb") as file,
        ):
            write(file, content)
        return read(path)
    finally:
        lock.release()


def _found(path: Path, read: Callable[[Path], Value]) -> tuple[Value] | None:
    """Return what a file holds; None where there is none, or one that is damaged or cannot be read."""
    try:
        files.checked_file(path, most_bytes=files.DATA_BYTES)
        return (read(path),)
    except (DamagedFile, DataError, OSError):
        return None


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into a message that names the folder."""
    try:
        yield
    except (OSError, StorageError) as error:
        cause = error.__cause__ if isinstance(error, StorageError) else error
        reason = getattr(cause, "strerror", None) or error
        raise StorageError(
            f"cache folder {folder}: cannot be written: {reason}; allowed: a folder with free "
            "space and write permission"
        ) from error
