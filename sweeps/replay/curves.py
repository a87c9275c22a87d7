"""Recorded learning curves: what a sweep without early stopping recorded of each of its recipes.

A `CurveTable` is made from a run's folder or read from a Parquet file (`sweeps/replay/curve_files.py`). Which recorded
recipe answers a proposal is in `sweeps/replay/recorded.py`; what the curves are for, in `sweeps/replay/simulate.py`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qa_core import files
from qa_core.errors import ConfigError, DataError
from sweeps.front import front, pareto
from sweeps.run_folder import records
from sweeps.run_folder.records import Record
from sweeps.space.compile import compile_space
from sweeps.space.space import Space
from sweeps.spec.objectives import Objective, is_cost, measure, rung_field
from sweeps.spec.sections import SweepSpec

# Of a report, see `Progress` in `qa_core/schema.py`: how a trial stands to the best trivial baseline, and its loss.
EXTRAS = ("selection_gain_percent", "selection_gain_error_percent", "train_loss")


@dataclass(frozen=True)
class RecordedForm:
    """A stored form of a recorded training.

    Attributes:
        label: as in the record; None: what a recipe is stored as that no form of the sweep applies to.
        kind: as reports named it; None: they did not, so that no scheduler sees the form.
        costs: with a kind, what was planned of it before training: a value for each cost objective that rungs have.
        final: value of each objective on the finished artifact; None: it was skipped, or failed.
        seconds: of making, scoring and measuring it.
    """

    label: str | None
    kind: str | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    final: Mapping[str, float] | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Curve:
    """One recipe, trained on its whole budget.

    Attributes:
        trial_id, seed: of the trial that was recorded.
        assignment: its point of the space, parameter id to value.
        examples_seen: of its reports, rising; the last one is its budget, 0 for a recipe that trains nothing.
        train_seconds: spent up to each report, without what came before and after training.
        rung_values: value of each objective that is measured at rungs, one for each report.
        final: value of each objective on the finished artifact.
        seconds: wall-clock of the whole trial, scoring of all its forms included.
        forms: that its training was stored in, and that are its points; (): `final` is its point.
        extras: further fields of the reports that a scheduler reads, by name, one value for each report: `EXTRAS`. None
            where a report does not have it, as that of the whole budget; a field that no report has is left out.
    """

    trial_id: str
    seed: int
    assignment: Mapping[str, Any]
    examples_seen: tuple[int, ...]
    train_seconds: tuple[float, ...]
    rung_values: Mapping[str, tuple[float, ...]]
    final: Mapping[str, float]
    seconds: float
    extras: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    forms: tuple[RecordedForm, ...] = ()

    @property
    def finals(self) -> list[Mapping[str, float]]:
        """Values of its points: of each form that was made, or its own."""
        if not self.forms:
            return [self.final]
        return [form.final for form in self.forms if form.final is not None]

    @property
    def budget_examples(self) -> int:
        """Examples of the whole training."""
        return self.examples_seen[-1]

    def report_at(self, rung: int, end: int) -> int | None:
        """Return the index of the first report at or after `rung` and before `end`; None when there is none.

        So a trial reports: after the first step that reaches a rung, hence up to a batch later. A step that reaches
        several rungs is one report, which counts at the highest of them.

        Args:
            rung: in examples seen.
            end: the next rung, or the whole budget after the last one.
        """
        index = bisect_left(self.examples_seen, rung)
        return index if index < len(self.examples_seen) and self.examples_seen[index] < end else None


@dataclass(frozen=True)
class CurveTable:
    """The curves of one sweep.

    Attributes:
        spec: of the sweep.
        curves: of a run in the order of its proposals.
        left_out: how many trials have no full curve, by reason.
        provenance: what the records say of versions, commit, hardware, device and data.
    """

    spec: SweepSpec
    curves: tuple[Curve, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_run(cls, records_path: Path, spec_path: Path) -> Self:
        """Build the table from a run's `records.jsonl` and `spec.json`.

        Only finished trials count, since only they have a full curve; they stand in the order in which they were
        proposed. The curve of a trial with stored forms is that of its twin, the network as it was trained; its points
        are those forms that were made. Of absolute paths the last part is kept: replay opens no file, and a table is
        made to be handed on.

        Raises:
            DataError: a file cannot be read, finished trials cannot be compared, or none is left.
        """
        spec = read_spec(spec_path)
        loaded = records.load(records_path)
        without_forms = (replace(record, forms=()) for record in loaded.records)
        forms = {record.trial_id: record.forms for record in loaded.records}
        recorded = sorted(without_forms, key=lambda record: record.trial_id)
        given = front.points(recorded, spec.objectives)
        finished = {point.trial_id for point in given.points}
        left_out = Counter(given.left_out)
        curves = []
        for record in recorded:
            if record.trial_id in finished and not record.curve:
                left_out["without a curve"] += 1
            elif record.trial_id in finished:
                whole = replace(record, forms=forms[record.trial_id])
                curves.append(_curve(whole, spec.objectives, f"{records_path}: trial {record.trial_id}"))
        if not curves:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
            raise DataError(f"{records_path}: no trial has a full curve ({reasons or 'no records'})")
        with_curve = [record for record in recorded if record.trial_id in finished]
        return cls(spec, tuple(curves), dict(sorted(left_out.items())), _provenance(with_curve[0]))

    @cached_property
    def space(self) -> Space:
        """The sweep's space, with all that it allows; raises ConfigError when the spec no longer compiles."""
        return compile_space(self.spec)

    @cached_property
    def losses(self) -> pareto.Losses:
        """[points, objectives] final values, less is better; of each curve its points in order, see `curve_of`."""
        return self._losses([values for curve in self.curves for values in curve.finals])

    @cached_property
    def curve_of(self) -> NDArray[np.int64]:
        """[points] the index of the curve that each point is of; without forms each curve has one."""
        return np.repeat(np.arange(len(self.curves)), [len(curve.finals) for curve in self.curves])

    def losses_of(self, curves: Sequence[int]) -> pareto.Losses:
        """Return [points, objectives], the points of some curves, in their order."""
        return self._losses([values for index in curves for values in self.curves[index].finals])

    def _losses(self, points: Sequence[Mapping[str, float]]) -> pareto.Losses:
        objectives = self.spec.objectives
        if not points:
            return np.empty((0, len(objectives)))
        values = [[point[objective.name] for objective in objectives] for point in points]
        return pareto.to_losses(values, [objective.goal for objective in objectives])

    @cached_property
    def reference(self) -> tuple[float, ...]:
        """The objectives' reference point as losses."""
        objectives = self.spec.objectives
        goals = [objective.goal for objective in objectives]
        corner = pareto.to_losses([[objective.worst for objective in objectives]], goals)[0]
        return tuple(corner.tolist())

    @cached_property
    def hypervolume(self) -> float:
        """The volume that the points of all curves dominate together."""
        return pareto.hypervolume(self.losses, self.reference)

    @property
    def total_examples(self) -> int:
        """Examples that training every recipe to its end takes, each once: the budget of the full grid."""
        return sum(curve.budget_examples for curve in self.curves)

    @property
    def total_seconds(self) -> float:
        """Seconds of a worker that this takes, scoring of all forms included."""
        return sum(curve.seconds for curve in self.curves)


def read_spec(path: Path) -> SweepSpec:
    """Read a run's `spec.json`, absolute paths shortened; raises DataError when it is none."""
    try:
        return parse_spec(files.read_json(path))
    except (DataError, ValueError, ConfigError) as error:
        raise DataError(f"{path}: the sweep's settings cannot be read: {error}") from error


def parse_spec(values: Any) -> SweepSpec:
    """Return the spec of JSON values, absolute paths shortened.

    Raises:
        ValueError: they are none. ConfigError: a reference is still `auto`.
    """
    spec = SweepSpec.model_validate(shortened(values))
    for objective in spec.objectives:
        objective.worst  # noqa: B018 - a number: a recorded sweep has found it
    return spec


def shortened(value: Any) -> Any:
    """Return JSON values with the last part of each text that is an absolute path."""
    if isinstance(value, Mapping):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shortened(item) for item in value]
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute() and kind(value).name:
                return kind(value).name
    return value


def rung_objectives(objectives: Iterable[Objective]) -> list[str]:
    """Return the names of the objectives that are measured at rungs."""
    return [objective.name for objective in objectives if measure(objective.name).rung_field]


def _curve(record: Record, objectives: Sequence[Objective], place: str) -> Curve:
    fields = {name: str(measure(name).rung_field) for name in rung_objectives(objectives)}
    # Reports of protocol version 1 have one memory alone of what a recipe fixes; the rest is the finished artifact's.
    finals = record.objectives or {}
    fixed = {fields[name]: finals[name] for name in fields if measure(name).section == "cost"}
    fixed.pop("memory_mb", None)
    points = [{**fixed, **point} for point in record.curve]
    columns: dict[str, tuple[Any, ...]] = {}
    for name in ("examples_seen", "train_seconds", *fields.values()):
        missing = [index for index, point in enumerate(points) if point.get(name) is None]
        if missing:
            raise DataError(f"{place}: curve[{missing[0]}].{name}: found nothing; allowed: a number")
        columns[name] = tuple(point[name] for point in points)
    curve = Curve(
        trial_id=record.trial_id,
        seed=record.seed,
        assignment=shortened(record.assignment),
        examples_seen=tuple(map(int, columns["examples_seen"])),
        train_seconds=tuple(map(float, columns["train_seconds"])),
        rung_values={name: tuple(map(float, columns[key])) for name, key in fields.items()},
        final={item.name: float(finals[item.name]) for item in objectives},
        seconds=max(record.seconds, float(columns["train_seconds"][-1])),
        extras={
            name: tuple(point.get(name) for point in points)
            for name in EXTRAS
            if any(point.get(name) is not None for point in points)
        },
        forms=_forms(record, objectives, after_training=record.seconds - float(columns["train_seconds"][-1])),
    )
    check_curve(curve, place)
    return curve


def _forms(
    record: Record, objectives: Sequence[Objective], *, after_training: float
) -> tuple[RecordedForm, ...]:
    """Return the forms of a record, and what its reports said of them; of an older version these say nothing.

    What a trial spent beside training is split evenly among its twin and the forms that were made.
    """
    reported = next((point["forms"] for point in record.curve if point.get("forms")), ())
    planned = {form["label"]: form for form in reported}
    made: dict[str | None, Mapping[str, float] | None] = {
        form.label: form.objectives for form in record.forms
    }
    if not made:  # none of the sweep's applies, or the trial did not come to its end
        made = {label: record.objectives if label is None else None for label in planned}
    share = max(0.0, after_training) / (1 + sum(form.status == "ok" for form in record.forms))
    fields = {name: rung_field(name) for name in rung_objectives(objectives) if is_cost(name)}
    return tuple(
        RecordedForm(
            label=label,
            kind=str(planned[label]["kind"]) if label in planned else None,
            costs={name: float(planned[label][key]) for name, key in fields.items()}
            if label in planned
            else {},
            final=None if values is None else {item.name: float(values[item.name]) for item in objectives},
            seconds=share,
        )
        for label, values in made.items()
    )


def check_curve(curve: Curve, place: str) -> None:
    """Check what replay relies on; raises DataError that begins with `place` and names the field."""
    count = len(curve.examples_seen)
    steps = [b - a for a, b in zip(curve.examples_seen, curve.examples_seen[1:], strict=False)]
    if not count or curve.examples_seen[0] < 0 or min(steps, default=1) <= 0:
        raise DataError(
            f"{place}: examples_seen: found {curve.examples_seen}; allowed: rising counts, one at least"
        )
    for name, values in (("train_seconds", curve.train_seconds), *curve.rung_values.items()):
        if len(values) != count or not np.isfinite(values).all():
            raise DataError(f"{place}: {name}: found {values}; allowed: {count} finite numbers")
    for name, extra in curve.extras.items():
        numbers = [value for value in extra if value is not None]
        if name not in EXTRAS or len(extra) != count or not np.isfinite(numbers).all():
            raise DataError(
                f"{place}: {name}: found {extra}; allowed: {count} finite numbers or null, of {', '.join(EXTRAS)}"
            )
    if curve.train_seconds[0] < 0 or (np.diff(curve.train_seconds) < 0).any():
        raise DataError(
            f"{place}: train_seconds: found {curve.train_seconds}; allowed: times that never fall"
        )
    for name, value in (*curve.final.items(), ("seconds", curve.seconds)):
        if not np.isfinite(value):
            raise DataError(f"{place}: {name}: found {value}; allowed: a finite number")
    _check_forms(curve.forms, place)
    if curve.seconds < curve.train_seconds[-1]:
        raise DataError(
            f"{place}: seconds: found {curve.seconds}; allowed: at least the {curve.train_seconds[-1]} of training"
        )


def _check_forms(forms: Sequence[RecordedForm], place: str) -> None:
    labels = [form.label for form in forms]
    if len(set(labels)) != len(labels):
        raise DataError(f"{place}: forms: found {labels}; allowed: each label once")
    for form in forms:
        for name, value in (
            *form.costs.items(),
            *(form.final or {}).items(),
            ("seconds", form.seconds),
        ):
            if not np.isfinite(value) or (name == "seconds" and value < 0):
                raise DataError(
                    f"{place}: forms: {form.label}: {name}: found {value}; allowed: a finite number"
                )


def _provenance(record: Record) -> dict[str, Any]:
    """Return how the curves came to be. The command is left out: it may name folders of the machine it ran on."""
    kept = {name: record.provenance.get(name) for name in ("packages", "python", "system", "git", "hardware")}
    evaluation = record.data.get("evaluation") or {}
    return {**kept, "device": record.device, "evaluation_hash": evaluation.get("data_hash")}
