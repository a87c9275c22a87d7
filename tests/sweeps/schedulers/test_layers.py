"""Layers that grow by one point: equal, after every insertion, to sorting all points anew."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.front.pareto import non_dominated_ranks
from sweeps.schedulers.layers import Layers

ETAS = st.sampled_from([1.2, 2.0, 2.5, 3.0, 7.0])


def points_of(columns: int, most: int = 25) -> st.SearchStrategy[list[tuple[float, ...]]]:
    """Lists of points on a lattice, small for ties and duplicates or large for long chains."""
    sides = st.sampled_from([1, 3, 8, 1000])
    coordinate = sides.flatmap(lambda side: st.integers(-side, side).map(float))
    return st.lists(st.tuples(*[coordinate] * columns), min_size=1, max_size=most)


def check(layers: Layers, points: list[tuple[float, ...]], eta: float) -> None:
    ranks = non_dominated_ranks(points)
    assert len(layers) == ranks.max() + 1
    for rank in range(len(layers)):
        expected = sorted(point for point, found in zip(points, ranks, strict=True) if found == rank)
        assert layers[rank].weight == len(expected)
        assert layers[rank].points() == sorted(set(expected))
        assert all(layers.rank(point) == rank for point in expected)
    # The cut: layers before it fit whole into the best floor(n / eta), the one at it does not.
    room = math.floor(len(points) / eta)
    sizes = [int((ranks <= rank).sum()) for rank in range(len(layers))]
    assert layers.cut == sum(size <= room for size in sizes)
    assert layers.above == ([0, *sizes])[layers.cut]
    assert layers.room == room - layers.above


@given(points_of(2), ETAS)
@settings(max_examples=200, deadline=None)
def test_layers_of_two_columns_equal_sorting_anew(points, eta):
    layers = Layers(2, eta)
    for count, point in enumerate(points, start=1):
        rank = layers.insert(point)
        assert rank == non_dominated_ranks(points[:count])[-1]
        check(layers, points[:count], eta)


@given(st.sampled_from([1, 3, 4]).flatmap(points_of), ETAS)
@settings(max_examples=80, deadline=None)
def test_layers_of_any_columns_equal_sorting_anew(points, eta):
    layers = Layers(len(points[0]), eta)
    for count, point in enumerate(points, start=1):
        layers.insert(point)
        check(layers, points[:count], eta)


@pytest.mark.parametrize("seed", range(6))
def test_thousands_of_points_equal_sorting_anew(seed):
    rng = np.random.default_rng(seed)
    sizes = [400, 8, 400, 3, 400, 1]
    first = rng.integers(0, sizes[seed], 1500)
    second = rng.integers(0, 400, 1500) + (first if seed == 2 else -first if seed == 4 else 0)
    points = [(float(x), float(y)) for x, y in zip(first, second, strict=True)]
    layers = Layers(2, 3.0)
    for point in points:
        layers.insert(point)
    check(layers, points, 3.0)


def test_a_better_point_moves_a_block_down_and_a_whole_layer_moves_all_below():
    layers = Layers(2, 2.0)
    for point in [(2.0, 4.0), (4.0, 2.0), (5.0, 5.0), (3.0, 6.0)]:
        layers.insert(point)
    assert [layers[rank].points() for rank in range(len(layers))] == [[(2, 4), (4, 2)], [(3, 6), (5, 5)]]
    assert layers.insert((2.0, 3.0)) == 0
    # (2, 4) falls behind and beats both points of the next layer, which becomes a layer of its own.
    assert [layers[rank].points() for rank in range(len(layers))] == [
        [(2, 3), (4, 2)],
        [(2, 4)],
        [(3, 6), (5, 5)],
    ]
