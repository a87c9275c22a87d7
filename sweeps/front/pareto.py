"""Geometry of Pareto fronts: NumPy arrays in, NumPy arrays out.

Everything but `to_losses` works on losses, where less is better in every column; `to_losses` is the only
place that flips a sign. Knows nothing of records or plots; those are in `sweeps/front/front.py`. Non-finite input
raises ValueError.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_HYPERVOLUME_OBJECTIVES = 4
SMALL_COMPARISON = 50_000  # values: up to here comparing all pairs at once is fastest

Losses = NDArray[np.float64]


def to_losses(values: ArrayLike, goals: Sequence[str]) -> Losses:
    """Return values with every "max" column negated, so that less is better.

    Args:
        values: [n, k] objective values; a reference point may be passed as [1, k].
        goals: k of "min" and "max".
    """
    array = _finite(values)
    if array.shape[1] != len(goals) or not set(goals) <= {"min", "max"}:
        raise ValueError(f"goals: found {list(goals)} for {array.shape[1]} columns; allowed: 'min' or 'max'")
    return array * np.array([-1.0 if goal == "max" else 1.0 for goal in goals])


def front_mask(losses: ArrayLike) -> NDArray[np.bool_]:
    """Return [n], True where no other point is at least as good in every column and better in one.

    Equal points do not beat each other: duplicates on the front are all kept. O(n log n) for one or two
    columns, O(n * front size) beyond.
    """
    array = _finite(losses)
    if array.shape[1] <= 2:
        return _front_mask_two(array)
    return _front_mask_many(array)


def reached_mask(losses: ArrayLike, by: ArrayLike) -> NDArray[np.bool_]:
    """Return [n], True where some point of `by` is at least as good in every column (equal points too).

    Args:
        losses: [n, k].
        by: [m, k].

    Method: divide and conquer over the last column (Bentley 1980), O((n + m) log^(k - 1) (n + m)).
    """
    return _reached(_finite(losses), _finite(by))


def hypervolume(losses: ArrayLike, reference: ArrayLike) -> float:
    """Return the exact volume that the points dominate, bounded by the reference point.

    Args:
        losses: [n, k], k from 1 to 4.
        reference: [k], the worst value of each column as a loss; a point that is not below it in every column
            contributes nothing.

    Method: a sweep in two dimensions, slices along the last column above it (While et al. 2006, "HSO").
    """
    array, corner = _finite(losses), _finite(np.atleast_2d(np.asarray(reference, dtype=np.float64)))[0]
    if array.shape[1] != len(corner) or len(corner) > MAX_HYPERVOLUME_OBJECTIVES:
        raise ValueError(
            f"found points with {array.shape[1]} columns and a reference with {len(corner)}; "
            f"allowed: the same number, 1 to {MAX_HYPERVOLUME_OBJECTIVES}"
        )
    return _volume(array[(array < corner).all(axis=1)], corner)


def knee(losses: ArrayLike) -> int | None:
    """Return the index of the front point that bulges most towards the ideal, or None.

    With every column scaled to [0, 1] over the front, that is the point of the smallest sum, which lies
    farthest below the plane through the single-objective optima (Das 1999). None when the front has fewer
    than three distinct points, or none of them lies below that plane.
    """
    array = _finite(losses)
    indices = np.flatnonzero(front_mask(array))
    front = array[indices]
    if array.shape[1] < 2 or len(np.unique(front, axis=0)) < 3:
        return None
    low, span = front.min(axis=0), np.ptp(front, axis=0)
    sums = ((front - low) / np.where(span > 0, span, 1.0)).sum(axis=1)
    best = int(np.argmin(sums))
    return int(indices[best]) if sums[best] < (span > 0).sum() - 1 - 1e-12 else None


def _finite(values: ArrayLike) -> Losses:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"expected an array [points, objectives], found shape {array.shape}")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"point {row}, column {column} is {array[row, column]}; every value must be finite")
    return array


def _front_mask_two(array: Losses) -> NDArray[np.bool_]:
    first, last = array[:, 0], array[:, -1]
    order = np.lexsort((last, first))
    # The best `last` among points that are strictly better in `first`, and among those equal in it.
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(last[order])[:-1]])
    group_start = np.searchsorted(first[order], first[order], side="left")
    is_beaten = (last[order] >= best_before[group_start]) | (last[order] > last[order][group_start])
    mask = np.empty(len(array), dtype=bool)
    mask[order] = ~is_beaten
    return mask


def _front_mask_many(array: Losses) -> NDArray[np.bool_]:
    mask = np.zeros(len(array), dtype=bool)
    kept = np.empty((0, array.shape[1]))
    # In lexicographic order a point can only be beaten by an earlier one, and by one that is itself on the
    # front.
    for index in np.lexsort(array.T[::-1]):
        point = array[index]
        is_beaten = ((kept <= point).all(axis=1) & (kept < point).any(axis=1)).any()
        if not is_beaten:
            mask[index] = True
            kept = np.vstack([kept, point])
    return mask


def _reached(array: Losses, by: Losses) -> NDArray[np.bool_]:
    if len(array) * len(by) * array.shape[1] <= SMALL_COMPARISON:
        pairs = (by[:, None] <= array[None]).all(axis=2)  # [m, n]
        return np.logical_or.reduce(pairs, axis=0)
    if array.shape[1] == 1:
        return np.greater_equal(array[:, 0], by[:, 0].min())
    if array.shape[1] == 2:
        by = by[np.argsort(by[:, 0], kind="stable")]
        best = np.concatenate([[np.inf], np.minimum.accumulate(by[:, 1])])
        return np.less_equal(best[np.searchsorted(by[:, 0], array[:, 0], side="right")], array[:, 1])
    last = np.concatenate([array[:, -1], by[:, -1]])
    pivot = np.partition(last, len(last) // 2)[len(last) // 2]
    if pivot == last.max():
        is_low = last < pivot
        if not is_low.any():
            return _reached(array[:, :-1], by[:, :-1])
    else:
        is_low = last <= pivot
    low, by_low = is_low[: len(array)], is_low[len(array) :]
    mask = np.empty(len(array), dtype=bool)
    mask[low] = _reached(array[low], by[by_low])
    mask[~low] = _reached(array[~low], by[~by_low])
    mask[~low] |= _reached(array[~low, :-1], by[by_low, :-1])
    return mask


def _volume(array: Losses, corner: Losses) -> float:
    """Return the volume of points that all lie strictly below the corner."""
    if len(array) == 0:
        return 0.0
    array = np.unique(array[front_mask(array)], axis=0)
    if len(corner) == 1:
        return float(corner[0] - array[0, 0])
    if len(corner) == 2:  # sorted by the first column, the second falls
        heights = np.concatenate([[corner[1]], array[:-1, 1]]) - array[:, 1]
        return float(((corner[0] - array[:, 0]) * heights).sum())
    array = array[np.argsort(array[:, -1], kind="stable")]
    depths = np.diff(np.concatenate([array[:, -1], corner[-1:]]))
    slices = [_volume(array[: index + 1, :-1], corner[:-1]) for index in np.flatnonzero(depths > 0)]
    return float(np.dot(slices, depths[depths > 0]))
