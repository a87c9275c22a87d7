"""Stores that fail, are slow, or cannot be used: what the tracker makes of them, and what it says."""

import time
from pathlib import Path
from typing import Any

import pytest

from qa_core.errors import ConfigError
from sweeps.progress import mlflow_mirror, mlflow_retry
from sweeps.progress.mlflow_runs import FRONT_TAG, SweepRuns
from sweeps.run_folder.layout import ERROR_FILE
from sweeps.run_folder.model_id import ModelId
from tests.sweeps.progress.mirrored import children, failing, progress, record, start


def mlflow_error(code: int) -> Exception:
    from mlflow.exceptions import MlflowException

    return MlflowException("database is locked", error_code=code)


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(mlflow_retry.time, "sleep", pauses.append)
    return pauses


def test_a_transient_error_is_retried_with_growing_pauses_and_goes_unnoticed(
    run_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch, no_sleep: list[float]
) -> None:
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

    tracker = start(run_folder)
    log_record, calls = failing(mlflow_error(TEMPORARILY_UNAVAILABLE), times=2)
    monkeypatch.setattr(SweepRuns, "log_record", log_record)
    tracker.trial_ended(record("t0"))
    assert (calls, tracker.failures) == ([3], 0)
    assert 0.1 <= no_sleep[0] <= 0.3
    assert 0.2 <= no_sleep[1] <= 0.6
    assert children(client, tracker)["t0"].info.status == "FINISHED"


def test_a_lasting_failure_is_counted_shown_once_and_made_good_at_the_end(
    run_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch, no_sleep: list[float]
) -> None:
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    notes: list[str] = []
    tracker = start(run_folder, notify=notes.append)
    log_record, calls = failing(mlflow_error(INVALID_PARAMETER_VALUE), times=1)
    monkeypatch.setattr(SweepRuns, "log_record", log_record)
    tracker.trial_ended(record("t0"))
    tracker.trial_ended(record("t1"))  # during the pause: not even tried
    tracker.log_front([], 0.5, [ModelId("t0")], spent_examples=300)
    assert (calls, no_sleep, tracker.failures) == ([1], [], 1)
    assert notes == ["MLflow: trial_ended failed, the sweep continues without it: database is locked"]
    tracker.finish("finished")
    runs = children(client, tracker)
    assert {name: run.info.status for name, run in runs.items()} == {"t0": "FINISHED", "t1": "FINISHED"}
    assert runs["t0"].data.tags[FRONT_TAG] == "true"
    assert len(notes) == 2
    assert "1 call failed; no trial missing there" in notes[1]
    written = (run_folder / ERROR_FILE).read_text()
    assert written.startswith("trial_ended\nTraceback")
    assert "MlflowException: database is locked" in written


def test_a_broken_embedded_store_leaves_a_tracker_that_only_counts(run_folder: Path) -> None:
    (run_folder.parent / "mlflow.db").write_bytes(b"this is no database" * 100)
    notes: list[str] = []
    tracker = start(run_folder, notify=notes.append)
    tracker.trial_reported("t0", progress(100, 20.0))
    tracker.trial_ended(record("t0"))
    tracker.log_front([], 0.5, [ModelId("t0")], spent_examples=300)
    tracker.front_changed([], 1.0, spent_examples=0)
    tracker.finish("finished")
    assert (tracker.parent_run_id, tracker.failures) == (None, 1)
    assert len(notes) == 2
    assert "file is not a database" in notes[0]
    assert "1 trial missing there" in notes[1]


@pytest.mark.parametrize(
    "uri", ["file:/somewhere/mlruns", "nonsense://x", "sqlite:////proc/nowhere/mlflow.db"]
)
def test_a_tracking_uri_that_cannot_be_used_is_refused_before_a_new_sweep(
    run_folder: Path, no_sleep: list[float], uri: str
) -> None:
    with pytest.raises(ConfigError, match=r"tracking-uri: MLflow cannot use .*allowed: http"):
        start(run_folder, tracking_uri=uri)


def test_an_unreachable_server_is_refused_soon_for_a_new_sweep_and_borne_by_a_resumed_one(
    run_folder: Path, no_sleep: list[float]
) -> None:
    uri = "http://127.0.0.1:9"
    with pytest.raises(ConfigError, match=uri):
        start(run_folder, tracking_uri=uri)
    notes: list[str] = []
    tracker = start(run_folder, tracking_uri=uri, parent_run_id="0" * 32, notify=notes.append)
    tracker.finish("finished")
    assert (tracker.failures, len(notes)) == (2, 2)  # at the start, and once more at the end


def test_a_damaged_embedded_store_is_given_up_soon_and_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "mlflow.db").write_bytes(b"garbage " * 1000)
    notes: list[str] = []
    began = time.monotonic()
    tracker = start(tmp_path / "run", notify=notes.append)
    assert time.monotonic() - began < 60  # 100 seconds of pauses alone, by MLflow's default
    assert tracker.parent_run_id is None
    assert [note for note in notes if "waiting for" not in note] == [
        "MLflow: start failed, the sweep continues without it: file is not a database"
    ]
    assert (tmp_path / "mlflow.db").read_bytes() == b"garbage " * 1000


def test_opening_a_store_that_takes_long_says_so(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_mirror, "SLOW_SECONDS", 0.05)
    notes: list[str] = []

    def slow(*arguments: Any) -> Any:
        time.sleep(1.0)
        raise OSError("no answer")

    monkeypatch.setattr(SweepRuns, "open", slow)
    tracker = start(run_folder, notify=notes.append)
    assert notes[0] == f"MLflow: waiting for {tracker.tracking_uri}"
    assert len(notes) == 2


def test_a_store_that_is_deleted_in_mid_sweep_is_told_in_one_short_line(run_folder: Path) -> None:
    notes: list[str] = []
    tracker = start(run_folder, notify=notes.append)
    base = run_folder.parent / "mlflow.db"
    base.unlink()
    tracker.trial_ended(record("t0"))
    assert notes == [
        f"MLflow: trial_ended failed, the sweep continues without it: its database {base} is gone"
    ]
    tracker.finish("finished")
    assert notes[1].startswith("MLflow: ")
    assert "calls failed; 1 trial missing there, and records.jsonl has every trial; tracebacks: " in notes[1]
