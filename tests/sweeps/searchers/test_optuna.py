"""Optuna's samplers: the contract for each, and trial states that say what happened."""

import warnings
from collections import Counter

import optuna
import pytest
from optuna.trial import TrialState

from qa_core.errors import ConfigError
from sweeps.searchers.optuna import OptunaSearcher
from tests.contracts.searcher import GOALS, SearcherContract, answers, run
from tests.sweeps.toys import toy_space


class TestTpe(SearcherContract):
    name = "optuna"
    options = {"startup_trials": 5}

    def test_only_finished_trials_count_as_complete(self) -> None:
        searcher = self.make()
        assert isinstance(searcher, OptunaSearcher)
        proposals = run(searcher, 30)
        words = {"ok": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL", "oom": "FAIL"}
        expected = [words[answers(proposal)[0]] for proposal in proposals]
        expected[-1] = "RUNNING"  # the last one was never told
        assert [trial.state.name for trial in searcher.study.trials] == expected
        assert Counter(expected).keys() == {"COMPLETE", "PRUNED", "FAIL", "RUNNING"}
        for trial, proposal in zip(searcher.study.trials, proposals, strict=True):
            assert trial.values == (answers(proposal)[1] if trial.state == TrialState.COMPLETE else None)

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

    def test_remembered_trials_keep_state_values_and_parameters(self) -> None:
        earlier = self.make(seed=1)
        proposals = run(earlier, 25)
        searcher = self.make(seed=2)
        assert isinstance(earlier, OptunaSearcher)
        assert isinstance(searcher, OptunaSearcher)
        for proposal in proposals[:-1]:
            searcher.remember(proposal.assignment, *answers(proposal))
        for old, new in zip(earlier.study.trials[:-1], searcher.study.trials, strict=True):
            assert (new.state, new.values) == (old.state, old.values)
            assert (new.params, new.distributions) == (old.params, old.distributions)

    def test_a_trial_of_another_space_cannot_be_remembered(self) -> None:
        with pytest.raises(ValueError, match=r"no value for methods"):
            self.make().remember({"model.family": "gamma"}, "stopped", None)


class TestNsga2(SearcherContract):
    name = "optuna"
    options = {"sampler": "nsga2", "population": 4}


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
