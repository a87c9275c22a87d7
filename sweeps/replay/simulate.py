"""Recorded curves through the real searchers and schedulers, on a simulated clock with any number of workers.

A worker asks the searcher for a proposal, which a recorded recipe answers (`sweeps/replay/recorded.py`); its reports
reach the scheduler, Ray's own object, in the order of simulated time, and the scheduler decides as in a sweep. What is
recorded is in `sweeps/replay/curves.py`; the live driver, in `sweeps/trials/ray_driver.py`.

What a replay assumes:

- At a rung a trial sends the first report that was recorded at or after the rung and before the next one, with its own
  count of examples and its own time, as the trial did that was recorded. A rung without such a report is passed
  without a verdict; `unseen_rungs` counts them.
- Time in training is the recorded one. What the trial took beside training comes after it: a finished trial occupies
  its worker for that long, a stopped one leaves at once.
- Examples are counted as spent when a worker begins the stretch up to its next report, so that nothing that is still
  running is left out of a comparison at equal budget.
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
from sweeps.replay.curves import Curve, CurveTable, rung_objectives
from sweeps.replay.recorded import Recipes, RecordedSpace
from sweeps.schedulers.base import TIME_ATTRIBUTE, Scheduler
from sweeps.searchers.base import Proposal, Searcher
from sweeps.spec.objectives import rung_field

REFUSALS_PER_COMBINATION = 20  # in a row; a searcher that draws evenly meets what is left long before
MIN_REFUSALS = 1000


@dataclass(frozen=True)
class Step:
    """The state of a replay after a trial ended."""

    seconds: float  # simulated, since the start
    examples: int  # spent so far, on all trials
    hypervolume: float  # of the finished trials so far


@dataclass(frozen=True)
class EndedTrial:
    """One trial of a replay."""

    trial_id: str
    curve: int  # index in the table
    status: str  # "ok" or "stopped"
    examples_seen: int
    seconds: float  # simulated, when it ended


@dataclass(frozen=True)
class ReplayOutcome:
    """What a replay came to.

    Attributes:
        trace: one step for each trial that ended, in order of time.
        trials: those trials, in the same order.
        counts: trials by status; "failed" are proposals without an answer.
        front: indices of the curves on the front of the finished trials.
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
        examples: no trial is started after this number of examples; None: no such limit.

    Raises:
        ConfigError: the scheduler does not fit the table.
        ValueError: there is no worker.
    """
    if workers < 1:
        raise ValueError(f"workers: found {workers}; allowed: 1 or more")
    scheduler.check(table.spec.objectives, table.spec.budget.examples)
    limit = len(table.curves) if trials is None else trials
    simulation = _Simulation(table, searcher, scheduler, workers, limit, examples)
    simulation.fill()
    while simulation.events:
        simulation.step()
    return simulation.outcome()


def recorded_space(table: CurveTable) -> RecordedSpace:
    """Return the table's space with the combinations of which something was recorded."""
    return RecordedSpace(table.space, [curve.assignment for curve in table.curves])


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
        self.fields = {name: rung_field(name) for name in rung_objectives(objectives)}
        self.volume = GrowingVolume(self.table.reference)
        self.refusals_allowed = max(MIN_REFUSALS, REFUSALS_PER_COMBINATION * len(self.searcher.space.legal))
        self.now, self.examples, self.order, self.most_running = 0.0, 0, 0, 0
        self.counts: Counter[str] = Counter()
        self.trace: list[Step] = []
        self.ended: list[EndedTrial] = []

    def fill(self) -> None:
        """Start trials on the workers that are free."""
        while len(self.events) < self.workers and self.trials_left > 0 and self._may_spend():
            found = self._propose()
            if found is None:
                self.trials_left = 0
                return
            proposal, curve = found
            self.trials_left -= 1
            trial = SimulatedTrial(f"t{len(self.ended) + len(self.events):05d}")
            reports = list(_reports(self.table.curves[curve], self.rungs, self.fields))
            self.judge.on_trial_add(None, trial)
            self._wait(_Running(trial, proposal, curve, self.now, reports))
            self.most_running = max(self.most_running, len(self.events))

    def step(self) -> None:
        """Deliver the next report."""
        self.now, _, running = heapq.heappop(self.events)
        report = running.reports[running.at]
        decision = self.judge.on_trial_result(None, running.trial, dict(report.values))
        running.at += 1
        is_finished = running.at == len(running.reports)
        if not is_finished and decision != self.judge.STOP:
            self._wait(running)
            return
        self.judge.on_trial_complete(None, running.trial, dict(report.values))
        self._end(running, "ok" if is_finished else "stopped", report.examples)
        self.fill()

    def outcome(self) -> ReplayOutcome:
        finished = np.array([trial.curve for trial in self.ended if trial.status == "ok"], dtype=np.int64)
        front = finished[pareto.front_mask(self.table.losses[finished])].tolist()
        return ReplayOutcome(
            trace=tuple(self.trace),
            trials=tuple(self.ended),
            counts=dict(self.counts),
            front=tuple(front),
            examples=self.examples,
            most_running=self.most_running,
        )

    def _may_spend(self) -> bool:
        return self.examples_allowed is None or self.examples < self.examples_allowed

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
        done = running.reports[running.at - 1].examples if running.at else 0
        self.examples += report.examples - done
        self.order += 1
        heapq.heappush(self.events, (running.started + report.seconds, self.order, running))

    def _end(self, running: _Running, status: str, examples: int) -> None:
        self.counts[status] += 1
        curve = self.table.curves[running.curve]
        values = None
        if status == "ok":
            self.volume.add(self.table.losses[running.curve])
            values = [curve.final[objective.name] for objective in self.table.spec.objectives]
        self.searcher.tell(running.proposal.id, status, values)
        self.trace.append(Step(self.now, self.examples, self.volume.value))
        self.ended.append(EndedTrial(running.trial.trial_id, running.curve, status, examples, self.now))


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
    values = {key: curve.rung_values[name][index] for name, key in fields.items()}
    return {TIME_ATTRIBUTE: curve.examples_seen[index], **values}
