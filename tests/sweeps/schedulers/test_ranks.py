"""Layers and the spread within one, against their definitions, which compare all pairs and count in fractions."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.schedulers import ranks
from sweeps.schedulers.ranks import dominates, is_among_first, layers


def rows_of(columns: int, most: int = 25) -> st.SearchStrategy[list[tuple[float, ...]]]:
    """Lists of rows on a lattice, small for ties and duplicates or large for long chains."""
    sides = st.sampled_from([1, 3, 8, 1000])
    coordinate = sides.flatmap(lambda side: st.integers(-side, side).map(float))
    return st.lists(st.tuples(*[coordinate] * columns), min_size=1, max_size=most)


def ranks_by_definition(rows: Sequence[Sequence[float]]) -> list[int]:
    """The length of the longest chain of rows, each better than the next, that ends above the row."""
    points = np.array(rows, dtype=float)
    as_good = (points[:, None] <= points[None]).all(axis=2)  # [n, n]: the first as good as the second
    is_better = as_good & ~as_good.T
    found = np.zeros(len(points), dtype=int)
    for index in np.argsort(is_better.sum(axis=0)):  # whoever has fewer above cannot be below
        found[index] = max((found[above] + 1 for above in np.flatnonzero(is_better[:, index])), default=0)
    return found.tolist()


def places_by_definition(
    points: Sequence[Sequence[float]], copies: Sequence[int], spans: Sequence[float], net_points: int
) -> list[int]:
    """How many rows come before each point, by greedy farthest-first over distinct points in lexicographic order."""
    scaled = [
        [Fraction(x) / Fraction(span) for x, span in zip(point, spans, strict=True)] for point in points
    ]
    net: list[int] = []
    rest = list(range(len(points)))
    distance: list[Fraction] = []
    while rest and len(net) < net_points:
        net.append(min(rest, key=lambda index: (-distance[index], index)) if net else 0)
        rest.remove(net[-1])
        steps = [sum(abs(x - y) for x, y in zip(item, scaled[net[-1]], strict=True)) for item in scaled]
        distance = [min(pair) for pair in zip(distance or steps, steps, strict=True)]
    order = net + sorted(rest, key=lambda index: (-distance[index], index))
    return [sum(copies[one] for one in order[: order.index(index)]) for index in range(len(points))]


def check_layers(rows: Sequence[Sequence[float]], relation: ranks.Relation) -> None:
    found = list(layers(np.array(rows, dtype=float), relation))
    assert sorted(index for layer in found for index in layer) == list(range(len(rows)))
    rank = {index: number for number, layer in enumerate(found) for index in layer.tolist()}
    assert [rank[index] for index in range(len(rows))] == ranks_by_definition(rows)


def in_other_words(one: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Pareto dominance as a relation that the module does not know."""
    return np.array([max(one - row) <= 0 and min(one - row) < 0 for row in rows], dtype=bool)


def test_layers_of_a_hand_drawn_set():
    rows = np.array([[3, 3], [1, 2], [2, 1], [2, 2], [4, 4], [2, 2.0]])
    assert [layer.tolist() for layer in layers(rows)] == [[1, 2], [3, 5], [0], [4]]


def test_one_dominates_what_is_nowhere_better_and_somewhere_worse():
    rows = np.array([[1, 2], [1, 3], [2, 3], [0, 9], [1, 1.0]])
    assert dominates(np.array([1, 2.0]), rows).tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("relation", [dominates, in_other_words])
@given(st.integers(1, 4).flatmap(rows_of))
@settings(max_examples=200, deadline=None)
def test_layers_equal_their_definition(relation, rows):
    check_layers(rows, relation)


@pytest.mark.parametrize("seed", range(6))
def test_layers_of_hundreds_of_rows_equal_their_definition(seed):
    rng = np.random.default_rng(seed)
    first = rng.integers(0, [400, 8, 400, 3, 400, 1][seed], 600)
    second = rng.integers(0, 400, 600) + (first if seed == 2 else -first if seed == 4 else 0)
    check_layers(np.column_stack([first, second]), dominates)
    check_layers(np.column_stack([first, rng.integers(0, 30, 600), second]), dominates)


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=2), min_size=1)
)
@settings(max_examples=100, deadline=None)
def test_items_of_several_points_have_layers_under_a_relation_of_their_own(items):
    def every_point_is_reached(one: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """One item is better when each point of the other is strictly dominated by one of its own. [2, 2], [n, 2, 2]"""
        return (one[None, :, None] < rows[:, None]).all(axis=3).any(axis=1).all(axis=1)

    rows = np.array(items, dtype=float)  # [items, points, losses]
    is_better = [
        [all(any(all(x < y for x, y in zip(p, q, strict=True)) for p in a) for q in b) for b in items]
        for a in items
    ]
    rank = {
        index: number
        for number, layer in enumerate(layers(rows, every_point_is_reached))
        for index in layer.tolist()
    }
    for index in range(len(items)):
        above = [rank[other] for other in range(len(items)) if is_better[other][index]]
        assert rank[index] == max(above, default=-1) + 1


def test_a_layer_is_not_computed_before_it_is_asked_for():
    calls = []

    def counted(one: np.ndarray, rows: np.ndarray) -> np.ndarray:
        calls.append(len(rows))
        return dominates(one, rows)

    rows = np.column_stack([np.arange(50.0)] * 3)
    assert next(layers(rows, counted)).tolist() == [0]
    assert len(calls) == 1


def places(rows: np.ndarray, spans: Sequence[float]) -> list[int]:
    """The place of every distinct row, found by asking with each room."""
    found = []
    for point in np.unique(rows, axis=0):
        answers = [
            is_among_first(rows, point, spans=np.array(spans), room=room) for room in range(len(rows) + 2)
        ]
        assert answers == sorted(answers)  # once within, always within
        found.append(answers.index(True) - 1)
    return found


def test_the_order_of_a_hand_drawn_layer():
    points = np.array([(0.0, 8.0), (1.0, 7.0), (3.0, 5.0), (4.0, 2.0), (8.0, 0.0)])
    layer = points.repeat([1, 2, 1, 1, 1], axis=0)[[5, 0, 3, 2, 4, 1]]
    # Positions 0, 2, 6, 10, 16: both ends; 6, as far from its end as 10 and before it; 10; 2 with its two copies.
    assert places(layer, (1.0, 1.0)) == [0, 4, 2, 3, 1]
    # With the first column stretched: positions 0, 11, 33, 46, 88.
    assert places(layer, (0.1, 1.0)) == [0, 4, 3, 2, 1]


@given(
    st.integers(1, 4),
    st.integers(0, 2**31),
    st.sampled_from([2, 3, 5, 64]),
    st.sampled_from([(1.0, 1.0, 1.0, 1.0), (3.0, 7.0, 6.0, 11.0), (0.125, 1024.0, 3.0, 3.0)]),
)
@settings(max_examples=100, deadline=None)
def test_places_equal_the_definition(columns, seed, net_points, spans):
    rng = np.random.default_rng(seed)
    points = np.unique(rng.integers(0, 9, (int(rng.integers(1, 20)), columns)), axis=0).astype(float)
    copies = rng.integers(1, 4, len(points))
    layer = points.repeat(copies, axis=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "NET_POINTS", net_points)
        found = places(layer[rng.permutation(len(layer))], spans[:columns])
    assert found == places_by_definition(points.tolist(), copies.tolist(), spans[:columns], net_points)


@pytest.mark.parametrize("seed", range(4))
def test_a_layer_larger_than_the_net_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    points = np.cumsum(rng.integers(1, 2 + 50 * seed, (130, 2)), axis=0) * (1.0, -1.0)
    copies = rng.integers(1, 3, 130) if seed % 2 else np.ones(130, dtype=int)
    spans = np.ptp(points, axis=0)
    expected = places_by_definition(points.tolist(), copies.tolist(), spans.tolist(), ranks.NET_POINTS)
    layer = points.repeat(copies, axis=0)
    for point, place in zip(points, expected, strict=True):
        for room in (place, place + 1):
            assert is_among_first(layer, point, spans=spans, room=room) == (place < room)


def test_the_first_places_spread_over_the_whole_layer():
    points = np.column_stack([np.arange(1001.0), -np.arange(1001.0)])
    spans = np.array([1000.0, 1000.0])
    chosen = [index for index in range(1001) if is_among_first(points, points[index], spans=spans, room=9)]
    assert chosen == [0, 125, 250, 375, 500, 625, 750, 875, 1000]


def test_equal_distances_stay_equal_when_a_span_does_not_divide_them():
    points = np.array([(0.0, 7.0), (3.0, 5.0), (4.0, 2.0), (7.0, 0.0)])
    scaled = points / 7.0
    # (3, 5) and (4, 2) are both 5/7 from the nearer end. In floats the second is farther.
    assert np.abs(scaled[1] - scaled[0]).sum() < np.abs(scaled[2] - scaled[3]).sum()
    assert places(points, (7.0, 7.0)) == [0, 2, 3, 1]
