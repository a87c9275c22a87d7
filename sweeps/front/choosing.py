"""Which model of a finished trial is exported: the one with the best quality within limits on cost.

Limits are upper bounds on objectives of cost, by name and in their units (`LIMITABLE`). Knows nothing of folders: which
artifacts are still there is looked at in `sweeps/commands/results.py`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qa_core.errors import ConfigError, unknown
from sweeps.front.points import LIMITABLE, Point
from sweeps.front.result import FrontResult
from sweeps.run_folder.model_id import ModelId
from sweeps.spec.objectives import MEASURES, measure

if TYPE_CHECKING:
    from sweeps.spec.objectives import Objective

FIXED = tuple(name for name in LIMITABLE if MEASURES[name].rung_field)  # by the recipe
LIMIT, MIN_EM = "--max", "--min-em"  # the options that name one


def read_limits(texts: Iterable[str]) -> dict[str, float]:
    """Return the limits of "FIELD=VALUE" each.

    Raises:
        ConfigError: a field cannot be limited (the nearest name is suggested) or stands twice, or a value is no
            number above 0.
    """
    limits: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{LIMIT}: found {text!r}; allowed: FIELD=VALUE, such as memory_mb=20")
        if name not in LIMITABLE:
            raise ConfigError(f"{LIMIT}: {unknown('field', name, LIMITABLE)}")
        if name in limits:
            raise ConfigError(f"{LIMIT}: {name} stands twice")
        limits[name] = _positive(value, name)
    return limits


def read_min_em(text: str) -> float:
    """Return the least exact match, in percent; raises ConfigError where it is no number from 0 to 100."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise ConfigError(f"{MIN_EM}: found {text!r}; allowed: a number from 0 to 100, in %")
    return value


def within(
    result: "FrontResult", limits: Mapping[str, float], *, min_em: float | None = None
) -> "list[Point]":
    """Return the comparable points that no limit excludes, best quality first, of equals the cheaper one.

    Quality is the first objective of the sweep that is not a cost, or its first objective. A point whose record lacks
    a limited field does not fit.

    Args:
        result: of the sweep.
        limits: upper bounds on costs, by objective.
        min_em: least exact match in percent; then the cheapest come first, by `cost_to_save`. None: there is none.
    """
    by = [*limits, "memory_mb"] if min_em is None else [cost_to_save(result, limits), *limits, "memory_mb"]

    def order(point: "Point") -> tuple[Any, ...]:
        costs = [point.costs.get(name, math.inf) for name in by]
        loss = loss_of_quality(point, result.objectives)
        return (loss, costs, point.id.order) if min_em is None else (costs[0], loss, costs, point.id.order)

    fitting = [
        point
        for point in result.points
        if all(point.costs.get(name, math.inf) <= limit for name, limit in limits.items())
        and (min_em is None or exact_match(point) >= min_em)
    ]
    return sorted(fitting, key=order)


def exact_match(point: "Point") -> float:
    """Return the exact match of a point in percent, objective or not; minus infinity where no record says it."""
    found = point.values.get("em_percent", point.em_percent)
    return -math.inf if found is None else found


def cost_to_save(result: "FrontResult", limits: Mapping[str, float]) -> str:
    """Return the cost by which a model is called smaller: the first limited one, or the sweep's first, or memory."""
    own = (item.name for item in result.objectives if item.name in LIMITABLE and item.goal == "min")
    return next(iter([*limits, *own]), "memory_mb")


def refusal(result: "FrontResult", limits: Mapping[str, float], *, min_em: float | None = None) -> str:
    """Return why no point is within the limits: the smallest need of each, or that they are not met together."""
    if min_em is not None and (fitting := within(result, limits)):
        return _too_low(result, limits, min_em, max(fitting, key=exact_match))
    option = LIMIT if limits else MIN_EM
    given = ", ".join(f"{name}={limit:g}" for name, limit in limits.items()) or f"{min_em:g}"
    if not result.points:
        forms = {f"stored forms {reason}": count for reason, count in result.forms_left_out.items()}
        left_out = ", ".join(f"{count} {why}" for why, count in {**result.left_out, **forms}.items())
        why = f"not compared: {left_out}" if left_out else "there is none yet"
        return f"{option}: found {given}; no finished trial fits, {why}"
    least = {}
    for name in limits:
        known = [(point.costs[name], point.id) for point in result.points if name in point.costs]
        least[name] = min(known, key=lambda item: (item[0], item[1].order), default=None)
    needs = [
        f"no record says its {name}"
        if found is None
        else f"the smallest {name} is {at_least(found[0])} ({found[1]})"
        for name, found in least.items()
    ]
    each = all(found is not None and found[0] <= limits[name] for name, found in least.items())
    noun = "model" if result.has_forms else "trial"
    more = f"; each limit is met by some {noun}, all of them by none" if each else ""
    return f"{LIMIT}: found {given}; none of {result.counted_points} fits: {', '.join(needs)}{more}"


def _too_low(result: "FrontResult", limits: Mapping[str, float], min_em: float, best: "Point") -> str:
    """Return why no point within the limits has the least exact match: what the best one has."""
    most = exact_match(best)
    has = (
        "no record says its em_percent"
        if most == -math.inf
        else f"the best em_percent is {math.floor(100 * most) / 100:g} ({best.id})"
    )
    bounds = ", ".join(f"{name}={limit:g}" for name, limit in limits.items())
    kept = f" within {bounds}" if bounds else ""
    return f"{MIN_EM}: found {min_em:g}; none of {result.counted_points} has it{kept}: {has}"


def at_least(value: float) -> str:
    """Return a number to type as a limit that the value meets: rounded up, to two decimals or to a whole one."""
    return str(math.ceil(value)) if value >= 1000 else f"{math.ceil(value * 100) / 100:g}"


def best_within_some_limit(points: "Sequence[Point]", objectives: "Sequence[Objective]") -> set[ModelId]:
    """Return the models that `within` puts first for some limit on one of the costs that recipes fix.

    A model that is not among them never becomes so again, whatever else finishes.
    """
    found = set()
    for name in FIXED:
        best = math.inf
        sized = [
            (
                point.costs[name],
                loss_of_quality(point, objectives),
                point.costs.get("memory_mb", math.inf),
                point.id.order,
                point.id,
            )
            for point in points
            if name in point.costs
        ]
        for _, loss, _, _, model in sorted(sized):
            if loss < best:
                best = loss
                found.add(model)
    return found


def loss_of_quality(point: "Point", objectives: "Sequence[Objective]") -> float:
    """Return how bad a point is by the sweep's first objective of quality: less is better."""
    objective = objective_of_quality(objectives)
    return (-1.0 if objective.goal == "max" else 1.0) * point.values[objective.name]


def objective_of_quality(objectives: "Sequence[Objective]") -> "Objective":
    """Return the sweep's first objective of quality, or its first objective."""
    by_quality = [item for item in objectives if measure(item.name).section == "quality"]
    return (by_quality or list(objectives))[0]


def limit_to_type(result: "FrontResult") -> tuple[str, str] | None:
    """Return a field and a limit on it that the middle of the front meets, as words to type; None where nothing costs.

    The field is the sweep's first objective of cost, or memory.
    """
    costs = [item.name for item in result.objectives if item.name in LIMITABLE and item.goal == "min"]
    for name in (*costs, "memory_mb"):
        sizes = sorted(point.costs[name] for point in result.front if name in point.costs)
        if sizes:
            return name, _rounded_up(sizes[len(sizes) // 2])
    return None


def _rounded_up(value: float) -> str:
    """Return a number of few digits, or a whole one, that is not below the value."""
    return str(math.ceil(value)) if value >= 1000 else f"{math.ceil(value * 10) / 10:.1f}"


def _positive(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(
            f"{LIMIT} {name}: found {text!r}; allowed: a number above 0, in {measure(name).unit}"
        )
    return value
