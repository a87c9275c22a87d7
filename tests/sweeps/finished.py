"""Records of finished trials, made by hand, and the objectives that they are of."""

import shutil
from pathlib import Path
from typing import Any

from sweeps.run_folder.records import Record
from sweeps.spec.objectives import Objective

OBJECTIVES = [
    Objective(name="em_percent", goal="max", reference=0),
    Objective(name="memory_mb", goal="min", reference=100),
]


def record(trial_id: str, em_percent: float, memory_mb: float, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "trial_id": trial_id,
        "status": "ok",
        "reason": None,
        "seed": 1,
        "assignment": {},
        "config": {"model": {"family": "bert", "checkpoint": "micro"}, "methods": {}},
        "examples_seen": 10,
        "budget_examples": 10,
        "curve": (),
        "device": "cpu: x",
        "started_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:00:09+00:00",
        "seconds": 9.0,
        "objectives": {"em_percent": em_percent, "memory_mb": memory_mb},
        "quality": {"em_percent": em_percent},
        "cost": {"inference_peak_bytes": memory_mb * 1e6},
        "data": {"evaluation": {"data_hash": "abc"}},
        "artifact": f"trials/{trial_id}/artifact",
    }
    return Record(**(values | changes))


RECORDS = [record("t0", 40.0, 20.0), record("t1", 10.0, 5.0), record("t2", 30.0, 25.0)]


def place_artifact(artifact_folder: Path, run_dir: Path, trial_id: str) -> Path:
    return Path(shutil.copytree(artifact_folder, run_dir / "trials" / trial_id / "artifact"))
