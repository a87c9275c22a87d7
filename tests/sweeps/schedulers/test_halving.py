"""Halving on several objectives: equal to a slow reference, the front never stopped, state a function of results."""

import json
import math
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.front.pareto import front_mask
from sweeps.schedulers.halving import Halving, HalvingSettings, Result
from sweeps.schedulers.pausing import Candidates, Situation, Verdict
from sweeps.schedulers.ranks import NET_POINTS
from tests.sweeps.schedulers.test_ranks import places_by_definition, ranks_by_definition

ETAS = st.sampled_from([1.2, 2.0, 3.0, 4.5])


def losses_of(columns: int, most: int = 25) -> st.SearchStrategy[list[tuple[float, ...]]]:
    sides = st.sampled_from([1, 3, 8, 1000])
    coordinate = sides.flatmap(lambda side: st.integers(-side, side).map(float))
    return st.lists(st.tuples(*[coordinate] * columns), min_size=1, max_size=most)


def goes_on_slowly(seen: list[tuple[float, ...]], eta: float) -> bool:
    """The rule as it reads, for the last of the results that a rung has seen."""
    points = np.array(seen)
    ranks = np.array(ranks_by_definition(points))
    own = ranks[-1]
    if own == 0:
        return True
    layer, copies = np.unique(points[ranks == own], axis=0, return_counts=True)
    spans = np.where(np.ptp(points, axis=0) > 0, np.ptp(points, axis=0), 1.0)
    index = int(np.flatnonzero((layer == points[-1]).all(axis=1))[0])
    places = places_by_definition(layer.tolist(), copies.tolist(), spans.tolist(), NET_POINTS)
    place = int((ranks < own).sum()) + places[index]
    return place < math.floor(len(seen) / eta)


def halving(columns: int = 2, rungs: tuple[int, ...] = (10, 30), **settings: object) -> Halving:
    return Halving(HalvingSettings(**{"rungs": rungs, "columns": columns, "eta": 3.0, **settings}))


def goes_on(one: Halving, trial: str, budget: int, losses: Sequence[float]) -> bool:
    """Return the verdict at a rung that no other trial will reach, so that nothing waits for more results."""
    verdict = one.judge(trial, budget, Result(tuple(losses)))
    if verdict is not Verdict.PAUSE:
        return verdict is Verdict.GO_ON
    found = one.candidates(Situation(paused={trial: budget}))
    assert {*found.promotions, *found.beaten} == {trial}
    return trial in found.promotions


def replay(one: Halving, reports: Iterable[tuple[str, int, Sequence[float]]]) -> None:
    one.replay((trial, budget, Result(tuple(losses))) for trial, budget, losses in reports)


@given(losses_of(2), ETAS)
@settings(max_examples=500, deadline=None)
def test_decisions_on_two_objectives_equal_the_rule(losses, eta):
    fast = halving(eta=eta)
    for count, item in enumerate(losses, start=1):
        assert goes_on(fast, f"t{count}", 10, item) == goes_on_slowly(losses[:count], eta)


@given(st.sampled_from([3, 4]).flatmap(losses_of), ETAS)
@settings(max_examples=100, deadline=None)
def test_decisions_on_more_objectives_equal_the_rule(losses, eta):
    fast = halving(len(losses[0]), eta=eta)
    for count, item in enumerate(losses, start=1):
        assert goes_on(fast, f"t{count}", 10, item) == goes_on_slowly(losses[:count], eta)


@pytest.mark.parametrize("seed", range(3))
def test_the_last_of_hundreds_of_results_is_decided_by_the_rule(seed):
    rng = np.random.default_rng(seed)
    memory = rng.integers(1, (6, 40, 4000)[seed], 600) / 8
    losses = np.column_stack([rng.integers(-400, 0, 600) / 4 - memory, memory]).tolist()
    fast = halving()
    for count, item in enumerate(losses, start=1):
        decision = goes_on(fast, f"t{count}", 10, item)
        if count % 30 == 0:
            assert decision == goes_on_slowly([tuple(loss) for loss in losses[:count]], 3.0)


@given(st.integers(1, 4).flatmap(losses_of), ETAS, st.integers(1, 5), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_trial_on_the_front_of_its_rung_is_never_stopped(losses, eta, memory_bins, progressive):
    columns = len(losses[0])
    fast = halving(
        columns,
        eta=eta,
        memory_bins=memory_bins,
        lead=columns - 1,
        progressive=progressive,
        rungs=(10, 30, 90),
    )
    for budget in (10, 30, 90):  # each rung sees other losses
        seen = [tuple(np.roll(item, budget // 30)) for item in losses]
        for count, item in enumerate(seen, start=1):
            is_kept = goes_on(fast, f"t{count}", budget, item)
            assert is_kept or not front_mask(seen[:count])[-1]


def test_of_many_random_trials_about_the_best_third_goes_on():
    losses = np.random.default_rng(0).random((1500, 2)).tolist()
    fast = halving()
    kept = [goes_on(fast, f"t{index}", 10, item) for index, item in enumerate(losses)]
    assert 0.32 < np.mean(kept) < 0.36
    ranks = np.array(ranks_by_definition(losses))
    assert ranks[np.array(kept)].mean() < ranks[~np.array(kept)].mean() / 2


def test_a_small_poor_model_goes_on_and_a_large_poor_one_does_not():
    fast = halving()
    decisions = [
        goes_on(fast, name, 10, (-em, memory))
        for name, em, memory in [
            ("a", 80, 100),
            ("b", 70, 90),
            ("tiny", 20, 4),
            ("poor", 20, 60),
            ("c", 60, 80),
        ]
    ]
    assert decisions == [True, True, True, False, True]


def test_equal_results_are_treated_as_equals():
    fast = halving(eta=2.0)
    assert all(goes_on(fast, f"t{index}", 10, (1.0, 1.0)) for index in range(5))
    assert not any(goes_on(fast, f"u{index}", 10, (2.0, 2.0)) for index in range(5))
    # 10 seen, 5 may go on: the front of 4 and one of the 6 behind it, which share a place.
    fast = halving(eta=2.0)
    for index in range(4):
        goes_on(fast, f"t{index}", 10, (1.0, 1.0))
    replay(fast, [(f"u{index}", 10, (2.0, 2.0)) for index in range(5)])
    assert goes_on(fast, "u5", 10, (2.0, 2.0))


def test_a_report_counts_at_the_highest_rung_within_its_budget_and_once():
    fast = halving(eta=1.5)
    assert goes_on(fast, "early", 9, (0.0, 0.0))
    assert fast.seen() == [0, 0]
    assert goes_on(fast, "a", 29, (0.0, 0.0))
    assert goes_on(fast, "a", 31, (0.0, 0.0))
    assert fast.seen() == [1, 1]
    assert not goes_on(fast, "b", 10, (5.0, 5.0))
    assert goes_on(fast, "b", 12, (5.0, 5.0))  # judged before: started again from its checkpoint
    assert fast.seen() == [2, 1]


@pytest.mark.parametrize("bad", [(1.0,), (1.0, 2.0, 3.0), (1.0, math.nan), (math.inf, 1.0), (1.0, -math.inf)])
def test_losses_that_cannot_be_compared_are_refused_and_leave_no_trace(bad):
    fast = halving()
    for budget in (9, 10):
        with pytest.raises(ValueError, match="allowed: 2 finite numbers"):
            goes_on(fast, "t0", budget, bad)
    with pytest.raises(ValueError, match="allowed: 2 finite numbers"):
        replay(fast, [("t0", 10, bad)])
    assert fast.seen() == [0, 0]


@given(losses_of(2), st.randoms(use_true_random=False), st.integers(1, 4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_state_does_not_depend_on_the_order_of_results(losses, random, memory_bins, progressive):
    settings = {"memory_bins": memory_bins, "lead": 1, "progressive": progressive}
    reports = [
        (f"t{index}", budget, item if budget == 10 else item[::-1])
        for index, item in enumerate(losses)
        for budget in ((10, 30) if index % 3 == 0 else (10,))
    ]
    live = halving(**settings)
    for report in reports:
        goes_on(live, *report)
    shuffled = [*reports, *reports[::2]]  # told twice counts once
    random.shuffle(shuffled)
    replayed = halving(**settings)
    replay(replayed, shuffled)
    copies = [
        replayed,
        pickle.loads(pickle.dumps(live)),
        Halving.from_state(json.loads(json.dumps(live.state()))),
    ]
    assert all(copy.seen() == live.seen() for copy in copies)
    for number, item in enumerate([(0.0, 0.0), (2.0, -3.0), losses[-1], (1.0, 1.0)]):
        expected = goes_on(live, f"new{number}", 10, item)
        assert [goes_on(copy, f"new{number}", 10, item) for copy in copies] == [expected] * 3
        expected = goes_on(live, f"new{number}", 30, item)
        assert [goes_on(copy, f"new{number}", 30, item) for copy in copies] == [expected] * 3


def test_contradicting_reports_of_one_trial_are_replayed_the_same_in_any_order():
    reports = [("a", 12, (1.0, 2.0)), ("a", 10, (3.0, 3.0)), ("a", 10, (2.0, 9.0))]
    found = []
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        one = halving()
        replay(one, [reports[index] for index in order])
        found.append(one.state()["results"])
    assert found == [[{"a": Result((2.0, 9.0))._asdict()}, {}]] * 3


def test_the_state_is_settings_and_results():
    one = halving(memory_bins=2, lead=1)
    goes_on(one, "a", 10, (-1.5, 4.0))
    assert one.state() == {
        "settings": {
            "rungs": [10, 30],
            "columns": 2,
            "eta": 3.0,
            "lead": 1,
            "memory_bins": 2,
            "progressive": False,
            "floor": "pause",
            "beaten": "stop",
        },
        "results": [
            {"a": {"losses": (-1.5, 4.0), "is_at_floor": False, "train_loss": None, "forms": ()}},
            {},
        ],
    }


def test_bands_of_memory_are_judged_apart():
    # Memory from 4 to 64: bands 4-8, 8-16, 16-32, 32-64.
    history = [("a", 10, (-90.0, 4.0)), ("b", 10, (-95.0, 64.0))]
    for memory_bins, expected in ((1, [False, False, False]), (4, [True, False, True])):
        one = halving(memory_bins=memory_bins, lead=1)
        replay(one, history)
        found = [goes_on(one, "c", 10, (-30.0, 20.0)), goes_on(one, "d", 10, (-20.0, 21.0))]
        assert [*found, goes_on(one, "e", 10, (-10.0, 9.0))] == expected


def test_bands_follow_the_range_that_was_seen():
    one = halving(memory_bins=2, lead=1)
    assert goes_on(one, "a", 10, (-50.0, 10.0))
    assert not goes_on(one, "b", 10, (-40.0, 10.2))  # the range is narrow: one band, behind a
    replay(one, [("c", 10, (-60.0, 9.9)), ("d", 10, (-60.0, 1000.0))])
    assert not goes_on(one, "e", 10, (-40.0, 90.0))  # below the middle, 99: behind a
    assert goes_on(one, "f", 10, (-40.0, 110.0))  # above it: incomparable with d alone


def test_a_lead_column_that_is_not_positive_has_a_band_too():
    one = halving(memory_bins=3, lead=0)
    assert goes_on(one, "a", 10, (0.0, 1.0))
    assert goes_on(one, "b", 10, (-5.0, 2.0))
    assert goes_on(one, "c", 10, (7.0, 0.0))


def test_a_ceiling_stands_at_the_first_rung_that_changes_nothing():
    one = halving(rungs=(10, 30, 90), progressive=True, eta=1.5)
    assert one.ceiling() == 1
    results = {f"t{index}": (float(index), 1.0) for index in range(4)}  # by quality alone, t0 the best
    for trial, losses in results.items():
        goes_on(one, trial, 10, losses)
    goes_on(one, "t0", 30, (0.0, 1.0))
    goes_on(one, "t1", 30, (1.0, 1.0))
    assert one.ceiling() == 1
    # t3 was in the fourth layer and leads now: longer training still changes the order.
    goes_on(one, "t3", 30, (-1.0, 1.0))
    assert one.ceiling() == 2
    assert goes_on(one, "t2", 30, (-0.5, 1.0))  # behind t3, but within the best 1 / eta
    for progressive in (True, False):
        state = one.state()
        copy = Halving.from_state({**state, "settings": {**state["settings"], "progressive": progressive}})
        assert goes_on(copy, "t3", 90, (-1.0, 1.0))
        assert not goes_on(copy, "t1", 90, (1.0, 1.0))
        # Second of three, two of which may go on below the ceiling; at the ceiling the front alone does.
        assert goes_on(copy, "t2", 90, (-0.5, 1.0)) != progressive


def test_a_change_of_places_between_neighbouring_layers_is_no_change():
    one = halving(rungs=(10, 30, 90), progressive=True, eta=1.5)
    for trial, quality in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        goes_on(one, trial, 10, (quality, 1.0))
    replay(one, [("a", 30, (2.0, 1.0)), ("b", 30, (1.0, 1.0))])
    assert one.ceiling() == 1
    replay(one, [("c", 30, (0.0, 1.0))])
    assert one.ceiling() == 2


def test_a_trial_that_fell_from_the_front_raises_the_ceiling_too():
    one = halving(rungs=(10, 30, 90), progressive=True)
    replay(one, [(trial, 10, (1.0, 1.0)) for trial in "abc"])  # all on the front
    replay(one, [("a", 30, (1.0, 1.0)), ("b", 30, (2.0, 1.0))])
    assert one.ceiling() == 1
    replay(one, [("c", 30, (3.0, 1.0))])
    assert one.ceiling() == 2


def test_without_progress_to_watch_there_is_no_ceiling():
    one = halving(rungs=(10, 30, 90))
    assert one.ceiling() == 3
    assert halving(rungs=(10, 30, 90), progressive=True).ceiling() == 1


# Pausing and the floor


def told(
    one: Halving, trial: str, budget: int, em: float, memory: float, *, floor: bool = False, loss: float = 1.0
) -> Verdict:
    return one.judge(trial, budget, Result((-em, memory), floor, loss))


def test_the_first_to_come_pause_and_are_judged_when_there_are_eta_results():
    one = halving()
    assert [told(one, "t0", 10, 50, 8), told(one, "t1", 10, 10, 9)] == [Verdict.PAUSE] * 2
    more = Situation(paused={"t0": 10, "t1": 10}, may_start=True)
    assert one.candidates(more) == Candidates()
    assert told(one, "t2", 10, 20, 2) is Verdict.GO_ON  # the third: on the front
    assert one.candidates(more) == Candidates(promotions=("t0",), beaten=("t1",))
    assert told(one, "t3", 10, 5, 9) is Verdict.STOP


@pytest.mark.parametrize(
    ("situation", "is_judged"),
    [
        (Situation({"t0": 30}, {}, may_start=True), False),
        (Situation({"t0": 30}, {"t1": 0}), False),
        (Situation({"t0": 30}, {"t1": 29}), False),
        (Situation({"t0": 30, "t1": 10}, {}), False),  # which is to be judged first, and may come up
        (Situation({"t0": 30}, {"t1": 30}), True),
        (Situation({"t0": 30}, {}), True),
    ],
    ids=["new", "before-the-first", "below", "paused-below", "at-the-same-rung", "none"],
)
def test_a_rung_with_few_results_is_judged_once_no_other_trial_can_reach_it(situation, is_judged):
    one = halving()
    for trial in ("t0", "t1"):
        told(one, trial, 10, 50, 8)
    told(one, "t0", 30, 50, 8)
    assert ("t0" in one.candidates(situation).promotions) == is_judged


def test_a_paused_trial_that_is_stopped_does_not_keep_the_rung_above_waiting():
    one = halving()
    for trial, em in (("t0", 50.0), ("t1", 20.0), ("t2", 60.0)):
        told(one, trial, 10, em, 8)
    told(one, "t0", 30, 50, 8)
    found = one.candidates(Situation(paused={"t0": 30, "t1": 10}))
    assert found == Candidates(promotions=("t0",), beaten=("t1",))


def test_no_rung_waits_for_a_trial_whose_examples_cannot_be_spent():
    one = halving()
    for trial, em in (("t0", 50.0), ("t1", 60.0), ("t2", 70.0)):
        told(one, trial, 10, em, em)
    told(one, "t0", 30, 50, 8)
    paused = {"t0": 30, "t1": 10}
    assert one.candidates(Situation(paused)).promotions == ("t1",)  # which t0 waits for
    assert one.candidates(Situation(paused, too_dear=frozenset({"t1"}))).promotions == ("t0",)
    assert one.candidates(Situation(paused, too_dear=frozenset(paused))) == Candidates()
    cut_short = Situation({"t0": 30}, going={"t1": 10})
    assert one.candidates(cut_short).promotions == ()
    assert one.candidates(replace(cut_short, too_dear=frozenset({"t1"}))).promotions == ("t0",)


def test_the_highest_rung_goes_first_and_then_the_order_of_proposal():
    one = halving(rungs=(10, 30, 90))
    for trial in ("t10000", "t9999", "t0007", "t0003"):
        told(one, trial, 10, 50, 8)
    told(one, "t0007", 30, 50, 8)
    paused = {"t10000": 10, "t9999": 10, "t0007": 30, "t0003": 10}
    assert one.candidates(Situation(paused)).promotions == (
        "t0003",
        "t9999",
        "t10000",
    )  # t0007 waits for them
    for trial in ("t0003", "t9999"):
        told(one, trial, 30, 50, 8)
    assert one.candidates(Situation(paused)).promotions == ("t0007", "t0003", "t9999", "t10000")


@pytest.mark.parametrize(
    ("floor", "expected"),
    [
        ("pause", [Verdict.PAUSE, Verdict.PAUSE, Verdict.PAUSE, Verdict.GO_ON]),
        ("stop", [Verdict.STOP, Verdict.STOP, Verdict.STOP, Verdict.GO_ON]),
        ("off", [Verdict.PAUSE, Verdict.PAUSE, Verdict.STOP, Verdict.GO_ON]),
    ],
)
def test_from_the_second_rung_on_a_trial_at_the_floor_pauses_or_stops_whatever_its_memory(floor, expected):
    """Results: the smallest at the floor, one larger, one beaten by both, and one that has learnt something."""
    results = [
        ("t0", 5.0, 2.0, True),
        ("t1", 5.5, 3.0, True),
        ("t2", 5.0, 9.0, True),
        ("t3", 30.0, 20.0, False),
    ]
    one = halving(floor=floor)
    first = [told(one, trial, 10, em, memory, floor=at) for trial, em, memory, at in results]
    assert first == [
        Verdict.PAUSE,
        Verdict.PAUSE,
        Verdict.STOP,
        Verdict.GO_ON,
    ]  # the first rung knows no floor
    assert [told(one, trial, 30, em, memory, floor=at) for trial, em, memory, at in results] == expected


def test_who_is_at_the_floor_is_never_promoted_and_the_last_resort_is_the_lowest_loss():
    one = halving()
    for trial, loss, memory in (("t0", 2.0, 1.0), ("t1", 1.5, 9.0), ("t2", 1.5, 2.0), ("t3", 1.9, 0.5)):
        assert told(one, trial, 30, 5, memory, floor=True, loss=loss) is Verdict.PAUSE
    paused = dict.fromkeys(("t2", "t3", "t1", "t0"), 30)
    assert one.candidates(Situation(paused)) == Candidates(last_resort="t1")  # not t2, which is smaller
    one.judge("t4", 30, Result((-5.0, 1.0), True, None))  # a loss that is not known comes last
    assert one.candidates(Situation({"t4": 30})).last_resort == "t4"
    assert one.candidates(Situation({"t4": 30, "t0": 30})).last_resort == "t0"


def test_who_is_beaten_may_wait_until_its_rung_has_room_or_can_be_reached_no_more():
    one = halving(beaten="pause", eta=2.0)
    for trial, em in (("t0", 60.0), ("t1", 50.0), ("t2", 40.0)):  # of three one goes on
        told(one, trial, 10, em, 8)
    paused = {"t1": 10, "t2": 10}
    more = Situation(paused, may_start=True)
    assert one.candidates(more) == Candidates()
    assert one.candidates(Situation(paused, going={"t3": 0})) == Candidates()
    assert one.candidates(Situation(paused, going={"t0": 10})) == Candidates(beaten=("t1", "t2"))
    assert told(one, "t3", 10, 30, 8) is Verdict.PAUSE
    assert one.candidates(more) == Candidates(promotions=("t1",))  # of four two
    assert one.candidates(Situation({**paused, "t3": 10})) == Candidates(("t1",), ("t2", "t3"))


def test_a_trial_paused_before_the_first_rung_goes_on():
    assert halving().candidates(Situation({"t0": 5}, may_start=True)).promotions == ("t0",)


def test_what_can_be_stopped_for_its_disk_space_is_at_the_floor_or_beaten_the_worst_first():
    one = halving(rungs=(10, 30, 90))
    told(one, "t0", 30, 5, 1, floor=True, loss=2.0)
    told(one, "t1", 30, 5, 1, floor=True, loss=3.0)
    told(one, "t2", 90, 5, 1, floor=True, loss=2.0)
    told(one, "t3", 10, 50, 8)  # on the front
    told(one, "t4", 10, 40, 9)  # beaten
    paused = {"t0": 30, "t1": 30, "t2": 90, "t3": 10, "t4": 10}
    assert one.expendable(paused) == ["t1", "t2", "t0", "t4"]
    assert one.expendable({"t3": 10}) == []


def test_a_rung_is_silent_while_all_of_its_eta_results_are_at_the_floor():
    one = halving()
    for index in range(3):
        assert one.silent() == []
        told(one, f"t{index}", 10, 5, 1, floor=True)
    assert one.silent() == [(10, 3)]
    told(one, "t3", 10, 50, 1)
    assert one.silent() == []
