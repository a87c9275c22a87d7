"""The hypervolume of a growing set of points, kept up to date instead of measured anew at each point.

With two losses a point costs O(log n) and the points that it drives off the front; with one it is a minimum, and with
three or four the volume is measured anew by `sweeps/front/pareto.py`, though only when the front changes. What points
would add, without being taken in, is said by `improvements`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.front import pareto


class GrowingVolume:
    """The volume that the points so far dominate; less is better in every column."""

    def __init__(self, reference: Sequence[float]) -> None:
        """Start without points; a point that is not below the reference in every column contributes nothing.

        Raises:
            ValueError: the reference has more columns than `pareto.hypervolume` takes.
        """
        pareto.hypervolume(np.empty((0, len(reference))), reference)
        self.reference = tuple(map(float, reference))
        self.value = 0.0
        self._first: list[float] = []  # of the front of two losses, rising
        self._second: list[float] = []  # falling
        self._front = np.empty((0, len(reference)))  # with any other number of losses

    def add(self, losses: Sequence[float]) -> float:
        """Take in a point and return the volume; raises ValueError when a loss is not finite or one is missing."""
        point = np.asarray(losses, dtype=np.float64)
        if point.shape != (len(self.reference),) or not np.isfinite(point).all():
            raise ValueError(f"losses: found {losses!r}; allowed: {len(self.reference)} finite numbers")
        if (point >= self.reference).any():
            return self.value
        if len(point) == 2:
            self.value += self._insert(float(point[0]), float(point[1]))
        elif not (self._front <= point).all(axis=1).any():
            joined = np.vstack([self._front, point])
            self._front = joined[pareto.front_mask(joined)]
            self.value = pareto.hypervolume(self._front, self.reference)
        return self.value

    def _insert(self, first: float, second: float) -> float:
        """Put a point on the front, if it belongs there, and return the area that only it dominates."""
        before = bisect_right(self._first, first) - 1
        if before >= 0 and self._second[before] <= second:
            return 0.0
        start = bisect_left(self._first, first)
        level = self._second[start - 1] if start else self.reference[1]
        end, left, area = start, first, 0.0
        while end < len(self._first) and self._second[end] >= second:
            area += (self._first[end] - left) * (level - second)
            left, level = self._first[end], self._second[end]
            end += 1
        right = self._first[end] if end < len(self._first) else self.reference[0]
        self._first[start:end] = [first]
        self._second[start:end] = [second]
        return area + (right - left) * (level - second)


def improvements(sets: ArrayLike, front: ArrayLike, reference: Sequence[float]) -> NDArray[np.float64]:
    """Return [n], the volume that each set of points would add to that of the front.

    Args:
        sets: [n, points, k] losses, less is better; one that is infinite, or not below the reference, adds nothing.
        front: [m, k] losses that are there, dominated ones too.
        reference: [k].

    Method: with two losses, the area of the steps between front and set; else volumes by `pareto.hypervolume`.
    """
    candidates = np.asarray(sets, dtype=np.float64)
    corner = np.asarray(reference, dtype=np.float64)
    there = np.asarray(front, dtype=np.float64).reshape(-1, len(corner))
    candidates = np.where(np.isfinite(candidates).all(axis=2, keepdims=True), candidates, corner)
    if len(corner) == 2:
        return _areas(candidates, there[(there < corner).all(axis=1)], corner)
    before = pareto.hypervolume(there, corner)
    return np.array([pareto.hypervolume(np.vstack([there, item]), corner) - before for item in candidates])


def _areas(
    sets: NDArray[np.float64], front: NDArray[np.float64], corner: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return [n] areas. From left to right, a step of the front lasts from one of its points to the next."""
    kept = front[pareto.front_mask(front)] if len(front) else front
    kept = kept[np.argsort(kept[:, 0])]
    starts = np.concatenate([[-np.inf], kept[:, 0]])
    ends = np.concatenate([kept[:, 0], corner[:1]])
    levels = np.concatenate([corner[1:], kept[:, 1]])
    points = np.take_along_axis(sets, np.argsort(sets[:, :, :1], axis=1), axis=1)
    lowest = np.minimum.accumulate(points[:, :, 1], axis=1)  # [n, points]
    firsts = np.minimum(points[:, :, 0], corner[0])
    lasts = np.concatenate([firsts[:, 1:], np.broadcast_to(corner[0], (len(sets), 1))], axis=1)
    widths = np.minimum(ends, lasts[:, :, None]) - np.maximum(
        starts, firsts[:, :, None]
    )  # [n, points, steps]
    heights = levels - lowest[:, :, None]
    return (np.clip(widths, 0.0, None) * np.clip(heights, 0.0, None)).sum(axis=(1, 2))
