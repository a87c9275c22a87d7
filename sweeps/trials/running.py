"""What becomes of a trial: why it ended, and the record that says so. The events that lead there are in `driver.py`."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeps.front.comparability import MIXED
from sweeps.nodes.preflight import is_mixed
from sweeps.run_folder.masking import masked_values
from sweeps.run_folder.records import Record, StoredForm
from sweeps.schedulers.pausing import Verdict
from sweeps.searchers.base import Proposal
from sweeps.spec.sections import Budget, SweepSpec
from sweeps.trials.task import PAUSED, TrialTask, read_outcome
from sweeps.trials.watchdog import Hang


@dataclass
class Running:
    """One trial between its proposal and its record."""

    task: TrialTask
    proposal: Proposal
    started: float = field(default_factory=time.time)
    curve: list[dict[str, Any]] = field(default_factory=list)
    is_stopped: bool = False  # the scheduler's verdict on the last report
    is_paused: bool = False  # it gives up its worker on the last report, or has given it up
    verdict: Verdict = Verdict.GO_ON  # on the report that is being taken in
    starts: int = 0
    is_on_worker: bool = False
    lost_workers: int = 0  # in this start of the sweep

    @property
    def examples_seen(self) -> int:
        """Examples at its last report; 0 before the first."""
        return int(self.curve[-1]["examples_seen"]) if self.curve else 0


def hung(hang: Hang, budget: Budget) -> str:
    """Return in one line that a trial hung, and where."""
    return f"it did nothing for more than {budget.hang_minutes:g} min (budget.hang_minutes) at {hang.place}"


def died_too_often(error: str, hang: Hang | None, budget: Budget) -> str:
    """Return a note of the error whose last line is the reason for the record."""
    before = f"after {budget.max_lost_workers} (budget.max_lost_workers) before"
    if hang is None:
        return f"{error.strip()}\nits worker died, {before}"
    return f"{hang.stacks.strip()}\n{hung(hang, budget)}, {before}"


def ending_of(running: Running, error: str | None, *, scheduler: str) -> dict[str, Any] | None:
    """Return status, reason and traceback of a trial without a result; None when it was merely cut short."""
    outcome = read_outcome(Path(running.task.folder))
    if outcome is not None:
        return None if outcome["status"] == PAUSED else outcome
    if error is not None:
        reason = error.strip().splitlines()[-1] if error.strip() else "the worker died without a message"
        return {"status": "failed", "reason": reason, "traceback": error}
    if not running.is_stopped:
        return None
    reached = running.curve[-1]["examples_seen"]
    reason = f"stopped by scheduler {scheduler!r} at {reached} examples"
    return {"status": "stopped", "reason": reason, "traceback": None}


def record_of(
    running: Running,
    metrics: Mapping[str, Any],
    result: Mapping[str, Any] | None,
    ending: Mapping[str, Any],
    *,
    spec: SweepSpec,
    folder: Path,
    provenance: Mapping[str, Any],
) -> Record:
    """Return the record of a trial that has just ended.

    Args:
        metrics: its last report.
        result: its `RunResult` in JSON form; None when it has none.
        ending: from `ending_of`, or of a trial with a result.
        folder: of the sweep.
        provenance: what all records of this start of the sweep share. The GPUs are those that the trial's worker saw.
    """
    task = running.task
    finished = time.time()
    curve = list(result["curve"]) if result else running.curve
    return Record(
        trial_id=task.trial_id,
        status=str(ending["status"]),
        reason=ending["reason"],
        traceback=ending["traceback"],
        seed=task.recipe["seed"],
        assignment=running.proposal.assignment,
        config=dict(task.recipe),
        examples_seen=curve[-1]["examples_seen"] if curve else 0,
        # A recipe that trains nothing has a budget of 0, whatever the sweep allows.
        budget_examples=curve[-1]["budget_examples"] if result else spec.budget.examples,
        curve=curve,
        objectives=spec.measured_objectives(result) if result else None,
        quality=result["quality"] if result else None,
        cost=result["cost"] if result else None,
        cross_domain=result["cross_domain"] if result else {},
        data=result["data"] if result else {},
        prerequisites=result["prerequisites"] if result else {},
        device=result["cost"]["device"] if result else None,
        artifact=_relative(result["artifact"], folder) if result else None,
        forms=forms_of_result(result, spec=spec, folder=folder) if result else (),
        notes=running.proposal.notes,
        starts=max(1, running.starts),
        started_at=_utc(running.started),
        finished_at=_utc(finished),
        seconds=finished - running.started,
        provenance={
            **provenance,
            "hardware": {
                **provenance.get("hardware", {}),
                "gpus": _texts(ending.get("gpus") or metrics.get("gpus")),
            },
            "left_over_bytes": metrics.get("left_over_bytes"),
            "node": ending.get("node") or metrics.get("node"),
            "gpu_share": task.gpu_share,
            "predicted_train_peak_bytes": task.predicted_bytes,
            MIXED: is_mixed(folder),
        },
    )


def forms_of_result(result: Mapping[str, Any], *, spec: SweepSpec, folder: Path) -> tuple[StoredForm, ...]:
    """Return the stored forms of a result in its JSON form; that of an earlier version has none."""
    return tuple(
        StoredForm(
            label=form["label"],
            settings=form["settings"],
            status=form["status"],
            reason=masked_values(form["reason"]),  # an error's words can hold what a library was given
            objectives=spec.measured_objectives(form) if form["status"] == "ok" else None,
            quality=form["quality"],
            cost=form["cost"],
            against_twin=form["against_twin"],
            artifact=None if form["artifact"] is None else _relative(form["artifact"], folder),
        )
        for form in result.get("forms", ())
    )


def _texts(values: Any) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list | tuple) else []


def _relative(path: str, folder: Path) -> str:
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
