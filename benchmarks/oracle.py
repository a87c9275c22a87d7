"""The least that any search must spend on a table: an oracle that knows how every recipe ends.

It trains whole recipes, one after another, and no others than it needs: for each number of recipes those that dominate
the most volume together, by dynamic programming over the front of two losses (Auger et al. 2009, "Theory of the
hypervolume indicator", section 5: among points sorted along the front, a point's own part reaches to the next one).
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
    counted = np.flatnonzero((table.losses < corner).all(axis=1))
    if not len(counted):
        return [()]
    on_front = counted[pareto.front_mask(table.losses[counted])]
    points, first = np.unique(table.losses[on_front], axis=0, return_index=True)  # the first loss rises
    chosen = _chosen(points, corner)
    return [tuple(int(on_front[first[place]]) for place in subset) for subset in chosen]


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
