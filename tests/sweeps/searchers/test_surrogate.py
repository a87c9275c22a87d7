"""The searcher with a model: the contract, what it learns from, and what it knows beforehand."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from qa_core.errors import ConfigError
from sweeps.searchers.base import Proposal, Searcher
from sweeps.searchers.random import RandomSearcher
from sweeps.searchers.surrogate import SurrogateSearcher, _kept
from sweeps.spec.objectives import Objective
from tests.contracts.searcher import GOALS, SearcherContract
from tests.sweeps.toys import toy_space

QUICK = {  # fewer recipes looked at and steps of a fit: a decision costs a tenth
    "sweeps.searchers.surrogate.CANDIDATES": 32,
    "sweeps.searchers.gaussian_process.STEPS": 8,
}
MEMORY = {"alpha": 60.0, "beta": 30.0, "gamma": 10.0}
LATENCY = Objective.model_validate({"name": "latency_p50_ms", "goal": "min", "reference": 100})


def memory_of(assignment: Mapping[str, Any]) -> Sequence[Mapping[str, float]]:
    return [{"memory_mb": MEMORY[assignment["model.family"]]}]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setattr(name, value)


def proposed(searcher: Searcher) -> Proposal:
    proposal = searcher.propose()
    assert proposal is not None
    return proposal


def go_on(
    searcher: Searcher, trials: int, report: Callable[[str], tuple[float, float | None] | None]
) -> list[str]:
    """Go on with trials that report once and are stopped, or fail; returns the families that the model proposed.

    Args:
        report: EM and memory of a family; None: it fails.
    """
    found = []
    for _ in range(trials):
        proposal = proposed(searcher)
        family = proposal.assignment["model.family"]
        if proposal.id % 5:
            found.append(family)
        if (values := report(family)) is None:
            searcher.tell(proposal.id, "failed", None)
        else:
            searcher.observe(proposal.id, 300, values)
            searcher.tell(proposal.id, "stopped", None)
    return found


class TestSurrogate(SearcherContract):
    name = "surrogate"
    options = {"startup_trials": 4}

    def searcher(
        self, *, seed: int = 0, goals: Sequence[Objective] = GOALS, startup_trials: int = 4, **named: Any
    ) -> SurrogateSearcher:
        options = {"startup_trials": startup_trials}
        return SurrogateSearcher(toy_space(), goals, seed=seed, options=options, **named)

    def test_it_learns_from_reports_of_trials_that_never_finish(self) -> None:
        searcher = self.searcher(forecast=lambda assignment: [{"memory_mb": 20.0}], startup_trials=20)

        def report(family: str) -> tuple[float, float]:
            return (30.0 if family == "beta" else 5.0), 20.0

        go_on(searcher, 20, report)
        assert go_on(searcher, 15, report).count("beta") >= 11  # of 12; a third by chance

    def test_of_recipes_that_answer_alike_the_smaller_are_proposed_and_what_is_too_large_never(self) -> None:
        memory = {**MEMORY, "beta": 64.0}  # the reference
        searcher = self.searcher(
            forecast=lambda assignment: [{"memory_mb": memory[assignment["model.family"]]}],
            startup_trials=15,
        )
        go_on(searcher, 15, lambda family: (50.0, memory[family]))
        assert go_on(searcher, 15, lambda family: (50.0, memory[family])) == ["gamma"] * 12

    def test_memory_is_learnt_where_no_forecast_says_it(self) -> None:
        searcher = self.searcher(startup_trials=20)
        go_on(searcher, 20, lambda family: (50.0, MEMORY[family]))
        assert go_on(searcher, 10, lambda family: (50.0, MEMORY[family])).count("gamma") >= 7

    def test_a_combination_whose_trials_fail_is_left(self) -> None:
        def report(family: str) -> tuple[float, float] | None:
            return None if family == "gamma" else (10.0, 20.0)

        searcher = self.searcher(forecast=memory_of, startup_trials=20)
        go_on(searcher, 40, report)
        assert go_on(searcher, 15, report).count("gamma") <= 2
        blind = self.searcher(forecast=memory_of, startup_trials=20)
        blind._chances = lambda candidates: np.ones(len(candidates))  # type: ignore[method-assign]
        go_on(blind, 40, report)
        assert go_on(blind, 15, report).count("gamma") >= 10

    def test_what_is_open_counts_as_if_it_came_out_as_it_was_drawn(self) -> None:
        # gamma adds most; with one of it open, another one adds next to nothing, and alpha what lies above it.
        em = {"alpha": 80.0, "beta": 1.0, "gamma": 40.0}
        searcher = self.searcher(forecast=memory_of, startup_trials=30)
        go_on(searcher, 31, lambda family: (em[family], MEMORY[family]))
        found = [proposed(searcher).assignment["model.family"] for _ in range(3)]
        assert found[0] == "gamma"
        assert "alpha" in found[1:]

    def test_a_training_counts_by_all_of_its_stored_forms(self) -> None:
        # beta is larger than gamma as it is trained, and smaller when it is packed.
        forms = {"alpha": (60.0,), "beta": (40.0, 5.0), "gamma": (20.0, 15.0)}

        def forecast(assignment: Mapping[str, Any]) -> Sequence[Mapping[str, float]]:
            return [{"memory_mb": memory} for memory in forms[assignment["model.family"]]]

        first = {0: "", 1: ""}
        for has_forms in first:
            for seed in range(5):
                known = forecast if has_forms else (lambda assignment: forecast(assignment)[:1])
                searcher = self.searcher(seed=seed, forecast=known, startup_trials=21)
                go_on(searcher, 21, lambda family: (50.0, None))
                first[has_forms] += proposed(searcher).assignment["model.family"][0]
        assert first[0].count("g") >= 4
        assert first[1].count("b") >= 4
        finished = self.searcher(forecast=forecast, startup_trials=20)
        for _ in range(20):
            proposal = proposed(finished)
            memory = forms[proposal.assignment["model.family"]][0]
            finished.observe(proposal.id, 900, [50.0, memory])
            finished.tell(proposal.id, "ok", [50.0, memory])
        points = np.vstack(list(finished._finished()))
        assert {tuple(point) for point in points} == {
            (50.0, size) for sizes in forms.values() for size in sizes
        }

    def test_each_fifth_proposal_and_those_at_the_start_are_the_random_ones(self) -> None:
        searcher, by_chance = (
            self.searcher(forecast=memory_of),
            RandomSearcher(toy_space(), GOALS, seed=0, options={}),
        )
        is_equal = []
        for number in range(30):
            proposal, other = proposed(searcher), by_chance.propose()
            assert other is not None
            is_equal.append(proposal.assignment == other.assignment)
            if number >= 3:
                searcher.observe(number - 3, 300, [10.0 + number % 7, 20.0])
        assert is_equal[:7] == [True] * 7  # three reports when the seventh is proposed
        assert all(is_equal[number] for number in (10, 15, 20, 25))
        assert sum(is_equal[7:]) <= 8  # where the model sees no gain, chance decides too

    def test_an_objective_of_the_end_alone_is_modelled_from_finished_trials_and_chance_decides_before(
        self,
    ) -> None:
        goals = [*GOALS, LATENCY]
        searcher = self.searcher(goals=goals, forecast=memory_of)
        by_chance = RandomSearcher(toy_space(), goals, seed=0, options={})
        for _ in range(10):
            proposal, other = proposed(searcher), by_chance.propose()
            assert other is not None
            assert proposal.assignment == other.assignment
            searcher.observe(proposal.id, 300, [50.0, 20.0, None])
        for identity in range(10):
            searcher.tell(identity, "ok", [50.0, 20.0, 10.0 + identity])
        found = [proposed(searcher).assignment for _ in range(4)]
        assert found != [item.assignment for _ in range(4) if (item := by_chance.propose()) is not None]

    def test_of_more_values_than_the_model_takes_those_of_early_and_late_trials_are_known(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rung 100 of 900 is reported at 100 or, with larger batches, at 107."""
        monkeypatch.setattr("sweeps.searchers.surrogate.FITTED", 20)
        searcher = self.searcher()
        for number in range(60):
            proposal = proposed(searcher)
            searcher.observe(proposal.id, 107 if number % 2 else 100, [float(number), 10.0])
            if number % 20 == 0:
                searcher.observe(proposal.id, 300, [100.0 + number, 10.0])
        kept = _kept(
            [
                (searcher._distance(examples), identity, False, float(values[0] or 0.0))
                for identity, reports in searcher._reports.items()
                for examples, values in reports.items()
            ]
        )
        assert len(kept) == 20
        assert [value for _, _, _, value in kept[:3]] == [100.0, 120.0, 140.0]
        trials = sorted(trial for _, trial, _, _ in kept[3:])
        assert (trials[0], trials[-1]) == (0, 59)
        assert max(b - a for a, b in itertools.pairwise(trials)) <= 4
        assert 6 <= sum(trial % 2 for trial in trials) <= 11

    def test_wrong_options_are_refused_with_what_is_allowed(self) -> None:
        for name, value, allowed in (
            ("startup_trials", 1, "2 or more"),
            ("random_every", 1, "2 or more"),
            ("random_every", "often", "a whole number"),
        ):
            with pytest.raises(ConfigError, match=rf"searcher\.options\.{name}: found .*{value}.*{allowed}"):
                SurrogateSearcher.check_options({name: value})
