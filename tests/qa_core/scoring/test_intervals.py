"""Intervals over articles: exact small cases, coverage by simulation, and what they refuse."""

import itertools
import math

import numpy as np
import pytest

from qa_core.data.clusters import Clusters, each_alone
from qa_core.scoring.intervals import (
    LEAST_CLUSTERS,
    Interval,
    clustered_difference,
    clustered_mean,
    crossed_mean,
    jackknifed,
    means_without,
    standard_error,
)

T_9 = 2.2621571628  # 0.975 quantile of Student's t with 9 degrees of freedom (printed tables)


def articles(sizes) -> Clusters:
    return Clusters("article", np.repeat(np.arange(len(sizes)), sizes))


def test_equal_values_have_an_interval_of_no_width():
    found = clustered_mean([0.25] * 9, each_alone(9, "question"))
    assert (found.estimate, found.low, found.high, found.confidence) == (0.25, 0.25, 0.25, 0.95)


def test_values_that_stand_alone_have_the_interval_of_the_textbook():
    """With one value in each cluster the jackknife is s / sqrt(n), and the quantile that of t with n - 1."""
    values = np.array([3.0, 5.0, 8.0, 1.0, 9.0, 2.0, 4.0, 7.0, 6.0, 0.0])
    half = T_9 * values.std(ddof=1) / math.sqrt(10)
    found = clustered_mean(values, each_alone(10, "question"))
    assert (found.low, found.high) == (pytest.approx(4.5 - half), pytest.approx(4.5 + half))
    assert (found.unit, found.clusters) == ("question", 10)


def test_questions_that_repeat_their_article_are_worth_no_more_than_one_of_them():
    values = np.array([3.0, 5.0, 8.0, 1.0, 9.0, 2.0, 4.0, 7.0, 6.0, 0.0])
    once = clustered_mean(values, articles([1] * 10))
    repeated = clustered_mean(np.repeat(values, 30), articles([30] * 10))
    assert (repeated.low, repeated.high) == (pytest.approx(once.low), pytest.approx(once.high))
    alone = clustered_mean(np.repeat(values, 30), each_alone(300, "question"))
    assert (alone.high - alone.low) < 0.2 * (once.high - once.low)


def test_the_variance_of_articles_of_unequal_size_is_that_of_leaving_each_out_by_hand():
    sizes = [1, 2, 3, 4, 5, 6, 7, 8]
    values = np.random.default_rng(0).normal(size=sum(sizes))
    clusters = articles(sizes)
    without = [np.delete(values, np.flatnonzero(clusters.of_value == one)).mean() for one in range(8)]
    variance = 7 / 8 * sum((mean - values.mean()) ** 2 for mean in without)
    effective = sum(sizes) ** 2 / sum(size**2 for size in sizes)  # 6.35 of 8
    found = clustered_mean(values, clusters)
    half = found.high - found.estimate
    # Quantiles of t with 5 and 6 degrees of freedom bracket that with 5.35 (printed tables: 2.571 and 2.447).
    assert 5 < effective - 1 < 6
    assert 2.447 < half / math.sqrt(variance) < 2.571


def test_the_order_of_questions_and_the_numbers_of_articles_do_not_matter():
    rng = np.random.default_rng(1)
    clusters, values = articles([3, 9, 4, 4, 7, 2, 5, 6]), rng.random(40)
    order = rng.permutation(40)
    found = clustered_mean(values, clusters)
    shuffled = clustered_mean(values[order], clusters.take(order))
    renamed = clustered_mean(values, Clusters("article", 7 - clusters.of_value))
    for other in (shuffled, renamed):
        assert (other.low, other.high) == (pytest.approx(found.low), pytest.approx(found.high))


def draws(rng, count: int, *, spread: float, logit: float, variation: float):
    """Return right or wrong answers [Q] of articles whose difficulty (on the logit scale) and size vary."""
    sigma = math.sqrt(math.log(1.0 + variation**2))
    sizes = np.maximum(2, np.round(60 * np.exp(rng.normal(-(sigma**2) / 2, sigma, count)))).astype(int)
    shares = 1.0 / (1.0 + np.exp(-(logit + spread * rng.normal(size=count))))
    return (rng.random(sizes.sum()) < np.repeat(shares, sizes)).astype(float), articles(sizes)


def expected_share(*, spread: float, logit: float) -> float:
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return float((weights / (1.0 + np.exp(-(logit + spread * nodes)))).sum() / weights.sum())


@pytest.mark.parametrize(("count", "least"), [(12, 0.92), (48, 0.94), (400, 0.94)])
def test_the_interval_covers_the_true_score_as_often_as_it_says(count, least):
    """Articles vary as SQuAD's do: their sizes by 57 % of the mean, and standard errors are 2 to 3 times those of
    independent questions. Of 2,000 samples at 95 % the share covered has a standard error of 0.5 points.
    """
    rng = np.random.default_rng(3)
    setting = {"spread": 0.6, "logit": 1.0}
    truth, covered, naive = expected_share(**setting), 0, 0
    runs = 2000
    for _ in range(runs):
        right, clusters = draws(rng, count, variation=0.57, **setting)
        found = clustered_mean(100.0 * right, clusters, bounds=(0.0, 100.0))
        covered += found.low <= 100.0 * truth <= found.high
        alone = 1.96 * right.std() / math.sqrt(len(right))
        naive += abs(right.mean() - truth) <= alone
    assert covered / runs >= least
    assert covered / runs <= 0.975  # and not by being too wide
    assert naive / runs < 0.75


@pytest.mark.parametrize(("count", "least"), [(12, 0.92), (48, 0.94), (400, 0.94)])
def test_the_interval_of_a_paired_difference_covers_too(count, least):
    rng = np.random.default_rng(5)
    covered, runs = 0, 2000
    for _ in range(runs):
        right, clusters = draws(rng, count, spread=0.6, logit=0.0, variation=0.57)
        # The other system differs on a quarter of the questions, more on some articles; on average by nothing.
        differs = rng.random(len(right)) < 0.25
        leaning = (0.5 + 0.3 * rng.uniform(-1, 1, clusters.count))[clusters.of_value]
        other = np.where(differs, rng.random(len(right)) < leaning, right)
        # E[other - right] = 0.25 (0.5 - E[right]) = 0, for the shares lie symmetrically around one half.
        found = clustered_difference(100.0 * other, 100.0 * right, clusters)
        covered += found.low <= 0.0 <= found.high
    assert least <= covered / runs <= 0.975


@pytest.mark.parametrize("count", [1, 2, LEAST_CLUSTERS - 1])
def test_few_articles_have_an_estimate_and_no_interval(count):
    found = clustered_mean([1.0, 0.0] * count, articles([2] * count))
    assert (found.estimate, found.low, found.high, found.clusters) == (0.5, None, None, count)
    assert found.holds_zero is None


@pytest.mark.parametrize("count", [1, 8, 200, 392, 399])
def test_the_interval_of_a_percentage_stays_between_its_bounds(count):
    right = np.random.default_rng(6).permutation(np.arange(400) < count).astype(float)
    found = clustered_mean(100.0 * right, articles([40] * 10), bounds=(0.0, 100.0))
    assert 0.0 <= found.low <= found.estimate <= found.high <= 100.0
    assert found.low < found.high


def test_on_the_logit_scale_a_share_near_one_half_keeps_its_interval():
    right = np.random.default_rng(7).random(4000) < 0.5
    clusters = articles([100] * 40)
    plain = clustered_mean(100.0 * right, clusters)
    bounded = clustered_mean(100.0 * right, clusters, bounds=(0.0, 100.0))
    assert (bounded.low, bounded.high) == (
        pytest.approx(plain.low, abs=0.05),
        pytest.approx(plain.high, abs=0.05),
    )


def test_a_paired_difference_leaves_out_what_both_share():
    rng = np.random.default_rng(7)
    shared_part = 100.0 * rng.random(200)
    first, second = shared_part + 1.0, shared_part + rng.normal(0.0, 0.1, 200)
    clusters = articles([10] * 20)
    found = clustered_difference(first, second, clusters)
    assert 0.9 < found.low < found.estimate < found.high < 1.1
    unpaired = clustered_mean(first, clusters)
    assert unpaired.high - unpaired.low > 5.0


def test_a_paired_difference_is_first_minus_second():
    clusters = each_alone(2, "question")
    assert clustered_difference([3.0, 4.0], [1.0, 2.0], clusters).estimate == 2.0


@pytest.mark.parametrize(
    ("low", "high", "tied"),
    [(-1.0, 2.0, True), (0.0, 2.0, True), (-1.0, 0.0, True), (0.1, 2.0, False), (-3.0, -0.1, False)],
)
def test_a_difference_is_a_tie_when_its_interval_holds_zero(low, high, tied):
    assert Interval((low + high) / 2, low, high, 0.95, "article", 20).holds_zero is tied


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "values: found shape"),
        ([[1.0]], {}, r"values: found shape \(1, 1\)"),
        ([float("nan")], {}, "finite number"),
        ([1.0], {"confidence": 1.0}, "confidence: found 1.0"),
        ([1.0, 2.0], {}, "clusters: found 1; allowed: 2, one for each value"),
        ([1.5], {"bounds": (0.0, 1.0)}, "values: found 1.5 to 1.5; allowed: 0 to 1"),
    ],
)
def test_bad_values_are_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        clustered_mean(values, each_alone(1, "question"), **options)


def test_pairs_of_different_length_are_refused():
    with pytest.raises(ValueError, match="found 2 and 1"):
        clustered_difference([1.0, 2.0], [1.0], each_alone(2, "question"))


def test_one_seed_has_the_interval_of_its_questions():
    values = np.random.default_rng(0).random((1, 400))
    clusters = articles([20] * 20)
    assert crossed_mean(values, None, clusters) == clustered_mean(values[0], clusters)


def test_seeds_that_are_each_right_on_all_questions_or_on_none_have_the_interval_of_the_seeds():
    """Only the seeds vary: s / sqrt(3) with 2 degrees of freedom (0.975 quantile of t: 4.303)."""
    values = np.repeat([[0.0], [3.0], [9.0]], 400, axis=1)
    found = crossed_mean(values, None, articles([20] * 20))
    half = 4.303 * np.std([0.0, 3.0, 9.0], ddof=1) / math.sqrt(3)
    assert (found.estimate, found.high - 4.0) == (4.0, pytest.approx(half, rel=1e-3))


def test_a_crossed_difference_pairs_the_questions_and_not_the_seeds():
    rng = np.random.default_rng(3)
    hardness = 100.0 * rng.random(300)
    clusters = articles([10] * 30)
    first = np.stack([hardness + 2.0, hardness + 1.0, hardness + 3.0])
    second = np.stack([hardness, hardness + 1.0])
    found = crossed_mean(first, second, clusters)
    assert found.estimate == pytest.approx(1.5)
    # The questions add nothing; the seeds 1 / 3 and 0.5 / 2, with (7 / 12)^2 / (1 / 18 + 1 / 16) = 2.88 degrees of
    # freedom, whose quantile lies between those with 2 and 3 (4.303 and 3.182).
    half = (found.high - 1.5) / math.sqrt(7 / 12)
    assert 3.182 < half < 4.303
    alone = crossed_mean(first, None, clusters)
    assert alone.high - alone.low > 5.0


def test_seeds_and_articles_together_cover_as_often_as_they_say():
    """Three seeds and 30 articles, both of which vary about as much; the interval errs on the wide side."""
    rng = np.random.default_rng(9)
    clusters, covered, runs = articles([10] * 30), 0, 1000
    for _ in range(runs):
        seeds = rng.normal(0.0, 1.0, (3, 1))
        by_article = np.repeat(rng.normal(0.0, 4.0, 30), 10)
        values = 50.0 + seeds + by_article + rng.normal(0.0, 5.0, (3, 300))
        found = crossed_mean(values, None, clusters)
        covered += found.low <= 50.0 <= found.high
    assert 0.94 <= covered / runs <= 0.99


@pytest.mark.parametrize(
    ("first", "second"),
    [(np.zeros((2, 3)), np.zeros((2, 4))), (np.zeros(3), None), (np.full((1, 3), np.nan), None)],
)
def test_crossed_values_of_the_wrong_shape_or_not_finite_are_refused(first, second):
    with pytest.raises(ValueError, match="values: found"):
        crossed_mean(first, second, each_alone(3, "question"))


def test_every_pair_of_small_cases_agrees_with_a_slow_version():
    """All assignments of 0 and 1 to eight articles of one or two questions, against leaving out in a loop."""
    sizes = [1, 2, 1, 2, 1, 2, 1, 2]
    clusters = articles(sizes)
    for chosen in itertools.islice(itertools.product((0.0, 1.0), repeat=12), 0, None, 37):
        values = np.array(chosen)
        kept = [values[clusters.of_value != one].mean() for one in range(8)]
        error = math.sqrt(7 / 8 * sum((mean - values.mean()) ** 2 for mean in kept))
        found = clustered_mean(values, clusters)
        assert (found.high - found.low) / 2 == pytest.approx(2.44 * error, rel=0.03)


def test_the_standard_error_of_values_that_stand_alone_is_that_of_the_textbook():
    values = np.array([3.0, 5.0, 8.0, 1.0, 9.0])
    found = standard_error(values, each_alone(5, "question"))
    assert found == pytest.approx(values.std(ddof=1) / math.sqrt(5))
    assert standard_error(np.repeat(values, 7), articles([7] * 5)) == pytest.approx(found)
    assert standard_error([2.0] * 4, each_alone(4, "question")) == 0.0
    assert standard_error([2.0, 3.0], articles([2])) is None


def test_a_statistic_that_is_a_mean_has_the_interval_of_the_mean() -> None:
    draw = np.random.default_rng(5)
    clusters = Clusters("article", np.repeat(np.arange(9), [3, 5, 2, 9, 4, 4, 7, 1, 6]))
    values = draw.normal(size=41)
    mean = clustered_mean(values, clusters)
    found = jackknifed(mean.estimate, means_without(values, clusters), clusters)
    assert found == mean
    assert found.low is not None
    rest = values[clusters.of_value != 3]
    assert means_without(values, clusters)[3] == pytest.approx(rest.mean())


def test_a_statistic_is_wanted_without_each_cluster_and_finite() -> None:
    clusters = Clusters("article", np.arange(9))
    for without in (np.zeros(8), np.array([0.0] * 8 + [np.nan])):
        with pytest.raises(ValueError, match="9 finite numbers, one for each cluster"):
            jackknifed(0.0, without, clusters)
