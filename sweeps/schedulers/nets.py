"""Places within one non-dominated layer: an order whose first points always spread over the layer.

The order is an epsilon net as in Salinas et al. 2021 (arXiv 2106.05680), which Schmucker et al. 2021 (arXiv 2106.12639)
use to break ties between trials of one rank: it begins at one point, and the next is always the one farthest from
those that stand already (Gonzalez 1985). Here it begins at the best point of the first column, distances are sums
over the columns of differences divided by the column's span (so that no objective counts more for its unit), and it
stops spreading after `NET_POINTS` points: the rest follow by their distance from the net, farthest first. Copies of
a point share its place. Ties go to the first in lexicographic order.

With two columns one rises along the layer while the other falls, so that distance is a difference of positions on a
line, and the order is found by halving gaps: O(NET_POINTS log n). Otherwise it is O(NET_POINTS n).
"""

import heapq
import math
from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from sweeps.schedulers.layers import Antichain, Layer, Point, Staircase

NET_POINTS = 64  # a spread finer than 1/64 of the layer is not looked for


def is_among_first(layer: Layer, point: Point, *, spans: Point, room: int) -> bool:
    """Return whether fewer than `room` insertions of the layer come before the point.

    Args:
        layer: it holds the point.
        spans: the length of each column's range, above 0.
        room: how many are wanted.
    """
    if room <= 0:
        return False
    if isinstance(layer, Staircase):
        index = layer.index(point)
        assert index is not None
        return _Line(layer, spans).is_among_first(index, room)
    assert isinstance(layer, Antichain)
    order = np.lexsort(layer.rows.T[::-1])
    rows = layer.rows[order]
    place = int(np.flatnonzero((rows == point).all(axis=1))[0])
    return spread_is_among_first(rows / np.array(spans), layer.copies[order], index=place, room=room)


def spread_is_among_first(scaled: np.ndarray, copies: np.ndarray, *, index: int, room: int) -> bool:
    """Follow the order point by point.

    Args:
        scaled: [n, k] points in lexicographic order, each column divided by its span.
        copies: [n].
        index: of the point that is asked for.
        room: as in `is_among_first`.
    """
    nearest = np.full(len(scaled), np.inf)  # to the net; -1: in the net
    before, chosen = 0, 0
    for _ in range(min(NET_POINTS, len(scaled))):
        if chosen == index:
            return before < room
        before += int(copies[chosen])
        if before >= room:
            return False
        nearest = np.minimum(nearest, np.abs(scaled - scaled[chosen]).sum(axis=1))
        nearest[chosen] = -1.0
        chosen = int(np.argmax(nearest))
    is_before = nearest > nearest[index]
    is_before[:index] |= nearest[:index] == nearest[index]
    return before + int(copies[is_before].sum()) < room


class _Line:
    """A staircase as positions on a line: `[i]` rises with i; beyond the last point lies infinity."""

    def __init__(self, layer: Staircase, spans: Point) -> None:
        self._layer = layer
        self._first_span, self._second_span = spans
        self._length = len(layer.firsts)

    def __getitem__(self, index: int) -> float:
        if index == self._length:
            return math.inf
        return self._layer.firsts[index] / self._first_span + self._layer.falls[index] / self._second_span

    def is_among_first(self, index: int, room: int) -> bool:
        """Return whether fewer than `room` insertions come before the point at `index`."""
        if index == 0:
            return True
        before = self._layer.copies[0]
        # Each gap between neighbours of the net, by its next point: the widest split first.
        gaps = [self._split(0, self._length)] if self._length > 1 else []
        for _ in range(NET_POINTS - 1):
            if not gaps or before >= room:
                return before < room
            _, chosen, start, stop = heapq.heappop(gaps)
            if chosen == index:
                return True
            before += self._layer.copies[chosen]
            for left, right in ((start, chosen), (chosen, stop)):
                if right - left > 1:
                    heapq.heappush(gaps, self._split(left, right))
        start, stop = next((start, stop) for _, _, start, stop in gaps if start < index < stop)
        distance = min(self[index] - self[start], self[stop] - self[index])
        for _, _, start, stop in gaps:
            if before >= room:
                break
            before += self._count_before(index, distance, start, stop)
        return before < room

    def _split(self, start: int, stop: int) -> tuple[float, int, int, int]:
        """Return (minus the distance, index, gap) of the point between two others that is farthest from both."""
        low, high = self[start], self[stop]
        right = self._first(start, stop, lambda position: position - low >= high - position)
        if right == stop or (right - 1 > start and self[right - 1] - low >= high - self[right]):
            distance = self[right - 1] - low
            return -distance, self._first(start, right, lambda item: item - low >= distance), start, stop
        return self[right] - high, right, start, stop

    def _count_before(self, index: int, distance: float, start: int, stop: int) -> int:
        """Count insertions in a gap that are farther from its ends, or as far and before the index."""
        low, high = self[start], self[stop]
        count = 0
        if start < index:
            left = self._first(start, stop, lambda position: position - low >= distance)
            right = self._first(start, stop, lambda position: high - position < distance)
            count += self._weight(left, min(right, index))
        if stop > index:
            left = self._first(start, stop, lambda position: position - low > distance)
            right = self._first(start, stop, lambda position: high - position <= distance)
            count += self._weight(max(left, index + 1), right)
        return count

    def _first(self, start: int, stop: int, holds: Callable[[float], bool]) -> int:
        """Return the first index between two where a monotonic condition on the position holds, else `stop`."""
        inside = range(start + 1, stop)
        return start + 1 + bisect_left(inside, True, key=lambda index: holds(self[index]))

    def _weight(self, start: int, stop: int) -> int:
        if stop <= start:
            return 0
        has_copies = self._layer.weight > self._length
        return sum(self._layer.copies[start:stop]) if has_copies else stop - start
