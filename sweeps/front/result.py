"""What a front came to: its points, how many there are, and a flat row for each model and each trial without one.

`front.py` computes it; `choosing.py` chooses from it; `tables.py` and `plots.py` show it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qa_core.errors import counted
from sweeps.front.points import AGAINST_TWIN, Point

if TYPE_CHECKING:
    from sweeps.spec.objectives import Objective

SAME_SCORE = 1e-9  # percent: nearer scores are equal
# Column -> what of `Point.against_twin` it holds.
AGAINST_COLUMNS = dict(
    zip(("em_against_twin", "em_against_twin_low", "em_against_twin_high"), AGAINST_TWIN, strict=True)
)
GROUPED = (
    "values",
    "settings",
    "form_settings",
    "costs",
    "against_twin",
)  # fields that are several columns, or none


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

    others: tuple[Point, ...] = ()  # trials and forms that ended and are not among the points
    forms_left_out: Mapping[str, int] = field(default_factory=dict)  # forms of finished trials, by reason

    @property
    def has_forms(self) -> bool:
        """True where a point is a stored form: then there may be more points than trials."""
        return any(point.form is not None for point in self.points)

    @property
    def counted_points(self) -> str:
        """How many points there are: "4 finished trials", or "61 points from 12 finished trials"."""
        trials = counted(len({point.trial_id for point in self.points}), "finished trial")
        return f"{counted(len(self.points), 'point')} from {trials}" if self.has_forms else trials

    @property
    def front(self) -> tuple[Point, ...]:
        """The points on the front, best first objective first."""
        sign = -1.0 if self.objectives[0].goal == "max" else 1.0
        name = self.objectives[0].name
        on_front = (point for point in self.points if point.on_front)
        return tuple(sorted(on_front, key=lambda point: (sign * point.values[name], point.id.order)))

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat dict per trial, or per stored form, that ended: the front, other points, those that are none.

        Objectives, searched settings and settings of forms stand under their names; None where a row has none.
        """
        beaten = sorted(
            (point for point in self.points if not point.on_front), key=lambda item: item.id.order
        )
        others = sorted(self.others, key=lambda item: item.id.order)
        names = columns(self)
        rows = (_row(point) for point in (*self.front, *beaten, *others))
        return [{name: row.get(name) for name in names} for row in rows]

    @property
    def warning(self) -> str | None:
        """Say that models of the front answer no better than who reads no question; None where they do."""
        scored = [point for point in self.front if point.em_percent is not None]
        low = [str(point.id) for point in scored if self.is_no_better_than_a_baseline(point)]
        if not low:
            return None
        who = (
            "no model of the front beats" if len(low) == len(scored) else f"{', '.join(low)}: not better than"
        )
        return f"{who} {self.baseline_words()}"

    def is_no_better_than_a_baseline(self, point: Point) -> bool:
        """Tell whether a model has at most the exact match of the best trivial baseline; False where none is known."""
        if point.em_percent is None or not self.baselines:
            return False
        return float(point.em_percent) <= max(self.baselines.values()) + SAME_SCORE

    def baseline_words(self) -> str:
        """Return the best trivial baseline in words, and what helps to get above it."""
        name, value = max(self.baselines.items(), key=lambda item: item[1])
        return (
            f"the baseline {name!r} (EM {value:.2f}), which reads no question; what helps: more training "
            "(budget.examples), other learning rates, a pretrained or larger checkpoint"
        )


def _row(point: Point) -> dict[str, Any]:
    row = {name: value for name, value in vars(point).items() if name not in GROUPED}
    compared = {name: point.against_twin.get(key) for name, key in AGAINST_COLUMNS.items()}
    return {**row, **compared, **point.settings, **point.form_settings, **point.values}


def searched_paths(result: FrontResult) -> list[str]:
    """Return the paths of all settings that points differ in: searched ones and those of stored forms."""
    shown = (*result.points, *result.others)
    return sorted({path for point in shown for path in (*point.settings, *point.form_settings)})


def columns(result: FrontResult) -> list[str]:
    """Return the names of the tables' columns: what identifies a row, the objectives, then all else."""
    names = [item.name for item in result.objectives]
    known = ("trial_id", "form", *names, *GROUPED)
    rest = [name for name in Point.__dataclass_fields__ if name not in known]
    compared = (
        AGAINST_COLUMNS if any(point.form is not None for point in (*result.points, *result.others)) else ()
    )
    return ["trial_id", "form", *names, *rest, *compared, *searched_paths(result)]
