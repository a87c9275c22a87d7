"""The learning rate over a budget: exact values of each decay and of the warm-up."""

import math

import pytest

from qa_core.training.schedules import DECAYS, learning_rate_factor


@pytest.mark.facts
def test_the_linear_decay_gives_the_study_rate_at_step_26050():
    # 27,670 steps from 2e-2 without warm-up; the study's log has 0.00117094326 at step 26,050
    factor = learning_rate_factor("linear", before=26_050 / 27_670, after=26_051 / 27_670, warmup=0.0)
    assert 2e-2 * factor == pytest.approx(0.00117094326, abs=5e-12)


@pytest.mark.parametrize(
    ("schedule", "start", "middle", "end"),
    [("linear", 1.0, 0.5, 0.0), ("cosine", 1.0, 0.5, 0.0), ("constant", 1.0, 1.0, 1.0)],
)
def test_a_decay_goes_from_its_start_to_its_end(schedule, start, middle, end):
    values = [DECAYS[schedule](spent) for spent in (0.0, 0.5, 1.0)]
    assert values == pytest.approx([start, middle, end])


def test_a_cosine_falls_slowly_at_both_ends():
    assert DECAYS["cosine"](0.25) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert DECAYS["cosine"](0.75) == pytest.approx((1 - math.sqrt(0.5)) / 2)


@pytest.mark.parametrize("schedule", list(DECAYS))
def test_the_warm_up_rises_linearly_and_the_decay_begins_where_it_ends(schedule):
    def factor(before: float) -> float:
        return learning_rate_factor(schedule, before=before, after=before + 0.05, warmup=0.2)

    assert [factor(before) for before in (0.0, 0.05, 0.1)] == pytest.approx([0.25, 0.5, 0.75])
    assert factor(0.2) == 1.0
    assert factor(0.6) == pytest.approx(DECAYS[schedule](0.5))
