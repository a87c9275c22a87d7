"""Examples of a whole sweep: of each recipe, and of each teacher once."""

from typing import Any

import pytest

from qa_core.config import RunConfig
from qa_core.errors import ConfigError
from qa_core.values import from_dict, to_dict
from sweeps.budget.examples import Spending, check_teachers, examples_of, teachers_of
from sweeps.schedulers.pausing import Account


def recipe(methods: dict[str, Any], seed: int = 1) -> RunConfig:
    return from_dict(
        RunConfig,
        {
            "model": {"family": "lstm", "checkpoint": "micro"},
            "methods": methods,
            "train": {"budget_examples": 900, "rungs": [100, 300]},
            "seed": seed,
        },
    )


def distilled(seed: int = 1, **train: Any) -> RunConfig:
    return recipe({"distill": {"teacher_recipe": {"train": train or {"budget_examples": 500}}}}, seed)


def test_a_recipe_has_its_budget_and_one_that_trains_nothing_none() -> None:
    assert examples_of(recipe({})) == 900
    few_shot = {
        "model": {"family": "t5", "head": "generate", "checkpoint": "micro"},
        "methods": {"few_shot": {}},
    }
    values = {**few_shot, "train": {"budget_examples": 900}}
    assert examples_of(from_dict(RunConfig, values)) == 0


def test_equal_teachers_of_different_trials_are_one() -> None:
    assert teachers_of(recipe({})) == {}
    (first, other, shorter) = (
        teachers_of(item) for item in (distilled(1), distilled(2), distilled(budget_examples=400))
    )
    assert first == other
    assert list(first.values()) == [500]
    assert list(shorter.values()) == [400]
    spending = Spending(10_000, (100, 300))
    for item in (distilled(1), distilled(2), distilled(budget_examples=400), recipe({})):
        spending.count(to_dict(item))
    assert spending.spent([Account(900, 900), Account(100, 900)]) == 1000 + 500 + 400


def test_a_new_teacher_counts_before_the_trial_starts_and_a_known_one_no_more() -> None:
    others = [Account(900, 900)]
    for total, fits_new, fits_known in ((1499, False, True), (1500, True, True), (999, False, False)):
        spending = Spending(total, (100, 300))
        assert spending.fits_new(distilled(), others, has_finished=True) == fits_new
        spending = Spending(total + 500, (100, 300))
        spending.count(to_dict(distilled(7)))
        assert spending.fits_new(distilled(), others, has_finished=True) == fits_known


def test_without_a_limit_nothing_is_counted() -> None:
    spending = Spending(None, (100,))
    spending.count({"not": "read"})
    assert spending.fits_new(distilled(epochs=3), [], has_finished=False)
    check_teachers([distilled(epochs=3)], None)


def test_a_teacher_given_in_epochs_cannot_be_counted() -> None:
    with pytest.raises(
        ConfigError, match=r"budget\.total_examples: methods\.distill: .* given in epochs; allowed: in ex"
    ):
        check_teachers([recipe({}), distilled(epochs=3)], 10_000)
