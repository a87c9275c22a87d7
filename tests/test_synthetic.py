"""Synthetic curve tables: the front that is known is the front of the table; curves learn and cross as they should."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.synthetic import SCALES, SyntheticOptions, known_front, learnt_share, synthetic_table
from sweeps.front import pareto
from sweeps.replay.curves import CurveTable

OPTIONS = [
    SyntheticOptions(families=3, learning_rates=2),
    SyntheticOptions(learning_rates=3, batch_sizes=2, weight_decays=3),
    SyntheticOptions(families=1, learning_rates=1),
    SyntheticOptions(families=2, learning_rates=2, forms=True),
]


def quiet(options: SyntheticOptions) -> CurveTable:
    return synthetic_table(replace(options, rung_noise=0.0, final_noise=0.0))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda item: f"{item.families}-{item.learning_rates}")
def test_without_noise_the_known_front_is_the_front_of_the_table(options: SyntheticOptions) -> None:
    table = quiet(options)
    found = table.losses[pareto.front_mask(table.losses)]
    points = sorted(
        {(-em_percent, memory) for em_percent, memory in found.tolist()}, key=lambda item: item[1]
    )
    expected = known_front(table.space, options)
    assert len(points) == len(expected) >= 3
    np.testing.assert_allclose(points, expected, rtol=1e-12)


def test_every_recipe_of_the_space_has_one_curve_and_sizes_are_as_named() -> None:
    sizes = {}
    for name, options in SCALES.items():
        if name != "ten-thousand":
            table = synthetic_table(options)
            assert len({repr(item.assignment) for item in table.curves}) == len(table.curves)
            sizes[name] = len(table.curves)
    assert sizes == {"hundred": 162, "hundreds": 390, "thousand": 1950}


@pytest.mark.slow
def test_the_largest_has_ten_thousand_recipes() -> None:
    assert len(synthetic_table(SCALES["ten-thousand"]).curves) == 10_920


def test_without_noise_curves_rise_to_their_final_value() -> None:
    for item in quiet(OPTIONS[0]).curves:
        values = np.array(item.rung_values["em_percent"])
        assert (np.diff(values) > 0).all()
        assert values[-1] == pytest.approx(item.final["em_percent"])
        assert set(item.rung_values["memory_mb"]) == {item.final["memory_mb"]}


def test_large_models_start_later_and_a_low_learning_rate_slows_down() -> None:
    small = {"model.family": "lstm", "model.checkpoint": "micro", "train.learning_rate": 1e-3}
    large = {"model.family": "t5", "model.checkpoint": "mini", "train.learning_rate": 1e-3}
    slow = {**large, "train.learning_rate": 1e-4}
    shares = [learnt_share(item, 1000, crossing=0.3) for item in (small, large, slow)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 2 * shares[1]
    assert [learnt_share(item, 27_000, crossing=0.3) for item in (small, large, slow)] == [1.0, 1.0, 1.0]


def test_the_option_decides_how_much_the_first_rung_tells() -> None:
    agreement = []
    for crossing in (0.03, 0.1, 0.3):
        table = synthetic_table(replace(SCALES["hundreds"], crossing=crossing))
        first = [item.rung_values["em_percent"][0] for item in table.curves]
        final = [item.final["em_percent"] for item in table.curves]
        ranks = [np.argsort(np.argsort(values)) for values in (first, final)]
        agreement.append(float(np.corrcoef(ranks)[0, 1]))
    assert agreement[0] > 0.9
    assert 0.8 > agreement[1] > 0.5
    assert agreement[2] < 0.3


def test_noise_is_of_the_seed_and_has_the_size_that_was_asked_for() -> None:
    options = replace(SCALES["thousand"], rung_noise=2.0, final_noise=0.5)
    table, clean = synthetic_table(options), quiet(options)
    assert synthetic_table(options).curves == table.curves
    assert synthetic_table(replace(options, seed=1)).curves != table.curves
    reached = np.array([item.rung_values["em_percent"] for item in table.curves])
    expected = np.array([item.rung_values["em_percent"] for item in clean.curves])
    inside = expected > 10  # not clipped at zero
    assert np.std((reached - expected)[inside]) == pytest.approx(2.0, rel=0.05)
    assert np.std(table.losses[:, 0] - clean.losses[:, 0]) == pytest.approx(0.5, rel=0.05)
    np.testing.assert_array_equal(table.losses[:, 1], clean.losses[:, 1])
