"""Intervals around scores of questions that belong together: whole articles are left out in turn.

Questions about one article are not independent. An interval that treats them as if they were is far too narrow
(simulated in docs/LOG.md, 2026-11-30). So the unit of every interval is a cluster: an article, or a paragraph where
the data name no articles (`qa_core/data/clusters.py`).

- Standard error: the delete-one-cluster jackknife of the mean over questions (Efron and Tibshirani 1993, chapter 11;
  for clusters MacKinnon, Nielsen and Webb 2023, doi 10.1016/j.jeconom.2022.04.001, variance estimator CV3).
- Quantile: Student's t with one degree of freedom less than the effective number of clusters, (sum n)^2 / sum n^2
  for clusters of n questions (Kish 1965; Carter, Schnepel and Steigerwald 2017, doi 10.1162/REST_a_00639).
- Scores with bounds, such as exact match, get their interval on the logit scale, which keeps it between the bounds.

Nothing is drawn: the same values give the same interval. For the scores themselves see `qa_core/scoring/scores.py`;
for one score per question, `evaluate.scores_by_question`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qa_core.data.clusters import Clusters

LEAST_CLUSTERS = 8  # below, the coverage cannot be trusted, and no interval is given
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it, in the unit of the values; `confidence` is a share.

    Attributes:
        low, high: None where there are fewer than `LEAST_CLUSTERS` clusters.
        unit: what varied: "article", "paragraph", ...
        clusters: how many of them there were.
    """

    estimate: float
    low: float | None
    high: float | None
    confidence: float
    unit: str
    clusters: int

    @property
    def holds_zero(self) -> bool | None:
        """True when a difference with this interval is a tie; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0.0 <= self.high


def clustered_mean(
    values: Sequence[float] | np.ndarray,
    clusters: Clusters,
    *,
    bounds: tuple[float, float] | None = None,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean over questions and its interval.

    Args:
        values: one number for each question, [Q].
        clusters: of the questions.
        bounds: least and greatest possible value, such as (0, 100) of a percentage; None for a difference.
        confidence: 0 < confidence < 1.

    Raises:
        ValueError: no values, values that are not finite or out of bounds, or a setting out of range.
    """
    sample = _checked(values, clusters, confidence, bounds)
    variance, freedom = _jackknife(sample, clusters)
    return _interval(float(sample.mean()), variance, freedom, clusters, bounds, confidence)


def clustered_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    clusters: Clusters,
    *,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return mean(first) - mean(second) of the same questions and its interval; a tie where that holds 0.

    Raises:
        ValueError: as `clustered_mean`, or the two differ in length.
    """
    if len(first) != len(second):
        raise ValueError(f"paired values: found {len(first)} and {len(second)}; allowed: the same number")
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return clustered_mean(difference, clusters, confidence=confidence)


def standard_error(values: Sequence[float] | np.ndarray, clusters: Clusters) -> float | None:
    """Return the standard error of the mean over questions, in the unit of the values; None for a single cluster.

    Raises:
        ValueError: no values, values that are not finite, or another number of them than the clusters have.
    """
    variance, _ = _jackknife(_checked(values, clusters, CONFIDENCE, None), clusters)
    return math.sqrt(variance) if math.isfinite(variance) else None


def crossed_mean(
    first: np.ndarray,
    second: np.ndarray | None,
    clusters: Clusters,
    *,
    bounds: tuple[float, float] | None = None,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean over seeds and questions, or the difference of two such means, with its interval.

    The variance is the sum of two parts: that of the clusters, from the mean over seeds of each question (of the
    difference where there are two systems, since both answered the same questions), and that of the seeds of each
    system, from the means of its seeds. What seeds and questions vary together is in both parts, so the sum errs on the
    wide side. The degrees of freedom of the sum are Satterthwaite's (1946). A system with one seed has no part for
    seeds: its interval then speaks of that seed alone.

    Args:
        first: values, [S, Q].
        second: [S', Q], to be subtracted; None for none.
        clusters, bounds, confidence: as for `clustered_mean`.

    Raises:
        ValueError: a setting or a value is out of range, or the two differ in questions.
    """
    systems = [first] if second is None else [first, second]
    if any(system.ndim != 2 or system.shape[1] != first.shape[1] for system in systems):
        shapes = ", ".join(str(system.shape) for system in systems)
        raise ValueError(f"values: found shapes {shapes}; allowed: [seeds, questions], the same questions")
    means = [
        np.asarray(_checked(system.mean(axis=0), clusters, confidence, bounds if second is None else None))
        for system in systems
    ]
    by_question = means[0] if second is None else means[0] - means[1]  # [Q]
    parts = [_jackknife(by_question, clusters)]
    for system in systems:
        if len(system) > 1:
            parts.append((float(system.mean(axis=1).var(ddof=1)) / len(system), len(system) - 1.0))
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / spread if spread > 0.0 else parts[0][1]
    return _interval(float(by_question.mean()), variance, freedom, clusters, bounds, confidence)


def jackknifed(
    estimate: float, without: np.ndarray, clusters: Clusters, *, confidence: float = CONFIDENCE
) -> Interval:
    """Return any statistic of the questions with its interval, such as a difference of two hypervolumes.

    Args:
        estimate: the statistic on all questions.
        without: the statistic without each cluster, [C].
        clusters: of the questions.
        confidence: 0 < confidence < 1.

    Raises:
        ValueError: there are not as many values as clusters, or one is not finite.
    """
    if without.shape != (clusters.count,) or not np.isfinite([estimate, *without]).all():
        raise ValueError(
            f"without: found shape {without.shape}; allowed: {clusters.count} finite numbers, one for each cluster"
        )
    variance = (clusters.count - 1) / clusters.count * float(((without - estimate) ** 2).sum())
    return _interval(estimate, variance, _freedom(clusters), clusters, None, confidence)


def means_without(values: np.ndarray, clusters: Clusters) -> np.ndarray:
    """Return the mean of values [Q] without each cluster, [C]; there are at least two clusters."""
    sizes = np.bincount(clusters.of_value, minlength=clusters.count).astype(np.float64)
    sums = np.bincount(clusters.of_value, weights=values, minlength=clusters.count)
    return (sums.sum() - sums) / (sizes.sum() - sizes)


def _freedom(clusters: Clusters) -> float:
    """Return one less than the effective number of clusters, at least 1."""
    sizes = np.bincount(clusters.of_value, minlength=clusters.count).astype(np.float64)
    return max(1.0, float(sizes.sum() ** 2 / (sizes**2).sum()) - 1.0)


def _jackknife(values: np.ndarray, clusters: Clusters) -> tuple[float, float]:
    """Return the variance of the mean of values [Q] by leaving out one cluster at a time, and degrees of freedom."""
    count = clusters.count
    if count < 2:
        return math.nan, 1.0
    without = means_without(values, clusters)
    variance = (count - 1) / count * float(((without - values.mean()) ** 2).sum())
    return variance, _freedom(clusters)


def _interval(
    estimate: float,
    variance: float,
    freedom: float,
    clusters: Clusters,
    bounds: tuple[float, float] | None,
    confidence: float,
) -> Interval:
    from scipy.special import stdtrit

    low: float | None = None
    high: float | None = None
    if clusters.count >= LEAST_CLUSTERS:
        half = float(stdtrit(freedom, (1.0 + confidence) / 2.0)) * math.sqrt(variance)
        if bounds is None or not bounds[0] < estimate < bounds[1]:
            low, high = estimate - half, estimate + half
        else:
            low, high = _on_logit_scale(estimate, half, *bounds)
    return Interval(estimate, low, high, confidence, clusters.unit, clusters.count)


def _on_logit_scale(estimate: float, half: float, least: float, greatest: float) -> tuple[float, float]:
    """Return the interval whose half width, carried to the logit scale by the delta method, is symmetric there."""
    width = greatest - least
    share = (estimate - least) / width
    logit, reach = math.log(share / (1.0 - share)), half / width / (share * (1.0 - share))
    return tuple(least + width * _expit(logit + sign * reach) for sign in (-1.0, 1.0))  # type: ignore[return-value]


def _expit(value: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * value))


def _checked(
    values: Sequence[float] | np.ndarray,
    clusters: Clusters,
    confidence: float,
    bounds: tuple[float, float] | None,
) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"values: found shape {sample.shape}; allowed: a list of at least one finite number")
    if len(clusters.of_value) != len(sample):
        raise ValueError(
            f"clusters: found {len(clusters.of_value)}; allowed: {len(sample)}, one for each value"
        )
    if bounds is not None and not (bounds[0] <= sample.min() and sample.max() <= bounds[1]):
        raise ValueError(
            f"values: found {sample.min():g} to {sample.max():g}; allowed: {bounds[0]:g} to {bounds[1]:g}"
        )
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: found {confidence}; allowed: 0 < share < 1")
    return sample
