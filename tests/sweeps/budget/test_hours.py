"""What a sweep may spend: sums small enough to do by hand."""

from collections import Counter

import numpy as np
import pytest

from sweeps.budget.hours import Cell, Hours, cell_shares, cells_of, halving_share, span, sweep_hours
from tests.sweeps import toys

A, B = Cell("alpha", "full", "tiny"), Cell("beta span", "pack", "tiny")


@pytest.mark.parametrize(
    ("rungs", "eta", "share"),
    [
        ((), 3.0, 1.0),
        ((100,), 2.0, (100 + 200 / 2) / 300),
        ((30, 90), 3.0, (30 + 60 / 3 + 210 / 9) / 300),
    ],
)
def test_halving_spends_each_stretch_on_those_that_are_left(rungs, eta, share):
    assert halving_share(rungs, eta, 300) == pytest.approx(share)


def hours(**changes):
    values = {
        "trial_hours": {A: 1.0, B: 3.0},
        "shares": {A: 0.75, B: 0.25},
        "trials": 8,
        "concurrent": 2,
        "least_share": 0.25,
        "time_minutes": None,
        **changes,
    }
    return sweep_hours(values.pop("trial_hours"), values.pop("shares"), **values)


def test_a_sweep_takes_its_trials_by_their_shares_over_those_at_a_time():
    assert hours() == Hours(at_most=8 * 1.5 / 2, at_least=8 * 1.5 / 2 / 4, concurrent=2)


def test_without_halving_there_is_no_least():
    assert hours(least_share=None).at_least is None


def test_no_sweep_takes_longer_than_its_own_limit():
    assert hours(time_minutes=90) == Hours(at_most=1.5, at_least=1.5, concurrent=2)


def test_no_sweep_takes_longer_than_its_examples():
    assert hours(most_share=0.5) == Hours(at_most=3.0, at_least=1.5, concurrent=2)
    assert hours(most_share=0.125) == Hours(at_most=0.75, at_least=0.75, concurrent=2)


def test_what_was_not_timed_counts_as_the_mean_of_the_rest():
    assert hours(trial_hours={B: 3.0}).at_most == 8 * 3.0 / 2


def test_a_range_leaves_out_what_is_missing():
    assert span([3.0, None, 1.0, 2.0]) == (1.0, 3.0)
    assert span([None]) is None


@pytest.mark.usefixtures("toy_registry")
def test_every_legal_combination_is_drawn_and_drawn_by_its_cell():
    space = toys.toy_space()
    cells = cells_of(space, np.random.default_rng(0))
    assert sum(map(len, cells.values())) == 3 * len(space.legal)
    expected = Counter(
        Cell(" ".join(filter(None, (item["model.family"], item.get("model.head")))), item["methods"], "tiny")
        for item in space.legal
    )
    assert {cell: len(recipes) for cell, recipes in cells.items()} == {
        cell: 3 * count for cell, count in expected.items()
    }
    assert all(Cell.of(recipe) == cell for cell, recipes in cells.items() for recipe in recipes)


@pytest.mark.usefixtures("toy_registry")
def test_shares_are_those_of_random_recipes():
    shares = cell_shares(toys.toy_space(), np.random.default_rng(0))
    assert sum(shares.values()) == pytest.approx(1.0)
    of_gamma = sum(share for cell, share in shares.items() if cell.family == "gamma")
    assert of_gamma == pytest.approx(1 / 3, abs=0.05)
