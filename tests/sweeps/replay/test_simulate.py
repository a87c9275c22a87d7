"""Replay: exact on paper, then what must hold for every scheduler, then agreement with a plain loop."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.synthetic import SCALES, SyntheticOptions, synthetic_table
from qa_core.errors import ConfigError
from sweeps import registry
from sweeps.front import pareto
from sweeps.replay.curves import Curve, CurveTable
from sweeps.replay.simulate import (
    EndedTrial,
    ReplayOutcome,
    Step,
    _reports,
    recorded_forecast,
    recorded_space,
    replay,
    unseen_rungs,
)
from sweeps.schedulers.base import make_scheduler
from sweeps.schedulers.halving import Halving, HalvingSettings, Result
from sweeps.schedulers.pausing import Situation, Verdict
from sweeps.searchers.base import Proposal, Searcher
from tests.sweeps.curves import curve, spec_of, three_recipes

SMALL = SyntheticOptions(families=2, learning_rates=2)
SCHEDULERS: list[tuple[str, dict[str, Any]]] = [
    ("fifo", {}),
    ("asha", {"grace_examples": 1000}),
    ("pareto_asha", {"grace_examples": 1000}),
    ("pareto_asha", {"grace_examples": 1000, "memory_bins": 3, "progressive": True}),
]


class Told(Searcher):
    """Passes everything on to another searcher, and notes what it is asked and told."""

    def __init__(self, inner: Searcher) -> None:
        self.inner, self.space = inner, inner.space
        self.proposed: dict[int, Proposal] = {}
        self.told: dict[int, tuple[str, Sequence[float] | None]] = {}
        self.events: list[tuple[Any, ...]] = []
        self.most_open = 0

    def observe(self, proposal_id: int, examples: int, values: Sequence[float | None]) -> None:
        assert proposal_id not in self.told
        self.inner.observe(proposal_id, examples, values)
        self.events.append((proposal_id, examples, tuple(values)))

    def propose(self) -> Proposal | None:
        proposal = self.inner.propose()
        if proposal is not None:
            self.events.append((proposal.id, "proposed"))
            self.proposed[proposal.id] = proposal
            self.most_open = max(self.most_open, len(self.proposed) - len(self.told))
        return proposal

    def tell(self, proposal_id: int, status: str, values: Sequence[float] | None) -> None:
        self.inner.tell(proposal_id, status, values)
        self.events.append((proposal_id, status))
        self.told[proposal_id] = (status, values)

    def _next(self, identity: int) -> None:
        raise AssertionError("not used")

    def _recall(self, assignment: Any, status: str, values: Any) -> None:
        raise AssertionError("not used")


def searcher_of(table: CurveTable, name: str = "random", seed: int = 0, **options: Any) -> Told:
    kind = registry.searcher_class(name)
    return Told(kind(recorded_space(table), table.spec.objectives, seed=seed, options=options))


def run(
    table: CurveTable, scheduler: tuple[str, dict[str, Any]], *, workers: int = 4, seed: int = 0
) -> ReplayOutcome:
    made = make_scheduler(*scheduler)
    return replay(table, searcher_of(table, seed=seed), made, workers=workers)


# On paper


def test_three_trials_on_two_workers_go_as_on_paper() -> None:
    """Rungs at 10 of 30 examples, eta 3. A and B start; C takes B's worker.

    4 s: B (EM 20, 20 MB) is alone at the rung and pauses. 9 s: C (EM 30, 15 MB) comes second and pauses; its worker has
    nothing to do. 10 s: A (EM 50, 10 MB) is the third and beats both: it goes on. A third of three results is one, so B
    and C are stopped, though C would have ended with EM 90. 33 s: A ends with EM 60: 60 * (100 - 10) = 5400.
    """
    table = three_recipes()
    searcher = searcher_of(table, "grid")
    scheduler = make_scheduler("pareto_asha", {"grace_examples": 10})
    outcome = replay(table, searcher, scheduler, workers=2)
    assert outcome == ReplayOutcome(
        trace=(Step(10.0, 50, 0.0), Step(10.0, 50, 0.0), Step(33.0, 50, 5400.0)),
        trials=(
            EndedTrial("t00001", 1, "stopped", 10, 10.0),
            EndedTrial("t00002", 2, "stopped", 10, 10.0),
            EndedTrial("t00000", 0, "ok", 30, 33.0),
        ),
        counts={"ok": 1, "stopped": 2},
        front=(0,),
        examples=50,
        most_running=2,
    )
    assert searcher.told == {1: ("stopped", None), 2: ("stopped", None), 0: ("ok", [60.0, 10.0])}
    assert outcome.examples_to_reach(5400.0) == 50
    assert outcome.examples_to_reach(5401.0) is None
    assert [outcome.hypervolume_at(spent) for spent in (0, 49, 50, 1e9)] == [0.0, 0.0, 5400.0, 5400.0]


def test_a_searcher_sees_each_report_at_its_time_and_nothing_before() -> None:
    table = three_recipes()
    searcher = searcher_of(table, "grid")
    replay(table, searcher, make_scheduler("pareto_asha", {"grace_examples": 10}), workers=2)
    assert searcher.events == [
        (0, "proposed"),
        (1, "proposed"),
        (1, 10, (20.0, 20.0)),  # 4 s: it pauses, and its worker takes up the third
        (2, "proposed"),
        (2, 10, (30.0, 15.0)),
        (0, 10, (50.0, 10.0)),
        (1, "stopped"),
        (2, "stopped"),
        (0, 30, (60.0, 10.0)),
        (0, "ok"),
    ]


def test_a_forecast_says_what_a_live_sweep_would_know_and_stays_the_same() -> None:
    table = three_recipes()
    forecast = recorded_forecast(table)
    recipes = [curve.assignment for curve in table.curves]
    expected = [[{"memory_mb": memory}] for memory in (10.0, 20.0, 15.0)]
    assert [forecast(item) for item in recipes] == expected
    assert [forecast(item) for item in recipes] == expected  # nothing is given out by asking
    other = synthetic_table(SMALL)
    unknown = {**other.curves[0].assignment, "model.family": "t5"}
    assert recorded_forecast(other)(unknown) == [{}]


def test_a_forecast_names_each_form_that_a_training_is_stored_in() -> None:
    table = synthetic_table(replace(SMALL, forms=True))
    first = table.curves[0]
    planned = [{"memory_mb": form.costs["memory_mb"]} for form in first.forms]
    assert len({values["memory_mb"] for values in planned}) == 4
    assert recorded_forecast(table)(first.assignment) == planned


def test_with_three_workers_the_order_of_time_does_not_help_those_that_come_first() -> None:
    # C reports at 5 s, before A, and beats the only other result: it waits for the third all the same.
    table = three_recipes()
    outcome = replay(
        table,
        searcher_of(table, "grid"),
        make_scheduler("pareto_asha", {"grace_examples": 10}),
        workers=3,
    )
    assert [(trial.curve, trial.status, trial.seconds) for trial in outcome.trials] == [
        (1, "stopped", 10.0),
        (2, "stopped", 10.0),
        (0, "ok", 33.0),
    ]


def test_one_that_pauses_goes_on_where_it_was_as_soon_as_a_worker_is_free() -> None:
    """One worker, C first. 5 s: C pauses. 15 s: A pauses. 19 s: B is the third and is beaten; A goes on, C is stopped.

    A's next report comes 23 s of training and measuring later, at 42 s.
    """
    one = three_recipes()
    table = replace(one, curves=tuple(one.curves[index] for index in (2, 0, 1)))
    rates = [0.003, 0.001, 0.002]
    table = replace(table, spec=spec_of([{"set": "train.learning_rate", "choice": rates}]))
    outcome = replay(
        table, searcher_of(table, "grid"), make_scheduler("pareto_asha", {"grace_examples": 10}), workers=1
    )
    assert [(trial.curve, trial.status, trial.seconds) for trial in outcome.trials] == [
        (2, "stopped", 19.0),
        (0, "stopped", 19.0),
        (1, "ok", 42.0),
    ]


def reports_of(one: Curve, rungs: Sequence[int]) -> list[tuple[int, float, float]]:
    """Return what a trial of this curve sends at these rungs: examples, EM, seconds since its start."""
    seen: list[tuple[int, float]] = []

    class Spy:
        STOP = "STOP"

        def on_trial_add(self, controller: Any, trial: Any) -> None: ...
        def on_trial_complete(self, controller: Any, trial: Any, result: Any) -> None: ...
        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            seen.append((result["examples_seen"], result["selection_em_percent"]))
            return "CONTINUE"

    table = CurveTable(three_recipes().spec, (one,))
    scheduler = make_scheduler("fifo", {"at": list(rungs)})
    scheduler.ray_scheduler = lambda *given, **named: Spy()  # type: ignore[method-assign,assignment,return-value]
    times = [report.seconds for report in _reports(one, scheduler.rungs(30), {})]
    replay(table, searcher_of(table, "grid"), scheduler, workers=1)
    return [(*report, seconds) for report, seconds in zip(seen, times, strict=True)]


def test_a_trial_reports_at_a_rung_what_was_recorded_first_after_it_and_before_the_next_one() -> None:
    values = {"em_percent": (1.0, 2.0, 3.0, 4.0), "memory_mb": (10.0,) * 4}
    one = curve(
        three_recipes().curves[0].assignment,
        examples_seen=(8, 16, 24, 30),
        train_seconds=(1.0, 2.0, 3.0, 4.0),
        rung_values=values,
    )
    end = (30, 4.0, 33.0)
    assert reports_of(one, [5, 15]) == [(8, 1.0, 1.0), (16, 2.0, 2.0), end]
    assert reports_of(one, [8, 24]) == [(8, 1.0, 1.0), (24, 3.0, 3.0), end]
    assert reports_of(one, [5, 7, 9]) == [(8, 1.0, 1.0), (16, 2.0, 2.0), end]  # one step reaches 5 and 7
    assert reports_of(one, [25]) == [end]
    table = CurveTable(three_recipes().spec, (one,))
    assert [unseen_rungs(table, rungs) for rungs in ([5, 15], [5, 7, 9], [25])] == [0, 1, 1]


@pytest.mark.parametrize("scheduler", ["pareto_asha", "asha"])
@pytest.mark.parametrize("workers", [1, 3])
def test_reports_a_batch_after_each_rung_are_judged_as_reports_on_it(scheduler: str, workers: int) -> None:
    """Trials that step over a rung by less than a batch, each by another one, get the verdicts of exact ones."""
    exact = synthetic_table(SMALL)
    late = replace(exact, curves=tuple(_overshot(item, number) for number, item in enumerate(exact.curves)))
    outcomes = [run(table, (scheduler, {"grace_examples": 1000}), workers=workers) for table in (exact, late)]
    verdicts = [[(trial.curve, trial.status) for trial in outcome.trials] for outcome in outcomes]
    assert verdicts[0] == verdicts[1]
    assert 0 < outcomes[0].counts["ok"] < outcomes[0].counts["stopped"]
    assert {trial.examples_seen for trial in outcomes[0].trials} == {1000, 3000, 9000, 27_000}
    assert len({trial.examples_seen for trial in outcomes[1].trials}) > 10


def _overshot(exact: Curve, number: int) -> Curve:
    """Return the curve with every report but the last up to 31 examples later, at the same second."""
    examples = tuple(seen + 1 + number % 31 for seen in exact.examples_seen[:-1])
    return replace(exact, examples_seen=(*examples, exact.examples_seen[-1]))


def test_a_recipe_that_trains_nothing_ends_at_once_and_costs_nothing() -> None:
    one = three_recipes()
    untrained = replace(
        one.curves[0],
        examples_seen=(0,),
        train_seconds=(0.0,),
        rung_values={"em_percent": (60.0,), "memory_mb": (10.0,)},
        seconds=3.0,
    )
    table = CurveTable(one.spec, (untrained,))
    outcome = run(table, ("pareto_asha", {"grace_examples": 10}))
    assert outcome.trace == (Step(3.0, 0, 5400.0),)


def test_limits_of_trials_and_of_examples_start_no_more() -> None:
    table, fifo = three_recipes(), make_scheduler("fifo", {"reports": 0})
    for limit, started in (
        ({"trials": 2}, 2),
        ({"examples": 60}, 2),
        ({"examples": 59}, 1),
        ({"examples": 30}, 1),
        ({"examples": 29}, 0),
    ):
        outcome = replay(table, searcher_of(table, "grid"), fifo, workers=1, **limit)
        assert len(outcome.trials) == started
        assert outcome.examples == 30 * started


def test_a_scheduler_that_does_not_fit_the_table_and_no_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"grace_examples: found 30; allowed: below budget\.examples = 30"):
        run(three_recipes(), ("pareto_asha", {"grace_examples": 30}))
    with pytest.raises(ValueError, match="workers: found 0"):
        run(three_recipes(), ("fifo", {}), workers=0)


# Whatever the scheduler


@pytest.fixture(scope="module")
def table() -> CurveTable:
    found = synthetic_table(SMALL)
    assert len(found.curves) > 60
    return found


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda item: "-".join([item[0], *item[1]]))
@pytest.mark.parametrize("workers", [1, 7])
def test_the_books_balance(table: CurveTable, scheduler: tuple[str, dict[str, Any]], workers: int) -> None:
    searcher = searcher_of(table)
    outcome = replay(table, searcher, make_scheduler(*scheduler), workers=workers)
    seconds = [step.seconds for step in outcome.trace]
    assert seconds == sorted(seconds)
    assert seconds == [trial.seconds for trial in outcome.trials]
    volumes = [step.hypervolume for step in outcome.trace]
    assert volumes == sorted(volumes)
    assert (
        outcome.examples == sum(trial.examples_seen for trial in outcome.trials) == outcome.trace[-1].examples
    )
    assert outcome.most_running == workers
    assert (searcher.most_open == workers) == (
        scheduler[0] != "pareto_asha"
    )  # one that is paused is open too
    assert set(searcher.told) == set(searcher.proposed)
    assert sorted(trial.curve for trial in outcome.trials) == list(range(len(table.curves)))
    finished = [trial.curve for trial in outcome.trials if trial.status == "ok"]
    expected = pareto.hypervolume(table.losses[finished], table.reference)
    assert volumes[-1] == pytest.approx(expected, rel=1e-12)
    assert {trial.status for trial in outcome.trials} == (
        {"ok"} if scheduler[0] == "fifo" else {"ok", "stopped"}
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS[1:], ids=lambda item: "-".join([item[0], *item[1]]))
def test_only_a_trial_with_its_whole_budget_is_told_as_finished(
    table: CurveTable, scheduler: tuple[str, dict[str, Any]]
) -> None:
    searcher = searcher_of(table)
    outcome = replay(table, searcher, make_scheduler(*scheduler), workers=3)
    by_recipe = {repr(item.assignment): item for item in table.curves}
    finished = {table.curves[trial.curve].trial_id for trial in outcome.trials if trial.status == "ok"}
    for trial in outcome.trials:
        assert (trial.status == "ok") == (trial.examples_seen == table.spec.budget.examples)
    for identity, (status, values) in searcher.told.items():
        recorded = by_recipe[repr(searcher.proposed[identity].assignment)]
        if recorded.trial_id in finished:
            assert (status, values) == ("ok", list(recorded.final.values()))
        else:
            assert (status, values) == ("stopped", None)
    assert 0 < len(finished) < len(table.curves) / 2


def test_with_fifo_the_whole_front_is_found(table: CurveTable) -> None:
    outcome = run(table, ("fifo", {}))
    assert outcome.counts == {"ok": len(table.curves)}
    assert outcome.trace[-1].hypervolume == pytest.approx(table.hypervolume, rel=1e-12)
    assert set(outcome.front) == set(np.flatnonzero(pareto.front_mask(table.losses)))
    assert outcome.examples == table.total_examples


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_the_same_seed_gives_the_same_replay_and_another_seed_another(
    table: CurveTable, searcher: str
) -> None:
    def once(seed: int) -> ReplayOutcome:
        made = make_scheduler("pareto_asha", {"grace_examples": 1000})
        return replay(table, searcher_of(table, searcher, seed), made, workers=4, trials=25)

    assert once(1) == once(1)
    assert once(1).trials != once(2).trials


def test_on_one_worker_it_decides_as_halving_one_trial_after_the_other(table: CurveTable) -> None:
    outcome = replay(
        table,
        searcher_of(table, "grid"),
        make_scheduler("pareto_asha", {"grace_examples": 1000, "eta": 3}),
        workers=1,
    )
    rungs = (1000, 3000, 9000)
    halving = Halving(HalvingSettings(rungs=rungs, columns=2, eta=3.0, lead=1))
    reached = [0] * len(table.curves)  # by trial
    waiting: dict[str, int] = {}  # paused trial -> examples
    finished, number = False, 0
    while number < len(table.curves) or waiting:
        situation = Situation(waiting, {}, number < len(table.curves), finished)
        candidates = halving.candidates(situation)
        for trial in candidates.beaten[:1]:
            del waiting[trial]
        if candidates.beaten:
            continue
        trial = candidates.promotions[0] if candidates.promotions else f"t{number:04d}"
        number += trial not in waiting
        item, seen = table.curves[int(trial[1:])], waiting.pop(trial, 0)
        verdict = Verdict.GO_ON
        for rung in [rung for rung in rungs if rung > seen]:
            at = item.examples_seen.index(rung)
            losses = (-item.rung_values["em_percent"][at], item.rung_values["memory_mb"][at])
            reached[int(trial[1:])] = rung
            verdict = halving.judge(trial, rung, Result(losses))
            if verdict is Verdict.PAUSE:
                waiting[trial] = rung
            if verdict is not Verdict.GO_ON:
                break
        if verdict is Verdict.GO_ON:
            reached[int(trial[1:])], finished = 27_000, True
    by_curve = {trial.curve: trial.examples_seen for trial in outcome.trials}
    assert [by_curve[index] for index in range(len(table.curves))] == reached
    assert set(reached) == {1000, 3000, 9000, 27_000}


def test_a_sweep_over_ranges_is_replayed_with_every_recipe_once() -> None:
    space = [
        {"set": "methods", "choice": ["full", "quantize"]},
        {"set": "train.learning_rate", "log_uniform": [1e-4, 1e-2]},
    ]
    rng = np.random.default_rng(0)
    rates = np.exp(rng.uniform(np.log(1e-4), np.log(1e-2), 12)).tolist()
    methods = ["full"] * 10 + ["quantize"] * 2  # a searcher proposes both equally often
    rows = [{"methods": name, "train.learning_rate": rate} for name, rate in zip(methods, rates, strict=True)]
    table = CurveTable(
        spec_of(space), tuple(curve(row, trial_id=f"r{index}") for index, row in enumerate(rows))
    )
    searcher = searcher_of(table)
    outcome = replay(table, searcher, make_scheduler("fifo", {}), workers=3)
    assert sorted(trial.curve for trial in outcome.trials) == list(range(12))
    assert outcome.counts["ok"] == 12
    assert outcome.counts["failed"] > 0
    refused = [searcher.proposed[key] for key, (status, _) in searcher.told.items() if status == "failed"]
    assert {proposal.assignment["methods"] for proposal in refused} == {"quantize"}


@pytest.mark.slow
def test_ten_thousand_trials_on_a_thousand_workers_take_less_than_two_minutes() -> None:
    table = synthetic_table(SCALES["ten-thousand"])
    assert len(table.curves) > 10_000
    started = time.process_time()  # of this process alone: others on the machine count little
    outcome = run(table, ("pareto_asha", {"grace_examples": 1000}), workers=1000)
    assert time.process_time() - started < 120
    assert outcome.most_running == 1000
    assert len(outcome.trials) == len(table.curves)
    assert outcome.counts["stopped"] > outcome.counts["ok"] > 0
