"""What a sweep can optimise: each measure's name, unit and where its value is read; an objective is one with a goal.

The final value comes from the `Quality` or `Cost` of a finished trial. Schedulers see the value of a rung,
read from `Progress`; an objective that is only measured at the end has none, and a scheduler refuses it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import model_validator

from qa_core.errors import ConfigError, DataError, unknown
from qa_core.values import Setting
from sweeps.spec.section import Section

AUTO: Final = "auto"


@dataclass(frozen=True)
class Measure:
    """Where an objective is read: a field of a section of the result, divided by `divisor` into `unit`."""

    unit: str
    section: str  # "quality" or "cost"
    field: str
    divisor: float = 1.0
    rung_field: str | None = None  # of Progress; None: measured only on the finished artifact
    nothing: float | None = None  # the value where the field is None; None: then the value is missing


MEASURES: Mapping[str, Measure] = {
    "em_percent": Measure("%", "quality", "em_percent", rung_field="selection_em_percent"),
    "f1_percent": Measure("%", "quality", "f1_percent", rung_field="selection_f1_percent"),
    # With one window at a time, and with eight. Which of the two is an axis is the sweep's choice of objectives.
    "memory_mb": Measure("MB", "cost", "inference_peak_bytes", divisor=1e6, rung_field="memory_mb"),
    "memory_batch8_mb": Measure(
        "MB", "cost", "inference_peak_batch8_bytes", divisor=1e6, rung_field="memory_batch8_mb"
    ),
    "artifact_bytes": Measure("bytes", "cost", "artifact_bytes", rung_field="artifact_bytes"),
    "weights_bytes": Measure("bytes", "cost", "weights_bytes", rung_field="weights_bytes"),
    "inference_peak_bytes": Measure(
        "bytes", "cost", "inference_peak_bytes", rung_field="inference_peak_bytes"
    ),
    # None where nothing was trained, and that takes no memory.
    "train_peak_bytes": Measure("bytes", "cost", "train_peak_bytes", nothing=0.0),
    "latency_p50_ms": Measure("ms", "cost", "latency_p50_ms"),
    "latency_p95_ms": Measure("ms", "cost", "latency_p95_ms"),
}

# What sweeps of earlier versions could name: their folders are read, a new sweep is refused with the reason.
RETIRED: Mapping[str, Measure] = {"rss_peak_bytes": Measure("bytes", "cost", "rss_peak_bytes")}
WHY_RETIRED: Mapping[str, str] = {
    "rss_peak_bytes": "the resident set of a worker holds what earlier trials left there: it is no property of a recipe"
}


# Objectives that a recipe fixes -> what of its deployed form is predicted, in bytes, divided into the objective's unit.
PREDICTED: Mapping[str, str] = {
    "memory_mb": "peak",
    "inference_peak_bytes": "peak",
    "memory_batch8_mb": "peak_batch8",
    "weights_bytes": "weights",
    "artifact_bytes": "artifact",
}
TRAINING = "train_peak_bytes"


def measure(name: str) -> Measure:
    """Return where the objective is read; raises ConfigError with the nearest name when there is none."""
    found = MEASURES.get(name) or RETIRED.get(name)
    if found is None:
        raise ConfigError(unknown("objective", name, MEASURES))
    return found


def are_settled_by_form(names: Iterable[str]) -> bool:
    """Tell whether a stored form that is smaller in all that is planned, and answers as well, is as good in all these.

    Not so for F1, which may fall where exact match does not, and for latencies: a packed form is smaller and slower.
    """
    return all(name in PREDICTED or name in ("em_percent", TRAINING) for name in names)


def rung_field(name: str) -> str:
    """Return the field of `Progress` that stands for the objective at a rung.

    Raises:
        ConfigError: the objective is measured only on the finished artifact.
    """
    field = measure(name).rung_field
    if field is None:
        at_rungs = sorted(key for key, item in MEASURES.items() if item.rung_field)
        raise ConfigError(
            f"objective {name!r} is measured only on the finished artifact, so no scheduler compares it at "
            f"rungs (allowed there: {', '.join(at_rungs)})"
        )
    return field


def rung_values(names: Iterable[str], progress: Mapping[str, Any]) -> list[float | None]:
    """Read the objectives of a report, in their units; None for one that is not measured there, or not finite."""
    fields = [measure(name).rung_field for name in names]
    found = [None if field is None else progress.get(field) for field in fields]
    return [float(value) if value is not None and math.isfinite(value) else None for value in found]


def is_cost(name: str) -> bool:
    """Tell whether an objective is a cost, which stored forms of one training have each of their own."""
    return measure(name).section == "cost"


def final_values(names: Iterable[str], *, quality: Any, cost: Any) -> dict[str, float]:
    """Read the objectives of a finished trial, in their units.

    Args:
        names: objective names.
        quality: a `Quality`, or its JSON form.
        cost: a `Cost`, or its JSON form.

    Raises:
        DataError: a value is missing.
    """
    sections = {"quality": quality, "cost": cost}
    values = {}
    for name in names:
        item = measure(name)
        section = sections[item.section]
        found = (
            section.get(item.field) if isinstance(section, Mapping) else getattr(section, item.field, None)
        )
        found = item.nothing if found is None else found
        if found is None:
            raise DataError(f"objective {name!r}: the result has no {item.section}.{item.field}")
        values[name] = found / item.divisor
    return values


class Objective(Section):
    """One objective: which way is better, its unit, and from which value on it counts for the hypervolume."""

    name: Annotated[str, Setting("What is measured.")]
    goal: Annotated[Literal["min", "max"], Setting("Which way is better.")]
    reference: Annotated[
        Literal["auto"] | float,
        Setting(
            "The worst value that counts for the hypervolume, in the objective's unit. auto: the sweep finds a number "
            "before it starts."
        ),
    ] = AUTO
    unit: Annotated[
        str | None,
        Setting("The unit, as a reminder: another than the measured one is refused. null: not written."),
    ] = None

    @model_validator(mode="after")
    def _unit_is_the_measured_one(self) -> Self:
        if self.name not in MEASURES and self.name not in RETIRED:
            raise ValueError(unknown("objective", self.name, MEASURES))
        measured = measure(self.name).unit
        if self.unit is not None and self.unit != measured:
            raise ValueError(f"unit: found {self.unit!r}; {self.name} is measured in {measured!r}")
        return self

    @property
    def measured_unit(self) -> str:
        """The unit of its values."""
        return measure(self.name).unit

    @property
    def is_auto(self) -> bool:
        """True while the reference is to be found."""
        return self.reference == AUTO

    @property
    def worst(self) -> float:
        """The reference as a number, in the objective's unit; raises ConfigError while it is `auto`."""
        if self.reference == AUTO:
            raise ConfigError(f"objectives.{self.name}.reference: found {AUTO}; allowed here: a number")
        return float(self.reference)


def why_a_number(objective: Objective) -> str | None:
    """Return why `auto` cannot stand for this objective's reference; None when it can."""
    is_quality = measure(objective.name).section == "quality"
    if not is_quality and objective.name not in (*PREDICTED, TRAINING):
        return f"{objective.name} is known only from measuring it"
    if objective.goal != ("max" if is_quality else "min"):
        return f"{objective.name} with goal {objective.goal} has no worst value to find"
    return None
