"""What a free worker does, decided on paper; the examples of a whole sweep."""

import pytest

from sweeps.schedulers.pausing import (
    Account,
    Action,
    Allowance,
    Candidates,
    Situation,
    Step,
    candidates_of,
    next_step,
)

ALL = Candidates(promotions=("t2", "t1"), last_resort="t3")


def test_what_was_cut_short_comes_before_promotions_and_these_before_new_trials() -> None:
    situation = Situation(paused={"t1": 10, "t2": 30, "t3": 30}, going={"t0": 10}, may_start=True)
    assert next_step(situation, ALL, cut_short=["t0"]) == Step(Action.RESUME, "t0")
    assert next_step(situation, ALL) == Step(Action.PROMOTE, "t2")
    assert next_step(situation, Candidates(last_resort="t3")) == Step(Action.START)


def test_what_does_not_fit_is_passed_over() -> None:
    situation = Situation(paused={"t1": 10, "t2": 30}, going={"t0": 10}, may_start=True)
    assert next_step(situation, ALL, fits=lambda trial_id: trial_id == "t1") == Step(Action.PROMOTE, "t1")
    assert next_step(situation, ALL, cut_short=["t0"], fits=lambda trial_id: False) == Step(Action.START)


@pytest.mark.parametrize(
    ("going", "has_finished", "fits", "expected"),
    [
        ({"t0": 10}, False, True, Step(Action.WAIT)),
        ({}, False, True, Step(Action.PROMOTE, "t3")),
        ({}, True, True, Step(Action.END)),
        ({}, False, False, Step(Action.END)),
    ],
    ids=["while-one-runs", "nothing-else-is-left", "one-was-trained", "no-examples"],
)
def test_the_last_resort_goes_on_only_where_nothing_else_is_left_and_none_was_trained_to_its_end(
    going: dict[str, int], has_finished: bool, fits: bool, expected: Step
) -> None:
    situation = Situation(paused={"t3": 30}, going=going, has_finished=has_finished)
    found = next_step(situation, Candidates(last_resort="t3"), fits=lambda trial_id: fits)
    assert found == expected


def test_a_trial_that_is_cut_short_and_cannot_be_paid_for_does_not_keep_a_sweep_waiting() -> None:
    situation = Situation(going={"t0": 10})
    assert next_step(situation, Candidates(), cut_short=["t0"], fits=lambda trial_id: False) == Step(
        Action.END
    )


def test_where_the_scheduler_pauses_none_all_that_are_paused_may_go_on_as_they_were_proposed() -> None:
    paused = {"t10000": 10, "t9999": 30, "t0003": 10}
    assert candidates_of(None, Situation(paused)) == Candidates(("t0003", "t9999", "t10000"))


RUNGS = (10, 30, 90)


def test_a_stretch_ends_at_the_next_rung_or_at_the_end() -> None:
    allowance = Allowance(1000, RUNGS)
    stretches = {
        (0, 200): 10,
        (9, 200): 10,
        (10, 200): 20,
        (33, 200): 60,
        (95, 200): 110,
        (30, 60): 30,
        (0, 0): 0,
    }
    for (seen, budget), expected in stretches.items():
        assert allowance.stretch(Account(seen, budget)) == expected, (seen, budget)
    assert allowance.stretch(Account(200, 200)) == 0


def test_what_runs_is_reserved_to_its_next_rung_and_counts_before_what_asks() -> None:
    others = [Account(200, 200), Account(30, 200), Account(30, 200, is_going=True)]  # 200 + 30 + 90
    others += [Account(9, 200, is_open=False)]  # failed before its first rung: nothing
    asking = Account(10, 200)  # to 30
    for total, expected in ((349, False), (350, True)):
        assert Allowance(total, RUNGS).fits(others, asking, has_finished=True) == expected
        assert Allowance(total + 5, RUNGS).fits(others, asking, more=5, has_finished=True) == expected
    assert Allowance(None, RUNGS).fits(others, asking)


def test_what_one_trial_needs_to_its_end_is_kept_back_until_one_has_come_to_it() -> None:
    # A new trial: 10 now, and the least that any needs to its end: 200 - 90 = 110 of the one that runs.
    others = [Account(30, 200), Account(30, 200, is_going=True)]  # 30 + 90
    new = Account(0, 200)
    assert not Allowance(239, RUNGS).fits(others, new)
    assert Allowance(240, RUNGS).fits(others, new)
    assert Allowance(130, RUNGS).fits(others, new, has_finished=True)
    # The first trial of all needs its own whole training, and the one that goes to its end nothing beside.
    assert [Allowance(total, RUNGS).fits([], new) for total in (199, 200)] == [False, True]
    assert [Allowance(total, RUNGS).fits([], Account(90, 200)) for total in (199, 200)] == [False, True]
    # One that has ended will not come to its end; and what steps reached over their rungs takes nothing from the rest.
    stopped = Account(190, 200, is_open=False)  # counts as 90
    assert [Allowance(total, RUNGS).fits([stopped], new) for total in (289, 290)] == [False, True]
    # A trial that trains nothing is not one that will be trained to its end.
    assert Allowance(0, RUNGS).fits([], Account(0, 0))
