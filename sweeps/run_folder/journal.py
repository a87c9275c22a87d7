"""`journal.jsonl`: what a resume needs to know of trials that have not ended.

The driver appends a line before a trial starts, at each start on a worker and at each report, with the scheduler's
verdict. A resumed sweep is rebuilt from this file and from `records.jsonl`, which has the trials that ended. Ray's own
state is not read back; the progress of a trial is in its own checkpoint. See `sweeps/trials/driver.py`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.errors import ConfigError, DataError, StorageError, unknown
from qa_core.values import convert
from sweeps.run_folder import json_lines, records
from sweeps.run_folder.layout import DATA_FOLDER, DRIVER_LOCK, JOURNAL_FILE, RunFolder
from sweeps.run_folder.masking import masked_address
from sweeps.run_folder.records import Record

EVENTS = ("tracked", "proposed", "started", "reported")


@dataclass
class PastTrial:
    """One trial of an earlier start of the sweep; `record` is None while it has not ended."""

    trial_id: str
    assignment: dict[str, Any]
    notes: dict[str, Any]  # the searcher's
    recipe: dict[str, Any]
    curve: list[dict[str, Any]] = field(default_factory=list)
    starts: int = 0
    is_stopped: bool = False  # the scheduler's verdict on the last report
    is_paused: bool = False  # it gave up its worker on its last report, and no worker took it up since
    record: Record | None = None


@dataclass(frozen=True)
class Past:
    """A sweep as its files tell it: trials in the order in which they were proposed."""

    trials: tuple[PastTrial, ...] = ()
    tracking: Mapping[str, Any] = field(
        default_factory=dict
    )  # tracking_uri and parent_run_id, if there was tracking
    notes: tuple[str, ...] = ()  # what was odd about the files


class Journal:
    """Writes the journal of one sweep. Every method raises StorageError when the disk does not take it."""

    def __init__(self, folder: Path) -> None:
        self._path = RunFolder(folder).journal

    def tracked(self, tracking_uri: str, parent_run_id: str) -> None:
        """Note where the sweep is mirrored; a password in the address is masked, as every secret in these lines."""
        self._write("tracked", tracking_uri=masked_address(tracking_uri), parent_run_id=parent_run_id)

    def proposed(
        self,
        trial_id: str,
        *,
        assignment: Mapping[str, Any],
        notes: Mapping[str, Any],
        recipe: Mapping[str, Any],
    ) -> None:
        """Note a trial before it starts."""
        values = {"assignment": dict(assignment), "notes": dict(notes), "recipe": dict(recipe)}
        self._write("proposed", trial_id=trial_id, **values)

    def started(self, trial_id: str) -> None:
        """Note that a worker took the trial up, for the first time or again."""
        self._write("started", trial_id=trial_id)

    def reported(
        self, trial_id: str, progress: Mapping[str, Any], *, is_stopped: bool, is_paused: bool = False
    ) -> None:
        """Note a report, and whether the trial was stopped or paused on it."""
        verdict = {"is_stopped": is_stopped, "is_paused": is_paused}
        self._write("reported", trial_id=trial_id, progress=dict(progress), **verdict)

    def _write(self, event: str, **values: Any) -> None:
        json_lines.append(self._path, {"event": event, **values}, what=f"journal, {event}")


def read(folder: Path) -> Past:
    """Return what happened so far in a folder with a sweep's settings; nothing, if it ended before its first trial.

    Raises:
        DataError: there are records without a journal, or a line of the files is malformed; the message names it.
    """
    path = RunFolder(folder).journal
    if not files.is_there(path):
        if files.is_there(RunFolder(folder).records):
            raise DataError(
                f"{folder}: cannot be resumed: it has no {JOURNAL_FILE}; allowed: `front` and `export`, which do "
                "without, and another sweep in another folder (--out)"
            )
        return Past()
    found, notes = json_lines.read(path)
    trials: dict[str, PastTrial] = {}
    tracking: dict[str, Any] = {}
    for place, values in found:
        try:
            _take_in(values, trials, tracking)
        except (KeyError, TypeError, ValueError, ConfigError, DataError) as error:
            problem = f"misses {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{place}: {problem}") from error
    if files.is_there(RunFolder(folder).records):
        loaded = records.load(RunFolder(folder).records)
        notes += loaded.notes
        for record in loaded.records:
            trial = trials.get(record.trial_id)
            if trial is None or trial.record is not None:
                problem = "is not in the journal" if trial is None else "stands twice"
                raise DataError(f"{RunFolder(folder).records}: trial {record.trial_id} {problem}")
            trial.record = record
    return Past(tuple(trials.values()), tracking, notes)


def count_paused(folder: Path) -> int:
    """Return how many trials of a sweep are paused; 0 where a journal is missing or cannot be read."""
    try:
        return sum(trial.is_paused and trial.record is None for trial in read(folder).trials)
    except DataError:
        return 0


def check_free(folder: Path) -> None:
    """Refuse a folder for a new sweep that holds something already, beside its data; raises StorageError."""
    own = {DRIVER_LOCK, DATA_FOLDER}
    if files.is_there(folder) and (not files.is_folder(folder) or set(files.entries(folder)) - own):
        raise StorageError(f"{folder}: exists already; choose another folder with --out")


class SweepIsRunning(StorageError):
    """Another process runs the sweep."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a sweep's folder against a second driver; the kernel releases the lock when this process dies.

    Raises:
        SweepIsRunning: another process runs this sweep.
        StorageError: the folder cannot be written.
    """
    busy = SweepIsRunning(f"{folder}: another process is running this sweep")
    with files.locked(RunFolder(folder).driver_lock, seconds=0, busy=busy):
        yield


def _take_in(values: Mapping[str, Any], trials: dict[str, PastTrial], tracking: dict[str, Any]) -> None:
    event = values["event"]
    if event == "tracked":
        tracking |= {name: _of_type(values, name, str) for name in ("tracking_uri", "parent_run_id")}
    elif event == "proposed":
        trial_id, expected = _of_type(values, "trial_id", str), f"t{len(trials):04d}"
        if trial_id in trials:
            raise DataError(f"trial {trial_id} was proposed twice")
        assignment, notes, recipe = (
            _of_type(values, name, dict) for name in ("assignment", "notes", "recipe")
        )
        if trial_id != expected:  # the name of its folder, and the next trial's is counted from here
            raise DataError(f"trial_id: found {trial_id!r}; allowed: {expected!r}, the next one")
        trials[trial_id] = PastTrial(trial_id, assignment, notes, recipe)
    elif event == "started":
        trial = trials[_of_type(values, "trial_id", str)]
        trial.starts += 1
        trial.is_paused = False
    elif event == "reported":
        trial = trials[_of_type(values, "trial_id", str)]
        progress = _of_type(values, "progress", dict)
        _of_type(progress, "examples_seen", int)
        trial.curve.append(progress)
        trial.is_stopped = _of_type(values, "is_stopped", bool)
        # Older journals know no pause.
        trial.is_paused = "is_paused" in values and _of_type(values, "is_paused", bool)
    else:
        raise DataError(unknown("event", str(event), EVENTS))


def _of_type(values: Mapping[str, Any], name: str, kind: type) -> Any:
    return convert(kind, values[name], name, strict=True)
