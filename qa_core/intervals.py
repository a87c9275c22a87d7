"""Bootstrap percentile intervals (Efron and Tibshirani 1993, chapter 13) over questions or seeds.

For the scores themselves, see `scores.py`; for one score per question, `evaluate.scores_by_question`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLOCK_VALUES = 4_000_000  # drawn at a time: bounds the memory on data sets of 10,000 questions and more


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it, in the unit of the values; `confidence` is a share."""

    estimate: float
    low: float
    high: float
    confidence: float

    @property
    def holds_zero(self) -> bool:
        """True when a difference with this interval is a tie."""
        return self.low <= 0.0 <= self.high


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, *, seed: int, confidence: float = 0.95, resamples: int = 2000
) -> Interval:
    """Return the mean of the values and its percentile interval.

    Args:
        values: one number for each question (or seed), at least one.
        seed: of the resampling; the same seed gives the same interval.
        confidence: share of resampled means inside the interval, 0 < confidence < 1.
        resamples: number of resampled means.

    Raises:
        ValueError: no values, values that are not finite, or a setting out of range.
    """
    sample = _checked(values, confidence, resamples)
    means = _resampled_means(sample, np.random.default_rng(seed), resamples)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail]).tolist()
    return Interval(float(sample.mean()), low, high, confidence)


def paired_bootstrap_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Return mean(first) - mean(second) and its interval, the same questions drawn for both.

    Two systems are called tied when the interval holds 0 (`holds_zero`). Arguments are those of `bootstrap_mean`.

    Raises:
        ValueError: as `bootstrap_mean`, or the two differ in length.
    """
    if len(first) != len(second):
        raise ValueError(f"paired values: found {len(first)} and {len(second)}; allowed: the same number")
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return bootstrap_mean(difference, seed=seed, confidence=confidence, resamples=resamples)


def bootstrap_crossed(
    first: np.ndarray,
    second: np.ndarray | None = None,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Return the mean over seeds and questions, or the difference of two such means, with its percentile interval.

    Seeds and questions are both resampled (the "pigeonhole" bootstrap: Owen 2007, doi 10.1214/07-AOAS122): questions
    once for both systems, since they answered the same ones, seeds for each on its own. With few seeds it is rough: the
    spread of 3 seeds is underestimated by about a fifth on average.

    Args:
        first: values, [S, Q].
        second: [S', Q], to be subtracted; None for none.

    Raises:
        ValueError: a setting or a value is out of range, or the two differ in questions.
    """
    systems = [first] if second is None else [first, second]
    for system in systems:
        _checked(np.ravel(system), confidence, resamples)
    if any(system.ndim != 2 or system.shape[1] != first.shape[1] for system in systems):
        shapes = ", ".join(str(system.shape) for system in systems)
        raise ValueError(f"values: found shapes {shapes}; allowed: [seeds, questions], the same questions")
    rng = np.random.default_rng(seed)
    questions = first.shape[1]
    means = np.empty(resamples)
    for index in range(resamples):
        counts = np.bincount(rng.integers(questions, size=questions), minlength=questions)
        drawn = [
            float(system[rng.integers(len(system), size=len(system))].mean(axis=0) @ counts) / questions
            for system in systems
        ]
        means[index] = drawn[0] - (drawn[1] if len(drawn) > 1 else 0.0)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail]).tolist()
    estimate = first.mean() - (0.0 if second is None else second.mean())
    return Interval(float(estimate), low, high, confidence)


def _checked(values: Sequence[float] | np.ndarray, confidence: float, resamples: int) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"values: found shape {sample.shape}; allowed: a list of at least one finite number")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: found {confidence}; allowed: 0 < share < 1")
    if resamples < 1:
        raise ValueError(f"resamples: found {resamples}; allowed: 1 or more")
    return sample


def _resampled_means(sample: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    rows = max(1, BLOCK_VALUES // len(sample))
    means = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(len(sample), size=(min(rows, resamples - start), len(sample)))
        means.append(sample[drawn].mean(axis=1))
    return np.concatenate(means)
