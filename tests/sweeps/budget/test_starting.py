"""What a sweep starts with: lengths, windows, trials and rungs, by arithmetic."""

from typing import Any

import pytest

from qa_core import registry
from qa_core.config import EvaluationConfig
from qa_core.errors import ConfigError
from sweeps.budget.starting import (
    ANSWER_LENGTHS,
    LORA,
    MOST_TRIALS,
    STARTS,
    Costs,
    Work,
    answer_length,
    enough_minutes,
    families_that_learn,
    mean_of,
    sizes,
    window_length,
    windows_of,
)

COSTS = Costs(example=0.01, question=0.005, storing=1.0)


def work(**changes: Any) -> Work:
    values: dict[str, Any] = {
        "windows": 4000,
        "selection": 300,
        "evaluation": 400,
        "forms": 4,
        "concurrent": 1,
    }
    return Work(**(values | changes))


def test_a_window_holds_95_percent_of_the_questions() -> None:
    assert window_length([50] * 95 + [1000] * 5) == 128
    assert window_length([50] * 94 + [200] * 6) == 256
    assert window_length([125] * 100) == 128  # with three special tokens just as long
    assert window_length([126] * 100) == 256
    assert window_length([5000] * 3) == 384


def test_a_model_may_give_answers_as_long_as_95_percent_of_those_of_the_data() -> None:
    assert ANSWER_LENGTHS[0] == EvaluationConfig().max_answer_tokens
    assert answer_length([]) == 30
    assert answer_length([3] * 95 + [100] * 5) == 30
    assert answer_length([3] * 94 + [61] * 6) == 120
    assert answer_length([3] * 94 + [900] * 6) == 240


def test_windows_are_counted_by_their_steps() -> None:
    # Room for 128 - 16 - 3 = 109 tokens of context, of which 32 are read again: steps of 77.
    tokens = [100, 125, 126, 125 + 77, 125 + 78]
    assert windows_of(tokens, max_length=128, stride=32, question_tokens=16) == (1 + 1 + 2 + 2 + 3) / 5


def test_an_hour_is_spent_on_whole_trials_with_two_rungs() -> None:
    found = sizes(COSTS, work(minutes=60, concurrent=2))
    # Three passes are 12,000 windows. Of 6,120 s a trial takes half of 120 s, to score 0.005 s x (2 x 300 + 4 x 400),
    # to store 4 s, and 15 s beside: 90 s.
    assert (found.examples, found.grace) == (12_000, 4_000)
    assert found.trials == MOST_TRIALS == 40
    assert found.evaluation_questions is None
    assert found.enough_minutes is None


def test_with_less_time_trials_are_fewer_and_then_shorter() -> None:
    # Of 408 s, 8 trials have 51 s each, of which 30 s are not training: 2,100 windows, which teach little. 6 have 68 s.
    found = sizes(COSTS, work(minutes=8))
    assert (found.trials, found.examples, found.grace, found.enough_minutes) == (6, 3_800, None, None)
    shortest = sizes(COSTS, work(minutes=4))
    assert (shortest.trials, shortest.examples, shortest.grace) == (4, 2_100, None)
    assert shortest.enough_minutes == 5  # 4 x (30 + 30) s of 51 s in each minute
    with pytest.raises(
        ConfigError, match=r"--minutes: found 1; allowed: 3 or more, enough for 4 trials of 500"
    ):
        sizes(COSTS, work(minutes=1))
    assert sizes(COSTS, work(minutes=3)).trials == 4


def test_other_work_on_the_machine_counts_as_less_time() -> None:
    assert sizes(COSTS, work(minutes=24, slowdown=3.0)) == sizes(COSTS, work(minutes=8))
    assert sizes(COSTS, work(minutes=12, slowdown=3.0)).enough_minutes == 15


def test_families_too_slow_to_learn_in_the_time_are_left_out_slowest_first() -> None:
    costs = {"slow": Costs(0.06, 0.005, 1.0), "fast": COSTS, "middle": Costs(0.02, 0.005, 1.0)}
    kept, found = families_that_learn(costs, work(minutes=7))
    assert (kept, found.enough_minutes) == (["fast", "middle"], None)
    assert found.examples >= 3_000
    assert families_that_learn(costs, work(minutes=60))[0] == ["slow", "fast", "middle"]
    kept, found = families_that_learn(costs, work(minutes=4))
    assert (kept, found.enough_minutes) == (["fast"], 5)
    assert enough_minutes(mean_of(list(costs.values())), work(minutes=7)) == 10  # 4 x (90 + 30) s
    with pytest.raises(ConfigError, match="allowed: 3 or more"):
        families_that_learn(costs, work(minutes=1))


def test_without_enough_questions_to_score_there_are_no_rungs() -> None:
    assert sizes(COSTS, work(minutes=60, concurrent=2, selection=49)).grace is None
    assert sizes(COSTS, work(minutes=60, concurrent=2, selection=50)).grace == 4_000
    assert sizes(COSTS, work(minutes=600, concurrent=2, windows=10_000)).grace == 3_333


def test_many_evaluation_questions_are_cut_to_a_fifth_of_the_training() -> None:
    found = sizes(COSTS, work(minutes=60, concurrent=2, evaluation=10_000))
    assert found.evaluation_questions == 1_200  # 0.2 x 12,000 x 0.01 s / (4 x 0.005 s)
    few = sizes(COSTS, work(minutes=60, concurrent=2, evaluation=10_000, windows=10))
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
