"""The least that any search must spend on a table: an oracle that knows how every recipe ends.

It trains whole recipes, one after another, and no others than it needs: for each number of recipes those that dominate
the most volume together, by dynamic programming over the front of two losses (Auger et al. 2009, "Theory of the
hypervolume indicator", section 5: among points sorted along the front, a point's own part reaches to the next one).

Of a table with stored forms, a training has several points, and that program does not apply. The oracle is then greedy:
next comes the training that adds the most volume. With k trainings that is at least 1 - 1/e of the most that k can
dominate (Nemhauser et al. 1978), so another choice may need somewhat less.
"""

from collections.abc import Sequence

import numpy as np

from sweeps.front import pareto
from sweeps.replay.curves import CurveTable


def best_subsets(table: CurveTable) -> list[tuple[int, ...]]:
    """Return for each number of recipes, from none to the whole front, which of them dominate the most volume.

    Recipes are indices of the table's curves; of several with equal values the first one stands for all.

    Raises:
        ValueError: the table has not two objectives.
    """
    corner = np.array(table.reference)
    if len(corner) != 2:
        raise ValueError(f"objectives: found {len(corner)}; allowed: 2")
    if any(curve.forms for curve in table.curves):
        return _greedy(table)
    counted = np.flatnonzero((table.losses < corner).all(axis=1))
    if not len(counted):
        return [()]
    on_front = counted[pareto.front_mask(table.losses[counted])]
    points, first = np.unique(table.losses[on_front], axis=0, return_index=True)  # the first loss rises
    chosen = _chosen(points, corner)
    return [tuple(int(on_front[first[place]]) for place in subset) for subset in chosen]


def _greedy(table: CurveTable) -> list[tuple[int, ...]]:
    """Return the trainings one by one, each the one that adds the most, until nothing is added."""
    chosen: list[int] = []
    subsets: list[tuple[int, ...]] = [()]
    points = [table.losses_of([index]) for index in range(len(table.curves))]
    front, volume = np.empty((0, 2)), 0.0
    while volume < table.hypervolume * (1 - 1e-12):
        added = [pareto.hypervolume(np.concatenate([front, rows]), table.reference) for rows in points]
        best = int(np.argmax(added))
        front, volume = np.concatenate([front, points[best]]), added[best]
        chosen.append(best)
        subsets.append(tuple(chosen))
    return subsets


def _chosen(points: np.ndarray, corner: np.ndarray) -> list[tuple[int, ...]]:
    """Return the best subset of each size, 0 to all, of points whose first loss rises and whose second falls."""
    count = len(points)
    heights = corner[1] - points[:, 1]
    # best[i]: volume and members of the best choice of the present size that begins with point i
    best = [(float((corner[0] - points[i, 0]) * heights[i]), (i,)) for i in range(count)]
    subsets: list[tuple[int, ...]] = [(), max(best)[1]]
    for _ in range(1, count):
        best = [_extended(points, heights, best, i) for i in range(count)]
        subsets.append(max(best)[1])
    return subsets


def _extended(
    points: np.ndarray, heights: np.ndarray, best: Sequence[tuple[float, tuple[int, ...]]], first: int
) -> tuple[float, tuple[int, ...]]:
    """Return the best choice of one point more that begins with `first`; of no volume where too few follow."""
    options = [
        (float((points[after, 0] - points[first, 0]) * heights[first]) + best[after][0], best[after][1])
        for after in range(first + 1, len(points))
        if best[after][1]
    ]
    volume, rest = max(options, default=(-np.inf, ()))
    return (volume, (first, *rest)) if rest else (-np.inf, ())
