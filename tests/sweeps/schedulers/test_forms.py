"""Trainings compared form by form: equal to a slow reading of the relation, and the front is never stopped."""

import json
import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.schedulers.forms import FormLosses, FormRanks
from sweeps.schedulers.halving import Halving, HalvingSettings, Result
from sweeps.schedulers.pausing import Situation, Verdict
from sweeps.schedulers.ranks import NET_POINTS
from tests.sweeps.schedulers.test_ranks import places_by_definition

Forms = tuple[FormLosses, ...]


# The relation as it reads


def is_nowhere_worse(one: FormLosses, other: FormLosses) -> bool:
    return one.kind == other.kind and all(
        own <= its for own, its in zip(one.losses, other.losses, strict=True)
    )


def that_count(forms: Forms) -> list[FormLosses]:
    """The forms without those that another form of the same training makes needless."""
    return [
        form for form in forms if not any(is_nowhere_worse(other, form) and other != form for other in forms)
    ]


def beats(a: Forms, b: Forms) -> bool:
    """The relation as it reads: each form of B is met by one of A, and one of B's is met by a better one."""
    each_is_met = all(any(is_nowhere_worse(own, its) for own in a) for its in b)
    one_is_exceeded = any(
        is_nowhere_worse(own, its) and own != its for own in that_count(a) for its in that_count(b)
    )
    return each_is_met and one_is_exceeded


def ranks_slowly(seen: Sequence[Forms]) -> list[int]:
    """The length of the longest chain, each better than the next, that ends above a training."""
    is_better = np.array([[beats(a, b) for b in seen] for a in seen])
    found = [0] * len(seen)
    for index in np.argsort(is_better.sum(axis=0), kind="stable"):  # whoever has fewer above cannot be below
        found[index] = max((found[above] + 1 for above in np.flatnonzero(is_better[:, index])), default=0)
    return found


def goes_on_slowly(seen: Sequence[Forms], eta: float, lead: int) -> bool:
    """The verdict on the last of the trainings that a rung has seen."""
    ranks = np.array(ranks_slowly(seen))
    own = ranks[-1]
    if own == 0:
        return True
    largest = np.array([largest_of(forms, lead) for forms in seen])
    largest = np.column_stack([largest[:, lead], np.delete(largest, lead, axis=1)])
    layer, copies = np.unique(largest[ranks == own], axis=0, return_counts=True)
    spans = np.where(np.ptp(largest, axis=0) > 0, np.ptp(largest, axis=0), 1.0)
    index = int(np.flatnonzero((layer == largest[-1]).all(axis=1))[0])
    places = places_by_definition(layer.tolist(), copies.tolist(), spans.tolist(), NET_POINTS)
    return int((ranks < own).sum()) + places[index] < math.floor(len(seen) / eta)


def largest_of(forms: Forms, lead: int) -> tuple[float, ...]:
    return max((form.losses for form in forms), key=lambda losses: (losses[lead], losses))


# Random streams


def trainings(costs: int, kinds: str = "abc", most_forms: int = 5) -> st.SearchStrategy[list[Forms]]:
    """Streams of trainings on a lattice, small for ties; the first column is the quality, which all forms share."""
    sides = st.sampled_from([1, 3, 12])
    return sides.flatmap(
        lambda side: st.lists(_training(costs, kinds, most_forms, side), min_size=1, max_size=14)
    )


def _training(costs: int, kinds: str, most_forms: int, side: int) -> st.SearchStrategy[Forms]:
    coordinate = st.integers(0, side).map(float)
    form = st.tuples(st.sampled_from(kinds), st.tuples(*[coordinate] * costs))
    return st.tuples(coordinate, st.lists(form, min_size=1, max_size=most_forms)).map(
        lambda found: tuple(FormLosses(kind, (found[0], *own)) for kind, own in found[1])
    )


def halving(columns: int, eta: float = 3.0, lead: int = 1, **changes: object) -> Halving:
    values = {"rungs": (10,), "columns": columns, "eta": eta, "lead": lead, **changes}
    return Halving(HalvingSettings(**values))  # type: ignore[arg-type]


def goes_on(one: Halving, trial: str, forms: Forms) -> bool:
    """Return the verdict at a rung that no other trial will reach."""
    verdict = one.judge(trial, 10, Result(largest_of(forms, one.settings.lead), forms=forms))
    if verdict is not Verdict.PAUSE:
        return verdict is Verdict.GO_ON
    return trial in one.candidates(Situation(paused={trial: 10})).promotions


@pytest.mark.parametrize("costs", [1, 2])
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_ranks_equal_the_relation_as_it_reads(costs: int, data: st.DataObject) -> None:
    stream = data.draw(trainings(costs))
    ranks = FormRanks(1 + costs)
    for count, forms in enumerate(stream, start=1):
        assert ranks.add(forms) == count - 1
        assert ranks.ranks.tolist() == ranks_slowly(stream[:count])


@pytest.mark.parametrize("costs", [1, 2])
@given(data=st.data(), eta=st.sampled_from([1.2, 2.0, 3.0]))
@settings(max_examples=60, deadline=None)
def test_decisions_equal_the_rule_as_it_reads(costs: int, data: st.DataObject, eta: float) -> None:
    stream = data.draw(trainings(costs))
    fast = halving(1 + costs, eta)
    for count, forms in enumerate(stream, start=1):
        assert goes_on(fast, f"t{count}", forms) == goes_on_slowly(stream[:count], eta, lead=1)


@given(stream=trainings(1, kinds="a", most_forms=1), eta=st.sampled_from([1.2, 2.0, 3.0]))
@settings(max_examples=80, deadline=None)
def test_one_form_of_one_kind_each_is_judged_as_trainings_without_forms(
    stream: list[Forms], eta: float
) -> None:
    with_forms, without = halving(2, eta), halving(2, eta)
    for count, forms in enumerate(stream):
        verdict = without.judge(f"t{count}", 10, Result(forms[0].losses))
        assert with_forms.judge(f"t{count}", 10, Result(forms[0].losses, forms=forms)) is verdict


@given(stream=trainings(2), memory_bins=st.integers(1, 4), progressive=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_training_that_no_other_beats_is_never_stopped(
    stream: list[Forms], memory_bins: int, progressive: bool
) -> None:
    one = halving(3, memory_bins=memory_bins, progressive=progressive, rungs=(5, 10))
    for count, forms in enumerate(stream, start=1):
        is_beaten = any(beats(other, forms) for other in stream[:count])
        assert goes_on(one, f"t{count}", forms) or is_beaten


@given(stream=trainings(2), random=st.randoms(use_true_random=False), memory_bins=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_the_state_with_forms_is_a_function_of_the_set_of_results(
    stream: list[Forms], random: object, memory_bins: int
) -> None:
    live = halving(3, memory_bins=memory_bins)
    results = [
        (f"t{index}", 10, Result(largest_of(forms, 1), forms=forms)) for index, forms in enumerate(stream)
    ]
    for result in results:
        live.judge(*result)
    random.shuffle(results)  # type: ignore[attr-defined]
    replayed = halving(3, memory_bins=memory_bins)
    replayed.replay(results)
    copies = [replayed, Halving.from_state(json.loads(json.dumps(live.state())))]
    for number, forms in enumerate((*stream[:3], stream[-1])):
        expected = goes_on(live, f"new{number}", forms)
        assert [goes_on(copy, f"new{number}", forms) for copy in copies] == [expected] * 2


# Cases by hand: (quality as a loss, memory)


def training(em: float, **memory: float) -> Forms:
    return tuple(FormLosses(kind, (-em, value)) for kind, value in memory.items())


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (training(60, whole=8, int8=2), training(50, whole=8, int8=2), True),
        (training(60, whole=8, int8=2), training(60, whole=8, int8=2), False),
        (training(60, whole=8, int8=2), training(50, whole=4, int8=1), False),
        (training(60, whole=8, int8=2), training(50, whole=9, int8=1), False),  # its smallest form is smaller
        (training(60, whole=8, int8=2), training(50, whole=7, int8=3), False),
        (training(60, whole=8), training(50, whole=8, int8=2), False),  # the other's int8 is met by nothing
        (training(60, whole=8, int8=2), training(50, whole=8), True),
        (training(60, whole=8, int8=2), training(60, whole=8), False),  # what int8 answers is not known
        (training(60, int8=2), training(50, **{"scored at rungs: int8": 9}), False),
        ((*training(60, k=8), *training(60, k=3)), training(50, k=5), True),  # by the packed one
        ((*training(60, k=8), *training(60, k=3)), (*training(60, k=8), *training(60, k=3)), False),
        ((*training(60, k=3), *training(60, k=3)), (*training(60, k=8), *training(60, k=3)), False),
    ],
)
def test_one_training_beats_another_form_by_form(a: Forms, b: Forms, expected: bool) -> None:
    assert beats(a, b) == expected
    ranks = FormRanks(2)
    for forms in (b, a):
        ranks.add(forms)
    assert ranks.ranks.tolist() == [int(expected), 0]


def test_reports_without_forms_among_others_are_judged_by_their_own_losses() -> None:
    """As in a sweep that an older version began: every result by what the report itself says."""
    one = halving(2, eta=1.5)
    one.replay([("old", 10, Result((-60.0, 8.0)))])
    forms = training(50, whole=9, int8=1)
    assert not goes_on(one, "new", forms)
    assert goes_on(halving(2, eta=1.5), "new", forms)


@pytest.mark.parametrize("bad", [(1.0,), (1.0, math.nan), (math.inf, 1.0)])
def test_losses_of_a_form_that_cannot_be_compared_are_refused(bad: tuple[float, ...]) -> None:
    one = halving(2)
    with pytest.raises(ValueError, match="allowed: 2 finite numbers"):
        one.judge("t", 10, Result((1.0, 1.0), forms=(FormLosses("a", bad),)))
    assert one.seen() == [0]


@pytest.mark.slow
@pytest.mark.parametrize("costs", ["in-proportion", "by-family", "at-random"])
def test_a_decision_among_ten_thousand_results_with_six_forms_takes_fifty_milliseconds(costs: str) -> None:
    rng = np.random.default_rng(0)
    one = halving(2)
    stream = [six_forms(costs, rng) for _ in range(10_000)]
    results = [
        (f"t{count}", 10, Result(largest_of(forms, 1), forms=forms)) for count, forms in enumerate(stream)
    ]
    one.replay(results[:9_500])
    milliseconds = []
    for result in results[9_500:]:
        began = time.process_time()
        one.judge(*result)
        milliseconds.append(1000 * (time.process_time() - began))
    first, rest = milliseconds[0], np.array(milliseconds[1:])  # the first one ranks all that was replayed
    print(
        f"{costs}: median {np.median(rest):.1f} ms, 99 % {np.quantile(rest, 0.99):.1f}, most {rest.max():.1f};"
    )
    print(f"the first decision after a resume {first:.0f} ms")
    assert np.quantile(rest, 0.99) < 50


def six_forms(costs: str, rng: np.random.Generator) -> Forms:
    em, size, body = rng.uniform(0, 80), float(rng.choice(np.geomspace(2, 400, 40))), rng.uniform(0.2, 1)
    memory = {
        "in-proportion": size * np.array([1, 1 / 2, 0.45, 1 / 4, 0.2, 1 / 8]),
        "by-family": size * (1 - body * np.array([0, 1 / 2, 0.55, 3 / 4, 0.8, 7 / 8])),
        "at-random": rng.uniform(0, 1, 6),
    }[costs]
    return training(em, **dict(zip("abcdef", memory.tolist(), strict=True)))
