"""Order of results: non-dominated layers, and a spread of places within one layer.

The first layer is the front, the second the front of the rest, and so on: a row's rank is the number of layers before
its own (Deb et al. 2002, section III.A). Equal rows share a layer. A layer is ordered by an epsilon net, as in Salinas
et al. 2021 (arXiv 2106.05680), which Schmucker et al. 2021 (arXiv 2106.12639) use to break ties between trials of one
rank: it begins at one row, and the next is always the row farthest from the net (Gonzalez 1985).
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

NET_POINTS = 64  # a spread finer than 1/64 of the layer is not looked for
STEPS = (
    2.0**30
)  # distances are rounded to span / STEPS, so that equal ones are equal in spite of float division

Rows = NDArray[np.float64]
Relation = Callable[[Rows, Rows], NDArray[np.bool_]]


def dominates(one: Rows, rows: Rows) -> NDArray[np.bool_]:
    """Return [n], True for each row that `one` dominates: `one` is nowhere worse than it and somewhere better.

    Args:
        one: [k] losses, less is better.
        rows: [n, k].
    """
    return np.logical_and((one <= rows).all(axis=1), (one < rows).any(axis=1))


def layers(rows: Rows, relation: Relation = dominates) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of each layer, the front first. Layers that nobody asks for are not computed.

    Args:
        rows: [n, ...], one row for each item.
        relation: from one row and an array of rows to the mask of those that the one dominates; a strict partial order.

    Method: one or two losses by patience sorting, O(n log n) for all layers. Otherwise a layer at a time: each row that
    is left drops those that it dominates. What a dropped row dominates, the row that dropped it dominates too. So the
    order of comparing changes only the cost: rows that are good in every loss drop the most, and come first.
    """
    if relation is dominates and rows.shape[1] <= 2:
        yield from _layers_of_two(rows)
        return
    left, copies_of = np.unique(rows, axis=0, return_inverse=True)
    indices = np.arange(len(left))
    if relation is dominates:
        indices = np.argsort(left.argsort(axis=0).argsort(axis=0).sum(axis=1))
        left = left[indices]
    while len(left):
        layer, there, compared = indices, left, 0
        while compared < len(layer):
            is_kept = ~relation(there[compared], there)
            if not is_kept.all():
                compared -= int((~is_kept[:compared]).sum())
                layer, there = layer[is_kept], there[is_kept]
            compared += 1
        yield np.flatnonzero(np.isin(copies_of, layer))
        is_left = ~np.isin(indices, layer)
        indices, left = indices[is_left], left[is_left]


def _layers_of_two(rows: Rows) -> Iterator[NDArray[np.int64]]:
    order = np.lexsort(rows.T[::-1])
    ranks = np.empty(len(rows), dtype=np.int64)
    lowest: list[float] = []  # the last loss of the latest row in each layer: it rises with the rank
    last, rank = None, 0
    for index, row in enumerate(rows[order].tolist()):
        if row != last:
            last, rank = row, bisect_right(lowest, row[-1])
            lowest[rank : rank + 1] = [row[-1]]
        ranks[index] = rank
    by_rank = order[np.argsort(ranks, kind="stable")]
    yield from np.split(by_rank, np.cumsum(np.bincount(ranks))[:-1])


def is_among_first(layer: Rows, row: Rows, *, spans: Rows, room: int) -> bool:
    """Return whether fewer than `room` rows of a layer come before `row`. Equal rows share a place.

    The net begins at the first row in lexicographic order. After `NET_POINTS` rows, the rest follow by their distance
    from the net, farthest first. Ties go to the first in lexicographic order. O(NET_POINTS n).

    Args:
        layer: [n, k].
        row: [k], one of them.
        spans: [k], above 0: a distance is the sum over the columns of differences divided by the column's span.
        room: how many are wanted.
    """
    points, copies = np.unique(layer, axis=0, return_counts=True)
    asked = int(np.flatnonzero((points == row).all(axis=1))[0])
    scaled = points / spans
    nearest = np.full(len(points), np.inf)  # to the net, in whole steps; -1: in the net
    before, chosen = 0, 0
    for _ in range(min(NET_POINTS, len(points))):
        if chosen == asked or before >= room:
            return before < room
        before += int(copies[chosen])
        nearest = np.minimum(nearest, np.rint(np.abs(scaled - scaled[chosen]).sum(axis=1) * STEPS))
        nearest[chosen] = -1.0
        chosen = int(np.argmax(nearest))
    is_before = nearest > nearest[asked]
    is_before[:asked] |= nearest[:asked] == nearest[asked]
    return before + int(copies[is_before].sum()) < room
