"""The rows of a report: one for each model, each stored form without one, and each trial without a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.front.choosing import cost_to_save
from sweeps.front.front import choosable
from sweeps.front.points import Point, settings_of
from sweeps.front.result import searched_paths
from sweeps.front.tables import difference_words
from sweeps.progress.flatten import model_params
from sweeps.report.answer_book import AnswerBook
from sweeps.report.snapshot import OpenTrial, Snapshot
from sweeps.run_folder.models import id_of, models_of
from sweeps.run_folder.records import Record
from sweeps.spec.objectives import MEASURES, RETIRED, measure

LABELS = {
    "em_percent": "exact match",
    "f1_percent": "F1",
    "memory_mb": "memory, one window",
    "memory_batch8_mb": "memory, eight windows",
    "artifact_bytes": "size of the files",
    "weights_bytes": "weights in memory",
    "inference_peak_bytes": "peak memory, one window",
    "train_peak_bytes": "peak memory of training",
    "latency_p50_ms": "latency, median",
    "latency_p95_ms": "latency, 95th percentile",
    "rss_peak_bytes": "resident set",
}
# Where a row stands: on the front, behind it, at a rung that a trial without a final score reached, with a score that
# does not compare, or nowhere.
FRONT, BEHIND, AT_RUNG, APART, NOWHERE = "front", "behind", "rung", "apart", "none"


def axes(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return name, label, unit and goal of the objectives, then each other measure that a model has."""
    own = {item.name: item.goal for item in snapshot.result.objectives}
    models = [model for record in snapshot.records if record.status == "ok" for model in models_of(record)]
    others = [
        name
        for name in MEASURES
        if name not in own and any(_measured(name, model) is not None for model in models)
    ]
    return [
        {
            "name": name,
            "label": LABELS.get(name, name),
            "unit": measure(name).unit,
            "goal": own.get(name) or ("max" if measure(name).section == "quality" else "min"),
            "is_objective": name in own,
        }
        for name in (*own, *others)
    ]


def _measured(name: str, model: Record) -> float | None:
    """Return a measure of a model in its unit; None where it has none, or none that is a number."""
    item = MEASURES.get(name) or RETIRED[name]
    found = ((model.quality if item.section == "quality" else model.cost) or {}).get(item.field)
    if not isinstance(found, int | float) or isinstance(found, bool):
        return None
    return found / item.divisor


def model_rows(snapshot: Snapshot, book: AnswerBook, measures: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each model, each form without one, and each trial without a model: front first."""
    result = snapshot.result
    records = {record.trial_id: record for record in snapshot.records}
    models = {id_of(model): model for record in snapshot.records for model in models_of(record)}
    keeps_all = (snapshot.spec.get("budget") or {}).get("keep_artifacts") == "all"
    kept = None if keeps_all else choosable(result)
    by = cost_to_save(result, {})
    apart = {point.id for group in result.apart for point in group}
    rows = []
    behind = [point for point in result.points if not point.on_front]
    for point in (*result.front, *sorted(behind, key=lambda item: item.id.order)):
        row = _row(point, records[point.trial_id], FRONT if point.on_front else BEHIND)
        row |= {**_measures(models[point.id], measures), **point.values}
        row["kept"] = "yes" if point.artifact and (kept is None or point.id in kept) else None
        if point.on_front:
            row |= _of_answers(point, result.front, book, by)
        rows.append(row)
    for point in sorted(result.others, key=lambda item: item.id.order):
        record = records[point.trial_id]
        at_rung = point.form is None and record.status == "stopped" and record.curve
        row = _row(point, record, APART if point.id in apart else AT_RUNG if at_rung else NOWHERE)
        if point.id in apart and point.id in models:
            row |= _measures(models[point.id], measures)
        elif at_rung:
            row |= _at_rung(record.curve[-1], measures)
        rows.append(row)
    return [*rows, *(_open_row(trial, measures) for trial in snapshot.open_trials)]


def _row(point: Point, record: Record, place: str) -> dict[str, Any]:
    form = next((form for form in record.forms if form.label == point.form), None)
    named = model_params(
        {"config": record.config, "forms": [{"settings": item.settings} for item in record.forms]},
        None if form is None else {"label": form.label, "settings": form.settings},
    )
    return {
        "trial": point.trial_id,
        "form": point.form,
        "place": place,
        "knee": "yes" if point.is_knee else None,
        "status": point.status,
        "why": point.left_out or (record.reason if record.status != "ok" else None),
        "family": point.family,
        "head": point.head,
        "methods": point.methods,
        "bits": named.get("bits"),
        "table_bits": named.get("table_bits"),
        "checkpoint": point.checkpoint,
        "seed": point.seed,
        "examples": record.examples_seen,
        "seconds": record.seconds,
        "twin": difference_words(point.against_twin) if point.against_twin else None,
        **{f"set:{path}": value for path, value in {**point.settings, **point.form_settings}.items()},
    }


def _open_row(trial: OpenTrial, measures: Sequence[str]) -> dict[str, Any]:
    model = trial.config.get("model") or {}
    last: Mapping[str, Any] = trial.curve[-1] if trial.curve else {}
    return {
        "trial": trial.trial_id,
        "place": AT_RUNG if last else NOWHERE,
        "status": trial.state,
        "family": model.get("family"),
        "head": model.get("head"),
        "methods": "+".join(trial.config.get("methods") or {}) or "full",
        "checkpoint": model.get("checkpoint"),
        "seed": trial.config.get("seed"),
        "examples": last.get("examples_seen", 0),
        **{f"set:{path}": value for path, value in settings_of(trial.assignment, trial.config).items()},
        **_at_rung(last, measures),
    }


def _at_rung(report: Mapping[str, Any], measures: Sequence[str]) -> dict[str, float]:
    """Return the measures of a report, those that are known at a rung."""
    fields = {name: measure(name).rung_field for name in measures}
    return {name: report[field] for name, field in fields.items() if field and report.get(field) is not None}


def _measures(model: Record, measures: Sequence[str]) -> dict[str, float]:
    found = {name: _measured(name, model) for name in measures}
    return {name: value for name, value in found.items() if value is not None}


def _of_answers(point: Point, front: Sequence[Point], book: AnswerBook, by: str) -> dict[str, Any]:
    interval = book.interval(point)
    tied = book.tied_with(point, front, by)
    return {
        "em_low": None if interval is None else interval.low,
        "em_high": None if interval is None else interval.high,
        "by": None if interval is None or interval.low is None else f"{interval.clusters} {interval.unit}s",
        "tied": None if tied is None else str(tied.id),
    }


def row_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the columns that any row has, in the order of `_row`, without measures and settings."""
    known = (
        *("trial", "form", "place", "knee", "status", "why", "family", "head", "methods", "bits"),
        *(
            "table_bits",
            "checkpoint",
            "seed",
            "examples",
            "seconds",
            "twin",
            "kept",
            "em_low",
            "em_high",
            "by",
            "tied",
        ),
    )
    always = ("trial", "place", "status", "family", "methods", "checkpoint")
    return [key for key in known if key in always or any(row.get(key) is not None for row in rows)]


def searched(snapshot: Snapshot) -> list[str]:
    """Return the paths of all settings that were searched, of trials that have not ended too."""
    of_open = (path for trial in snapshot.open_trials for path in settings_of(trial.assignment, trial.config))
    return sorted({*searched_paths(snapshot.result), *of_open})
