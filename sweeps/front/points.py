"""From records to points: which trials are on a front or beside it, and what is shown of each.

Only finished, full-budget trials are points; what is left out is counted by reason. Of trials that do not compare
(`comparability.py`) the largest group is shown, and the others are named. `front.py` finds the non-dominated ones.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sweeps.front.comparability import ALLOWED, Group, device_for, groups, left_out_words
from sweeps.run_folder.records import Record, read_inside, text_at
from sweeps.spec.objectives import MEASURES, measure

if TYPE_CHECKING:
    from sweeps.spec.objectives import Objective

BASELINES = {
    "no answer to anything": "baseline_no_answer_em_percent",
    "first span": "baseline_first_span_em_percent",
    "question blind": "baseline_question_blind_em_percent",
}
LIMITABLE = tuple(name for name, item in MEASURES.items() if item.section == "cost")
FULL_FINE_TUNING = "full"
SAME_SCORE = 1e-9  # percent: nearer scores are equal
WIDEST_CHECKPOINT = 28  # characters in a table
GROUPED = ("values", "settings", "costs")  # fields of a point that are several columns
OF_A_POINT = (
    "model.family",
    "model.head",
    "model.checkpoint",
    "methods",
)  # searched settings with a field of a point


@dataclass(frozen=True)
class Point:
    """One finished trial, placed by its objectives in their units."""

    trial_id: str
    values: Mapping[str, float]
    family: str
    head: str | None
    methods: str  # joined by "+"; "full" for none
    checkpoint: str
    seed: int
    memory_mb: float | None  # with one window at a time, unless the record is of protocol version 1
    memory_batch8_mb: float | None
    seconds: float
    artifact: str | None
    on_front: bool = False
    is_knee: bool = False
    em_percent: float | None = None  # objective or not
    status: str = "ok"  # of its record
    left_out: str | None = None  # why it is not compared with the points of the front; None: it is
    costs: Mapping[str, float] = field(default_factory=dict)  # by objective, in its unit: what can be limited
    settings: Mapping[str, Any] = field(
        default_factory=dict
    )  # searched, by path; what has a field is not among them

    @property
    def recipe(self) -> str:
        """What tells it from others, in words; of a checkpoint's path the end says most."""
        checkpoint = self.checkpoint
        if len(checkpoint) > WIDEST_CHECKPOINT:
            checkpoint = "..." + checkpoint[3 - WIDEST_CHECKPOINT :]
        words = [f"{path.rpartition('.')[2]}={_short(value)}" for path, value in self.settings.items()]
        return " ".join([self.family, self.methods, checkpoint, *words])


@dataclass(frozen=True)
class FrontInput:
    """Comparable points, how many trials were left out for which reason, and the trivial baselines.

    Attributes:
        points: the largest group of finished trials that compare.
        left_out: how many trials are not among them, by reason.
        baselines: exact match in percent, by name.
        apart: the other groups of finished trials, each comparable in itself.
        others: all trials that ended and are not among the points, with the reason; their objectives may be missing.
        several_devices: those of the points, where their user allowed several.
    """

    points: tuple[Point, ...]
    left_out: Mapping[str, int]
    baselines: Mapping[str, float]
    apart: tuple[tuple[Point, ...], ...] = ()
    others: tuple[Point, ...] = ()
    several_devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrontResult:
    """All points with the front marked, and the volume they dominate, in the objectives' own units."""

    objectives: tuple["Objective", ...]
    points: tuple[Point, ...]
    hypervolume: float
    left_out: Mapping[str, int] = field(default_factory=dict)
    baselines: Mapping[str, float] = field(default_factory=dict)
    prediction_note: str | None = None  # None: memory was as predicted
    device_note: str | None = None  # None: all points were measured on one device
    apart: tuple[
        tuple[Point, ...], ...
    ] = ()  # finished trials on other terms, by group, each with its own front

    others: tuple[Point, ...] = ()  # trials that ended and are not among the points

    @property
    def front(self) -> tuple[Point, ...]:
        """The points on the front, best first objective first."""
        sign = -1.0 if self.objectives[0].goal == "max" else 1.0
        name = self.objectives[0].name
        on_front = (point for point in self.points if point.on_front)
        return tuple(sorted(on_front, key=lambda point: (sign * point.values[name], point.trial_id)))

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat dict per trial that ended: the front, the other points, then those that are no points.

        Objectives and searched settings stand under their names; None where a trial has none.
        """
        beaten = sorted(
            (point for point in self.points if not point.on_front), key=lambda item: item.trial_id
        )
        others = sorted(self.others, key=lambda item: item.trial_id)
        names = _columns(self)
        rows = (_row(point) for point in (*self.front, *beaten, *others))
        return [{name: row.get(name) for name in names} for row in rows]

    @property
    def warning(self) -> str | None:
        """Say that models of the front answer no better than who reads no question; None where they do."""
        best = max(self.baselines.items(), key=lambda item: item[1], default=None)
        scored = [point for point in self.front if point.em_percent is not None]
        if best is None or not scored:
            return None
        name, value = best
        low = [point.trial_id for point in scored if float(point.em_percent or 0.0) <= value + SAME_SCORE]
        if not low:
            return None
        who = (
            "no model of the front beats" if len(low) == len(scored) else f"{', '.join(low)}: not better than"
        )
        return (
            f"{who} the baseline {name!r} (EM {value:.2f}), which reads no question; what helps: more training "
            "(budget.examples), other learning rates, a pretrained or larger checkpoint"
        )


def finished(records: Iterable[Record], objectives: Sequence["Objective"]) -> list[Record]:
    """Return the records that can be points: the whole budget was spent, and every objective measured."""
    return [record for record in records if _why_left_out(record, objectives) is None]


def points(records: Iterable[Record], objectives: Sequence["Objective"]) -> FrontInput:
    """Turn records into comparable points.

    Raises:
        DataError: a finished trial's record cannot be read, or does not say what it was measured on.
    """
    records = tuple(records)
    reasons = (_why_left_out(record, objectives) for record in records)
    left_out = Counter(reason for reason in reasons if reason is not None)
    unfinished = [
        replace(_read_point(record, ()), left_out=reason)
        for record in records
        if (reason := _why_left_out(record, objectives)) is not None
    ]
    if not (placeable := finished(records, objectives)):
        return FrontInput((), dict(sorted(left_out.items())), {}, others=tuple(unfinished))
    main, *others = groups(placeable, objectives)
    for group in others:
        apart = {record.trial_id for record in group.records} - {record.trial_id for record in main.records}
        reason = left_out_words(group, main)
        left_out[reason] += len(apart)
        unfinished += [
            replace(_read_point(record, objectives), left_out=reason)
            for record in group.records
            if record.trial_id in apart
        ]
    placed, *placed_apart = (_points_of(group, objectives) for group in (main, *others))
    return FrontInput(
        placed,
        dict(sorted(left_out.items())),
        read_inside(main.records[0], _baselines),
        tuple(placed_apart),
        tuple(unfinished),
        _several_devices(main, objectives),
    )


def _why_left_out(record: Record, objectives: Sequence["Objective"]) -> str | None:
    if record.status != "ok":
        return record.status
    if record.examples_seen < record.budget_examples:
        return "short of the whole budget"
    missing = [item.name for item in objectives if (record.objectives or {}).get(item.name) is None]
    return f"without {', '.join(missing)}" if missing else None


def _points_of(group: Group, objectives: Sequence["Objective"]) -> tuple[Point, ...]:
    return tuple(_read_point(record, objectives) for record in group.records)


def _read_point(record: Record, objectives: Sequence["Objective"]) -> Point:
    return read_inside(record, lambda record: _point(record, objectives))


def _several_devices(group: Group, objectives: Sequence["Objective"]) -> tuple[str, ...]:
    if group.terms.device != ALLOWED:
        return ()
    return tuple(sorted({device_for(objectives, str(record.device)) for record in group.records}))


def _baselines(record: Record) -> dict[str, float]:
    quality = record.quality or {}
    return {name: float(quality[key]) for name, key in BASELINES.items() if quality.get(key) is not None}


def _point(record: Record, objectives: Sequence["Objective"]) -> Point:
    found = (record.quality or {}).get("em_percent")
    model = record.config["model"]
    costs = known_costs(record.cost)
    return Point(
        trial_id=record.trial_id,
        values={item.name: float((record.objectives or {})[item.name]) for item in objectives},
        family=text_at(model["family"], "config.model.family"),
        head=None if model.get("head") is None else text_at(model["head"], "config.model.head"),
        methods="+".join(dict(record.config.get("methods") or {})) or FULL_FINE_TUNING,
        checkpoint=text_at(model["checkpoint"], "config.model.checkpoint"),
        seed=record.seed,
        memory_mb=costs.get("memory_mb"),
        memory_batch8_mb=costs.get("memory_batch8_mb"),
        costs=costs,
        seconds=record.seconds,
        artifact=record.artifact,
        em_percent=None if found is None else float(found),
        status=record.status,
        settings=_settings(record),
    )


def known_costs(cost: Mapping[str, Any] | None) -> dict[str, float]:
    """Return what a record says of costs, by objective, in its unit; raises TypeError where one is no number."""
    found = {name: (cost or {}).get(measure(name).field) for name in LIMITABLE}
    return {name: value / measure(name).divisor for name, value in found.items() if value is not None}


def _settings(record: Record) -> dict[str, Any]:
    """Return what the sweep searched of a recipe, by path; an id of the space is its path, which may be numbered."""
    settings = {}
    for identity in record.assignment:
        path, _, number = identity.rpartition(".")
        path = path if number.isdecimal() and path else identity
        if path in OF_A_POINT:
            continue
        value: Any = record.config
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        settings[path] = value
    return settings


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _row(point: Point) -> dict[str, Any]:
    row = {name: value for name, value in vars(point).items() if name not in GROUPED}
    return {**row, **point.settings, **point.values}


def _columns(result: FrontResult) -> list[str]:
    names = [item.name for item in result.objectives]
    rest = [name for name in Point.__dataclass_fields__ if name not in (*GROUPED, "trial_id", *names)]
    settings = {name for point in (*result.points, *result.others) for name in point.settings}
    return ["trial_id", *names, *rest, *sorted(settings)]
