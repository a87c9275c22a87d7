"""MLflow as a mirror of a sweep: told of each event, it writes the sweep's runs, and survives what MLflow does.

Only the driver writes here, so an embedded SQLite store has one writer. `records.jsonl` is the source of truth: what
MLflow does not take is retried, counted and shown, and never ends a sweep. Which runs there are, and what each has:
`mlflow_runs.py`; the caller: `sweeps/trials/ray_driver.py`.
"""

import logging
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qa_core.errors import ConfigError, counted
from sweeps.progress.mlflow_pages import description, front_values, runs_page, scatter_page
from sweeps.progress.mlflow_retry import retry
from sweeps.progress.mlflow_runs import SWEEP_STATUS, SweepRuns
from sweeps.progress.mlflow_store import STORES, default_tracking_uri, sqlite_file
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.masking import masked_about, masked_address
from sweeps.run_folder.model_id import ModelId

SLOW_SECONDS = 10.0  # of opening a store, after which a line says what the sweep waits for
DATABASE_ERROR = re.compile(r"^(\([\w.]+\) )+|\s*\[SQL:.*$")
MOST_TRACEBACKS = 20  # that wait for the disk
PAUSE_SECONDS = 60.0  # no call for so long after one failed: an unreachable server must not slow the sweep
EARLIER = "before the sweep was resumed"  # why a trial is paused that was so when the sweep was resumed
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pause:
    """A pause that MLflow may not know of: reports that it may not have, and why the trial is paused."""

    reports: Sequence[Mapping[str, Any]]
    why: str


class Tracker:
    """Mirrors one sweep into MLflow. Use `Tracker.start`; after it, no method raises because of MLflow."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        run_folder: Path,
        tracking_uri: str | None,
        experiment: str,
        parent_run_id: str | None = None,
        notify: Callable[[str], None] = LOGGER.warning,
    ) -> None:
        """Take in what `open` needs; nothing is opened or written.

        Args:
            spec: the sweep's settings; they become parameters of the parent run, `spec["name"]` its name.
            run_folder: the sweep's folder; its parent holds the embedded store and the artifacts.
            tracking_uri: an MLflow server or database; None for the embedded SQLite store.
            experiment: the name under which MLflow shows the sweep.
            parent_run_id: the run that a resumed sweep continues; its children are found by trial id.
            notify: called with one line when tracking fails first, and by `finish` if it ever failed.
        """
        self.tracking_uri = tracking_uri or default_tracking_uri(run_folder)
        self.failures = 0  # calls that MLflow did not take
        self._spec, self._experiment, self._former_parent = spec, experiment, parent_run_id
        self._is_named = tracking_uri is not None
        self._folder = run_folder
        self._notify = notify
        self._runs: SweepRuns | None = None
        self._missed: dict[str, Mapping[str, Any]] = {}  # trial id -> record that MLflow does not have yet
        self._lost: dict[str, list[Mapping[str, Any]]] = {}  # trial id -> reports that MLflow did not take
        self._missed_pauses: dict[str, _Pause] = {}  # trial id -> what MLflow does not know of its pause
        self._missed_front: tuple[Sequence[Path], float, set[ModelId], int] | None = None
        self._tracebacks: list[str] = []  # not written yet
        self._silent_until = 0.0
        self._is_opened_again = False  # later, where the server of a resumed sweep did not answer

    @classmethod
    def start(cls, spec: Mapping[str, Any], **arguments: Any) -> "Tracker":
        """Return an opened tracker; arguments and errors are those of `__init__` and `open`."""
        tracker = cls(spec, **arguments)
        tracker.open()
        return tracker

    def open(self) -> None:
        """Open the store and the sweep's parent run, unless they are; the sweep's folder must be its own by now.

        Raises:
            ConfigError: a new sweep names a `tracking_uri` that cannot be used. Any other trouble leaves a
                tracker that does nothing but say so, and, of a resumed sweep, tries again later.
        """
        if self._runs is not None:
            return
        slow = threading.Timer(SLOW_SECONDS, self._notify, [f"MLflow: waiting for {self._shown_uri}"])
        slow.daemon = True
        slow.start()
        try:
            self._runs = self._opened()
        except Exception as error:
            if self.may_refuse:
                raise ConfigError(
                    f"tracking-uri: MLflow cannot use {self._shown_uri!r}: {self._in_short(error)} (allowed: "
                    f"{STORES}, or nothing for the embedded store)"
                ) from error
            self._failed("start", error)
            self._is_opened_again = self._former_parent is not None
        finally:
            slow.cancel()

    def _opened(self) -> SweepRuns:
        runs = SweepRuns.open(self.tracking_uri, self._folder, self._experiment)
        if self._former_parent is not None and not runs.has(self._former_parent):
            self._notify(
                f"MLflow: the sweep's former run is not in {self._shown_uri}; it is mirrored into a new one"
            )
            self._former_parent = None
        runs.open_parent(self._spec, self._former_parent)
        if self._former_parent is None:  # a resumed sweep keeps its text until its front changes
            runs.describe(description(self._spec, self._folder, ()))
        return runs

    @property
    def may_refuse(self) -> bool:
        """Whether `open` refuses a store that cannot be used: a new sweep's, where somebody has named it."""
        return self._is_named and self._former_parent is None

    @property
    def _shown_uri(self) -> str:
        return masked_address(self.tracking_uri)

    @property
    def parent_run_id(self) -> str | None:
        """The sweep's run in MLflow, which `start` needs to resume the sweep; None without tracking."""
        return self._runs.parent if self._runs else None

    @property
    def runs_page(self) -> str | None:
        """Where MLflow's UI shows the runs, relative to its address; None without tracking."""
        if self._runs is None:
            return None
        return runs_page(self._runs.experiment_id)

    @property
    def scatter_page(self) -> str | None:
        """Where MLflow's UI shows the models of this sweep as a scatter, relative to its address; as `runs_page`."""
        if self._runs is None:
            return None
        return scatter_page(self._runs.experiment_id, self._runs.parent)

    def trial_started(self, trial_id: str, label: str = "") -> None:
        """Open the run of a trial that a worker has taken up."""
        self._missed_pauses.pop(trial_id, None)
        self._guard("trial_started", lambda runs: runs.start(trial_id))

    def trial_paused(self, trial_id: str, examples_seen: int, why: str) -> None:
        """Close the run of a trial that gave up its worker, tagged `paused`; it is opened again with the trial.

        A pause that MLflow does not take is tried again by `finish`, with the reports that it did not take.
        """
        self._missed_pauses[trial_id] = _Pause(self._lost.pop(trial_id, ()), why)
        self._guard("trial_paused", lambda runs: self._log_pause(runs, trial_id))

    def trial_reported(self, trial_id: str, progress: Mapping[str, Any]) -> None:
        """Log one report of a running trial."""
        if not self._guard("trial_reported", lambda runs: runs.log_curve(trial_id, [progress])):
            self._lost.setdefault(trial_id, []).append(progress)

    def front_changed(
        self, points: Sequence[Mapping[str, Any]], hypervolume: float, *, spent_examples: int
    ) -> None:
        """Log hypervolume, size and best values of the front on the parent run, at `spent_examples`; describe it."""
        models = [ModelId(str(row["trial_id"]), row.get("form")) for row in points]
        values = front_values(self._spec, points, hypervolume)
        text = description(self._spec, self._folder, points)

        def log(runs: SweepRuns) -> None:
            runs.log_numbers(runs.parent, values, step=spent_examples)
            runs.tag_front(set(models))
            runs.describe(text)

        self._guard("front_changed", log)

    def note(self, text: str) -> None:
        """Nothing: MLflow has no place for a line that belongs to no trial."""

    def trial_ended(self, record: Mapping[str, Any]) -> None:
        """Write the run of an ended trial, and those of its stored forms: parameters, curve, final numbers, status.

        A second call with the same `trial_id` updates these runs and doubles nothing. A record that MLflow does
        not take is tried again by `finish`.
        """
        trial_id = str(record["trial_id"])
        self._missed[trial_id] = record
        self._lost.pop(trial_id, None)  # the record has all reports
        self._missed_pauses.pop(trial_id, None)
        if self._guard("trial_ended", lambda runs: runs.log_record(trial_id, record)):
            del self._missed[trial_id]

    def catch_up(
        self,
        past: Iterable[Mapping[str, Any]],
        paused: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
    ) -> None:
        """Write what MLflow did not hear of before the sweep was resumed.

        Args:
            past: records of trials that ended, with their forms.
            paused: trial id -> reports of a trial that is paused.
        """
        self._missed |= {str(record["trial_id"]): record for record in past}
        self._missed_pauses |= {trial_id: _Pause(curve, EARLIER) for trial_id, curve in paused.items()}
        self._guard("catch_up", self._log_missed)

    def log_front(
        self,
        front_files: Sequence[Path],
        hypervolume: float,
        front_models: Iterable[ModelId],
        *,
        spent_examples: int,
    ) -> None:
        """Put the front's files and hypervolume on the parent and the tag `on_front` on its models alone.

        Args:
            front_models: on the front: trials, or stored forms of trials.
            spent_examples: training windows that all trials consumed: the step of the hypervolume.
        """
        front = (list(front_files), hypervolume, set(front_models), spent_examples)
        self._missed_front = None if self._guard("log_front", lambda runs: runs.log_front(*front)) else front

    def finish(self, status: str) -> None:
        """End the parent run as `finished`, `interrupted` or `failed`, after one more try of what was missed.

        Runs of trials that never ended are closed as killed.
        """
        assert status in SWEEP_STATUS, status
        self._silent_until = 0.0
        if self._missed or self._missed_pauses:
            self._guard("catch_up", self._log_missed)
        if self._missed_front:
            files, hypervolume, models, spent_examples = self._missed_front
            self.log_front(files, hypervolume, models, spent_examples=spent_examples)
        self._guard("finish", lambda runs: runs.close(status))
        if self.failures:
            self._write_tracebacks()
            count = len(self._missed) + len(self._missed_pauses)
            missed = f"{counted(count, 'trial')} missing there" if count else "no trial missing there"
            self._notify(
                f"MLflow: {counted(self.failures, 'call')} failed; {missed}, and records.jsonl has every trial; "
                f"tracebacks: {RunFolder(self._folder).tracking_errors}"
            )

    def withdraw(self) -> None:
        """Delete the parent run of a sweep that was refused before its first trial; MLflow keeps it as deleted."""
        self._silent_until = 0.0
        self._guard("withdraw", lambda runs: runs.delete())

    def _log_missed(self, runs: SweepRuns) -> None:
        for trial_id, record in list(self._missed.items()):
            if not runs.holds(trial_id, record):
                runs.log_record(trial_id, record)
            del self._missed[trial_id]
        for trial_id, pause in list(self._missed_pauses.items()):
            if pause.why == EARLIER and runs.knows_as_paused(trial_id):
                del self._missed_pauses[trial_id]
            else:
                self._log_pause(runs, trial_id)

    def _log_pause(self, runs: SweepRuns, trial_id: str) -> None:
        pause = self._missed_pauses[trial_id]
        if pause.reports:
            runs.log_curve(trial_id, pause.reports)
        runs.pause(trial_id, pause.why)
        del self._missed_pauses[trial_id]

    def _guard(self, operation: str, call: Callable[[SweepRuns], object]) -> bool:
        """Do something in MLflow; True when it went through. Whatever it raises is counted, not passed on."""
        if time.monotonic() < self._silent_until:
            return False
        try:
            if self._runs is None:
                if not self._is_opened_again:
                    return False
                self._runs = self._opened()
            runs = self._runs
            retry(lambda: call(runs))
        except Exception as error:
            self._failed(operation, error)
            return False
        return True

    def _failed(self, operation: str, error: Exception) -> None:
        self.failures += 1
        self._silent_until = time.monotonic() + PAUSE_SECONDS
        if self.failures == 1:
            self._notify(
                f"MLflow: {operation} failed, the sweep continues without it: {self._in_short(error)}"
            )
        text = "".join(traceback.format_exception(error))
        self._tracebacks.append(masked_about(self.tracking_uri, f"{operation}\n{text}\n"))
        self._write_tracebacks()

    def _in_short(self, error: Exception) -> str:
        """Return in one line what went wrong, without the SQL that a database's errors quote."""
        file = sqlite_file(self.tracking_uri)
        if self._runs is not None and file is not None and not file.exists():
            return f"its database {file} is gone"
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return masked_about(self.tracking_uri, DATABASE_ERROR.sub("", line))[:300]

    def _write_tracebacks(self) -> None:
        """Append them to the error file; they wait while the disk does not take them, the latest ones that is."""
        del self._tracebacks[:-MOST_TRACEBACKS]
        try:
            with RunFolder(self._folder).tracking_errors.open("a", encoding="utf-8") as file:
                file.write("".join(self._tracebacks))
        except OSError:
            return
        self._tracebacks.clear()
