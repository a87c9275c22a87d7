"""How much of the difference between models one setting explains alone: the correlation ratio of ranks.

The values of an objective become ranks. A setting divides the models into groups: a word or a number with few values by
its values, any other number into `MOST_GROUPS` groups of equal size. The share is the variance between the groups over
the whole variance (eta squared, Pearson 1905), corrected for the number of groups (epsilon squared, Kelley 1935):
without the correction a setting that explains nothing gets (groups - 1) / (models - 1).

It says nothing of settings that matter only together, and nothing of causes where a searcher tried some values more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_MODELS = 8  # with the setting; below, nothing is said
MOST_GROUPS = 5


@dataclass(frozen=True)
class Importance:
    """One setting: the share of the variance of ranks that it explains, from 0 to 1, and of how many models."""

    path: str
    share: float
    models: int
    groups: int


def importance(settings: Sequence[Mapping[str, Any]], values: Sequence[float]) -> tuple[Importance, ...]:
    """Return each setting with at least two values and `LEAST_MODELS` models, the most important first.

    Args:
        settings: of each model, by path; one that a model does not have is judged on the others alone.
        values: of one objective, in the same order.
    """
    found = []
    for path in sorted({path for own in settings for path in own}):
        having = [
            (own[path], value)
            for own, value in zip(settings, values, strict=True)
            if own.get(path) is not None
        ]
        if len(having) < LEAST_MODELS:
            continue
        groups = _groups([item for item, _ in having])
        count = int(groups.max()) + 1
        if 1 < count < len(having):
            share = _share(groups, ranks([value for _, value in having]))
            found.append(Importance(path, share, len(having), count))
    return tuple(sorted(found, key=lambda item: (-item.share, item.path)))


def ranks(values: Sequence[float]) -> np.ndarray:
    """Return the rank of each value from 0; equal values share the mean of their ranks."""
    array = np.asarray(values, dtype=np.float64)
    _, place, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1.0
    return (last - (counts - 1) / 2.0)[place]


def _groups(values: Sequence[Any]) -> np.ndarray:
    """Return the number of each value's group, from 0 without gaps."""
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not is_number:
        names = [f"{type(value).__name__} {value}" for value in values]
        return np.unique(names, return_inverse=True)[1]
    array = np.asarray(values, dtype=np.float64)
    _, by_value = np.unique(array, return_inverse=True)
    if by_value.max() < MOST_GROUPS:
        return by_value
    by_size = np.minimum(MOST_GROUPS - 1, ranks(values) * MOST_GROUPS / len(array)).astype(int)
    return np.unique(by_size, return_inverse=True)[1]


def _share(groups: np.ndarray, of_rank: np.ndarray) -> float:
    whole = float(((of_rank - of_rank.mean()) ** 2).sum())
    if whole == 0.0:
        return 0.0
    sizes = np.bincount(groups).astype(np.float64)
    means = np.bincount(groups, weights=of_rank) / sizes
    within = float(((of_rank - means[groups]) ** 2).sum())
    count, models = len(sizes), len(of_rank)
    return max(0.0, 1.0 - within / whole * (models - 1) / (models - count))
