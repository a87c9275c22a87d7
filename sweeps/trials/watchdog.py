"""Ends a worker whose trial hangs, so that the trial resumes from its checkpoint in another worker.

The timer is Python's `faulthandler`: a thread outside of the interpreter, which also works while a kernel, a driver or
a network call holds the interpreter's lock. Each sign of life (`qa_core/heartbeat.py`) resets it. When it expires, it
writes the stack of every thread into the trial's folder and ends the process. The driver is told of a dead worker
(`Driver.lost`) and reads the reason here. A process that the system has stopped, or cannot end, is not found.
"""

import faulthandler
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from qa_core import files, heartbeat
from qa_core.errors import DataError, StorageError
from sweeps.run_folder.layout import HANG_FILE, TrialFolder

SET_BACK_SECONDS = 1.0  # at most so often: each time costs a thread
SIGN_SECONDS = 10.0  # at most so often the file is touched, which may lie on slow storage
FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)$', re.MULTILINE)


@dataclass(frozen=True)
class Hang:
    """Why a worker was ended: where the trial stood, in one line and in full."""

    place: str
    stacks: str


@contextmanager
def watched(folder: Path, minutes: float | None) -> Iterator[None]:
    """End this process when the block is silent for longer; until then, leave signs of life for `last_sign`.

    Args:
        folder: of the trial; there.
        minutes: None ends nothing.

    Raises:
        StorageError: the folder cannot be written.
    """
    forget_hang(folder)
    sign = _signs(TrialFolder(folder).alive)
    if minutes is None:
        with heartbeat.heard_by(sign):
            yield
        return
    seconds = 60 * minutes
    pause = min(SET_BACK_SECONDS, seconds / 4)
    set_back_at = float("-inf")
    try:
        file = TrialFolder(folder).hang.open("w")
    except OSError as error:
        raise StorageError(f"{TrialFolder(folder).hang}: cannot be written: {error}") from error

    def set_back() -> None:
        nonlocal set_back_at
        sign()
        if time.monotonic() - set_back_at >= pause:
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)
            set_back_at = time.monotonic()

    with file:
        try:
            set_back()
            with heartbeat.heard_by(set_back):
                yield
        finally:
            faulthandler.cancel_dump_traceback_later()  # before its file is closed
    forget_hang(folder)


def last_sign(folder: Path) -> float | None:
    """Return when the trial last gave a sign of life, by the clock of its storage; None when it has given none."""
    try:
        return TrialFolder(folder).alive.stat().st_mtime
    except OSError:
        return None


def _signs(file: Path) -> Callable[[], None]:
    """Return what touches the file, now and then however often it is called."""
    touched_at = float("-inf")

    def sign() -> None:
        nonlocal touched_at
        if time.monotonic() - touched_at >= SIGN_SECONDS:
            touched_at = time.monotonic()
            with suppress(OSError):  # a sign that is missed once ends nothing
                file.touch()

    return sign


def read_hang(folder: Path) -> Hang | None:
    """Return where the trial stood when its worker was ended for hanging; None when it was not."""
    try:
        stacks = files.read_bytes(TrialFolder(folder).hang, inside=folder).decode(errors="replace")
    except files.MissingFile:
        return None
    except DataError as error:
        return Hang(f"{HANG_FILE} cannot be read: {error}", "")
    if not stacks.strip():
        return None
    frames = list(FRAME.finditer(stacks))
    own = [match for match in frames if {"qa_core", "sweeps"} & set(Path(match["file"]).parts)] or frames
    if not own:
        return Hang("an unknown place", stacks)
    return Hang(f"{Path(own[0]['file']).name}:{own[0]['line']}, in {own[0]['name']}", stacks)


def forget_hang(folder: Path) -> None:
    """Remove what an earlier worker of the trial left."""
    TrialFolder(folder).hang.unlink(missing_ok=True)
