"""Recorded curves through the real searchers and schedulers, on a simulated clock with any number of workers.

A worker asks the searcher for a proposal, which a recorded recipe answers (`sweeps/replay/recorded.py`); its reports
reach the scheduler, Ray's own object, in the order of simulated time, and the scheduler decides as in a sweep. What is
recorded is in `sweeps/replay/curves.py`; the live driver, in `sweeps/trials/ray_driver.py`.

What a replay assumes:

- At a rung a trial sends the first report that was recorded at or after the rung and before the next one, with its own
  count of examples and its own time, as the trial did that was recorded. A rung without such a report is passed
  without a verdict; `unseen_rungs` counts them.
- Time in training is the recorded one. What the trial took beside training comes after it: a finished trial occupies
  its worker for that long, a stopped or paused one leaves at once, and one that goes on later loses no time by it.
- What a free worker does is decided as in a live sweep, by `sweeps/schedulers/pausing.py`. A trial that is still paused
  at the end stands among the trials with the status `paused`.
- Examples are counted as spent when a worker begins the stretch up to its next report, so that nothing that is still
  running is left out of a comparison at equal budget. The limit is that of `Allowance`, without teachers, which are not
  recorded.
- Points are the stored forms of finished trainings, where the table has forms. A searcher is told what a live sweep
  tells it: the values of the network as it was trained.
- A proposal without an answer (`sweeps/replay/recorded.py` says when) ends as failed before it starts and costs
  nothing.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from sweeps.front import pareto
from sweeps.front.volume import GrowingVolume
from sweeps.replay.curves import EXTRAS, Curve, CurveTable, rung_objectives
from sweeps.replay.recorded import Recipes, RecordedSpace
from sweeps.schedulers.base import FORMS, TIME_ATTRIBUTE, Scheduler
from sweeps.schedulers.pausing import (
    Account,
    Action,
    Allowance,
    Candidates,
    Situation,
    Verdict,
    candidates_of,
    judge_of,
    next_step,
)
from sweeps.schedulers.pausing import Step as WorkerStep
from sweeps.searchers.base import Forecast, Proposal, Searcher
from sweeps.spec.objectives import PREDICTED, rung_field, rung_values

REFUSALS_PER_COMBINATION = 20  # in a row; a searcher that draws evenly meets what is left long before
MIN_REFUSALS = 1000


@dataclass(frozen=True)
class Step:
    """The state of a replay after a trial ended."""

    seconds: float  # simulated, since the start
    examples: int  # spent so far, on all trials
    hypervolume: float  # of the finished trials so far
    # Simulated, of all workers, up to the next report of each trial; scoring of forms included.
    worker_seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class EndedTrial:
    """One trial of a replay."""

    trial_id: str
    curve: int  # index in the table
    status: str  # "ok", "stopped" or "paused"
    examples_seen: int
    seconds: float  # simulated, when it ended


@dataclass(frozen=True)
class ReplayOutcome:
    """What a replay came to.

    Attributes:
        trace: one step for each trial that ended, in order of time.
        trials: those trials, in the same order.
        counts: trials by status; "failed" are proposals without an answer.
        front: indices of the curves that have a point on the front of the finished trials.
        examples: spent in all.
        most_running: the largest number of trials at one time.
    """

    trace: tuple[Step, ...]
    trials: tuple[EndedTrial, ...]
    counts: Mapping[str, int]
    front: tuple[int, ...]
    examples: int
    most_running: int

    def examples_to_reach(self, hypervolume: float) -> int | None:
        """Return what was spent when the finished trials first dominated so much; None when they never did."""
        return next((step.examples for step in self.trace if step.hypervolume >= hypervolume), None)

    def worker_seconds_to_reach(self, hypervolume: float) -> float | None:
        """Return the seconds of workers that were spent by then; None when they never dominated so much."""
        return next((step.worker_seconds for step in self.trace if step.hypervolume >= hypervolume), None)

    def finished_at(self, examples: float) -> list[int]:
        """Return the curves of the trials that had finished before more than `examples` were spent."""
        ends = zip(self.trials, self.trace, strict=True)
        return [trial.curve for trial, step in ends if trial.status == "ok" and step.examples <= examples]

    def hypervolume_at(self, examples: float) -> float:
        """Return what the finished trials dominated before more than `examples` were spent."""
        reached = [step.hypervolume for step in self.trace if step.examples <= examples]
        return reached[-1] if reached else 0.0


def replay(
    table: CurveTable,
    searcher: Searcher,
    scheduler: Scheduler,
    *,
    workers: int,
    trials: int | None = None,
    examples: int | None = None,
) -> ReplayOutcome:
    """Replay a sweep.

    Args:
        table: what was recorded.
        searcher: a fresh one over `recorded_space(table)`, seeded; nothing else is random.
        scheduler: with options that fit the table's objectives and budget.
        workers: trials at a time.
        trials: most trials to start; None: as many as there are curves.
        examples: that all trials may consume, as `budget.total_examples`; None: as the table's sweep had it.

    Raises:
        ConfigError: the scheduler does not fit the table.
        ValueError: there is no worker.
    """
    if workers < 1:
        raise ValueError(f"workers: found {workers}; allowed: 1 or more")
    scheduler.check(table.spec.objectives, table.spec.budget.examples)
    limit = len(table.curves) if trials is None else trials
    total = table.spec.budget.total_examples if examples is None else examples
    simulation = _Simulation(table, searcher, scheduler, workers, limit, total)
    simulation.fill()
    while simulation.events:
        simulation.step()
    simulation.close()
    return simulation.outcome()


def recorded_space(table: CurveTable) -> RecordedSpace:
    """Return the table's space with the combinations of which something was recorded."""
    return RecordedSpace(table.space, [curve.assignment for curve in table.curves])


def recorded_forecast(table: CurveTable) -> Forecast:
    """Return what a searcher knows of a recipe before it starts: what a live sweep forecasts, and nothing else.

    A forecast equals what is measured on a CPU, so it is the value of the first report of the recorded recipe that is
    nearest, be it given out already or not; of a recipe with stored forms, what that report planned of each.
    """
    recipes = Recipes(table.space, table.curves)
    names = [name for name in rung_objectives(table.spec.objectives) if name in PREDICTED]

    def of_assignment(assignment: Mapping[str, Any]) -> list[dict[str, float]]:
        nearest = recipes.nearest(assignment)
        if nearest is None:
            return [{}]
        curve = table.curves[nearest]
        planned = [form.costs for form in curve.forms if form.kind is not None]
        known = planned or [{name: values[0] for name, values in curve.rung_values.items()}]
        return [{name: values[name] for name in names} for values in known]

    return of_assignment


def unseen_rungs(table: CurveTable, rungs: Sequence[int]) -> int:
    """Return at how many rungs, over all curves that train, a replay has no recorded report to judge by."""
    return sum(
        curve.report_at(rung, end) is None
        for curve in table.curves
        if curve.budget_examples
        for rung, end in pairwise((*rungs, curve.budget_examples))
    )


@dataclass(frozen=True)
class SimulatedTrial:
    """All that Ray's schedulers read of a trial here."""

    trial_id: str


@dataclass(frozen=True)
class _Report:
    """What a trial sends, and the seconds since its start when it does."""

    seconds: float
    examples: int
    values: Mapping[str, Any]


@dataclass
class _Running:
    trial: SimulatedTrial
    proposal: Proposal
    curve: int
    started: float
    reports: Sequence[_Report]
    at: int = 0  # the report that comes next

    @property
    def seen(self) -> int:
        """Examples at its last report."""
        return self.reports[self.at - 1].examples if self.at else 0


@dataclass
class _Simulation:
    table: CurveTable
    searcher: Searcher
    scheduler: Scheduler
    workers: int
    trials_left: int
    examples_allowed: int | None
    events: list[tuple[float, int, _Running]] = field(default_factory=list)

    def __post_init__(self) -> None:
        objectives, budget = self.table.spec.objectives, self.table.spec.budget.examples
        self.recipes = Recipes(self.table.space, self.table.curves)
        self.judge: Any = self.scheduler.ray_scheduler(objectives, budget)
        self.rungs = self.scheduler.rungs(budget)
        self.names = [objective.name for objective in objectives]
        self.fields = {name: rung_field(name) for name in rung_objectives(objectives)}
        self.volume = GrowingVolume(self.table.reference)
        self.refusals_allowed = max(MIN_REFUSALS, REFUSALS_PER_COMBINATION * len(self.searcher.space.legal))
        self.allowance = Allowance(self.examples_allowed, self.rungs)
        self.pausing = judge_of(self.judge)  # None: the scheduler pauses none
        self.paused: dict[str, _Running] = {}
        self.held: tuple[Proposal, int] | None = None  # proposed, and beyond what may be spent so far
        self.worker_seconds = 0.0
        self.now, self.examples, self.order, self.most_running, self.started = 0.0, 0, 0, 0, 0
        self.has_finished = False  # some trial was trained to its end
        self.counts: Counter[str] = Counter()
        self.trace: list[Step] = []
        self.ended: list[EndedTrial] = []

    def fill(self) -> None:
        """Give the free workers what there is for them to do."""
        while len(self.events) < self.workers:
            situation = self._situation()
            candidates = candidates_of(self.pausing, situation)
            if candidates.beaten:
                beaten = self.paused.pop(candidates.beaten[0])
                self._end(beaten, "stopped", beaten.seen)
                continue
            step = self._free_worker(situation, candidates)
            if step.action is Action.PROMOTE:
                running = self.paused.pop(str(step.trial_id))
                # As if it had never left: its next report comes a stretch of training from now.
                running.started = self.now - running.reports[running.at - 1].seconds
                self._wait(running)
            elif step.action is Action.START:
                self._start_new()
            else:
                return
            self.most_running = max(self.most_running, len(self.events))

    def step(self) -> None:
        """Deliver the next report."""
        self.now, _, running = heapq.heappop(self.events)
        report = running.reports[running.at]
        found = rung_values(self.names, report.values)
        self.searcher.observe(running.proposal.id, report.examples, found)
        decision = self.judge.on_trial_result(None, running.trial, dict(report.values))
        running.at += 1
        trial_id = running.trial.trial_id
        if running.at == len(running.reports):
            verdict = None
        else:
            is_stopped = decision == self.judge.STOP
            verdict = Verdict.STOP if is_stopped else Verdict.GO_ON
            verdict = self._judged(running, getattr(self.judge, "verdicts", {}).get(trial_id, verdict))
        if verdict is Verdict.GO_ON:
            self._wait(running)
        else:
            self.judge.on_trial_complete(None, running.trial, dict(report.values))
            if verdict is Verdict.PAUSE:
                self.paused[trial_id] = running
            else:
                self._end(running, "ok" if verdict is None else "stopped", report.examples)
        self.fill()  # the report may have released a paused trial

    def close(self) -> None:
        """Count the trials that are left paused."""
        for running in list(self.paused.values()):
            self.counts["paused"] += 1
            self._trace()
            self.ended.append(
                EndedTrial(running.trial.trial_id, running.curve, "paused", running.seen, self.now)
            )

    def outcome(self) -> ReplayOutcome:
        finished = [trial.curve for trial in self.ended if trial.status == "ok"]
        points = [self.table.losses_of([curve]) for curve in finished]
        mask = pareto.front_mask(np.concatenate(points)) if points else np.empty(0, dtype=bool)
        ends = np.cumsum([len(rows) for rows in points])
        is_on_front = [part.any() for part in np.split(mask, ends[:-1])] if points else []
        front = [curve for curve, is_on in zip(finished, is_on_front, strict=True) if is_on]
        return ReplayOutcome(
            trace=tuple(self.trace),
            trials=tuple(self.ended),
            counts=dict(self.counts),
            front=tuple(front),
            examples=self.examples,
            most_running=self.most_running,
        )

    def _situation(self, pausing: _Running | None = None) -> Situation:
        """Return the trials that have not ended; one that has just reported may be taken for paused."""
        paused = {trial_id: running.seen for trial_id, running in self.paused.items()}
        if pausing is not None:
            paused[pausing.trial.trial_id] = pausing.seen
        return Situation(
            paused,
            {running.trial.trial_id: running.seen for _, _, running in self.events},
            may_start=self.trials_left > 0 and (self.held is None or self._fits_new(self.held[1])),
            has_finished=self.has_finished,
            too_dear=self._too_dear(pausing),
        )

    def _too_dear(self, pausing: _Running | None) -> frozenset[str]:
        if self.allowance.total is None:
            return frozenset()
        waiting = [*self.paused.values(), *([] if pausing is None else [pausing])]
        return frozenset(item.trial.trial_id for item in waiting if not self._fits(item))

    def _free_worker(
        self, situation: Situation, candidates: Candidates, pausing: _Running | None = None
    ) -> WorkerStep:
        waiting = self.paused if pausing is None else {**self.paused, pausing.trial.trial_id: pausing}
        return next_step(situation, candidates, fits=lambda trial_id: self._fits(waiting[trial_id]))

    def _judged(self, running: _Running, verdict: Verdict) -> Verdict:
        """Return what becomes of a trial after the scheduler's verdict; see `Driver.judged`."""
        trial_id = running.trial.trial_id
        if verdict is Verdict.GO_ON and not self._fits(running):
            return Verdict.PAUSE
        if verdict is Verdict.PAUSE:
            situation = self._situation(running)
            candidates = candidates_of(self.pausing, situation)
            if trial_id in candidates.beaten:
                return Verdict.STOP
            if self._free_worker(situation, candidates, running) == WorkerStep(Action.PROMOTE, trial_id):
                return Verdict.GO_ON
        return verdict

    def _account(self, running: _Running, *, is_going: bool) -> Account:
        return Account(running.seen, self.table.curves[running.curve].budget_examples, is_going)

    def _fits(self, running: _Running) -> bool:
        """Return whether the next stretch of a trial that is paused, or has just reported, may be spent."""
        return self._allows(self._account(running, is_going=False), besides=running)

    def _fits_new(self, curve: int) -> bool:
        return self._allows(Account(0, self.table.curves[curve].budget_examples))

    def _allows(self, account: Account, *, besides: _Running | None = None) -> bool:
        budgets = [curve.budget_examples for curve in self.table.curves]
        others = [Account(trial.examples_seen, budgets[trial.curve], is_open=False) for trial in self.ended]
        others += [self._account(running, is_going=True) for _, _, running in self.events]
        others += [
            self._account(item, is_going=False) for item in self.paused.values() if item is not besides
        ]
        return self.allowance.fits(others, account, has_finished=self.has_finished)

    def _start_new(self) -> None:
        """Start a new trial, unless nothing is left to propose or its examples may not be spent."""
        self.held = self.held or self._propose()
        if self.held is None:
            self.trials_left = 0
            return
        proposal, curve = self.held
        if not self._fits_new(curve):
            return
        self.held = None
        self.trials_left -= 1
        trial = SimulatedTrial(f"t{self.started:05d}")
        self.started += 1
        reports = list(_reports(self.table.curves[curve], self.rungs, self.fields))
        self.judge.on_trial_add(None, trial)
        self._wait(_Running(trial, proposal, curve, self.now, reports))

    def _propose(self) -> tuple[Proposal, int] | None:
        for _ in range(self.refusals_allowed):
            proposal = self.searcher.propose()
            if proposal is None:
                return None
            curve = self.recipes.take(proposal.assignment)
            if curve is not None:
                return proposal, curve
            self.searcher.tell(proposal.id, "failed", None)
            self.counts["failed"] += 1
        return None

    def _wait(self, running: _Running) -> None:
        """Spend the examples up to the trial's next report, and put that in its place in time."""
        report = running.reports[running.at]
        self.examples += report.examples - running.seen
        self.worker_seconds += running.started + report.seconds - self.now
        self.order += 1
        heapq.heappush(self.events, (running.started + report.seconds, self.order, running))

    def _end(self, running: _Running, status: str, examples: int) -> None:
        self.counts[status] += 1
        curve = self.table.curves[running.curve]
        values = None
        if status == "ok":
            for point in self.table.losses_of([running.curve]):
                self.volume.add(point)
            self.has_finished = self.has_finished or curve.budget_examples > 0
            values = [curve.final[objective.name] for objective in self.table.spec.objectives]
        self.searcher.tell(running.proposal.id, status, values)
        self._trace()
        self.ended.append(EndedTrial(running.trial.trial_id, running.curve, status, examples, self.now))

    def _trace(self) -> None:
        self.trace.append(Step(self.now, self.examples, self.volume.value, self.worker_seconds))


def _reports(curve: Curve, rungs: Sequence[int], fields: Mapping[str, str]) -> Iterator[_Report]:
    """Yield the reports that a trial of this curve sends to a scheduler with these rungs; the last one ends it."""
    for rung, end in pairwise((*rungs, curve.budget_examples)):
        index = curve.report_at(rung, end)
        if index is not None:
            yield _Report(
                curve.train_seconds[index], curve.examples_seen[index], _values(curve, index, fields)
            )
    yield _Report(curve.seconds, curve.budget_examples, _values(curve, len(curve.examples_seen) - 1, fields))


def _values(curve: Curve, index: int, fields: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {key: curve.rung_values[name][index] for name, key in fields.items()}
    values |= {name: curve.extras[name][index] for name in EXTRAS if name in curve.extras}
    seen = [form for form in curve.forms if form.kind is not None]
    if seen:
        values[FORMS] = [
            {"kind": form.kind, **{fields[name]: cost for name, cost in form.costs.items()}} for form in seen
        ]
    return {TIME_ATTRIBUTE: curve.examples_seen[index], **values}
