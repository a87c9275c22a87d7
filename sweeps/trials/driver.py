"""The state of one sweep: what was proposed, what was reported, the records and the front. Knows nothing of Ray.

`ray_driver.py` asks `Driver.propose` for trials and tells it what happens to them. Every event goes to the journal or
to `records.jsonl` first, then to searcher, console and tracker; a driver built on a `Past` resumes from it. What a free
worker does is decided in `sweeps/schedulers/pausing.py`, from what is known here.
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
from sweeps.budget.examples import Spending
from sweeps.budget.gpu_shares import GpuShare
from sweeps.front.comparability import MIXED_WITH_PAST
from sweeps.front.front import choosable, compute_front
from sweeps.progress.console import error_signature
from sweeps.progress.observer import Observer
from sweeps.run_folder import provenance, records
from sweeps.run_folder.journal import Journal, Past, PastTrial
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.masking import masked_values
from sweeps.run_folder.noted_forms import noted_forms
from sweeps.run_folder.records import Record
from sweeps.run_folder.trial_files import TrialFiles
from sweeps.schedulers.base import Curves, make_scheduler
from sweeps.schedulers.pausing import Action, Step, Verdict, candidates_of
from sweeps.searchers.base import Proposal, Report, Searcher
from sweeps.space.forms import forms_of
from sweeps.space.space import Space
from sweeps.spec.objectives import rung_values
from sweeps.spec.sections import SweepSpec
from sweeps.trials.faults import LASTING_FAULTS
from sweeps.trials.open_trials import OpenTrials
from sweeps.trials.running import Running, died_too_often, ending_of, hung, record_of
from sweeps.trials.task import PAUSED, TrialTask, forget_outcome, read_outcome
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
        self.paused: dict[str, Running] = {}
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
        self._spending = Spending(spec.budget.total_examples, self.rungs)
        self._open = OpenTrials(self.records, self.running, self._again, self.paused, self._spending)
        self._held: tuple[Proposal, RunConfig] | None = None  # proposed, and beyond that limit so far
        self._has_no_more = False  # the searcher
        for trial in (past or Past()).trials:
            self._remember(trial)
        # Of Ray's own schedulers none. `ray_adapters.py` sets that of the running scheduler.
        self.judge = self.scheduler.judge(spec.objectives, spec.budget.examples, self.history())
        self._told_rungs = set(self.judge.silent_rungs() if self.judge else ())
        self.front = compute_front(self.records, spec.objectives)
        self.files = TrialFiles(RunFolder(self.folder).trials, spec.budget.keep_artifacts)
        self._free([record.trial_id for record in self.records])

    @property
    def trials_left(self) -> int:
        """Trials that the budget still allows, those that were cut short included."""
        return max(0, self.spec.budget.trials - self._proposed) + len(self._again)

    @property
    def cut_short(self) -> tuple[Running, ...]:
        """Trials that wait to be taken up again."""
        return tuple(self._again)

    def has_work(self) -> bool:
        """Return whether a worker would find something to do: a trial to go on with, a paused or a new one."""
        situation = self._open.situation(may_start=self._may_start())
        candidates = candidates_of(self.judge, situation)
        return bool(candidates.beaten) or self._open.step(situation, candidates).action is not Action.END

    def note(self, text: str) -> None:
        """Tell the observers of something that belongs to no trial."""
        for observer in self.observers:
            observer.note(text)

    def history(self) -> Curves:
        """Return the reports of all former trials, ended or not, from which the scheduler is rebuilt."""
        curves = {record.trial_id: record.curve for record in self.records}
        return curves | {
            item.task.trial_id: list(item.curve) for item in (*self._again, *self.paused.values())
        }

    def propose(self) -> TrialTask | None:
        """Return what a free worker takes up, or None when there is nothing, for now or for good."""
        while self.ended_by is None:
            situation = self._open.situation(may_start=self._may_start())
            candidates = candidates_of(self.judge, situation)
            if candidates.beaten:
                self._stop_paused(candidates.beaten[0])
                continue
            step = self._open.step(situation, candidates)
            if step.action is Action.RESUME:
                (running,) = (item for item in self._again if item.task.trial_id == step.trial_id)
                self._again.remove(running)
                return self._taken_up(running)
            if step.action is Action.PROMOTE:
                return self._taken_up(self.paused.pop(str(step.trial_id)))
            if step.action is not Action.START:
                return None
            task = self._start_new()
            if task is not None:
                return task
        return None

    def judged(self, trial_id: str, metrics: Mapping[str, Any], verdict: Verdict) -> Verdict:
        """Return what becomes of a trial that reports at a rung, after the scheduler's verdict.

        One whose next examples the sweep cannot spend pauses. One that pauses only to be taken up again by the worker
        that it gives up, because nothing is left that its rung could wait for, goes on at once.
        """
        running = self.running.get(trial_id)
        if running is None or metrics["examples_seen"] <= running.examples_seen:
            return verdict
        seen = int(metrics["examples_seen"])
        if verdict is Verdict.GO_ON and not self._open.fits(running, seen):
            verdict = Verdict.PAUSE
        elif verdict is Verdict.PAUSE and self.ended_by is None:
            situation = self._open.situation(may_start=self._may_start(), pausing=trial_id, seen=seen)
            candidates = candidates_of(self.judge, situation)
            if trial_id in candidates.beaten:
                verdict = Verdict.STOP
            elif self._open.step(situation, candidates) == Step(Action.PROMOTE, trial_id):
                verdict = Verdict.GO_ON
        running.verdict = verdict
        return verdict

    def pauses(self, trial_id: str) -> bool:
        """Return whether the verdict on the trial's report is that it pauses."""
        running = self.running.get(trial_id)
        return running is not None and running.verdict is Verdict.PAUSE

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

    def reported(
        self, trial_id: str, metrics: Mapping[str, Any], *, is_stopped: bool, is_paused: bool = False
    ) -> None:
        """Note a rung and the verdict; the final report is left to `ended`.

        A trial that went on from a checkpoint may report its rung again, which counts once.
        """
        running = self.running.get(trial_id)
        if metrics.get("final") or running is None:
            return
        seen = running.examples_seen
        if metrics["examples_seen"] <= seen:
            return
        progress = {key: metrics[key] for key in PROGRESS if key in metrics}
        self.journal.reported(trial_id, progress, is_stopped=is_stopped, is_paused=is_paused)
        running.curve.append(progress)
        self.searcher.observe(running.proposal.id, *self._report(progress))
        running.is_stopped, running.is_paused = is_stopped, is_paused
        self.spent_examples += progress["examples_seen"] - seen
        for observer in self.observers:
            observer.trial_reported(trial_id, progress)
        for rung, line in (self.judge.silent_rungs() if self.judge else {}).items():
            if rung not in self._told_rungs:
                self._told_rungs.add(rung)
                self.note(line)
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
        if running.is_stopped or running.is_paused or read_outcome(Path(running.task.folder)) is not None:
            self.ended(trial_id, {}, None)
        elif running.lost_workers > limit:
            self.ended(trial_id, {}, died_too_often(error, hang, self.spec.budget))
        else:
            del self.running[trial_id]
            running.task = replace(running.task, reported_examples=running.examples_seen)
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
        if result is None and self._is_pause(running):
            self._pause(running)
            return
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
        self._record(running, metrics, result, ending)

    def _record(
        self,
        running: Running,
        metrics: Mapping[str, Any],
        result: Mapping[str, Any] | None,
        ending: Mapping[str, Any],
    ) -> None:
        """Write the record of a trial that has ended, and tell everybody."""
        trial_id = running.task.trial_id
        record = record_of(
            running, metrics, result, ending, spec=self.spec, folder=self.folder, provenance=self.provenance
        )
        self.records.append(record)
        records.append(RunFolder(self.folder).records, record)
        self.spent_examples += max(0, record.examples_seen - running.examples_seen)
        for progress in record.curve:  # as a resume will find it, that of the whole budget too
            self.searcher.observe(running.proposal.id, *self._report(progress))
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
        """Return how many trials ended in each status, and how many are paused."""
        return Counter(record.status for record in self.records) + Counter(paused=len(self.paused))

    def unfinished(self) -> int:
        """Return how many trials were cut short: they were proposed, are not paused and have no record."""
        return self._proposed - len(self.records) - len(self.paused)

    def spent_note(self) -> str | None:
        """Return that the sweep has no examples left for what it would do next; None where it is not so."""
        total = self._spending.total
        if total is None or self.ended_by is not None or self.running:
            return None
        if self._held is None and not self._again and not self._let_go_on():
            return None
        spent = self._spending.spent(self._open.accounts())
        return (
            f"budget.total_examples: {spent} of {total} are spent, and no trial's next stretch fits into the rest; "
            f"{counted(len(self.paused), 'trial')} paused. A resumed sweep takes another --total-examples"
        )

    # What a free worker does

    def _may_start(self) -> bool:
        """Return whether a new trial may come: the budget has one, and so may the searcher."""
        if self._proposed >= self.spec.budget.trials or self._has_no_more:
            return False
        return self._held is None or self._open.fits_new(self._held[1])

    def _start_new(self) -> TrialTask | None:
        """Return a new trial; None when the searcher has no more, or its examples are more than the sweep may spend."""
        trial_id = f"t{self._proposed:04d}"
        if self._held is None:
            proposal = self.searcher.propose()
            if proposal is None:
                self._has_no_more = True
                return None
            seed = derive_seed(self.spec.seed, trial_id) % 2**31
            recipe = self.space.to_run_config(proposal.assignment, seed=seed, rungs=self.rungs)
            self._held = proposal, recipe
        proposal, recipe = self._held
        if not self._open.fits_new(recipe):
            return None
        self._held = None
        self._proposed += 1
        task = self._with_share(self._task(trial_id, to_dict(recipe), proposal.notes))
        self._spending.count(task.recipe)
        self.journal.proposed(
            trial_id, assignment=proposal.assignment, notes=proposal.notes, recipe=task.recipe
        )
        self.running[trial_id] = Running(task, proposal)
        return task

    def _taken_up(self, running: Running) -> TrialTask:
        """Return the task of a trial that goes on from its checkpoint."""
        running.is_paused, running.verdict = False, Verdict.GO_ON
        forget_outcome(Path(running.task.folder))
        running.task = self._with_share(replace(running.task, reported_examples=running.examples_seen))
        self.running[running.task.trial_id] = running
        return running.task

    def _is_pause(self, running: Running) -> bool:
        """Return whether a trial without a result has paused, and not failed meanwhile."""
        outcome = read_outcome(Path(running.task.folder)) if running.is_paused else None
        return running.is_paused and (outcome is None or outcome["status"] == PAUSED)

    def _pause(self, running: Running) -> None:
        """Keep a trial that has given up its worker: it has no record, and may go on."""
        trial_id, seen = running.task.trial_id, running.examples_seen
        del self.running[trial_id]
        running.is_on_worker = False
        self.paused[trial_id] = running
        is_dear = self.judge is None or trial_id in self._let_go_on()
        why = self.judge.why(trial_id, seen) if self.judge and not is_dear else "budget.total_examples"
        for observer in self.observers:
            observer.trial_paused(trial_id, seen, why)
        self._watch_disk()

    def _let_go_on(self) -> tuple[str, ...]:
        """Return the paused trials that would go on if any number of examples could be spent."""
        situation = self._open.situation(may_start=self._may_start())
        return candidates_of(self.judge, replace(situation, too_dear=frozenset())).promotions

    def _stop_paused(self, trial_id: str, why: str | None = None) -> None:
        """Record a paused trial as stopped, which frees its checkpoint."""
        running = self.paused.pop(trial_id)
        reason = (
            why or f"stopped by scheduler {self.spec.scheduler.name!r} at {running.examples_seen} examples"
        )
        self._record(running, {}, None, {"status": "stopped", "reason": reason, "traceback": None})

    # Files, failures, resumed trials

    def _free(self, trial_ids: Sequence[str]) -> None:
        """Remove what trials with records no longer need, and look at what is left."""
        self.files.ended(trial_ids, choosable(self.front))
        self._watch_disk()

    def _watch_disk(self) -> None:
        """End the sweep when its trials' files hold more than they may; before that, stop the worst paused trials."""
        limit = self.spec.budget.max_disk_gb
        if limit is None or self.ended_by is not None:
            return
        open_trials = [*self.running, *self.paused, *(item.task.trial_id for item in self._again)]
        used_gb = self.files.used_bytes(open_trials) / 1e9
        if used_gb <= limit:
            return
        seen = {trial_id: item.examples_seen for trial_id, item in self.paused.items()}
        worst = self.judge.expendable(seen) if self.judge else []
        if worst:
            held = f"stopped at {seen[worst[0]]} examples, where it was paused, for its disk space"
            self._stop_paused(worst[0], f"{held} (budget.max_disk_gb: {limit:g})")  # looks at the disk again
        else:
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
        self._spending.count(trial.recipe)
        record = trial.record
        status = None if record is None else record.status
        values = None if record is None else self._values(record)
        curve = [self._report(progress) for progress in (trial.curve if record is None else record.curve)]
        proposal = self.searcher.remember(trial.assignment, status, values, trial.notes, curve)
        if record is not None:
            self.records.append(record)
            self.spent_examples += record.examples_seen
            return
        reached = trial.curve[-1]["examples_seen"] if trial.curve else 0
        self.spent_examples += reached
        task = self._task(trial.trial_id, trial.recipe, trial.notes, reported_examples=reached)
        forget_outcome(Path(task.folder))  # its record was not written: what happened then will happen again
        running = Running(task, proposal, curve=list(trial.curve), is_stopped=trial.is_stopped)
        running.starts = trial.starts
        if trial.is_paused:
            running.is_paused = True
            self.paused[trial.trial_id] = running
        else:
            self._again.append(running)

    def _task(
        self,
        trial_id: str,
        recipe: Mapping[str, Any],
        notes: Mapping[str, Any],
        *,
        reported_examples: int = 0,
    ) -> TrialTask:
        noted = noted_forms(notes)
        forms = forms_of(from_dict(RunConfig, recipe), self.spec.forms) if noted is None else noted
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
            makes_all_forms=noted is not None,
            reports_forms=bool(self.spec.forms),
        )

    def _with_share(self, task: TrialTask) -> TrialTask:
        """Return the task with what it is given of a GPU; known only once the nodes have been looked at."""
        share = self.gpu_share_of(from_dict(RunConfig, task.recipe))
        return replace(task, gpu_share=share.gpu_share, predicted_bytes=share.predicted_bytes)

    def _report(self, progress: Mapping[str, Any]) -> Report:
        """Return what a searcher is told of a report."""
        names = [objective.name for objective in self.spec.objectives]
        return int(progress["examples_seen"]), rung_values(names, progress)

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
