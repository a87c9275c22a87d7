"""Optuna's samplers: the contract for each, and trial states that say what happened."""

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from qa_core.errors import ConfigError
from sweeps.front.pareto import front_mask, to_losses
from sweeps.searchers.base import fingerprint
from sweeps.searchers.optuna import ATTEMPTS, OptunaSearcher
from sweeps.space.known_recipes import known_recipes
from tests.contracts.searcher import (
    GOALS,
    SearcherContract,
    Session,
    answers,
    check_rebuilding,
    run,
    small_rates,
)
from tests.sweeps.toys import toy_space


@pytest.mark.usefixtures("toy_registry")
@pytest.mark.parametrize("options", [{"startup_trials": 5}, {"sampler": "nsga2", "population": 4}])
def test_the_study_holds_every_trial_as_what_it_was(options: dict[str, object]) -> None:
    searcher = OptunaSearcher(toy_space(), GOALS, seed=0, options=options, admits=small_rates)
    proposals = run(searcher, 40)
    words = {"ok": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL", "oom": "FAIL"}
    expected: list[tuple[str, list[float] | None, dict[str, float]]] = []
    for proposal in proposals:
        expected += [("PRUNED", None, {"admitted": 1.0})] * proposal.notes.get("refused", 0)
        status, values = answers(proposal)
        expected.append((words[status], values, {}))
    expected[-1] = ("RUNNING", None, {})  # the last one was never told
    trials = searcher.study.trials
    assert [(trial.state.name, trial.values, trial.constraints) for trial in trials] == expected
    assert {state for state, *_ in expected} == {"COMPLETE", "PRUNED", "FAIL", "RUNNING"}
    # What a trial of the study holds is the recipe: the active parameters, no others.
    ran = [trial for trial in trials if not trial.constraints]
    for trial, proposal in zip(ran, proposals, strict=True):
        found = {name.partition(" of ")[0]: value for name, value in trial.params.items()}
        assert found == proposal.assignment
    on_front = [trial.number for trial in searcher.study.best_trials]
    losses = to_losses([values for _, values, _ in expected if values], ["max", "min"])
    finished = np.array([number for number, (_, values, _) in enumerate(expected) if values])
    assert on_front == finished[front_mask(losses)].tolist()


class TestTpe(SearcherContract):
    name = "optuna"
    options = {"startup_trials": 5}

    def test_the_study_optimises_each_objective_in_its_own_direction(self) -> None:
        searcher = self.make()
        assert isinstance(searcher, OptunaSearcher)
        assert [item.name for item in searcher.study.directions] == ["MAXIMIZE", "MINIMIZE"]

    def test_it_learns_which_choice_is_better(self) -> None:
        searcher = self.make(seed=1)
        for _ in range(80):
            proposal = searcher.propose()
            assert proposal is not None
            is_good = proposal.assignment["model.family"] == "gamma"
            searcher.tell(proposal.id, "ok", [50.0, 10.0] if is_good else [10.0, 50.0])
        latest = [searcher.propose() for _ in range(20)]
        share = sum(item.assignment["model.family"] == "gamma" for item in latest if item) / 20
        assert share >= 0.6  # 1/3 by chance

    def test_a_rebuilt_study_is_the_same_trial_by_trial(self) -> None:
        earlier = Session(self.make(seed=1, admits=small_rates), open_at_most=3)
        earlier.go_on(25)
        later = earlier.rebuilt(25, self.make(seed=2, admits=small_rates))
        assert isinstance(earlier.searcher, OptunaSearcher)
        assert isinstance(later.searcher, OptunaSearcher)
        before, after = earlier.searcher.study.trials, later.searcher.study.trials
        assert len(before) > 30  # refused ones stand between
        for old, new in zip(before, after, strict=True):
            assert (new.number, new.state, new.values) == (old.number, old.state, old.values)
            assert (new.params, new.distributions) == (old.params, old.distributions)
            assert new.constraints == old.constraints
            if new.state == TrialState.RUNNING:
                assert new.system_attrs == old.system_attrs

    def test_a_trial_of_another_space_cannot_be_remembered(self) -> None:
        with pytest.raises(ValueError, match=r"no value for methods"):
            self.make().remember({"model.family": "gamma"}, "stopped", None)

    def test_refused_recipes_are_no_random_start(self) -> None:
        found = []
        for options in ({"startup_trials": 12}, {"sampler": "random"}):
            searcher = OptunaSearcher(toy_space(), GOALS, seed=0, options=options, admits=small_rates)
            proposals = [searcher.propose() for _ in range(12)]
            assert searcher.refused > 12
            for index in range(12):
                searcher.tell(index, "ok", [float(index), float(index)])
            found.append([*proposals, *(searcher.propose() for _ in range(6))])
        by_tpe, by_chance = found
        assert by_tpe[:12] == by_chance[:12]
        assert by_tpe[12:] != by_chance[12:]

    def test_it_learns_where_recipes_are_refused(self) -> None:
        def admits(assignment: Mapping[str, Any]) -> bool:
            return assignment["model.family"] == "gamma"

        refused = {}
        for sampler in ("tpe", "random"):
            searcher = OptunaSearcher(toy_space(), GOALS, seed=0, options={"sampler": sampler}, admits=admits)
            proposals = run(searcher, 50)
            refused[sampler] = sum(proposal.notes.get("refused", 0) for proposal in proposals[20:])
        assert refused["random"] >= 45  # two of three draws
        assert refused["tpe"] <= refused["random"] / 3

    def test_recipes_to_begin_with_are_none_of_the_random_ones(self) -> None:
        space = toy_space()
        rng = np.random.default_rng(3)
        searcher = self.make(space)
        searcher.begin_with([space.sample(rng) for _ in range(4)])
        assert searcher._sampler(4, 0)._n_startup_trials == 5 + 4

    def test_a_sampler_that_finds_nothing_admitted_is_left_after_a_few_attempts(self) -> None:
        entries = [
            {"set": "model.family", "choice": ["alpha"]},
            {"set": "train.batch_size", "choice": list(range(1, 2001))},
        ]
        searcher = self.make(toy_space(space=entries), admits=lambda item: item["train.batch_size"] == 1777)
        assert isinstance(searcher, OptunaSearcher)
        proposal = searcher.propose()
        assert proposal is not None
        assert proposal.notes["refused"] == ATTEMPTS == len(proposal.notes["refused_recipes"])
        states = Counter(trial.state for trial in searcher.study.trials)
        assert states == {TrialState.PRUNED: ATTEMPTS, TrialState.RUNNING: 1}

    def test_a_study_learns_nothing_where_nothing_is_proposed(self) -> None:
        searcher = self.make(admits=lambda assignment: False)
        assert isinstance(searcher, OptunaSearcher)
        assert searcher.propose() is None
        assert searcher.study.trials == []


@pytest.mark.usefixtures("toy_registry")
@pytest.mark.parametrize("admits", [None, small_rates], ids=["all-admitted", "some-refused"])
def test_the_joint_model_of_one_objective_is_rebuilt_with_the_values_it_had_drawn(admits: Any) -> None:
    space = toy_space()

    def make() -> OptunaSearcher:
        return OptunaSearcher(space, GOALS[:1], seed=5, options={"startup_trials": 5}, admits=admits)

    check_rebuilding(make, open_at_most=3)
    proposals = Session(make(), open_at_most=1).go_on(12)
    assert "optuna_attributes" not in proposals[0].notes  # one of the random ones
    assert "tpe:relative_params:0" in proposals[-1].notes["optuna_attributes"]


@pytest.mark.usefixtures("toy_registry")
@pytest.mark.parametrize("options", [{"startup_trials": 5}, {"sampler": "nsga2", "population": 4}])
def test_a_finite_space_is_used_up_before_a_recipe_repeats_and_is_rebuilt(options: dict[str, object]) -> None:
    space = toy_space(
        space=[
            {"set": "model.family", "choice": ["gamma"]},
            {"set": "methods", "choice": ["full"]},
            {"set": "train.learning_rate", "choice": [1e-4, 1e-3, 3e-3, 1e-2, 3e-2]},
            {"set": "train.batch_size", "choice": [2, 4, 8, 16]},
        ]
    )

    def make() -> OptunaSearcher:
        return OptunaSearcher(space, GOALS, seed=3, options=options)

    tried = [proposal.assignment for proposal in Session(make(), open_at_most=2).go_on(20)]
    assert len({fingerprint(assignment) for assignment in tried}) == 20
    check_rebuilding(make, open_at_most=3)
    longer = Session(make(), open_at_most=2).go_on(24)
    assert len(longer) == 24  # then it repeats


class TestNsga2(SearcherContract):
    name = "optuna"
    options = {"sampler": "nsga2", "population": 4}

    def test_its_notes_hold_the_generation(self) -> None:
        proposals = Session(self.make(), open_at_most=1).go_on(20)
        generations = [item.notes["optuna_attributes"]["StatelessNsga2:generation"] for item in proposals]
        assert generations == sorted(generations)
        finished = [answers(item)[0] == "ok" for item in proposals]
        for generation in range(max(generations)):
            born = [ok for ok, of in zip(finished, generations, strict=True) if of == generation]
            assert sum(born) == 4


class TestNsga2FromKnownRecipes(SearcherContract):
    name = "optuna"
    options = {"sampler": "nsga2", "population": 4, "known": True}

    def test_known_recipes_come_first_and_belong_to_generations(self) -> None:
        space = toy_space()
        proposals = Session(self.make(space, seed=3), open_at_most=1).go_on(15)
        known = known_recipes(space, seed=3)
        assert len(known) == 13
        assert [item.assignment for item in proposals[:13]] == known
        assert proposals[13].assignment not in known
        for proposal in proposals:
            assert "StatelessNsga2:generation" in proposal.notes["optuna_attributes"]

    def test_known_recipes_that_are_refused_are_passed_over(self) -> None:
        space = toy_space()
        known = known_recipes(space, seed=0)
        refused = known[:2] + known[6:7]
        searcher = self.make(space, admits=lambda assignment: assignment not in refused)
        found = [searcher.propose() for _ in range(10)]
        assert [item.assignment for item in found if item] == known[2:6] + known[7:]
        assert searcher.refused == 3


class TestRandomSampler(SearcherContract):
    name = "optuna"
    options = {"sampler": "random"}


@pytest.mark.usefixtures("toy_registry")
def test_one_objective_is_modelled_jointly_and_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", optuna.exceptions.ExperimentalWarning)
        searcher = OptunaSearcher(toy_space(), GOALS[:1], seed=0, options={"startup_trials": 3})
        for _ in range(20):
            proposal = searcher.propose()
            assert proposal is not None
            status, values = answers(proposal)
            searcher.tell(proposal.id, status, values and values[:1])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sampler": "tep"}, "did you mean 'tpe'"),
        ({"startup_trials": 0}, "startup_trials: found 0; allowed: 1 or more"),
        ({"population": 1}, "population: found 1; allowed: 2 or more"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        OptunaSearcher.check_options(options)
