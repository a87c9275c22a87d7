"""A trial as the driver and its worker know it: the task, and the two files that say how it ended."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.errors import DataError
from sweeps.run_folder.layout import TrialFolder

PAUSED = "paused"  # an outcome that is no end
ENDINGS = ("stopped", "failed", "oom", PAUSED)  # statuses in the outcome file


@dataclass(frozen=True)
class TrialTask:
    """What the driver sends to a worker, as plain values."""

    trial_id: str
    recipe: Mapping[str, Any]
    folder: str
    cache_dir: str
    threads: int
    objectives: tuple[str, ...] = ()
    max_memory_mb: float | None = None
    reported_examples: int = 0  # the driver has the reports up to here, from an earlier start of the sweep
    pause_file: str | None = None  # when it is there, the trial checkpoints and ends for now
    sweep_folder: str | None = None  # whose pre-flight admits this node
    hang_minutes: float | None = None  # see `watchdog.py`
    gpu_share: float = 0.0  # that Ray gives this trial, and beyond which its process takes no memory
    # Stored forms of what is trained: {"label": ..., "settings": ...} each, see `Form` in `qa_core/config.py`.
    forms: tuple[Mapping[str, Any], ...] = ()
    makes_all_forms: bool = False  # none is skipped because a smaller one is as good
    reports_forms: bool = False  # the sweep lists forms: trainings are compared by them at rungs
    predicted_bytes: int | None = None  # of its training, from which the share was found; None: it was not


def as_values(task: TrialTask) -> dict[str, Any]:
    """Return what travels to the worker: the task as text, beside what Ray itself is asked for.

    Ray keeps these values of every trial, in several forms; a nested recipe is far larger there than its text.
    """
    return {"trial_id": task.trial_id, "gpu_share": task.gpu_share, "task": json.dumps(asdict(task))}


def from_values(values: Mapping[str, Any]) -> TrialTask:
    """Return the task of `as_values`."""
    found = json.loads(values["task"])
    return TrialTask(**{**found, "objectives": tuple(found["objectives"]), "forms": tuple(found["forms"])})


def packed(final: Mapping[str, Any]) -> dict[str, Any]:
    """Return a final report with its result as text: Ray keeps 0.1 MB of statistics for the numbers of each report."""
    return {**final, "result": json.dumps(final["result"])}


def unpacked(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report as it was before `packed`; one of a rung as it is."""
    result = metrics.get("result")
    return {**metrics, "result": json.loads(result)} if isinstance(result, str) else dict(metrics)


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """Return why a trial ended without a result, or None when it left no such note; a damaged one is a failure."""
    path = TrialFolder(folder).outcome
    if not files.is_there(path):
        return None
    try:
        outcome = _read(path)
        texts = [outcome["reason"], outcome["traceback"] or ""]
        if outcome["status"] not in ENDINGS or not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{path}: found status {outcome['status']!r}; allowed: {', '.join(ENDINGS)}, with a reason"
            )
    except (DataError, KeyError, TypeError) as error:
        reason = f"DataError: {path}: how the trial ended cannot be read: {error}"
        return {"status": "failed", "reason": reason, "traceback": None}
    return {name: outcome.get(name) for name in ("status", "reason", "traceback", "node", "gpus")}


def read_final(folder: Path) -> dict[str, Any] | None:
    """Return the final report of a trial that has ended and whose artifact is there, or None.

    Raises:
        DataError: the report is damaged; without it the trial would run again.
    """
    path = TrialFolder(folder).final
    if not files.is_there(path) or not files.is_folder(TrialFolder(folder).artifact):
        return None
    final = _read(path)
    if not isinstance(final.get("result"), dict):
        raise DataError(f"{path}: found {sorted(final)}; allowed: a final report with its `result`")
    final["result"]["artifact"] = str(TrialFolder(folder).artifact)  # the sweep's folder may have moved
    for form in final["result"].get("forms", ()):
        if form["artifact"] is not None:
            is_twin = not form["settings"]
            own = TrialFolder(folder) if is_twin else TrialFolder(folder).form(form["label"])
            form["artifact"] = str(own.artifact)
    return final


def _read(path: Path) -> dict[str, Any]:
    return files.read_object(path, inside=path.parent)


def forget_outcome(folder: Path) -> None:
    """Remove the note of a trial that is to run again."""
    TrialFolder(folder).outcome.unlink(missing_ok=True)
