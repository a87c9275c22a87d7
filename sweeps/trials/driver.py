"""The state of one sweep: what was proposed, what was reported, the records and the front. Knows nothing of Ray.

`ray_driver.py` asks `Driver.propose` for trials and tells it what happens to them. Every event goes to the journal or
to `records.jsonl` first, then to searcher, console and tracker; a driver built on a `Past` resumes from it.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from qa_core.config import RunConfig
from qa_core.data.cache import default_cache_dir
from qa_core.errors import ConfigError, QaError, StorageError, counted
from qa_core.schema import Progress
from qa_core.seeding import derive_seed
from qa_core.values import from_dict, to_dict
from sweeps.budget.gpu_shares import GpuShare
from sweeps.front.comparability import MIXED_WITH_PAST
from sweeps.front.front import choosable, compute_front
from sweeps.progress.console import error_signature
from sweeps.progress.observer import Observer
from sweeps.run_folder import provenance, records
from sweeps.run_folder.journal import Journal, Past, PastTrial
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.masking import masked_values
from sweeps.run_folder.records import Record
from sweeps.run_folder.trial_files import TrialFiles
from sweeps.schedulers.base import Curves, make_scheduler
from sweeps.searchers.base import Searcher
from sweeps.space.forms import forms_of
from sweeps.space.space import Space
from sweeps.spec.sections import SweepSpec
from sweeps.trials.faults import LASTING_FAULTS
from sweeps.trials.running import Running, died_too_often, ending_of, hung, record_of
from sweeps.trials.task import TrialTask, forget_outcome, read_outcome
from sweeps.trials.watchdog import read_hang

PROGRESS = tuple(field.name for field in fields(Progress))  # what is kept of a report


class Driver:
    """Every event of a sweep ends here."""

    def __init__(
        self,
        spec: SweepSpec,
        *,
        space: Space,
        searcher: Searcher,
        folder: Path,
        observers: Sequence[Observer],
        past: Past | None = None,
    ) -> None:
        """Take in what happened before.

        Args:
            folder: of the sweep; there.
            observers: told of each event, in this order.
            past: of a sweep that is resumed; trials that have not ended are proposed again, first.
        """
        self.spec, self.space, self.searcher = spec, space, searcher
        # Absolute: a worker's current folder is not the driver's.
        self.folder, self.observers = folder.resolve(), tuple(observers)
        self.scheduler = make_scheduler(spec.scheduler.name, spec.scheduler.options)
        self.rungs = self.scheduler.rungs(spec.budget.examples)
        self.journal = Journal(self.folder)
        self.records: list[Record] = []
        self.running: dict[str, Running] = {}
        self.provenance = provenance.collect()
        self.pause_file = RunFolder(self.folder).pause
        self.pause_file.unlink(missing_ok=True)
        self.ended_by: str | None = None  # why no more trials are proposed, when it is not the budget
        self.fault: QaError | None = None  # the sweep cannot go on: see `faults.py`
        self.lock = threading.RLock()  # held by the thread that tells of an event
        self.is_closed = False  # nothing more is taken in
        self.refused: ConfigError | None = None  # a node that joined later cannot run its trials
        least = spec.resources.least_gpus
        # Of a recipe: what it is given of a GPU. For `auto`, `ray_driver.py` sets another.
        self.gpu_share_of: Callable[[RunConfig], GpuShare] = lambda recipe: GpuShare(least)
        self._alike: list[str] = []  # trials that failed alike, in a row
        self._signature: str | None = None  # of their error
        self._proposed = 0
        self._again: deque[Running] = deque()
        self.spent_examples = 0  # by all trials, ended or not
        for trial in (past or Past()).trials:
            self._remember(trial)
        self.front = compute_front(self.records, spec.objectives)
        self.files = TrialFiles(RunFolder(self.folder).trials, spec.budget.keep_artifacts)
        self._free([record.trial_id for record in self.records])

    @property
    def trials_left(self) -> int:
        """Trials that the budget still allows, those that go on included."""
        return max(0, self.spec.budget.trials - self._proposed) + len(self._again)

    def note(self, text: str) -> None:
        """Tell the observers of something that belongs to no trial."""
        for observer in self.observers:
            observer.note(text)

    def history(self) -> Curves:
        """Return the reports of all former trials, ended or not, from which the scheduler is rebuilt."""
        curves = {record.trial_id: record.curve for record in self.records}
        return curves | {item.task.trial_id: list(item.curve) for item in self._again}

    def propose(self) -> TrialTask | None:
        """Return the next trial to run, or None when the searcher has no more or the sweep is to end."""
        if self.ended_by is not None:
            return None
        if self._again:
            running = self._again.popleft()
            running.task = self._with_share(running.task)
            self.running[running.task.trial_id] = running
            return running.task
        if self._proposed >= self.spec.budget.trials:
            return None
        proposal = self.searcher.propose()
        if proposal is None:
            return None
        trial_id = f"t{self._proposed:04d}"
        self._proposed += 1
        recipe = self.space.to_run_config(
            proposal.assignment, seed=derive_seed(self.spec.seed, trial_id) % 2**31, rungs=self.rungs
        )
        task = self._with_share(self._task(trial_id, to_dict(recipe)))
        self.journal.proposed(
            trial_id, assignment=proposal.assignment, notes=proposal.notes, recipe=task.recipe
        )
        self.running[trial_id] = Running(task, proposal)
        return task

    def started(self, trial_id: str) -> None:
        """Note that a worker took the trial up."""
        running = self.running[trial_id]
        self.journal.started(trial_id)
        running.started = time.time()
        running.starts += 1
        running.is_on_worker = True
        label = self.space.label(running.proposal.assignment)
        for observer in self.observers:
            observer.trial_started(trial_id, label)

    def reported(self, trial_id: str, metrics: Mapping[str, Any], *, is_stopped: bool) -> None:
        """Note a rung and the scheduler's verdict; the final report is left to `ended`.

        A trial that went on from a checkpoint may report its rung again, which counts once.
        """
        running = self.running.get(trial_id)
        if metrics.get("final") or running is None:
            return
        seen = running.curve[-1]["examples_seen"] if running.curve else 0
        if metrics["examples_seen"] <= seen:
            return
        progress = {key: metrics[key] for key in PROGRESS}
        self.journal.reported(trial_id, progress, is_stopped=is_stopped)
        running.curve.append(progress)
        running.is_stopped = is_stopped
        self.spent_examples += progress["examples_seen"] - seen
        for observer in self.observers:
            observer.trial_reported(trial_id, progress)
        self._watch_disk()  # its checkpoint was written before

    def lost(self, trial_id: str, error: str, *, is_own: bool) -> None:
        """Resume a trial whose worker is lost, from its checkpoint.

        Args:
            trial_id: of the trial; one that noted its own exception before has failed by that.
            error: what Ray says of it.
            is_own: the worker's process died alone, for which the trial may be to blame: after
                `budget.max_lost_workers` of these it has failed. Lost nodes and networks do not count.
        """
        running = self.running.get(trial_id)
        if running is None:
            return
        running.lost_workers += is_own
        limit = self.spec.budget.max_lost_workers
        hang = read_hang(Path(running.task.folder)) if is_own else None
        if running.is_stopped or read_outcome(Path(running.task.folder)) is not None:
            self.ended(trial_id, {}, None)
        elif running.lost_workers > limit:
            self.ended(trial_id, {}, died_too_often(error, hang, self.spec.budget))
        else:
            del self.running[trial_id]
            reached = running.curve[-1]["examples_seen"] if running.curve else 0
            running.task = replace(running.task, reported_examples=reached)
            running.is_on_worker = False
            self._again.append(running)
            what = "its worker died" if hang is None else hung(hang, self.spec.budget)
            often = f"{what} ({running.lost_workers} of {limit} times)" if is_own else "its node was lost"
            self.note(f"{trial_id}: {often}; it resumes")

    def ended(self, trial_id: str, metrics: Mapping[str, Any], error: str | None) -> None:
        """Turn a trial's end into its record, tell the searcher the truth, and renew the front.

        A trial that Ray ends without a result, an error or a verdict was cut short by the sweep's own end, such as
        its time limit: it has no record and resumes with the sweep.
        """
        running = self.running.get(trial_id)
        if running is None:
            return
        result = metrics.get("result") if metrics.get("final") and error is None else None
        ending = (
            {"status": "ok", "reason": None, "traceback": None}
            if result
            else ending_of(running, error, scheduler=self.spec.scheduler.name)
        )
        if ending is None:
            running.is_on_worker = False
            return
        ending = masked_values(ending)  # an error's words can hold what a library was given
        if any(fault in (ending["reason"] or "") for fault in LASTING_FAULTS):
            self.fail(StorageError(f"trial {trial_id}: {ending['reason']}"))
            return
        del self.running[trial_id]
        record = record_of(
            running, metrics, result, ending, spec=self.spec, folder=self.folder, provenance=self.provenance
        )
        self.records.append(record)
        records.append(RunFolder(self.folder).records, record)
        seen = running.curve[-1]["examples_seen"] if running.curve else 0
        self.spent_examples += max(0, record.examples_seen - seen)
        self.searcher.tell(running.proposal.id, record.status, self._values(record))
        for observer in self.observers:
            observer.trial_ended(records.to_dict(record))
        self._renew_front(is_new_point=record.status == "ok")
        self._free([trial_id])
        self._watch_failures(record)

    def end(self, why: str) -> None:
        """Let the sweep end: nothing more is proposed, and running trials write checkpoints for a resume."""
        if self.ended_by is None:
            self.ended_by = why
            self.note(f"{why}; running trials write checkpoints")
            try:
                self.pause_file.touch()
            except OSError as error:
                self.fail(StorageError(f"{self.pause_file}: cannot be written: {error}"))

    def fail(self, fault: QaError) -> None:
        """Let the sweep end at once, because its files cannot be written or the program failed; its files stay."""
        self.fault = self.fault or fault
        self.is_closed = True
        self.ended_by = self.ended_by or str(fault)

    def refuse(self, why: str) -> None:
        """Let the sweep end, because a node refused the trial that it took; a resume continues that trial.

        Such a node ends a trial within seconds and is given the next one: it would spend all that are left.
        """
        self.refused = self.refused or ConfigError(
            f"{why}; trials that ended are kept, others resume with --resume"
        )
        self.end(why)

    def settle(self) -> None:
        """Record the former trials that the scheduler had stopped when the sweep ended before their records."""
        for running in [item for item in self._again if item.is_stopped]:
            self._again.remove(running)
            self.running[running.task.trial_id] = running
            self.ended(running.task.trial_id, {}, None)

    def mark_mixed(self, differs: Sequence[str]) -> None:
        """Let the records to come say in what their trials do not compare with those that had finished before."""
        if differs:
            former = self.provenance.get(MIXED_WITH_PAST) or []
            self.provenance[MIXED_WITH_PAST] = [*former, *differs]

    def counts(self) -> Counter[str]:
        """Return how many trials ended in each status."""
        return Counter(record.status for record in self.records)

    def unfinished(self) -> int:
        """Return how many trials were proposed and have no record."""
        return self._proposed - len(self.records)

    def _free(self, trial_ids: Sequence[str]) -> None:
        """Remove what trials with records no longer need, and look at what is left."""
        self.files.ended(trial_ids, choosable(self.front))
        self._watch_disk()

    def _watch_disk(self) -> None:
        """End the sweep when its trials' files hold more than they may."""
        limit = self.spec.budget.max_disk_gb
        if limit is None or self.ended_by is not None:
            return
        open_trials = [*self.running, *(item.task.trial_id for item in self._again)]
        used_gb = self.files.used_bytes(open_trials) / 1e9
        if used_gb > limit:
            self.end(
                f"the trials' files hold {used_gb:.3g} GB (budget.max_disk_gb: {limit:g}); a resumed sweep takes "
                "another --max-disk-gb"
            )

    def _watch_failures(self, record: Record) -> None:
        """End the sweep when too many trials in a row fail in the same way: the next ones would too."""
        signature = error_signature(record.reason or "") if record.status == "failed" else None
        if signature != self._signature:
            self._signature, self._alike = signature, []
        if signature is not None:
            self._alike.append(record.trial_id)
        if len(self._alike) >= self.spec.budget.max_same_failures:
            self.end(
                f"{counted(len(self._alike), 'trial')} in a row failed alike (budget.max_same_failures): "
                f"{record.reason}"
            )

    def _remember(self, trial: PastTrial) -> None:
        self._proposed += 1
        record = trial.record
        status = None if record is None else record.status
        values = None if record is None else self._values(record)
        proposal = self.searcher.remember(trial.assignment, status, values, trial.notes)
        if record is not None:
            self.records.append(record)
            self.spent_examples += record.examples_seen
            return
        reached = trial.curve[-1]["examples_seen"] if trial.curve else 0
        self.spent_examples += reached
        task = self._task(trial.trial_id, trial.recipe, reported_examples=reached)
        forget_outcome(Path(task.folder))  # its record was not written: what happened then will happen again
        running = Running(task, proposal, curve=list(trial.curve), is_stopped=trial.is_stopped)
        running.starts = trial.starts
        self._again.append(running)

    def _task(self, trial_id: str, recipe: Mapping[str, Any], *, reported_examples: int = 0) -> TrialTask:
        forms = forms_of(from_dict(RunConfig, recipe), self.spec.forms)
        return TrialTask(
            trial_id=trial_id,
            recipe=dict(recipe),
            folder=str(RunFolder(self.folder).trial(trial_id).path),
            cache_dir=str(default_cache_dir()),
            threads=max(1, int(self.spec.resources.cpus_per_trial)),
            objectives=tuple(objective.name for objective in self.spec.objectives),
            max_memory_mb=self.spec.budget.max_memory_mb,
            reported_examples=reported_examples,
            pause_file=str(self.pause_file),
            sweep_folder=str(self.folder),
            hang_minutes=self.spec.budget.hang_minutes,
            forms=tuple({"label": form.label, "settings": form.settings} for form in forms),
        )

    def _with_share(self, task: TrialTask) -> TrialTask:
        """Return the task with what it is given of a GPU; known only once the nodes have been looked at."""
        share = self.gpu_share_of(from_dict(RunConfig, task.recipe))
        return replace(task, gpu_share=share.gpu_share, predicted_bytes=share.predicted_bytes)

    def _values(self, record: Record) -> list[float] | None:
        if record.status != "ok" or record.objectives is None:
            return None
        return [record.objectives[objective.name] for objective in self.spec.objectives]

    def _renew_front(self, *, is_new_point: bool) -> None:
        """Draw the front again, so that it counts every trial that ended; say so where it may have changed."""
        self.front = compute_front(self.records, self.spec.objectives)
        if not is_new_point:
            return
        rows = [row for row in self.front.rows() if row["on_front"]]
        for observer in self.observers:
            observer.front_changed(rows, self.front.hypervolume, spent_examples=self.spent_examples)
