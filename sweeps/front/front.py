"""The front of a sweep: the points that no other point dominates.

The geometry is in `pareto.py`, tables are in `sweeps/front/tables.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sweeps.front import pareto
from sweeps.front.choosing import best_within_some_limit
from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.models import id_of, models_of
from sweeps.run_folder.records import Record
from sweeps.spec.objectives import measure

if TYPE_CHECKING:
    from sweeps.spec.objectives import Objective
from sweeps.front.points import Point, points
from sweeps.front.result import FrontResult

PREDICTED_WITHIN = 0.02  # of the measured memory; a larger difference is an error to explain


def compute_front(records: Iterable[Record], objectives: Sequence["Objective"]) -> FrontResult:
    """Mark the points that no other beats on every objective, and measure the volume they dominate.

    The order in which trials ended decides nothing: ties, as of the knee, go to the trial that was proposed first.

    Raises:
        DataError: finished trials cannot be placed, see `points`.
        ValueError: an objective is not finite.
    """
    records = tuple(sorted(records, key=lambda record: record.trial_id))
    given = points(records, objectives)
    marked, volume = _placed(given.points, objectives)
    return FrontResult(
        tuple(objectives),
        marked,
        volume,
        given.left_out,
        given.baselines,
        prediction_note(records),
        _device_note(given.several_devices),
        tuple(_placed(apart, objectives)[0] for apart in given.apart),
        given.others,
        given.forms_left_out,
    )


def with_paused(result: FrontResult, count: int) -> FrontResult:
    """Return the front with so many paused trials counted among those that it does not compare."""
    if not count:
        return result
    return replace(result, left_out=dict(sorted({**result.left_out, "paused": count}.items())))


def prediction_note(records: Iterable[Record]) -> str | None:
    """Return in how many models predicted and measured memory differ, and in which most; None: in none."""
    predicted, measured = "predicted_inference_peak_bytes", measure("memory_mb").field
    models = [model for record in records if record.status == "ok" for model in models_of(record)]
    costs = [(id_of(model), model.cost) for model in models if model.cost]
    known = [(model, cost[predicted], cost[measured]) for model, cost in costs if cost.get(predicted)]
    off = [item for item in known if abs(item[1] - item[2]) > PREDICTED_WITHIN * item[2]]
    if not off:
        return None
    worst, foreseen, found = max(off, key=lambda item: abs(item[1] - item[2]) / item[2])
    noun = "trials" if all(model.form is None for model, _, _ in known) else "models"
    return (
        f"memory was not as predicted in {len(off)} of {len(known)} {noun}, worst in {worst}: {foreseen / 1e6:.2f} MB "
        f"predicted, {found / 1e6:.2f} MB measured ({100 * (foreseen / found - 1):+.0f} %)"
    )


def choosable(result: FrontResult) -> set[ModelId]:
    """Return the models that are on a front, or the best within some limit on a cost that recipes fix.

    The two differ where that cost is not among the objectives. A model that is not choosable never becomes so again: it
    is beaten by one that it compares with. So are models on other terms, each among its own.
    """
    found = set()
    for members in (result.points, *result.apart):
        found |= {point.id for point in members if point.on_front}
        found |= best_within_some_limit(members, result.objectives)
    return found


def _placed(members: tuple[Point, ...], objectives: Sequence["Objective"]) -> tuple[tuple[Point, ...], float]:
    """Return points with their front and its knee marked, and the volume that they dominate."""
    if not members:
        return (), 0.0
    goals = [objective.goal for objective in objectives]
    references = [[objective.worst for objective in objectives]]
    values = np.array([[point.values[item.name] for item in objectives] for point in members])
    losses = pareto.to_losses(values, goals)
    mask, knee = pareto.front_mask(losses), pareto.knee(losses)
    marked = tuple(
        _marked(point, on_front=bool(mask[index]), is_knee=index == knee)
        for index, point in enumerate(members)
    )
    return marked, pareto.hypervolume(losses, pareto.to_losses(references, goals)[0])


def _marked(point: Point, *, on_front: bool, is_knee: bool) -> Point:
    return replace(point, on_front=on_front, is_knee=is_knee)


def _device_note(devices: Sequence[str]) -> str | None:
    if len(devices) < 2:
        return None
    return f"measured on different devices (--allow-mixed), which do not compare: {', '.join(devices)}"
