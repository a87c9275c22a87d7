"""Bootstrap intervals: exact small cases, coverage, and what they refuse."""

import itertools

import numpy as np
import pytest

from qa_core import intervals
from qa_core.intervals import Interval, bootstrap_crossed, bootstrap_mean, paired_bootstrap_difference


def test_equal_values_have_an_interval_of_no_width():
    found = bootstrap_mean([0.25, 0.25, 0.25], seed=0)
    assert (found.estimate, found.low, found.high, found.confidence) == (0.25, 0.25, 0.25, 0.95)


def test_quantiles_near_those_of_all_resamples_of_three_values():
    """27 equally likely resamples of (0, 3, 9): the exact distribution of the mean."""
    values = (0.0, 3.0, 9.0)
    means = sorted(sum(drawn) / 3 for drawn in itertools.product(values, repeat=3))
    assert len(means) == 27
    found = bootstrap_mean(values, seed=1, confidence=0.8, resamples=20_000)
    assert found.estimate == 4.0
    assert found.low == means[2]  # 10 % of 27 lies in the third of them
    assert found.high == means[-3]


def test_one_half_gives_the_binomial_quantiles():
    """The mean of 100 coins has standard deviation 0.05: 95 % within 0.40 to 0.60."""
    found = bootstrap_mean([0, 1] * 50, seed=2, resamples=20_000)
    assert (found.low, found.high) == (pytest.approx(0.40, abs=0.0101), pytest.approx(0.60, abs=0.0101))


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(3)
    found = [bootstrap_mean(rng.normal(2.0, 1.0, 80), seed=run, resamples=400) for run in range(300)]
    share = np.mean([interval.low <= 2.0 <= interval.high for interval in found])
    assert 0.90 <= share <= 0.98


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)
    assert bootstrap_mean(values, seed=4) != bootstrap_mean(values, seed=5)


def test_drawing_in_blocks_changes_nothing(monkeypatch):
    values = np.random.default_rng(0).random(50)
    whole = bootstrap_mean(values, seed=6, resamples=101)
    monkeypatch.setattr(intervals, "BLOCK_VALUES", 333)
    assert bootstrap_mean(values, seed=6, resamples=101) == whole


def test_a_paired_difference_leaves_out_what_both_share():
    rng = np.random.default_rng(7)
    shared_part = 100.0 * rng.random(200)
    first, second = shared_part + 1.0, shared_part + rng.normal(0.0, 0.1, 200)
    found = paired_bootstrap_difference(first, second, seed=8)
    assert 0.9 < found.low < found.estimate < found.high < 1.1
    unpaired = bootstrap_mean(first, seed=8)
    assert unpaired.high - unpaired.low > 5.0


def test_a_paired_difference_is_first_minus_second():
    assert paired_bootstrap_difference([3.0, 4.0], [1.0, 2.0], seed=0).estimate == 2.0


@pytest.mark.parametrize(
    ("low", "high", "tied"),
    [(-1.0, 2.0, True), (0.0, 2.0, True), (-1.0, 0.0, True), (0.1, 2.0, False), (-3.0, -0.1, False)],
)
def test_a_difference_is_a_tie_when_its_interval_holds_zero(low, high, tied):
    assert Interval((low + high) / 2, low, high, 0.95).holds_zero is tied


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "values: found shape"),
        ([[1.0]], {}, r"values: found shape \(1, 1\)"),
        ([float("nan")], {}, "finite number"),
        ([1.0], {"confidence": 1.0}, "confidence: found 1.0"),
        ([1.0], {"resamples": 0}, "resamples: found 0"),
    ],
)
def test_bad_values_are_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, seed=0, **options)


def test_pairs_of_different_length_are_refused():
    with pytest.raises(ValueError, match="found 2 and 1"):
        paired_bootstrap_difference([1.0, 2.0], [1.0], seed=0)


def test_one_seed_that_is_resampled_with_its_questions_is_a_bootstrap_of_the_questions():
    values = np.random.default_rng(0).random((1, 400))
    crossed = bootstrap_crossed(values, seed=1)
    plain = bootstrap_mean(values[0], seed=2)
    assert crossed.estimate == pytest.approx(plain.estimate)
    assert crossed.low == pytest.approx(plain.low, abs=0.004)
    assert crossed.high == pytest.approx(plain.high, abs=0.004)


def test_resampled_seeds_of_equal_questions_have_the_27_means_of_three_seeds():
    """Three seeds, each right on all or on none of the questions: only the seeds vary."""
    values = np.repeat([[0.0], [3.0], [9.0]], 7, axis=1)
    means = sorted(sum(drawn) / 3 for drawn in itertools.product((0.0, 3.0, 9.0), repeat=3))
    found = bootstrap_crossed(values, seed=1, confidence=0.8, resamples=20_000)
    assert (found.estimate, found.low, found.high) == (4.0, means[2], means[-3])


def test_a_crossed_difference_pairs_the_questions_and_not_the_seeds():
    rng = np.random.default_rng(3)
    hardness = 100.0 * rng.random(300)
    first = np.stack([hardness + 2.0, hardness + 1.0, hardness + 3.0])
    second = np.stack([hardness, hardness + 1.0])
    found = bootstrap_crossed(first, second, seed=4)
    assert found.estimate == pytest.approx(1.5)
    # Of paired seeds 0 - 1 is the least, of seeds on their own too: 1 - 1 = 0; the questions add nothing.
    assert 0.0 <= found.low < 1.0
    assert 2.0 < found.high <= 3.0
    assert bootstrap_crossed(first, seed=4).high - bootstrap_crossed(first, seed=4).low > 5.0


@pytest.mark.parametrize(
    ("first", "second"),
    [(np.zeros((2, 3)), np.zeros((2, 4))), (np.zeros(3), None), (np.full((1, 2), np.nan), None)],
)
def test_crossed_values_of_the_wrong_shape_or_not_finite_are_refused(first, second):
    with pytest.raises(ValueError, match="values: found shape"):
        bootstrap_crossed(first, second, seed=0)
