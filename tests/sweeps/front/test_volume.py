"""The growing hypervolume equals the one that is measured from all points at once."""

import numpy as np
import pytest

from sweeps.front.pareto import hypervolume
from sweeps.front.volume import GrowingVolume, improvements


def test_areas_add_up_as_on_paper() -> None:
    volume = GrowingVolume((10.0, 10.0))
    assert volume.add((8.0, 3.0)) == 2 * 7
    assert volume.add((2.0, 6.0)) == 2 * 7 + 6 * 4
    assert volume.add((8.0, 3.0)) == 38  # the same again
    assert volume.add((9.0, 4.0)) == 38  # beaten
    assert volume.add((10.0, 0.0)) == 38  # not below the reference
    assert volume.add((1.0, 2.0)) == 9 * 8  # beats both
    assert volume.value == 72


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("steps", [None, 5])
def test_after_every_point_it_is_the_volume_of_all_points_so_far(columns: int, steps: int | None) -> None:
    rng = np.random.default_rng([columns, steps or 0])
    for _ in range(5):
        losses = rng.uniform(-1.0, 1.2, (60, columns))
        if steps:  # ties in single columns, and equal points
            losses = np.round(losses * steps) / steps
        volume = GrowingVolume((1.0,) * columns)
        found = [volume.add(point) for point in losses]
        expected = [hypervolume(losses[: count + 1], (1.0,) * columns) for count in range(len(losses))]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
        assert found[-1] > found[0]


@pytest.mark.parametrize("losses", [(1.0,), (1.0, float("nan")), (1.0, 2.0, 3.0)])
def test_a_point_that_is_none_is_refused(losses: tuple[float, ...]) -> None:
    volume = GrowingVolume((10.0, 10.0))
    with pytest.raises(ValueError, match="allowed: 2 finite numbers"):
        volume.add(losses)
    assert volume.value == 0.0


def test_what_a_point_would_add_is_as_on_paper() -> None:
    front = [(2.0, 6.0), (8.0, 3.0), (9.0, 9.0)]
    sets = [
        [(4.0, 4.0)],  # from 4 to 8, 2 high; from 8 to 10 the front is lower
        [(8.0, 3.0)],
        [(1.0, 1.0)],
        [(4.0, 4.0), (4.0, 5.0)],
        [(12.0, 0.0)],  # not below the reference
        [(np.inf, 0.0)],
    ]
    # The volume of the front is 38, and that of (1, 1) is 81.
    expected = [8.0, 0.0, 81.0 - 38.0, 8.0, 0.0, 0.0]
    found = [improvements([item], front, (10.0, 10.0))[0] for item in sets]
    assert found == expected
    assert improvements(np.array(sets[:1]), np.empty((0, 2)), (10.0, 10.0)).tolist() == [36.0]


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("steps", [None, 5])
def test_what_sets_would_add_is_the_difference_of_two_volumes(columns: int, steps: int | None) -> None:
    rng = np.random.default_rng([columns, steps or 0])
    for points in (1, 3):
        front = rng.uniform(-0.5, 1.2, (7, columns))
        sets = rng.uniform(-1.0, 1.3, (40, points, columns))
        if steps:
            front, sets = (np.round(item * steps) / steps for item in (front, sets))
        corner = (1.0,) * columns
        expected = [hypervolume([*front, *item], corner) - hypervolume(front, corner) for item in sets]
        found = improvements(sets, front, corner)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        assert (found > 0).any()
        assert (found == 0).any() or not steps
