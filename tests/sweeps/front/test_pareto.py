"""The geometry of fronts: values computed by hand, then invariants, then brute force."""

import itertools

import numpy as np
import pytest

from sweeps.front import pareto
from sweeps.front.pareto import front_mask, hypervolume, knee, reached_mask, to_losses

CASES = [(columns, seed) for columns in (1, 2, 3, 4) for seed in range(12)]


def random_points(columns: int, seed: int) -> np.ndarray:
    """Integer points on a small lattice: many ties and duplicates."""
    rng = np.random.default_rng([columns, seed])
    return rng.integers(0, 6, size=(int(rng.integers(1, 14)), columns)).astype(float)


def brute_force_mask(losses: np.ndarray) -> list[bool]:
    return [not any(all(other <= point) and any(other < point) for other in losses) for point in losses]


def brute_force_volume(losses: np.ndarray, corner: int) -> int:
    """Count the unit cells below the corner that some point dominates."""
    cells = itertools.product(range(corner), repeat=losses.shape[1])
    return sum(any(all(point <= cell) for point in losses) for cell in cells)


def test_only_max_columns_change_sign() -> None:
    assert to_losses([[70.0, 12.0], [0.0, 3.0]], ["max", "min"]).tolist() == [[-70.0, 12.0], [0.0, 3.0]]
    with pytest.raises(ValueError, match="goals"):
        to_losses([[1.0, 2.0]], ["max"])
    with pytest.raises(ValueError, match="goals"):
        to_losses([[1.0]], ["maximise"])


def test_the_front_of_a_hand_drawn_set() -> None:
    losses = [[1, 5], [2, 3], [4, 1], [2, 4], [5, 5], [2, 3], [1, 6], [4, 1.5]]
    assert front_mask(losses).tolist() == [True, True, True, False, False, True, False, False]


@pytest.mark.parametrize(("columns", "seed"), CASES)
def test_the_front_agrees_with_comparing_all_pairs(columns: int, seed: int) -> None:
    losses = random_points(columns, seed)
    assert front_mask(losses).tolist() == brute_force_mask(losses)


@pytest.mark.parametrize(("columns", "seed"), CASES)
@pytest.mark.parametrize("small", [0, 20, pareto.SMALL_COMPARISON])  # 0: divided down to the last pair
def test_what_other_points_reach_agrees_with_comparing_all_pairs(columns, seed, small, monkeypatch) -> None:
    monkeypatch.setattr(pareto, "SMALL_COMPARISON", small)
    losses = np.vstack([random_points(columns, seed), random_points(columns, seed + 100)])
    by = np.vstack([random_points(columns, seed + 200) + 1, random_points(columns, seed + 300) + 1])
    assert reached_mask(losses, by).tolist() == [bool((by <= point).all(axis=1).any()) for point in losses]
    assert reached_mask(losses, losses).all()
    assert not reached_mask(losses, by[:0]).any()
    assert reached_mask(losses[:0], by).tolist() == []


@pytest.mark.parametrize(("columns", "seed"), CASES)
def test_the_hypervolume_agrees_with_counting_cells(columns: int, seed: int) -> None:
    losses = random_points(columns, seed)
    for corner in (4, 6):  # 4: some points lie beyond the reference
        assert hypervolume(losses, [corner] * columns) == brute_force_volume(losses, corner)


@pytest.mark.parametrize(("columns", "seed"), CASES)
def test_order_and_duplicates_change_nothing(columns: int, seed: int) -> None:
    losses = random_points(columns, seed)
    order = np.random.default_rng(seed).permutation(len(losses))
    doubled = np.vstack([losses, losses[::-1]])
    assert front_mask(losses[order]).tolist() == front_mask(losses)[order].tolist()
    assert front_mask(doubled).tolist() == [*front_mask(losses), *front_mask(losses)[::-1]]
    reference = [6.0] * columns
    shuffled = doubled[np.random.default_rng(seed).permutation(len(doubled))]
    assert hypervolume(shuffled, reference) == hypervolume(losses, reference)


@pytest.mark.parametrize(("columns", "seed"), CASES)
def test_columns_can_change_places(columns: int, seed: int) -> None:
    losses = random_points(columns, seed)
    reference = np.arange(3.0, 3.0 + columns)
    for order in itertools.permutations(range(columns)):
        assert front_mask(losses[:, order]).tolist() == front_mask(losses).tolist()
        assert hypervolume(losses[:, order], reference[list(order)]) == hypervolume(losses, reference)


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_a_whole_lattice_dominates_what_its_best_point_does(columns: int) -> None:
    lattice = np.array(list(itertools.product(range(3), repeat=columns)), dtype=float)
    assert hypervolume(lattice, [3.0] * columns) == 3**columns
    assert front_mask(lattice).sum() == 1


@pytest.mark.parametrize("columns", [2, 3, 4])
def test_the_diagonal_of_a_lattice_has_the_volume_of_its_staircase(columns: int) -> None:
    side = 4
    lattice = np.array(list(itertools.product(range(side + 1), repeat=columns)))
    diagonal = lattice[lattice.sum(axis=1) == side]  # all of them incomparable
    assert front_mask(diagonal).all()
    corner = side + 1
    cells = itertools.product(range(corner), repeat=columns)
    assert hypervolume(diagonal, [corner] * columns) == sum(sum(cell) >= side for cell in cells)


def test_hypervolumes_computed_by_hand() -> None:
    assert hypervolume([[1, 3], [2, 1]], [4, 4]) == 7.0  # rows y 1..3: 2 wide, y 3..4: 3 wide
    assert hypervolume([[0, 0, 2], [1, 1, 0]], [2, 2, 3]) == 6.0  # 2x2x1 + 1x1x3 - 1x1x1
    assert hypervolume([[0.5]], [2.0]) == 1.5


def test_points_on_or_beyond_the_reference_contribute_nothing() -> None:
    assert hypervolume([[4, 0], [0, 4], [5, -9]], [4, 4]) == 0.0
    assert hypervolume([[1, 3], [2, 1], [9, -9]], [4, 4]) == 7.0
    assert hypervolume(np.empty((0, 2)), [4, 4]) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_raise_and_say_where(bad: float) -> None:
    losses = [[1.0, 2.0], [3.0, bad]]
    for function in (front_mask, knee, lambda item: to_losses(item, ["min", "min"])):
        with pytest.raises(ValueError, match="point 1, column 1"):
            function(losses)
    with pytest.raises(ValueError, match="point 1, column 1"):
        hypervolume(losses, [5.0, 5.0])
    with pytest.raises(ValueError, match="finite"):
        hypervolume([[1.0, 2.0]], [5.0, bad])


def test_shapes_that_do_not_fit_raise() -> None:
    with pytest.raises(ValueError, match="shape"):
        front_mask([1.0, 2.0])
    with pytest.raises(ValueError, match="same number"):
        hypervolume([[1.0, 2.0]], [1.0])
    with pytest.raises(ValueError, match="1 to 4"):
        hypervolume([[1.0] * 5], [2.0] * 5)


def test_the_knee_is_the_point_nearest_to_the_ideal_after_scaling() -> None:
    losses = [[0, 1000], [1, 400], [9, 350], [10, 0], [11, 1200]]
    assert knee(losses) == 1
    assert knee([[0, 2], [1, 1], [2, 0]]) is None  # on the line between the ends
    assert knee([[0, 2], [2, 0]]) is None
    assert knee([[0, 3], [2, 2], [3, 0]]) is None  # bulges away from the ideal


def test_a_large_front_of_two_objectives_is_fast() -> None:
    rng = np.random.default_rng(0)
    losses = rng.normal(size=(200_000, 2))
    assert 1 <= front_mask(losses).sum() < 100
