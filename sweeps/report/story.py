"""What the report of a sweep says, as plain JSON values.

How it looks is in `assets/`; `sweeps/report/page.py` puts both together.
Each model and each trial without one is a row, once. Nothing of the data's text is here unless it is handed in.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import join, quote
from typing import Any

from qa_core import files
from qa_core.errors import DataError
from sweeps.front import pareto
from sweeps.front.points import Point
from sweeps.front.ties import answers_of
from sweeps.front.volume import GrowingVolume
from sweeps.progress.console import error_signature
from sweeps.report.answer_book import AnswerBook
from sweeps.report.asked import asked
from sweeps.report.columns import encoded, rounded
from sweeps.report.importance import importance
from sweeps.report.rows import axes, model_rows, row_keys, searched
from sweeps.report.snapshot import Snapshot
from sweeps.run_folder.masking import masked_values
from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.records import Record
from sweeps.spec.objectives import Objective

PROGRAM = "qa-sweep"  # by its name: the report is read elsewhere
PROBES_FILE = "probes.json"  # beside a model's answers: what `evaluate --probes --output` wrote
MOST_CURVES = 2000  # drawn; those of the front first
CURVE = ("examples_seen", "selection_em_percent", "selection_f1_percent", "train_loss")


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
    measures = axes(snapshot)
    names = [axis["name"] for axis in measures]
    rows = model_rows(snapshot, book, names)
    paths = searched(snapshot)
    keys = [*row_keys(rows), *names, *(f"set:{path}" for path in paths)]
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
            "asked": asked(snapshot),
            "objectives": [_objective(item) for item in result.objectives],
            "axes": measures,
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


def _objective(item: Objective) -> dict[str, Any]:
    return {
        "name": item.name,
        "goal": item.goal,
        "unit": item.measured_unit,
        "reference": rounded(item.worst),
    }


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
