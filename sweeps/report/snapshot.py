"""What a report is made of: a sweep's settings, its records, its front, and the trials that have not ended."""

import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.errors import DataError
from sweeps.front.result import FrontResult
from sweeps.run_folder import journal
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.records import Record

RUNNING, ENDED, INTERRUPTED = "running", "ended", "interrupted"  # states of a sweep
PAUSED, UNFINISHED = "paused", "unfinished"  # states of a trial without a record; also RUNNING


@dataclass(frozen=True)
class OpenTrial:
    """A trial without a record: it runs, is paused, or was cut short."""

    trial_id: str
    state: str
    config: Mapping[str, Any]
    assignment: Mapping[str, Any]
    curve: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Snapshot:
    """A sweep at one moment. `folder` is where it lies, `spec` its settings as plain values."""

    folder: Path
    spec: Mapping[str, Any]
    records: Sequence[Record]
    result: FrontResult
    open_trials: Sequence[OpenTrial] = field(default=())
    state: str = ENDED


def read_snapshot(folder: Path, records: Sequence[Record], result: FrontResult) -> Snapshot:
    """Return what the files of a sweep's folder say; a journal that is missing or damaged gives no open trials.

    Raises:
        DataError: its settings cannot be read.
    """
    spec = files.read_object(RunFolder(folder).spec, inside=folder)
    running = is_running(folder)
    trials = open_trials(folder, running=running)
    return Snapshot(folder, spec, tuple(records), result, trials, _state(folder, trials, running=running))


def state_of(folder: Path) -> str:
    """Return whether the sweep in a folder runs, has ended, or was interrupted."""
    running = is_running(folder)
    return _state(folder, open_trials(folder, running=running), running=running)


def is_running(folder: Path) -> bool:
    """Tell whether a process on this machine holds the lock of the sweep; it is looked at, and nothing is written."""
    try:
        handle = os.open(RunFolder(folder).driver_lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def open_trials(folder: Path, *, running: bool) -> tuple[OpenTrial, ...]:
    """Return the trials of a folder's journal that have no record."""
    try:
        past = journal.read(folder)
    except DataError:
        return ()
    return tuple(
        OpenTrial(
            trial.trial_id,
            PAUSED if trial.is_paused else RUNNING if running else UNFINISHED,
            trial.recipe,
            trial.assignment,
            trial.curve,
        )
        for trial in past.trials
        if trial.record is None
    )


def _state(folder: Path, trials: Sequence[OpenTrial], *, running: bool) -> str:
    """Return the state: interrupted is what left trials cut short, or was told to end early."""
    if running:
        return RUNNING
    cut_short = any(trial.state == UNFINISHED for trial in trials)
    return INTERRUPTED if cut_short or files.is_there(RunFolder(folder).pause) else ENDED
