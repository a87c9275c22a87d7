"""The share of ranks that a setting explains: exact answers on small tables, nothing where nothing can be said."""

import random

import numpy as np
import pytest

from sweeps.report.importance import importance, ranks


def shares(settings: list[dict[str, object]], values: list[float]) -> dict[str, float]:
    return {item.path: item.share for item in importance(settings, values)}


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    assert ranks([5.0, 1.0, 5.0, 0.0]).tolist() == [2.5, 1.0, 2.5, 0.0]


def test_a_setting_that_divides_the_ranks_gets_its_corrected_share() -> None:
    settings = [{"a": name} for name in "xyxyxyxy"]
    values = [10.0, 1.0, 11.0, 2.0, 12.0, 3.0, 13.0, 4.0]
    # Ranks 0..3 and 4..7: between groups 32 of 42, so within 10; corrected 1 - 10 / 42 * 7 / 6.
    assert shares(settings, values) == {"a": pytest.approx(1 - 10 / 42 * 7 / 6)}


def test_the_order_of_values_counts_and_not_their_size() -> None:
    settings = [{"a": name} for name in "xyxyxyxy"]
    values = [10.0, 1.0, 11.0, 2.0, 12.0, 3.0, 1e9, 4.0]
    assert shares(settings, values) == {"a": pytest.approx(1 - 10 / 42 * 7 / 6)}


def test_a_number_with_many_values_is_grouped_into_five() -> None:
    numbers = [3, 0, 4, 1, 2, 9, 7, 8, 6, 5]
    (found,) = importance(
        [{"rate": number * 0.1} for number in numbers], [float(number**3) for number in numbers]
    )
    # Pairs of neighbours: half a rank squared twice in each of five groups, of 82.5.
    assert (found.groups, found.models) == (5, 10)
    assert found.share == pytest.approx(1 - 2.5 / 82.5 * 9 / 5)


def test_what_explains_nothing_gets_next_to_nothing_and_never_less_than_none() -> None:
    draw = random.Random(3)
    settings = [{"a": draw.choice("vwxyz"), "b": draw.random()} for _ in range(400)]
    found = shares(settings, [draw.random() for _ in range(400)])
    assert set(found) == {"a", "b"}
    assert all(0.0 <= share < 0.03 for share in found.values())


def test_a_setting_that_some_models_lack_is_judged_on_the_others() -> None:
    settings: list[dict[str, object]] = [{"rank": 4 if place % 2 else 8} for place in range(8)]
    values = [float(place % 2) for place in range(8)]
    assert shares([*settings, *({"other": None} for _ in range(4))], [*values, 9.0, 9.0, 9.0, 9.0]) == {
        "rank": 1.0
    }
    assert importance(settings[:7], values[:7]) == ()  # too few


def test_true_is_no_number_and_one_value_says_nothing() -> None:
    settings = [{"flag": place < 4, "same": 3, "own": f"id{place}"} for place in range(8)]
    assert list(shares(settings, list(np.arange(8.0)))) == ["flag"]
