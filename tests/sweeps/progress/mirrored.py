"""A sweep that is mirrored into MLflow: records made by hand, a tracker, and what a client finds of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.mlflow_runs import FORM_TAG, TRIAL_TAG, SweepRuns

SPEC = {"name": "quick", "budget": {"trials": 3}, "seed": 4}


def progress(examples: int, em_percent: float) -> dict[str, Any]:
    return {
        "examples_seen": examples,
        "budget_examples": 400,
        "train_loss": 3.0 - examples / 200,
        "selection_em_percent": em_percent,
        "selection_f1_percent": em_percent + 5,
        "memory_mb": 12.5,
        "train_seconds": examples / 10,
    }


def record(trial_id: str, status: str = "ok", **changes: Any) -> dict[str, Any]:
    finished = status == "ok"
    values = {
        "trial_id": trial_id,
        "status": status,
        "reason": None if finished else f"why it was {status}",
        "config": {"model": {"family": "bert"}, "methods": {"lora": {"rank": 8}}, "train": {"rungs": [100]}},
        "curve": [progress(100, 20.0), progress(400, 41.0)] if finished else [progress(100, 9.0)],
        "quality": {"em_percent": 40.0, "f1_percent": 46.0, "no_ans_em_percent": None} if finished else None,
        "cost": {"artifact_bytes": 4_000_000, "latency_p50_ms": 3.5, "device": "cpu: x"}
        if finished
        else None,
        "objectives": {"em_percent": 40.0, "memory_mb": 12.75} if finished else None,
        "started_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:01:17+00:00",
        "seconds": 77.0,
    }
    return values | changes


def start(run_folder: Path, **changes: Any) -> Tracker:
    arguments: dict[str, Any] = {"tracking_uri": None, "experiment": "qa", "notify": pytest.fail}
    return Tracker.start(SPEC, run_folder=run_folder, **(arguments | changes))


def children(client: Any, tracker: Tracker) -> dict[str, Any]:
    experiment = client.get_run(tracker.parent_run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{tracker.parent_run_id}'")
    by_trial = {run.data.tags[TRIAL_TAG]: run for run in found}
    assert len(by_trial) == len(found), "two runs for one trial"
    return by_trial


def points(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    return [(item.step, item.value) for item in client.get_metric_history(run.info.run_id, name)]


def form(label: str, em: float | None, memory: float = 1.0, **changes: Any) -> dict[str, Any]:
    """Return a stored form of a record in its JSON form; without a score it failed."""
    is_ok = em is not None
    values = {
        "label": label,
        "settings": {} if label == "float32" else {"methods.quantize.bits": 8},
        "status": "ok" if is_ok else "failed",
        "reason": None if is_ok else "RuntimeError: no kernel",
        "objectives": {"em_percent": em, "memory_mb": memory} if is_ok else None,
        "quality": {"em_percent": em, "f1_percent": 46.0} if is_ok else None,
        "cost": {"artifact_bytes": 1_000_000, "device": "cpu: x"} if is_ok else None,
        "against_twin": {"em_difference_percent": -0.5, "low": -1.0, "high": None}
        if is_ok and label != "float32"
        else None,
        "artifact": f"trials/t0/forms/{label}/artifact",
    }
    return values | changes


STORED = [form("int8", 39.5, 3.0), form("nf4", None), form("float32", 40.0, 12.75)]


def all_runs(client: Any, tracker: Tracker) -> list[Any]:
    experiment = client.get_run(tracker.parent_run_id).info.experiment_id
    return list(client.search_runs([experiment], max_results=1000))


def form_runs(client: Any, tracker: Tracker) -> dict[str, Any]:
    found = [run for run in all_runs(client, tracker) if FORM_TAG in run.data.tags]
    by_name = {run.info.run_name: run for run in found}
    assert len(by_name) == len(found), "two runs for one form"
    return by_name


OBJECTIVES = [{"name": "em_percent", "goal": "max"}, {"name": "memory_mb", "goal": "min"}]


def failing(error: Exception, *, times: int) -> tuple[Callable[..., Any], list[int]]:
    """Wrap `SweepRuns.log_record` so that its first calls raise; the list counts all calls."""
    calls = [0]
    genuine = SweepRuns.log_record

    def log_record(self: Any, *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] <= times:
            raise error
        genuine(self, *arguments)

    return log_record, calls
