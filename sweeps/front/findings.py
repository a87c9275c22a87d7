"""What a front says, in sentences: its span, the steps that the questions tell apart, what storing in fewer bits cost.

A step leads from a point of the front to the next larger one. It is told apart where the interval of the paired
difference in exact match, by article, does not hold 0 (`ties.py`); where it holds 0, the larger model is no better as
far as the evaluation questions tell. The sentences are for fronts of exact match against one cost; of others nothing is
said.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qa_core.errors import counted
from qa_core.scoring.intervals import Interval
from sweeps.front.points import Point
from sweeps.front.result import FrontResult
from sweeps.front.tables import format_value
from sweeps.front.ties import paired_difference
from sweeps.run_folder.model_id import ModelId
from sweeps.spec.objectives import MEASURES, measure

EXACT_MATCH = "em_percent"
MOST_TIES = 3  # that are named one by one


@dataclass(frozen=True)
class Step:
    """Two neighbours on a front by cost; `difference` is the larger one's exact match minus the smaller one's.

    It is in percent points, with the interval by article; None where there are no answers to the same questions.
    """

    smaller: Point
    larger: Point
    difference: Interval | None

    @property
    def is_tie(self) -> bool | None:
        """True where the questions do not tell the two apart; None where that is not known."""
        return None if self.difference is None else self.difference.holds_zero


def cost_of(result: FrontResult) -> str | None:
    """Return the cost of a front of exact match against one cost; None for a front of anything else."""
    names = [item.name for item in result.objectives]
    others = [name for name in names if name != EXACT_MATCH]
    is_fitting = len(others) == 1 and EXACT_MATCH in names and MEASURES[others[0]].section == "cost"
    return others[0] if is_fitting else None


def steps(result: FrontResult, answers_of: Callable[[Point], Path]) -> tuple[Step, ...]:
    """Compare each point of a front with the next smaller one.

    Args:
        answers_of: the file of a point's answers; it may be absent.

    Returns:
        From the smallest to the largest; () for a front of anything but exact match against one cost.

    Raises:
        DataError: a file of answers is damaged.
    """
    if (cost := cost_of(result)) is None:
        return ()
    points = sorted(result.front, key=lambda point: (point.values[cost], point.id.order))
    pairs = itertools.pairwise(points)
    return tuple(
        Step(smaller, larger, paired_difference(larger, smaller, answers_of)) for smaller, larger in pairs
    )


def tied_with_smaller(found: Iterable[Step]) -> frozenset[ModelId]:
    """Return the points of a front that are no better than the next smaller one as far as the questions tell."""
    return frozenset(step.larger.id for step in found if step.is_tie)


def sentences(
    result: FrontResult, answers_of: Callable[[Point], Path], *, keep_percent: float | None = None
) -> list[str]:
    """Return what a front says, a sentence or two in each line; [] for a front of anything but EM against a cost.

    Args:
        keep_percent: of the exact match of the best network as it was trained; a sentence names the smallest point
            that keeps so much of it.

    Raises:
        DataError: a file of answers is damaged.
    """
    cost = cost_of(result)
    if cost is None or not result.front:
        return []
    found = steps(result, answers_of)
    said = [_span(result, cost), *_families(result, cost), *_told_apart(found, cost), *_bits(result, cost)]
    if keep_percent is not None:
        said += _kept(result, cost, keep_percent, answers_of)
    return said


def _span(result: FrontResult, cost: str) -> str:
    points = _by_cost(result.front, cost)
    smallest, largest = points[0], points[-1]
    if len(points) == 1:
        return f"One model is on the front: {smallest.id}, EM {_em(smallest)} at {_at(smallest, cost)}."
    count = len({point.family for point in points})
    families = "one family" if count == 1 else f"{count} families"
    gain = largest.values[EXACT_MATCH] - smallest.values[EXACT_MATCH]
    more = _more(smallest.values[cost], largest.values[cost], cost)
    if not gain and more is None:
        return (
            f"{len(points)} models of {families} are on the front, all with EM {_em(smallest)} at "
            f"{_at(smallest, cost)}."
        )
    points_of_em = f"{gain:.1f} points of EM" if gain >= 0.05 else "less than 0.1 points of EM"
    return (
        f"{len(points)} models of {families}, from EM {_em(smallest)} at {_at(smallest, cost)} to EM "
        f"{_em(largest)} at {_at(largest, cost)}: {more or f'the same {_noun(cost)}'}, {points_of_em}."
    )


def _more(small: float, large: float, cost: str) -> str | None:
    """Say how much more of a cost the larger value is; None where the two are equal."""
    if small == large:
        return None
    factor = large / small if small else float("inf")
    if factor >= 1.1:
        return f"{factor:.1f} times the {_noun(cost)}"
    percent = 100 * (factor - 1)
    return f"{percent:.1f} % more {_noun(cost)}" if percent >= 0.05 else f"less than 0.1 % more {_noun(cost)}"


def _families(result: FrontResult, cost: str) -> list[str]:
    """Say which families are left where the budget is small."""
    points = _by_cost(result.front, cost)
    first = points[0].family
    other = next((point for point in points if point.family != first), None)
    if other is None:
        return []
    return [f"Below {_at(other, cost)}, {first} is the only family on the front."]


def _told_apart(found: Sequence[Step], cost: str) -> list[str]:
    known = [step for step in found if step.is_tie is not None]
    if not known:
        return []
    ties = [step for step in known if step.is_tie]
    unit = next(step.difference.unit for step in known if step.difference is not None)
    if len(found) == 1:
        told = "do not tell" if ties else "tell"
        return [
            f"The questions {told} the two apart: EM {_interval(known[0].difference)}, 95 % interval by {unit}."
        ]
    said = [
        f"{len(known) - len(ties)} of {counted(len(known), 'step')} from one point to the next larger one "
        f"{'is' if len(known) - len(ties) == 1 else 'are'} told apart by the questions (95 % intervals by {unit})."
    ]
    for step in ties[:MOST_TIES]:
        said.append(
            f"Not told apart: {step.larger.id} ({_at(step.larger, cost)}) from {step.smaller.id} "
            f"({_at(step.smaller, cost)}), EM {_interval(step.difference)}."
        )
    if len(ties) > MOST_TIES:
        said.append(f"Not told apart either: {counted(len(ties) - MOST_TIES, 'more step')}.")
    return said


def _bits(result: FrontResult, cost: str) -> list[str]:
    """Say what the best stored form on the front lost against the network as it was trained, and what it saves."""
    twins = {point.trial_id: point for point in result.points if point.form and not point.form_settings}
    forms = [
        point
        for point in result.front
        if point.form_settings and point.against_twin and point.trial_id in twins
    ]
    if not forms:
        return []
    best = max(forms, key=lambda point: (point.values[EXACT_MATCH], -point.values[cost]))
    twin = twins[best.trial_id]
    saved = twin.values[cost] - best.values[cost]
    change = best.against_twin["em_difference_percent"]
    assert change is not None, "a form on a front was scored"
    lost = f"{_change(change)} EM{_range(best.against_twin)}"
    less = f"{_amount(saved, cost)} ({_at(twin, cost)} as trained)"
    return [f"Stored as {best.form}, {best.trial_id} {lost} and saves {less}."]


def _kept(result: FrontResult, cost: str, percent: float, answers_of: Callable[[Point], Path]) -> list[str]:
    """Name the smallest point that keeps a share of the exact match of the best network as it was trained."""
    trained = [point for point in result.points if not point.form_settings]
    if not trained:
        return ["No network as it was trained is among the points, so that there is nothing to keep."]
    best = max(trained, key=lambda point: (point.values[EXACT_MATCH], -point.values[cost]))
    least = best.values[EXACT_MATCH] * percent / 100
    keeping = [point for point in result.points if point.values[EXACT_MATCH] >= least]
    smallest = min(keeping, key=lambda point: (point.values[cost], -point.values[EXACT_MATCH]))
    if smallest.id == best.id:
        return [
            f"No smaller model keeps {percent:g} % of the EM of {best.id} ({_em(best)} at {_at(best, cost)})."
        ]
    ratio = (
        100 * smallest.values[EXACT_MATCH] / best.values[EXACT_MATCH] if best.values[EXACT_MATCH] else 100.0
    )
    difference = paired_difference(smallest, best, answers_of)
    words = "no interval" if difference is None or difference.low is None else f"EM {_interval(difference)}"
    tie = ", not told apart" if difference is not None and difference.holds_zero else ""
    return [
        f"The smallest model that keeps {percent:g} % of the EM of {best.id} ({_em(best)} at {_at(best, cost)}) is "
        f"{smallest.id}: {_em(smallest)} at {_at(smallest, cost)}, {ratio:.1f} % ({words}{tie})."
    ]


def _by_cost(points: Iterable[Point], cost: str) -> list[Point]:
    return sorted(points, key=lambda point: (point.values[cost], point.id.order))


def _em(point: Point) -> str:
    return f"{point.values[EXACT_MATCH]:.1f}"


def _at(point: Point, cost: str) -> str:
    return _amount(point.values[cost], cost)


def _amount(value: float, cost: str) -> str:
    return f"{format_value(value)} {measure(cost).unit}"


def _noun(cost: str) -> str:
    return cost.rpartition("_")[0].replace("_", " ") or cost


def _change(value: float) -> str:
    """Return the change of a score as a verb and an amount."""
    return f"loses {-value:.1f}" if value < 0 else f"gains {value:.1f}" if value > 0 else "loses no"


def _range(against_twin: Mapping[str, float | None]) -> str:
    """Return the interval of a form's difference from its twin, and whether it holds 0; nothing where there is none."""
    low, high = against_twin.get("low"), against_twin.get("high")
    if low is None or high is None:
        return ""
    return f" ({low:+.1f} to {high:+.1f}{', not told apart' if low <= 0 <= high else ''})"


def _interval(found: Interval | None) -> str:
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    return f"{found.estimate:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
