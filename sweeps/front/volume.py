"""The hypervolume of a growing set of points, kept up to date instead of measured anew at each point.

With two losses a point costs O(log n) and the points that it drives off the front; with one it is a minimum, and with
three or four the volume is measured anew by `sweeps/front/pareto.py`, though only when the front changes.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

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
