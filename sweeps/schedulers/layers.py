"""Non-dominated layers of a growing set of points, exact after each insertion.

Layer 0 is the front, layer 1 the front of the rest, and so on: a point's layer is its rank. Less is better in every
column; points are distinct within the layers and carry how often they were inserted. A new point joins the first
layer that does not dominate it; what it beats there moves down as one block, which beats a block of the next layer
in turn. `Staircase` holds layers of two columns, `Antichain` those of any number. How places within a layer are
given is in `sweeps/schedulers/nets.py`; what a rung makes of both, in `sweeps/schedulers/halving.py`.

Cost of an insertion for two columns: O(log n) comparisons to find the layer, and O(log n) for each layer that the
block then passes through, at most all r of them. Ranks under insertion anywhere are a dynamic longest increasing
subsequence, for which Chen, Chu and Pinsker 2013 (arXiv 1309.7724) give O(r log(n / r)) on balanced trees; here layers
are sorted lists, so that moved entries are also copied, at the speed of memory. Of n random points an insertion touches
O(sqrt n) layers; where one column takes few values it may touch n / that many. For more columns it costs
O(n log^(k - 1) n) at worst. `benchmarks/rung_decisions.py` measures it.
"""

import math
from bisect import bisect_left, bisect_right
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sweeps.front.pareto import reached_mask

Point = tuple[float, ...]


class Layer(Protocol):
    """Points of which none dominates another."""

    weight: int  # insertions, copies counted

    @classmethod
    def of(cls, point: Point) -> Self:
        """Return the layer of this point alone."""

    def dominates(self, point: Point) -> bool:
        """Return whether some point of the layer dominates this one."""

    def add_copy(self, point: Point) -> bool:
        """Count the point once more if the layer holds it; returns whether it does."""

    def exchange(self, block: Self) -> Self | None:
        """Take in a block, which no point of the layer dominates, and return those that it dominates.

        The answer has weight 0 when there are none. When it would be the whole layer, nothing is done and None
        returned.
        """

    def points(self) -> list[Point]:
        """Return the distinct points in lexicographic order."""


class Staircase:
    """A layer of two columns: along it the first rises and the second falls, both strictly."""

    __slots__ = ("copies", "falls", "firsts", "weight")

    def __init__(self, firsts: list[float], falls: list[float], copies: list[int], weight: int) -> None:
        self.firsts = firsts  # rising
        self.falls = falls  # the second column with its sign changed: rising too, as bisect wants it
        self.copies = copies
        self.weight = weight

    @classmethod
    def of(cls, point: Point) -> Self:
        """Return the layer of this point alone."""
        return cls([point[0]], [-point[1]], [1], 1)

    def index(self, point: Point) -> int | None:
        """Return where the point stands, or None."""
        index = bisect_left(self.firsts, point[0])
        if index < len(self.firsts) and (self.firsts[index], -self.falls[index]) == point:
            return index
        return None

    def dominates(self, point: Point) -> bool:
        """Look at the one candidate: the lowest among the points that are as good in the first column."""
        index = bisect_right(self.firsts, point[0]) - 1
        if index < 0:
            return False
        second = -self.falls[index]
        return second < point[1] or (second == point[1] and self.firsts[index] < point[0])

    def add_copy(self, point: Point) -> bool:
        """Count the point once more if the layer holds it."""
        index = self.index(point)
        if index is None:
            return False
        self.copies[index] += 1
        self.weight += 1
        return True

    def exchange(self, block: Self) -> Self | None:
        """Cut out what the block beats, a contiguous run, and put the block there.

        Contiguous, because every point of this layer was beaten by the layer above before the block left it: none
        lies in a notch of the block.
        """
        start = bisect_left(self.firsts, block.firsts[0])
        stop = bisect_right(self.falls, block.falls[-1])
        stop = max(start, stop)
        if stop - start == len(self.firsts):
            return None
        copies = self.copies[start:stop]
        weight = stop - start if self.weight == len(self.firsts) else sum(copies)
        beaten = type(self)(self.firsts[start:stop], self.falls[start:stop], copies, weight)
        self.firsts[start:stop] = block.firsts
        self.falls[start:stop] = block.falls
        self.copies[start:stop] = block.copies
        self.weight += block.weight - weight
        return beaten

    def points(self) -> list[Point]:
        """Return the distinct points, first column rising."""
        return [(first, -fall) for first, fall in zip(self.firsts, self.falls, strict=True)]


class Antichain:
    """A layer of any number of columns."""

    def __init__(self, rows: NDArray[np.float64], copies: NDArray[np.int64]) -> None:
        self.rows = rows  # [n, k]
        self.copies = copies  # [n]
        self.weight = int(copies.sum())

    @classmethod
    def of(cls, point: Point) -> Self:
        """Return the layer of this point alone."""
        return cls(np.array([point]), np.ones(1, dtype=np.int64))

    def dominates(self, point: Point) -> bool:
        """Compare with every point."""
        as_good = (self.rows <= point).all(axis=1)
        return bool((as_good & (self.rows < point).any(axis=1)).any())

    def add_copy(self, point: Point) -> bool:
        """Count the point once more if the layer holds it."""
        equal = (self.rows == point).all(axis=1)
        self.copies[equal] += 1
        self.weight = int(self.copies.sum())
        return bool(equal.any())

    def exchange(self, block: Self) -> Self | None:
        """Take in a block and return what it beats; None for the whole layer."""
        is_beaten = reached_mask(self.rows, block.rows)
        if is_beaten.all():
            return None
        beaten = type(self)(self.rows[is_beaten], self.copies[is_beaten])
        self.rows = np.concatenate([self.rows[~is_beaten], block.rows])
        self.copies = np.concatenate([self.copies[~is_beaten], block.copies])
        self.weight += block.weight - beaten.weight
        return beaten

    def points(self) -> list[Point]:
        """Return the distinct points in lexicographic order."""
        return sorted(tuple(row) for row in self.rows.tolist())


class Layers:
    """The layers of all points inserted so far, and where the best `1 / eta` of them end.

    Attributes:
        weight: insertions so far.
        cut: the first layer that does not lie whole within the best `floor(weight / eta)` points.
        above: points in the layers before it.
    """

    def __init__(self, columns: int, eta: float) -> None:
        self._kind: type[Staircase] | type[Antichain] = Staircase if columns == 2 else Antichain
        self._eta = eta
        self._layers: list[Layer] = []
        self.weight = self.cut = self.above = 0

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, rank: int) -> Layer:
        return self._layers[rank]

    @property
    def room(self) -> int:
        """How many points of the layer at `cut` lie within the best `floor(weight / eta)`; 0 or more."""
        return math.floor(self.weight / self._eta) - self.above

    def rank(self, point: Point) -> int:
        """Return the rank that the point has, or would have if it were inserted."""
        low, high = 0, len(self._layers)
        while low < high:
            middle = (low + high) // 2
            if self._layers[middle].dominates(point):
                low = middle + 1
            else:
                high = middle
        return low

    def insert(self, point: Point) -> int:
        """Insert a point and return its rank."""
        rank = self.rank(point)
        self.weight += 1
        if rank < self.cut:
            self.above += 1
        if rank == len(self._layers):
            self._layers.append(self._kind.of(point))
        elif not self._layers[rank].add_copy(point):
            self._push(self._kind.of(point), rank)
        self._settle()
        return rank

    def _push(self, block: Layer, level: int) -> None:
        """Put a block into a layer and what it beats there into the next, until a block beats nothing."""
        while level < len(self._layers):
            beaten = self._layers[level].exchange(block)
            if beaten is None:  # the whole layer, and with it each one below, moves down by one
                break
            if beaten.weight == 0:
                return
            block, level = beaten, level + 1
            if level == self.cut:
                self.above -= block.weight
        self._layers.insert(level, block)
        if level < self.cut:
            self.cut += 1

    def _settle(self) -> None:
        while self.room < 0:
            self.cut -= 1
            self.above -= self._layers[self.cut].weight
        while self.room >= self._layers[self.cut].weight:
            self.above += self._layers[self.cut].weight
            self.cut += 1
