"""What every scheduler must do. A scheduler's test inherits `SchedulerContract` and names its class."""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import pytest

from qa_core.errors import ConfigError, DataError
from sweeps import registry
from sweeps.schedulers.base import Scheduler, check_report, make_scheduler
from sweeps.schedulers.pausing import Judge, Situation, Verdict, candidates_of, judge_of
from sweeps.spec.objectives import Objective

EM = Objective(name="em_percent", goal="max", reference=0)
MEMORY = Objective(name="memory_mb", goal="min", reference=64)
BUDGET = 9000


@dataclass(frozen=True)
class FakeTrial:
    """All that Ray's schedulers read of a trial."""

    trial_id: str


def reports(quality: float, rungs: tuple[int, ...]) -> Iterator[dict[str, float]]:
    """Yield a trial's reports: learning curves that never cross, and the final one with the whole budget."""
    for seen in (*rungs, BUDGET):
        yield {
            "examples_seen": seen,
            "selection_em_percent": quality * seen / BUDGET,
            "selection_f1_percent": quality * seen / BUDGET,
            "memory_mb": 10.0,
        }


def decide(scheduler: Scheduler, qualities: list[float]) -> dict[str, list[str]]:
    """Send trials through a fresh Ray scheduler, all at one pace; return their decisions by trial id."""
    return run_through(scheduler.ray_scheduler([EM, MEMORY], BUDGET), scheduler, qualities)


def run_through(
    ray_scheduler: Any, scheduler: Scheduler, qualities: list[float], *, first: int = 0
) -> dict[str, list[str]]:
    """Send trials through a Ray scheduler, all at one pace, numbered from `first`.

    Returns:
        The decisions on each trial's reports: Ray's words, or PAUSE where the trial gives up its worker. It goes on as
        soon as the scheduler lets it; one that is not let go on any more has no further report.
    """
    trials = {FakeTrial(f"t{index}"): quality for index, quality in enumerate(qualities, start=first)}
    streams = {trial: reports(quality, scheduler.rungs(BUDGET)) for trial, quality in trials.items()}
    decisions: dict[str, list[str]] = {trial.trial_id: [] for trial in trials}
    seen: dict[FakeTrial, int] = dict.fromkeys(trials, 0)
    for trial in trials:
        ray_scheduler.on_trial_add(None, trial)
    judge, paused = judge_of(ray_scheduler), {}
    while streams:
        for trial, stream in list(streams.items()):
            report = next(stream)
            decision = ray_scheduler.on_trial_result(None, trial, report)
            is_paused = judge is not None and ray_scheduler.verdicts[trial.trial_id] is Verdict.PAUSE
            decisions[trial.trial_id].append("PAUSE" if is_paused else decision)
            seen[trial] = int(report["examples_seen"])
            if decision == "STOP" or report["examples_seen"] == BUDGET:
                ray_scheduler.on_trial_complete(None, trial, report)
                del streams[trial]
            if is_paused:
                paused[trial.trial_id] = trial, stream
            for trial_id in _released(judge, paused, {item.trial_id: seen[item] for item in streams}, seen):
                released, rest = paused.pop(trial_id)
                streams[released] = rest
    return decisions


def _released(
    judge: Judge | None, paused: Mapping[str, Any], going: Mapping[str, int], seen: Mapping[Any, int]
) -> tuple[str, ...]:
    """Return the paused trials that go on now; no more trials come than those that run."""
    waiting = {trial_id: seen[trial] for trial_id, (trial, _) in paused.items()}
    return candidates_of(judge, Situation(waiting, going)).promotions


class SchedulerContract:
    """Inherit as `class TestX(SchedulerContract)`."""

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    def make(self) -> Scheduler:
        return make_scheduler(self.name, self.options)

    def test_it_is_registered_under_its_own_name(self) -> None:
        assert registry.scheduler_class(self.name).name == self.name

    def test_rungs_rise_and_end_below_the_budget(self) -> None:
        for budget in (BUDGET, BUDGET + 1, 12_345, 100_000):
            rungs = self.make().rungs(budget)
            assert list(rungs) == sorted(set(rungs))
            assert all(isinstance(rung, int) and 0 < rung < budget for rung in rungs)

    def test_the_best_trial_of_every_rung_is_never_stopped(self) -> None:
        rng = np.random.default_rng(5)
        for _ in range(20):
            qualities = [float(value) for value in rng.permutation(np.arange(10.0, 34.0))]
            decisions = decide(self.make(), qualities)
            best = f"t{qualities.index(33.0)}"
            assert len(decisions[best]) == len(self.make().rungs(BUDGET)) + 1
            assert "STOP" not in decisions[best][:-1]

    def test_the_same_reports_give_the_same_decisions(self) -> None:
        qualities = [float(value) for value in np.random.default_rng(1).permutation(24)]
        assert decide(self.make(), qualities) == decide(self.make(), qualities)

    def test_the_ray_scheduler_survives_pickling_with_its_state(self) -> None:
        scheduler = self.make().ray_scheduler([EM], BUDGET)
        rung = self.make().rungs(BUDGET)[0]
        first, second = FakeTrial("a"), FakeTrial("b")
        for trial in (first, second):
            scheduler.on_trial_add(None, trial)
        scheduler.on_trial_result(None, first, {"examples_seen": rung, "selection_em_percent": 50.0})
        copy = pickle.loads(pickle.dumps(scheduler))
        report = {"examples_seen": rung, "selection_em_percent": 1.0}
        assert copy.on_trial_result(None, second, report) == scheduler.on_trial_result(None, second, report)

    @pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), "12", True])
    def test_a_report_that_cannot_be_compared_fails_in_its_own_trial(self, bad: object) -> None:
        report = next(reports(50.0, self.make().rungs(BUDGET)))
        check_report(report, [EM.name, MEMORY.name])
        for name in ("examples_seen", "selection_em_percent", "memory_mb"):
            with pytest.raises(DataError, match=f"{name}: found {bad!r}; allowed: a finite number"):
                check_report({**report, name: bad}, [EM.name, MEMORY.name])
            rest = {key: value for key, value in report.items() if key != name}
            with pytest.raises(DataError, match=f"{name}: found nothing"):
                check_report(rest, [EM.name, MEMORY.name])

    def test_a_trial_that_fails_changes_nothing_for_the_others(self) -> None:
        qualities = [30.0, 20.0, 10.0]
        scheduler = self.make().ray_scheduler([EM], BUDGET)
        failing = FakeTrial("failing")
        scheduler.on_trial_add(None, failing)
        scheduler.on_trial_error(None, failing)
        trials = [FakeTrial(f"t{index}") for index in range(3)]
        found = []
        for trial in trials:
            scheduler.on_trial_add(None, trial)
        for trial, quality in zip(trials, qualities, strict=True):
            report = next(reports(quality, self.make().rungs(BUDGET)))
            found.append(scheduler.on_trial_result(None, trial, report))
        alone = [decisions[0] for decisions in decide(self.make(), qualities).values()]
        assert found == ["STOP" if decision == "PAUSE" else decision for decision in alone]  # in Ray's words

    def test_a_history_counts_as_if_its_trials_had_just_reported(self) -> None:
        rng = np.random.default_rng(3)
        for _ in range(10):
            earlier, later = rng.permutation(np.arange(10.0, 34.0)).tolist(), rng.uniform(10, 34, 12).tolist()
            scheduler = self.make()
            going_on = scheduler.ray_scheduler([EM, MEMORY], BUDGET)
            decisions = run_through(going_on, scheduler, earlier)
            curves = {  # as records keep them: up to the report at which the trial was stopped
                trial: list(islice(reports(quality, scheduler.rungs(BUDGET)), len(decisions[trial])))
                for trial, quality in zip(decisions, earlier, strict=True)
            }
            resumed = scheduler.ray_scheduler([EM, MEMORY], BUDGET, history=curves)
            assert run_through(resumed, scheduler, later, first=24) == run_through(
                going_on, scheduler, later, first=24
            )

    def test_an_unknown_option_is_refused_with_its_path(self) -> None:
        with pytest.raises(ConfigError, match=r"scheduler\.options\.colour: unknown setting 'colour'"):
            make_scheduler(self.name, {**self.options, "colour": 1})
