"""`run` without Ray and MLflow: a sweep that ends as it is told to, and a tracker that keeps what it is told."""

import sys
import types
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from qa_core.errors import StorageError
from sweeps import cli
from sweeps.budget.references import Reference
from sweeps.checks import sweep as checks_of_a_sweep
from sweeps.checks.data import DataReport
from sweeps.commands import run
from sweeps.front.front import compute_front
from sweeps.spec.sections import SweepSpec
from tests.sweeps.finished import OBJECTIVES, RECORDS
from tests.sweeps.from_scratch import FROM_SCRATCH


class FakeTuner(types.ModuleType):
    """Stands for `sweeps.trials.ray_driver`: the sweep itself is tested with Ray elsewhere."""

    INTERRUPTED = "interrupted"
    ended_by: str | None = None
    unfinished = 2
    paused: Mapping[str, int] = MappingProxyType({})

    def __init__(self, ends: BaseException | Counter[str]) -> None:
        super().__init__("sweeps.trials.ray_driver")
        self.ends = ends
        self.calls: list[dict[str, Any]] = []

    def create_run_folder(self, folder: Path) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise StorageError(f"{folder}: exists already; choose another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)

    def run_sweep(self, spec: SweepSpec, *, folder: Path, target: Any, resume: bool, **told: Any) -> Any:
        call = {"spec": spec, "folder": folder, "target": target, "resume": resume}
        self.calls.append(call | {name: told[name] for name in ("differs", "space", "forecast")})
        if isinstance(self.ends, BaseException):
            raise self.ends
        front = compute_front(RECORDS, OBJECTIVES)
        return types.SimpleNamespace(
            folder=folder,
            counts=self.ends,
            front=front,
            seconds=1.0,
            unfinished=self.unfinished,
            spent_examples=77,
            ended_by=self.ended_by,
            paused=self.paused,
        )


class FakeTracker:
    """Stands for `sweeps.progress.mlflow_mirror.Tracker`."""

    tracking_uri = "sqlite:////somewhere/mlflow.db"
    scatter_page = "#/experiments/7/runs?scatter"

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, spec: Any, **arguments: Any) -> "FakeTracker":
        self.settings = spec
        parent = arguments.get("parent_run_id")
        self.calls.append(("start", arguments["tracking_uri"], *([parent] if parent else [])))
        return self

    def log_front(self, files: Any, hypervolume: float, models: Any, *, spent_examples: int) -> None:
        names = [path.name for path in files]
        self.calls.append(("front", names, hypervolume, sorted(map(str, models)), spent_examples))

    def finish(self, status: str) -> None:
        self.calls.append(("finish", status))

    def withdraw(self) -> None:
        self.calls.append(("withdraw",))


def found_references(
    spec: SweepSpec, space: Any, forecast: Any = None, *, earlier: Any = None
) -> dict[str, Reference]:
    """Stand for `references.find`: no baseline is scored, no recipe predicted."""
    return {item.name: Reference(9.5, "as a test says") for item in spec.objectives if item.is_auto}


def run_with(
    monkeypatch: pytest.MonkeyPatch, ends: Any, *arguments: str
) -> tuple[int, FakeTuner, FakeTracker]:
    tuner, tracker = FakeTuner(ends), FakeTracker()
    monkeypatch.setitem(sys.modules, "sweeps.trials.ray_driver", tuner)
    monkeypatch.setattr("sweeps.progress.mlflow_mirror.Tracker", tracker)
    monkeypatch.setattr(checks_of_a_sweep, "report_of", lambda spec, space, **others: DataReport())
    monkeypatch.setattr(run.references, "find", found_references)
    config = [] if {"--config", "--resume"} & {*arguments} else ["--config", str(FROM_SCRATCH)]
    return cli.main(["run", *config, *arguments]), tuner, tracker
