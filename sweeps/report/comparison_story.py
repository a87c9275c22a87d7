"""What the page of a comparison says, as plain JSON values; `assets/comparison.js` shows it."""

from datetime import UTC, datetime
from typing import Any

from sweeps.front.points import Point
from sweeps.report.columns import encoded, rounded
from sweeps.report.comparison import Comparison, Difference
from sweeps.report.rows import LABELS
from sweeps.run_folder.masking import masked_values


def comparison_story(found: Comparison, *, now: datetime | None = None) -> dict[str, Any]:
    """Return everything that the page shows, secrets masked.

    Args:
        found: of `compare`.
        now: when the page was written; None for this moment.
    """
    names = [item.name for item in found.objectives]
    new = {
        (place, point.id) for place, difference in enumerate(found.differences, 1) for point in difference.new
    }
    rows = [
        _row(point, place, is_new=(place, point.id) in new)
        for place, sweep in enumerate(found.sweeps)
        for point in sweep.result.points
    ]
    keys = ("sweep", "trial", "form", "place", "new", "family", "methods", "checkpoint", *names)
    return masked_values(
        {
            "kind": "comparison",
            "name": " and ".join(found.labels) if len(found.labels) == 2 else ", ".join(found.labels),
            "written": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
            "objectives": [
                {
                    "name": item.name,
                    "label": LABELS.get(item.name, item.name),
                    "goal": item.goal,
                    "unit": item.measured_unit,
                    "reference": rounded(item.worst),
                }
                for item in found.objectives
            ],
            "sweeps": [
                {
                    "label": label,
                    "state": sweep.state,
                    "trials": len(sweep.records) + len(sweep.open_trials),
                    "points": len(sweep.result.points),
                    "front": len(sweep.result.front),
                    "examples": sum(record.examples_seen for record in sweep.records),
                    "hypervolume": rounded(volume),
                }
                for label, sweep, volume in zip(found.labels, found.sweeps, found.hypervolumes, strict=True)
            ],
            "differences": [_difference(item) for item in found.differences],
            "rows": {"count": len(rows), "columns": encoded(rows, keys)},
            "settings": [list(row) for row in found.settings],
        }
    )


def _row(point: Point, place: int, *, is_new: bool) -> dict[str, Any]:
    return {
        "sweep": place,
        "trial": point.trial_id,
        "form": point.form,
        "place": "front" if point.on_front else "behind",
        "new": "yes" if is_new else None,
        "family": point.family,
        "methods": point.methods,
        "checkpoint": point.checkpoint,
        **point.values,
    }


def _difference(found: Difference) -> dict[str, Any]:
    interval = found.interval
    return {
        "hypervolume": rounded(found.hypervolume),
        "low": None if interval is None else rounded(interval.low),
        "high": None if interval is None else rounded(interval.high),
        "by": None if interval is None else f"{interval.clusters} {interval.unit}s",
        "why": found.why_no_interval,
        "new": [str(point.id) for point in found.new],
        "lost": [str(point.id) for point in found.lost],
    }
