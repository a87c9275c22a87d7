"""What ends a sweep before its time: an exception of the driver, of Ray or of the storage, as an error with a way on.

Ray drops some exceptions that its callbacks raise and wraps others. `ray_driver.py` catches them where they arise and
ends the sweep with what `as_fault` returns."""

import errno
import os
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path

from qa_core.errors import QaError, StorageError
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.masking import masked_text

# Storage that no trial can write to any more. One file that cannot be read (EIO, EBADMSG) fails its trial alone.
LASTING_FAULTS = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE)))
LEAST_FREE_BYTES = 2**20
NO_FILE = (ConnectionError, TimeoutError)  # OSErrors of networks, not of files


class SweepFault(QaError):
    """The program or a library it uses failed during a sweep; the message says where its traceback is."""


def as_fault(error: BaseException, folder: Path) -> QaError:
    """Return the error that ends the sweep in `folder` for an exception, which is stored there with its traceback.

    Returns:
        An error of the user's or of the storage, where one is in the exception's chain; StorageError where the disk is
        full; else SweepFault.
    """
    for cause in _chain(error):
        if isinstance(cause, QaError):
            return cause
        if isinstance(cause, OSError) and cause.errno and not isinstance(cause, NO_FILE):
            return StorageError(f"{cause.filename or folder}: {cause.strerror or cause}")
    if _is_full(folder):
        return StorageError(f"{folder}: {os.strerror(errno.ENOSPC)}")
    where = _stored("".join(traceback.format_exception(error)), folder)
    return SweepFault(f"the program failed: {_in_words(error)}; {where}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception, and then what it was raised from or while handling."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < LEAST_FREE_BYTES
    except OSError:
        return False


def _in_words(error: BaseException) -> str:
    """Return type, message and place of an exception in one line; Ray's wrapper is taken off."""
    while type(error).__module__.startswith("ray.") and error.__context__ is not None:
        error = error.__context__
    message = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    return masked_text(f"{type(error).__name__}: {message[:300]}{place}")


def _stored(text: str, folder: Path) -> str:
    """Append a traceback to the fault file and say where it is."""
    text = masked_text(text)
    try:
        with RunFolder(folder).fault.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError:
        return f"its traceback could not be stored:\n{text}"
    return f"its traceback is in {RunFolder(folder).fault}"
