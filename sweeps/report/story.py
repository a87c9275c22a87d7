"""What the report of a sweep says, as plain JSON values. How it looks is in `assets/`; `page.py` puts both together.

Each model and each trial without one is a row, once. Nothing of the data's text is here unless it is handed in.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import join, quote
from typing import Any

from qa_core import files
from qa_core.errors import DataError
from sweeps.front import pareto
from sweeps.front.choosing import cost_to_save
from sweeps.front.front import choosable
from sweeps.front.points import Point, settings_of
from sweeps.front.result import searched_paths
from sweeps.front.tables import difference_words
from sweeps.front.ties import answers_of
from sweeps.front.volume import GrowingVolume
from sweeps.progress.console import error_signature
from sweeps.progress.flatten import model_params
from sweeps.report.answer_book import AnswerBook
from sweeps.report.columns import encoded, rounded
from sweeps.report.importance import importance
from sweeps.report.snapshot import OpenTrial, Snapshot
from sweeps.run_folder.masking import masked_values
from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.models import id_of, models_of
from sweeps.run_folder.records import Record
from sweeps.spec.objectives import MEASURES, RETIRED, Objective, measure

PROGRAM = "qa-sweep"  # by its name: the report is read elsewhere
PROBES_FILE = "probes.json"  # beside a model's answers: what `evaluate --probes --output` wrote
MOST_CURVES = 2000  # drawn; those of the front first
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
CURVE = ("examples_seen", "selection_em_percent", "selection_f1_percent", "train_loss")
DOMAINS = {"choice": "one of", "uniform": "evenly", "log_uniform": "evenly in the logarithm", "int": "whole"}


@dataclass(frozen=True)
class ShownExample:
    """One question of the evaluation set, its gold answers, and the answers of models, "" for none."""

    question: str
    golds: tuple[str, ...]
    answers: Mapping[str, str]


def story(
    snapshot: Snapshot,
    book: AnswerBook,
    *,
    examples: Sequence[ShownExample] = (),
    now: datetime | None = None,
) -> dict[str, Any]:
    """Return everything that the page shows, secrets masked.

    Args:
        snapshot: of the sweep.
        book: of its answers.
        examples: questions to show; none unless the user asked for them.
        now: when the page was written; None for this moment.

    Raises:
        DataError: a record cannot be read.
    """
    result = snapshot.result
    axes = _axes(snapshot)
    rows = _rows(snapshot, book, [axis["name"] for axis in axes])
    paths = _paths(snapshot)
    keys = [*_keys(rows), *(axis["name"] for axis in axes), *(f"set:{path}" for path in paths)]
    counts = Counter(record.status for record in snapshot.records) + Counter(
        trial.state for trial in snapshot.open_trials
    )
    folder = shown_folder(snapshot.folder)
    return masked_values(
        {
            "kind": "report",
            "name": snapshot.spec.get("name") or "sweep",
            "folder": folder,
            "state": snapshot.state,
            "written": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
            "asked": _asked(snapshot),
            "objectives": [_objective(item) for item in result.objectives],
            "axes": axes,
            "settings": paths,
            "rows": {"count": len(rows), "columns": encoded(rows, keys)},
            "counts": dict(counts),
            "hypervolume": rounded(result.hypervolume),
            "history": _history(snapshot),
            "baselines": {name: rounded(value) for name, value in result.baselines.items()},
            "left_out": dict(result.left_out),
            "forms_left_out": dict(result.forms_left_out),
            "failures": _failures(snapshot.records),
            "notes": [note for note in (result.warning, result.prediction_note, result.device_note) if note],
            "curves": _curves(snapshot),
            "importance": _importance(snapshot),
            "probes": _probes(snapshot),
            "ask_probes": _ask_probes(snapshot),
            "examples": [
                {"question": item.question, "golds": list(item.golds), "answers": dict(item.answers)}
                for item in examples
            ],
            "export": [
                join([PROGRAM, "export", folder]),
                quote(f"{folder.rstrip('/') or folder}-model"),
            ],
        }
    )


def shown_folder(folder: Path) -> str:
    """Return a folder as one names it from the current one where it lies below that, else its whole path."""
    here, whole = Path.cwd(), folder.absolute()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(folder)


# What was asked


def _asked(snapshot: Snapshot) -> dict[str, Any]:
    spec = snapshot.spec
    provenance: Mapping[str, Any] = snapshot.records[0].provenance if snapshot.records else {}
    git = provenance.get("git") or {}
    packages = provenance.get("packages") or {}
    versions = [
        f"{name} {packages[name]}"
        for name in ("qa-sweeps", "torch", "transformers", "ray")
        if packages.get(name)
    ]
    recipe, data = spec.get("recipe") or {}, {}
    for name, value in (recipe.get("data") or {}).items():
        data[name] = _words(value)
    return {
        "command": provenance.get("command"),
        "commit": git.get("commit"),
        "versions": ", ".join(versions),
        "devices": sorted({str(record.device) for record in snapshot.records if record.device}),
        "seed": spec.get("seed"),
        "searcher": _words((spec.get("searcher") or {}).get("name")),
        "scheduler": _named(spec.get("scheduler") or {}),
        "budget": {name: _words(value) for name, value in (spec.get("budget") or {}).items()},
        "data": data,
        "space": [parameter_words(entry) for entry in spec.get("space") or ()],
        "forms": {
            f"{method}.{option}": _words(values)
            for method, options in (spec.get("forms") or {}).items()
            if isinstance(options, Mapping)
            for option, values in options.items()
        },
    }


def _named(section: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {_words(value)}" for name, value in (section.get("options") or {}).items())
    return f"{section.get('name')}{f' ({options})' if options else ''}"


def parameter_words(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return what an entry of a space sets, how it is drawn, from which values, and under which conditions."""
    domain = next((name for name in DOMAINS if entry.get(name) is not None), None)
    how, values = "", ""
    if domain == "choice":
        values = _words(entry[domain])
        how = DOMAINS[domain] if len(entry[domain]) > 1 else "always"
    elif domain is not None:
        values = " to ".join(map(_words, entry[domain]))
        how = DOMAINS[domain] + (", in the logarithm" if entry.get("log") else "")
    when = "; ".join(f"{path}: {_words(value)}" for path, value in (entry.get("when") or {}).items())
    return {"set": str(entry.get("set")), "how": how, "values": values, "when": when}


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _objective(item: Objective) -> dict[str, Any]:
    return {
        "name": item.name,
        "goal": item.goal,
        "unit": item.measured_unit,
        "reference": rounded(item.worst),
    }


# Rows


def _axes(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return the objectives, then each other measure that a model has."""
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


def _rows(snapshot: Snapshot, book: AnswerBook, measures: Sequence[str]) -> list[dict[str, Any]]:
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


def _keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
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
    rows = list(rows)
    always = ("trial", "place", "status", "family", "methods", "checkpoint")
    return [key for key in known if key in always or any(row.get(key) is not None for row in rows)]


def _paths(snapshot: Snapshot) -> list[str]:
    of_open = (path for trial in snapshot.open_trials for path in settings_of(trial.assignment, trial.config))
    return sorted({*searched_paths(snapshot.result), *of_open})


# What became of it


def _history(snapshot: Snapshot) -> list[list[float | int | str | None]]:
    """Return [examples, hours of trials, hours of the clock, hypervolume] after each trial that raised the last.

    Examples and hours count when a trial ends. The last entry is the present.
    """
    result = snapshot.result
    goals = [item.goal for item in result.objectives]
    reference = pareto.to_losses([[item.worst for item in result.objectives]], goals)[0]
    volume = GrowingVolume([float(value) for value in reference])
    points: dict[str, list[Point]] = {}
    for point in result.points:
        points.setdefault(point.trial_id, []).append(point)
    ended = sorted(snapshot.records, key=lambda item: (item.finished_at, item.trial_id))
    begun = min((_time(record.started_at) for record in ended), default=0.0)
    examples, hours, entries = 0, 0.0, []
    for number, record in enumerate(ended):
        examples += record.examples_seen
        hours += record.seconds / 3600.0
        before = volume.value
        for point in points.get(record.trial_id, ()):
            values = [[point.values[item.name] for item in result.objectives]]
            volume.add(pareto.to_losses(values, goals)[0].tolist())
        if volume.value > before or number == len(ended) - 1:
            clock = max(0.0, (_time(record.finished_at) - begun) / 3600.0)
            values_now = (rounded(hours), rounded(clock), rounded(volume.value))
            entries.append([examples, *values_now, record.trial_id])
    return entries


def _time(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _curves(snapshot: Snapshot) -> dict[str, Any]:
    """Return the reports of each trial; of very many trials the front's and the first others."""
    on_front = {point.trial_id for point in snapshot.result.front}
    trials = [
        (record.trial_id, record.config, record.curve, record.status)
        for record in sorted(
            snapshot.records, key=lambda item: (item.trial_id not in on_front, item.trial_id)
        )
    ]
    trials += [(item.trial_id, item.config, item.curve, item.state) for item in snapshot.open_trials]
    reported = [item for item in trials if item[2]]
    rungs = {
        seen
        for _, config, _, _ in reported
        for seen in (config.get("train") or {}).get("rungs") or ()
        if isinstance(seen, int)
    }
    return {
        "measures": list(CURVE[1:]),
        "rungs": sorted(rungs),
        "not_drawn": max(0, len(reported) - MOST_CURVES),
        "trials": [
            {
                "trial": trial_id,
                "family": (config.get("model") or {}).get("family"),
                "status": status,
                "points": [[rounded(report.get(name)) for name in CURVE] for report in curve],
            }
            for trial_id, config, curve, status in reported[:MOST_CURVES]
        ],
    }


def _importance(snapshot: Snapshot) -> list[dict[str, Any]]:
    points = snapshot.result.points
    settings = [
        {
            "model.family": point.family,
            "methods": point.methods,
            "model.checkpoint": point.checkpoint,
            **point.settings,
            **point.form_settings,
        }
        for point in points
    ]
    return [
        {
            "objective": item.name,
            "settings": [
                {
                    "path": found.path,
                    "share": rounded(found.share),
                    "models": found.models,
                    "groups": found.groups,
                }
                for found in importance(settings, [point.values[item.name] for point in points])
            ],
        }
        for item in snapshot.result.objectives
    ]


def _failures(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return each kind of error of trials and of stored forms, the most frequent first."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for record in records:
        if record.status in ("failed", "oom"):
            kinds.setdefault((record.status, error_signature(record.reason or "")), []).append(
                record.trial_id
            )
        for form in record.forms:
            if form.status == "failed":
                of_form = str(ModelId(record.trial_id, form.label))
                kinds.setdefault(("form failed", error_signature(form.reason or "")), []).append(of_form)
    found = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        {"status": status, "error": error, "count": len(names), "first": names[0]}
        for (status, error), names in found
    ]


def _probes(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return the scores on the built-in probes of each model of the front that was asked them."""
    found = []
    for point in snapshot.result.front:
        path = answers_of(snapshot.folder, point).with_name(PROBES_FILE)
        if rows := _probe_rows(path, snapshot.folder):
            found.append({"model": str(point.id), "rows": rows})
    return found


def _ask_probes(snapshot: Snapshot) -> str | None:
    """Return the command that asks the best model of the front the probes; None where there is none."""
    best = next((point for point in snapshot.result.front if point.artifact), None)
    if best is None:
        return None
    folder = Path(shown_folder(snapshot.folder))
    output = answers_of(folder, best).with_name(PROBES_FILE)
    return join([PROGRAM, "evaluate", str(folder / str(best.artifact)), "--probes", "--output", str(output)])


def _probe_rows(path: Path, inside: Path) -> list[list[Any]]:
    """Return [category, variant, passages, EM, F1] of a file of `evaluate --probes`; nothing of any other."""
    try:
        if not files.is_file(path) or files.has_link(path, inside):
            return []
        rows = files.read_object(path, inside=inside)["probes"]["rows"]
        return [
            [
                str(row["category"]),
                str(row["variant"]),
                int(row["items"]),
                rounded(row["em_percent"]["estimate"]),
                rounded(row["f1_percent"]["estimate"]),
            ]
            for row in rows
        ]
    except (DataError, KeyError, TypeError, ValueError):
        return []
