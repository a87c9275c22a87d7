"""What a sweep starts with: lengths, windows, trials and rungs, by arithmetic."""

import pytest

from qa_core import registry
from qa_core.errors import ConfigError
from sweeps.budget.starting import (
    LORA,
    MOST_TRIALS,
    STARTS,
    Costs,
    sizes,
    window_length,
    windows_of,
)

COSTS = Costs(example=0.01, question=0.005, storing=1.0)
DATA = {"windows": 4000, "selection": 300, "evaluation": 400, "forms": 4}


def test_a_window_holds_95_percent_of_the_questions() -> None:
    assert window_length([50] * 95 + [1000] * 5) == 128
    assert window_length([50] * 94 + [200] * 6) == 256
    assert window_length([125] * 100) == 128  # with three special tokens just as long
    assert window_length([126] * 100) == 256
    assert window_length([5000] * 3) == 384


def test_windows_are_counted_by_their_steps() -> None:
    # Room for 128 - 16 - 3 = 109 tokens of context, of which 32 are read again: steps of 77.
    tokens = [100, 125, 126, 125 + 77, 125 + 78]
    assert windows_of(tokens, max_length=128, stride=32, question_tokens=16) == (1 + 1 + 2 + 2 + 3) / 5


def test_an_hour_is_spent_on_whole_trials_with_two_rungs() -> None:
    found = sizes(COSTS, minutes=60, concurrent=2, **DATA)
    # Three passes are 12,000 windows. Of 6,120 s a trial takes half of 120 s, to score 0.005 s x (2 x 300 + 4 x 400),
    # to store 4 s, and 15 s beside: 90 s.
    assert (found.examples, found.grace) == (12_000, 4_000)
    assert found.trials == MOST_TRIALS == 40
    assert found.evaluation_questions is None
    assert found.enough_minutes is None


def test_with_less_time_trials_are_shorter_and_then_fewer() -> None:
    found = sizes(COSTS, minutes=8, concurrent=1, **DATA)
    # 408 s for 8 trials are 51 s for each, of which 30 s are not training; no rung lies below 2,000 windows.
    assert (found.trials, found.examples, found.grace) == (8, 2_100, None)
    shortest = sizes(COSTS, minutes=4, concurrent=1, **DATA)
    assert found.enough_minutes == 10  # 8 x (30 + 30) s of 51 s in each minute
    assert (shortest.trials, shortest.examples, shortest.grace) == (5, 1_000, None)
    with pytest.raises(
        ConfigError, match=r"--minutes: found 1; allowed: 3 or more, enough for 4 trials of 500"
    ):
        sizes(COSTS, minutes=1, concurrent=1, **DATA)
    assert sizes(COSTS, minutes=3, concurrent=1, **DATA).trials == 4


def test_without_enough_questions_to_score_there_are_no_rungs() -> None:
    assert sizes(COSTS, minutes=60, concurrent=2, **{**DATA, "selection": 49}).grace is None
    assert sizes(COSTS, minutes=60, concurrent=2, **{**DATA, "selection": 50}).grace == 4_000
    assert sizes(COSTS, minutes=600, concurrent=2, **{**DATA, "windows": 10_000}).grace == 3_333


def test_many_evaluation_questions_are_cut_to_a_fifth_of_the_training() -> None:
    found = sizes(COSTS, minutes=60, concurrent=2, **{**DATA, "evaluation": 10_000})
    assert found.evaluation_questions == 1_200  # 0.2 x 12,000 x 0.01 s / (4 x 0.005 s)
    few = sizes(COSTS, minutes=60, concurrent=2, **{**DATA, "evaluation": 10_000, "windows": 10})
    assert few.evaluation_questions == 500


def test_each_family_has_a_start_that_needs_neither_hub_nor_gpu_and_is_known() -> None:
    own = {start.family: start for start in STARTS if not start.is_hub}
    assert own.keys() == registry.FAMILIES.keys()
    for start in STARTS:
        family = registry.family_class(start.family)
        assert (LORA in start.rates) == (start.family != "lstm")
        assert all(0 < low < high for low, high in start.rates.values())
        if not start.is_hub:
            assert start.name in (*family.presets, "sample-tiny")
            assert not start.needs_gpu
