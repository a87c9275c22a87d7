"""NSGA-II without state: the parents that Optuna would choose, from the trials alone."""

import random

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import NSGAIISampler
from optuna.trial import TrialState, create_trial

from sweeps.searchers.nsga2 import StatelessNsga2

RANGE = FloatDistribution(0.0, 1.0)


def study_of(generations: list[int], *, key: str, seed: int = 0) -> optuna.Study:
    """Return a study with finished trials of two made-up objectives, in the given generations."""
    chance = random.Random(seed)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for generation in generations:
        point = chance.random()
        values = [point + 0.3 * chance.random(), point + 0.3 * chance.random()]
        study.add_trial(
            create_trial(
                params={"x": point}, distributions={"x": RANGE}, values=values, system_attrs={key: generation}
            )
        )
    return study


def sampler(population: int, *, seed: int = 0, seed_of_draws: int = 1) -> StatelessNsga2:
    return StatelessNsga2(population=population, seed=seed, seed_of_draws=seed_of_draws)


def test_parents_are_those_of_optuna_when_every_trial_ends_in_its_generation() -> None:
    generations = [index // 6 for index in range(24)]
    theirs, ours = NSGAIISampler(population_size=6), sampler(6)
    expected_study = study_of(generations, key="NSGAIISampler:generation")
    study = study_of(generations, key="StatelessNsga2:generation")
    for generation in range(5):
        expected = {item.number for item in theirs.get_parent_population(expected_study, generation)}
        found = {item.number for item in ours.get_parent_population(study, generation)}
        assert found == expected
        assert len(found) == (6 if generation else 0)
    assert found != set(range(18, 24))  # elders stay where they are better


def test_a_trial_that_ends_late_becomes_a_parent_all_the_same() -> None:
    study = study_of([0, 0, 0, 0], key="StatelessNsga2:generation")
    late = create_trial(
        params={"x": 0.5},
        distributions={"x": RANGE},
        state=TrialState.RUNNING,
        system_attrs={"StatelessNsga2:generation": 0},
    )
    study.add_trial(late)
    before = {item.number for item in sampler(4).get_parent_population(study, 1)}
    study.tell(4, [9.0, -9.0])  # beats all
    after = {item.number for item in sampler(4).get_parent_population(study, 1)}
    assert before == {0, 1, 2, 3}
    assert 4 in after
    assert len(after) == 4


def test_a_thousand_generations_are_not_too_deep() -> None:
    study = study_of([index // 2 for index in range(2000)], key="StatelessNsga2:generation")
    assert len(sampler(2).get_parent_population(study, 1000)) == 2


def test_a_trial_whose_values_are_given_has_a_generation() -> None:
    study = study_of([0, 0, 1], key="StatelessNsga2:generation")
    for expected in (1, 2):
        study.sampler = sampler(2)
        study.enqueue_trial({"x": 0.5})
        trial = study.ask()
        assert trial.suggest_float("x", 0.0, 1.0) == 0.5
        assert study.trials[-1].system_attrs["StatelessNsga2:generation"] == expected
        study.tell(trial, [1.0, 1.0])


def test_drawn_values_are_apart_from_the_choice_of_parents() -> None:
    def asked(seed: int, seed_of_draws: int) -> tuple[float, float]:
        study = study_of([0, 0, 0, 0], key="StatelessNsga2:generation")
        study.sampler = sampler(4, seed=seed, seed_of_draws=seed_of_draws)
        trial = study.ask()
        x = trial.suggest_float("x", 0.0, 1.0)  # mutated with probability 1, since it is alone
        return x, trial.suggest_float("new", 0.0, 1.0)

    assert asked(1, 5) == asked(2, 5)
    assert asked(1, 5) != asked(1, 6)


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
def test_only_finished_trials_have_children(state: TrialState) -> None:
    study = study_of([0, 0, 0], key="StatelessNsga2:generation")
    study.add_trial(
        create_trial(
            params={"x": 0.5},
            distributions={"x": RANGE},
            state=state,
            system_attrs={"StatelessNsga2:generation": 0},
        )
    )
    assert {item.number for item in sampler(4).get_parent_population(study, 1)} == {0, 1, 2}
