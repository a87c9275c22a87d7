"""Which recorded recipe answers a proposal, and what a space keeps of what was recorded."""

from typing import Any

import numpy as np
import pytest

from sweeps.replay.recorded import Recipes, RecordedSpace
from sweeps.searchers.base import fingerprint
from sweeps.space.compile import compile_space
from sweeps.space.space import Space
from tests.sweeps.curves import curve, spec_of

RANGES: list[dict[str, Any]] = [
    {"set": "methods", "choice": ["full", "quantize"]},
    {"set": "methods.quantize.bits", "choice": [4, 8, 16], "when": {"methods": "quantize"}},
    {"set": "train.schedule", "choice": ["linear", "constant"]},
    {"set": "train.learning_rate", "log_uniform": [1e-4, 1e-2]},
    {"set": "train.weight_decay", "uniform": [0.0, 1.0]},
]


def space_of(entries: list[dict[str, Any]]) -> Space:
    return compile_space(spec_of(entries))


def full(schedule: str, rate: float, decay: float) -> dict[str, Any]:
    return {
        "methods": "full",
        "train.schedule": schedule,
        "train.learning_rate": rate,
        "train.weight_decay": decay,
    }


def packed(bits: int) -> dict[str, Any]:
    return {**full("linear", 1e-3, 0.5), "methods": "quantize", "methods.quantize.bits": bits}


def recipes(*assignments: dict[str, Any]) -> Recipes:
    return Recipes(space_of(RANGES), [curve(assignment) for assignment in assignments])


def test_a_logarithmic_range_counts_on_its_logarithm() -> None:
    # In the middle of 1e-4 and 1e-2 is 1e-3; on a linear scale, 2e-3 would be nearer to 1e-4.
    assert recipes(full("linear", 1e-4, 0.5), full("linear", 1e-2, 0.5)).take(full("linear", 2e-3, 0.5)) == 1


def test_numbers_of_different_scale_count_alike() -> None:
    found = recipes(full("linear", 1e-3, 0.9), full("linear", 2e-3, 0.5))  # 0.4 of a range away, and 0.15
    assert found.take(full("linear", 1e-3, 0.5)) == 1


def test_a_choice_decides_before_any_distance() -> None:
    found = recipes(full("constant", 1e-3, 0.5), full("linear", 1e-2, 1.0))
    assert found.take(full("linear", 1e-3, 0.5)) == 1
    assert found.take(full("linear", 1e-3, 0.5)) == 0  # what is left


def test_another_combination_never_answers() -> None:
    assert recipes(packed(4)).take(full("linear", 1e-3, 0.5)) is None


def test_a_choice_between_numbers_counts_by_position() -> None:
    assert recipes(packed(4), packed(8)).take(packed(16)) == 1


def test_what_was_recorded_answers_for_itself_and_once_while_others_are_left() -> None:
    rows = [full("linear", 1e-3, 0.5), full("linear", 1.1e-3, 0.5), full("linear", 9e-3, 0.5)]
    found = recipes(*rows)
    assert [found.take(rows[0]) for _ in range(3)] == [0, 1, 2]
    assert found.take(rows[0]) == 0  # trained again
    assert found.take(full("linear", 1.05e-3, 0.5)) is None  # not recorded, and nothing is left


def test_a_recipe_that_was_recorded_twice_is_given_out_twice() -> None:
    found = recipes(packed(8), packed(8))
    assert {found.take(packed(8)), found.take(packed(8))} == {0, 1}


def test_every_recorded_recipe_is_given_out_before_any_is_repeated() -> None:
    rng = np.random.default_rng(0)
    space = space_of(RANGES)
    rows = [space.sample(rng) for _ in range(40)]
    found = Recipes(space, [curve(row) for row in rows])
    answers = [found.take(space.sample(rng)) for _ in range(2000)]
    given = [answer for answer in answers if answer is not None]
    assert sorted(given) == list(range(40))


@pytest.mark.parametrize("is_finite", [False, True])
def test_a_space_keeps_the_recorded_combinations_alone(is_finite: bool) -> None:
    entries = RANGES[:3] + ([] if is_finite else RANGES[3:])
    whole = space_of(entries)
    assert len(whole.legal) == 2
    rows = [
        item for item in whole.grid(2) if item["methods"] == "quantize" and item["train.schedule"] == "linear"
    ]
    recorded = RecordedSpace(whole, rows)
    assert [item["methods"] for item in recorded.legal] == ["quantize"]
    rng = np.random.default_rng(0)
    assert {recorded.sample(rng)["methods"] for _ in range(30)} == {"quantize"}
    grid = [fingerprint(item) for item in recorded.grid(2)]
    expected = rows if is_finite else [item for item in whole.grid(2) if item["methods"] == "quantize"]
    assert grid == [fingerprint(item) for item in expected]
    assert grid == [fingerprint(item) for item in recorded.grid(2)]


def test_a_recorded_space_samples_as_the_whole_one_when_everything_was_recorded() -> None:
    whole = space_of(RANGES)
    recorded = RecordedSpace(whole, list(whole.grid(1)))
    left, right = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(50):
        assert recorded.sample(left) == whole.sample(right)
