"""The order within a layer: spread first, the line for two columns equal to following the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.schedulers import nets
from sweeps.schedulers.layers import Antichain, Staircase
from sweeps.schedulers.nets import is_among_first, spread_is_among_first


def staircase(points: list[tuple[float, float]], copies: list[int]) -> Staircase:
    firsts, seconds = zip(*points, strict=True)
    return Staircase(list(firsts), [-item for item in seconds], list(copies), sum(copies))


def order_by_definition(scaled: np.ndarray, net_points: int) -> list[int]:
    """Greedy farthest-first by comparing with every point of the net, then by distance."""
    net = [0]

    def distance(index: int) -> float:
        return min(float(np.abs(scaled[index] - scaled[other]).sum()) for other in net)

    def rest() -> list[int]:
        return sorted(set(range(len(scaled))) - set(net), key=lambda index: (-distance(index), index))

    while len(net) < min(net_points, len(scaled)):
        net.append(rest()[0])
    return net + rest()


def places(layer: Staircase | Antichain, spans: tuple[float, ...]) -> list[int]:
    """The place of every point, found by asking with each room."""
    found = []
    for point in layer.points():
        rooms = range(layer.weight + 2)
        answers = [is_among_first(layer, point, spans=spans, room=room) for room in rooms]
        assert answers == sorted(answers)  # once within, always within
        found.append(answers.index(True) - 1)
    return found


def expected_places(scaled: np.ndarray, copies: list[int], net_points: int) -> list[int]:
    order = order_by_definition(scaled, net_points)
    before = np.concatenate([[0], np.cumsum([copies[index] for index in order])[:-1]])
    return [int(before[order.index(index)]) for index in range(len(copies))]


def test_the_order_of_a_hand_drawn_layer():
    points = [(0.0, 8.0), (1.0, 7.0), (3.0, 5.0), (4.0, 2.0), (8.0, 0.0)]
    layer = staircase(points, [1, 2, 1, 1, 1])
    # Positions 0, 2, 6, 10, 16: both ends; 6, as far from its end as 10 and before it; 10; 2 with its two copies.
    assert places(layer, (1.0, 1.0)) == [0, 4, 2, 3, 1]
    # With the first column stretched: positions 0, 11, 33, 46, 88.
    assert places(layer, (0.1, 1.0)) == [0, 4, 3, 2, 1]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=24),
    st.data(),
    st.sampled_from([2, 3, 5, 64]),
    st.sampled_from([(1.0, 1.0), (3.0, 7.0), (0.1, 1e18), (1e-3, 5.0)]),
)
@settings(max_examples=200, deadline=None)
def test_places_on_a_staircase_equal_the_definition(steps, data, net_points, spans):
    points = [(0.0, 0.0)]
    for right, down in steps:
        points.append((points[-1][0] + right, points[-1][1] - down))
    copies = data.draw(st.lists(st.integers(1, 3), min_size=len(points), max_size=len(points)))
    line = np.array([[first / spans[0] + -second / spans[1]] for first, second in points])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nets, "NET_POINTS", net_points)
        assert places(staircase(points, copies), spans) == expected_places(line, copies, net_points)


@given(st.integers(3, 4), st.integers(0, 2**31), st.sampled_from([2, 5, 64]))
@settings(max_examples=60, deadline=None)
def test_places_in_a_layer_of_more_columns_equal_the_definition(columns, seed, net_points):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 5, (int(rng.integers(1, 15)), columns - 1))
    rows = np.unique(np.column_stack([rows, 12 - rows.sum(axis=1)]), axis=0).astype(float)
    copies = rng.integers(1, 4, len(rows))
    shuffled = rng.permutation(len(rows))
    layer = Antichain(rows[shuffled], copies[shuffled])
    spans = (4.0, 3.0, 2.0, 7.0)[:columns]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nets, "NET_POINTS", net_points)
        assert places(layer, spans) == expected_places(rows / np.array(spans), copies.tolist(), net_points)


@pytest.mark.parametrize("seed", range(4))
def test_a_layer_larger_than_the_net_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    points = [
        (float(first), -float(second))
        for first, second in np.cumsum(rng.integers(1, 2 + 50 * seed, (130, 2)), axis=0)
    ]
    copies = rng.integers(1, 3, 130).tolist() if seed % 2 else [1] * 130
    spans = (points[-1][0] - points[0][0], points[0][1] - points[-1][1])
    layer = staircase(points, copies)
    line = np.array([[first / spans[0] + -second / spans[1]] for first, second in points])
    expected = expected_places(line, copies, nets.NET_POINTS)
    for index in range(130):
        for room in (expected[index], expected[index] + 1):
            assert is_among_first(layer, points[index], spans=spans, room=room) == (expected[index] < room)
            assert spread_is_among_first(line, np.array(copies), index=index, room=room) == (
                expected[index] < room
            )


def test_with_two_columns_distance_along_the_line_is_the_sum_of_differences():
    rng = np.random.default_rng(0)
    points = [(float(x), -float(y)) for x, y in np.cumsum(rng.integers(1, 9, (40, 2)), axis=0)]
    spans = (256.0, 128.0)  # powers of two: no rounding
    scaled = np.array(points) / spans
    assert places(staircase(points, [1] * 40), spans) == expected_places(scaled, [1] * 40, nets.NET_POINTS)


def test_the_first_places_spread_over_the_whole_layer():
    points = [(float(index), -float(index)) for index in range(1001)]
    layer = staircase(points, [1] * 1001)
    spans = (1000.0, 1000.0)
    chosen = [index for index in range(1001) if is_among_first(layer, points[index], spans=spans, room=9)]
    assert chosen == [0, 125, 250, 375, 500, 625, 750, 875, 1000]
