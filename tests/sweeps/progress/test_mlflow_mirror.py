"""The tracker against a real SQLite store, and against stores that fail."""

import json
import logging
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import mirror
from qa_core.errors import ConfigError, StorageError
from sweeps.progress import mlflow_mirror, mlflow_retry, mlflow_runs
from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.mlflow_runs import FORM_TAG, FRONT_TAG, SWEEP_TAG, TRIAL_TAG, SweepRuns
from sweeps.progress.mlflow_store import default_tracking_uri, reroot, sqlite_file, tracking_uri_in
from sweeps.run_folder.layout import ERROR_FILE
from sweeps.run_folder.masking import masked_address
from sweeps.run_folder.model_id import ModelId

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


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that holds MLflow's tables: making them takes over a second."""
    run_folder = tmp_path_factory.mktemp("store") / "runs" / "any"
    Tracker.start({}, run_folder=run_folder, tracking_uri=None, experiment="unused")
    return run_folder.parent / "mlflow.db"


@pytest.fixture
def run_folder(tmp_path: Path, empty_store: Path) -> Path:
    folder = tmp_path / "runs" / "quick-1"
    folder.mkdir(parents=True)
    shutil.copy(empty_store, folder.parent)
    return folder


@pytest.fixture
def client(run_folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=default_tracking_uri(run_folder))


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


def test_a_finished_trial_becomes_a_nested_run_with_parameters_curve_and_final_numbers(
    run_folder: Path, client: Any
) -> None:
    tracker = start(run_folder)
    abroad = {"../a/./x.json": {"data_hash": "abc", "quality": {"em_percent": 30.0}}}
    tracker.trial_ended(record("t0", cross_domain=abroad))
    run = children(client, tracker)["t0"]
    assert run.info.status == "FINISHED"
    assert points(client, run, "cross_domain..._a_._x.json.quality.em_percent") == [(400, 30.0)]
    assert run.info.end_time - run.info.start_time == 77_000
    assert run.data.tags["status"] == "ok"
    settings = {"model.family": "bert", "methods.lora.rank": "8", "train.rungs": "[100]"}
    assert run.data.params == {**settings, "family": "bert", "methods": "lora", "rank": "8"}
    assert points(client, run, "selection_em_percent") == [(100, 20.0), (400, 41.0)]
    assert points(client, run, "train_loss") == [(100, 2.5), (400, 1.0)]
    assert points(client, run, "artifact_bytes") == [(400, 4_000_000.0)]
    assert run.data.metrics["em_percent"] == 40.0
    assert run.data.metrics["latency_p50_ms"] == 3.5
    # The last rung's prediction and the measured artifact share a step; the measurement is the later one.
    assert points(client, run, "memory_mb") == [(100, 12.5), (400, 12.5), (400, 12.75)]
    assert run.data.metrics["memory_mb"] == 12.75


@pytest.mark.parametrize(
    ("status", "ended"), [("ok", "FINISHED"), ("stopped", "KILLED"), ("failed", "FAILED"), ("oom", "FAILED")]
)
def test_each_status_of_a_record_has_its_run_status_and_its_tags(
    run_folder: Path, client: Any, status: str, ended: str
) -> None:
    tracker = start(run_folder)
    tracker.trial_ended(record("t0", status))
    run = children(client, tracker)["t0"]
    assert (run.info.status, run.data.tags["status"]) == (ended, status)
    assert run.data.tags.get("reason") == (None if status == "ok" else f"why it was {status}")


def test_the_run_of_a_paused_trial_is_closed_and_opened_again_with_it(run_folder: Path, client: Any) -> None:
    tracker = start(run_folder)
    for trial in ("t0", "t1"):
        tracker.trial_started(trial)
        tracker.trial_reported(trial, progress(100, 20.0))
        tracker.trial_paused(trial, 100, "at the score of no answer")
    run = children(client, tracker)["t0"]
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "paused")
    assert run.data.tags["reason"] == "paused: at the score of no answer"
    tracker.trial_started("t0")
    run = children(client, tracker)["t0"]
    assert (run.info.status, run.data.tags["status"]) == ("RUNNING", "running")
    tracker.trial_ended(record("t0"))
    tracker.finish("finished")
    found = {trial: run.data.tags["status"] for trial, run in children(client, tracker).items()}
    assert found == {"t0": "ok", "t1": "paused"}
    assert tracker.failures == 0


def test_a_pause_that_mlflow_does_not_take_is_mirrored_at_the_end_or_when_the_sweep_is_resumed(
    run_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = [progress(100, 20.0), progress(300, 21.0)]
    first = start(run_folder, notify=[].append)
    with monkeypatch.context() as down:
        down.setattr(mlflow_retry, "ATTEMPTS", 1)
        down.setattr(SweepRuns, "open_child", failing(OSError("refused"), times=100)[0])
        for trial in ("t0", "t1", "t2"):
            first.trial_started(trial)
            for report in curve:
                first.trial_reported(trial, report)
            first.trial_paused(trial, 300, "as asked")
    assert children(client, first) == {}
    first.trial_ended(record("t2"))  # which makes up for its pause
    first.finish("interrupted")
    found = children(client, first)
    assert {trial: run.data.tags["status"] for trial, run in found.items()} == {
        "t0": "paused",
        "t1": "paused",
        "t2": "ok",
    }
    assert [step for step, _ in points(client, found["t0"], "selection_em_percent")] == [100, 300]

    second = start(run_folder, parent_run_id=first.parent_run_id)
    logged: list[str] = []
    genuine = SweepRuns.log_curve
    monkeypatch.setattr(
        SweepRuns, "log_curve", lambda self, trial, seen: (logged.append(trial), genuine(self, trial, seen))
    )
    second.catch_up([record("t2")], {"t0": curve, "t3": curve})  # its driver was killed before it wrote t3
    assert logged == ["t3"]
    run = children(client, second)["t3"]
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "paused")
    assert [step for step, _ in points(client, run, "selection_em_percent")] == [100, 300]


def test_full_fine_tuning_is_a_parameter_that_is_set_once(run_folder: Path, client: Any) -> None:
    tracker = start(run_folder)
    ended = record("t0", config={"model": {"family": "bert"}, "methods": {}, "seed": 3})
    for _ in range(2):
        tracker.trial_ended(ended)
    assert tracker.failures == 0
    assert children(client, tracker)["t0"].data.params == {
        "model.family": "bert",
        "family": "bert",
        "methods": "full",
        "seed": "3",
    }


def test_live_reports_and_a_repeated_record_double_nothing(run_folder: Path, client: Any) -> None:
    tracker = start(run_folder)
    tracker.trial_reported("t0", progress(100, 20.0))
    assert children(client, tracker)["t0"].info.status == "RUNNING"
    tracker.trial_ended(record("t0"))
    tracker.trial_ended(record("t0"))
    run = children(client, tracker)["t0"]
    assert points(client, run, "selection_em_percent") == [(100, 20.0), (400, 41.0)]
    assert points(client, run, "em_percent") == [(400, 40.0)]


def test_a_sweep_that_was_refused_leaves_no_run(run_folder: Path, client: Any) -> None:
    tracker = start(run_folder)
    assert tracker.parent_run_id is not None
    experiment = client.get_run(tracker.parent_run_id).info.experiment_id
    other = start(run_folder)
    tracker.withdraw()
    assert [run.info.run_id for run in client.search_runs([experiment])] == [other.parent_run_id]
    assert tracker.failures == 0


def test_a_resumed_sweep_goes_on_with_its_parent_and_finds_its_children(
    run_folder: Path, client: Any
) -> None:
    first = start(run_folder)
    first.trial_ended(record("t0"))
    first.log_front([], 0.5, [ModelId("t0")], spent_examples=300)
    first.finish("interrupted")
    assert client.get_run(first.parent_run_id).info.status == "KILLED"
    second = start(run_folder, parent_run_id=first.parent_run_id)
    assert second.parent_run_id == first.parent_run_id
    assert client.get_run(first.parent_run_id).info.status == "RUNNING"
    second.trial_ended(record("t0"))
    second.trial_ended(record("t1"))
    second.log_front([], 0.6, [ModelId("t1")], spent_examples=300)
    runs = children(client, second)
    assert sorted(runs) == ["t0", "t1"]
    assert points(client, runs["t0"], "em_percent") == [(400, 40.0)]
    assert (FRONT_TAG in runs["t0"].data.tags, runs["t1"].data.tags[FRONT_TAG]) == (False, "true")


def test_the_front_is_on_the_parent_and_its_tag_on_exactly_its_trials(run_folder: Path, client: Any) -> None:
    tracker = start(run_folder)
    for trial_id in ("t0", "t1", "t2"):
        tracker.trial_ended(record(trial_id))
    plot = run_folder / "front.html"
    plot.write_text("<html>plot</html>")
    tracker.log_front([plot], 0.25, [ModelId("t0"), ModelId("t1")], spent_examples=300)
    tracker.log_front([plot], 0.5, [ModelId("t1"), ModelId("late")], spent_examples=300)
    tracker.trial_ended(record("late"))
    tags = {name: run.data.tags.get(FRONT_TAG) for name, run in children(client, tracker).items()}
    assert tags == {"t0": None, "t1": "true", "t2": None, "late": "true"}
    parent = client.get_run(tracker.parent_run_id)
    assert [value for _, value in points(client, parent, "hypervolume")] == [0.25, 0.5]
    assert [item.path for item in client.list_artifacts(parent.info.run_id, "front")] == ["front/front.html"]
    stored = list((run_folder.parent / "mlartifacts").rglob("front.html"))
    assert [path.read_text() for path in stored] == ["<html>plot</html>"]


def test_the_parent_carries_the_settings_and_the_end_of_the_sweep(run_folder: Path, client: Any) -> None:
    tracker = start(run_folder)
    tracker.front_changed([], 2.0, spent_examples=7)
    tracker.trial_reported("t0", progress(100, 20.0))
    tracker.finish("finished")
    parent = client.get_run(tracker.parent_run_id)
    assert parent.data.params == {"name": "quick", "budget.trials": "3", "seed": "4"}
    assert (parent.data.tags["sweep"], parent.data.tags["status"]) == ("quick", "finished")
    assert parent.info.status == "FINISHED"
    assert points(client, parent, "hypervolume") == [(7, 2.0)]
    left = children(client, tracker)["t0"]
    assert (left.info.status, left.data.tags["status"]) == ("KILLED", "interrupted")


def test_two_sweeps_of_one_folder_share_a_store_and_an_experiment(run_folder: Path, client: Any) -> None:
    other = run_folder.parent / "quick-2"
    first, second = start(run_folder), start(other)
    assert first.tracking_uri == second.tracking_uri
    assert first.parent_run_id != second.parent_run_id
    runs = [client.get_run(tracker.parent_run_id) for tracker in (first, second)]
    assert len({run.info.experiment_id for run in runs}) == 1
    assert sorted(path.name for path in run_folder.parent.iterdir()) == [
        "mlflow.db",
        "mlflow.lock",
        "quick-1",
    ]


def test_more_parameters_and_metrics_than_one_batch_takes_are_all_kept(run_folder: Path, client: Any) -> None:
    tracker = start(run_folder)
    config = {f"option_{index}": index for index in range(250)}
    cost = {f"number_{index}": float(index) for index in range(1100)}
    tracker.trial_ended(record("t0", config=config, cost=cost))
    run = children(client, tracker)["t0"]
    assert run.data.params == {name: str(value) for name, value in config.items()} | {"methods": "full"}
    assert {name: value for name, value in run.data.metrics.items() if name in cost} == cost


def test_texts_and_numbers_that_a_database_may_refuse_arrive(
    run_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, stored = "'quoted' \"\" ; -- %s \0 \udc80 名前 ü", "'quoted' \"\" ; -- %s \\x00 \\udc80 名前 ü"
    monkeypatch.setattr("sys.argv", ["/bin/qa-sweep", "run", "x" * 9000])
    spec = {"name": odd + "n" * 300, "long": "ü" * 7000, odd: odd}
    tracker = Tracker.start(
        spec, run_folder=run_folder, tracking_uri=None, experiment="qa", notify=pytest.fail
    )
    cost = {"nan": math.nan, "up": math.inf, "down": -math.inf, "large": 1e308, "small": 5e-324, "far": 2**62}
    ended = record(
        "t0",
        reason=odd + "r" * 9000,
        config={"data": {"train": odd + "d" * 900}},
        data={"train": {"data_hash": "a" * 50}},
        cost=cost,
        forms=[form("f" * 300, 40.0), form(odd, None, status="skipped", reason=odd)],
        finished_at="9999-12-31T00:00:00+00:00",
    )
    for _ in range(2):
        tracker.trial_ended(ended)
    tracker.finish("finished")
    assert tracker.failures == 0
    parent, run = client.get_run(tracker.parent_run_id), children(client, tracker)["t0"]
    assert parent.info.run_name == (stored + "n" * 300)[:250]
    assert parent.data.params["long"] == "ü" * 6000
    assert stored in parent.data.params.values()
    assert parent.data.tags["mlflow.source.name"] == ("qa-sweep run " + "x" * 9000)[:5000]
    assert run.data.tags["reason"] == (stored + "r" * 9000)[:5000]
    assert run.data.tags["forms_skipped"] == f"{stored}: {stored}"
    assert {
        name: value for name, value in run.data.metrics.items() if name.removeprefix("twin.") in cost
    } == {
        "twin.large": 1e308,
        "twin.small": 5e-324,
        "twin.far": float(2**62),
    }
    (data,) = parent.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ((stored + "d" * 900)[:500], "a" * 36)
    (stored_form,) = form_runs(client, tracker)
    assert stored_form == f"t0 {'f' * 300}"[:250]


# Stored forms: a run for each, below the run of its trial


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


def test_each_form_is_a_run_below_its_trial_and_has_the_final_numbers_alone(
    run_folder: Path, client: Any
) -> None:
    tracker = start(run_folder)
    tracker.trial_reported("t0", progress(100, 20.0))
    tracker.trial_ended(record("t0", forms=STORED))
    tracker.trial_ended(record("t1"))
    (trial, plain), runs = children(client, tracker).values(), form_runs(client, tracker)
    trial, plain = (trial, plain) if trial.info.run_name == "t0" else (plain, trial)
    assert sorted(runs) == ["t0 float32", "t0 int8", "t0 nf4"]
    assert len(all_runs(client, tracker)) == 1 + 2 + 3
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {trial.info.run_id}
    small = runs["t0 int8"]
    assert points(client, small, "em_percent") == [(400, 39.5)]
    assert points(client, small, "memory_mb") == [(400, 3.0)]
    assert small.data.metrics["against_twin.em_difference_percent"] == -0.5
    assert (small.info.status, small.data.tags["status"]) == ("FINISHED", "ok")
    assert (runs["t0 nf4"].info.status, runs["t0 nf4"].data.metrics) == ("FAILED", {})
    assert runs["t0 nf4"].data.tags["reason"] == "RuntimeError: no kernel"
    assert small.info.end_time - small.info.start_time == 77_000
    # The trial has its curve and what its twin came to, under other names.
    assert points(client, trial, "selection_em_percent") == [(100, 20.0), (400, 41.0)]
    assert points(client, trial, "memory_mb") == [(100, 12.5), (400, 12.5)]
    assert points(client, trial, "twin.em_percent") == [(400, 40.0)]
    assert not {"em_percent", "artifact_bytes", "latency_p50_ms"} & set(trial.data.metrics)
    scattered = [run for run in all_runs(client, tracker) if "em_percent" in run.data.metrics]
    assert sorted(run.info.run_name for run in scattered) == ["t0 float32", "t0 int8", "t1"]
    assert plain.data.metrics["em_percent"] == 40.0


def test_forms_and_plain_trials_share_the_names_of_short_parameters(run_folder: Path, client: Any) -> None:
    tracker = start(run_folder)
    tracker.trial_ended(record("t0", forms=STORED))
    tracker.trial_ended(record("t1"))
    runs = form_runs(client, tracker)
    shared = {"family": "bert", "methods": "lora", "rank": "8"}
    bits = {"bits": "8", "table_bits": "32", "form": "int8", "methods.quantize.bits": "8"}
    assert runs["t0 int8"].data.params == {**shared, **bits}
    assert runs["t0 float32"].data.params == {**shared, "bits": "32", "table_bits": "32", "form": "float32"}
    trials = children(client, tracker)
    assert trials["t1"].data.params.items() >= shared.items()
    # What tells trainings apart is on each run; what tells forms apart on theirs alone.
    assert trials["t0"].data.params.items() >= shared.items()
    assert not {"form", "bits", "table_bits"} & set(trials["t0"].data.params)


def test_the_front_is_tagged_by_form_and_a_resumed_sweep_doubles_no_run(
    run_folder: Path, client: Any
) -> None:
    first = start(run_folder)
    first.trial_ended(record("t0", forms=STORED))
    first.log_front([], 0.5, [ModelId("t0", "int8"), ModelId("t0", "float32")], spent_examples=300)
    first.finish("interrupted")
    before = {run.info.run_id for run in all_runs(client, first)}
    second = start(run_folder, parent_run_id=first.parent_run_id)
    second.trial_ended(record("t0", forms=STORED))
    second.log_front([], 0.6, [ModelId("t0", "int8"), ModelId("t1", "int8")], spent_examples=400)
    assert {run.info.run_id for run in all_runs(client, second)} == before
    second.trial_ended(record("t1", forms=[form("int8", 41.0)]))
    tags = {name: run.data.tags.get(FRONT_TAG) for name, run in form_runs(client, second).items()}
    assert tags == {"t0 float32": None, "t0 int8": "true", "t0 nf4": None, "t1 int8": "true"}
    assert all(FRONT_TAG not in run.data.tags for run in children(client, second).values())
    assert points(client, form_runs(client, second)["t0 int8"], "em_percent") == [(400, 39.5)]
    parent = client.get_run(second.parent_run_id)
    assert points(client, parent, "front_size") == [(300, 2.0), (400, 2.0)]


def test_a_trial_whose_forms_were_not_all_mirrored_is_mirrored_again(
    run_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, calls = SweepRuns._log_form, [0]

    def log_form(self: Any, *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise ValueError("the driver was killed here")
        genuine(self, *arguments)

    first = start(run_folder, notify=lambda text: None)
    with monkeypatch.context() as broken:
        broken.setattr(SweepRuns, "_log_form", log_form)
        first.trial_ended(record("t0", forms=STORED))
    assert children(client, first)["t0"].info.status == "RUNNING"
    second = start(run_folder, parent_run_id=first.parent_run_id)
    second.catch_up([record("t0", forms=STORED)])
    assert {run.info.status for run in form_runs(client, second).values()} == {"FINISHED", "FAILED"}
    assert len(form_runs(client, second)) == 3
    assert children(client, second)["t0"].info.status == "FINISHED"


def test_forms_that_were_made_later_join_a_mirrored_trial_whose_own_run_stands_for_its_twin(
    run_folder: Path, client: Any
) -> None:
    first = start(run_folder)
    for name in ("t0", "t1"):
        first.trial_ended(record(name))
    first.log_front([], 0.5, [ModelId("t0"), ModelId("t1")], spent_examples=300)
    first.finish("finished")
    later = record(
        "t0", forms=[form("int8", 39.5, 3.0), form("nf4", None), form("as-trained", 40.0, settings={})]
    )
    on_front = [ModelId("t0", "int8"), ModelId("t0", "as-trained")]
    for _ in range(2):  # resumed twice
        second = start(run_folder, parent_run_id=first.parent_run_id)
        second.catch_up([later, record("t1")])
        second.log_front([], 0.6, on_front, spent_examples=300)
        second.finish("finished")
        assert sorted(form_runs(client, second)) == ["t0 int8", "t0 nf4"]
        scattered = [run for run in all_runs(client, second) if "em_percent" in run.data.metrics]
        assert sorted(run.info.run_name for run in scattered) == ["t0", "t0 int8", "t1"]
        tagged = [run.info.run_name for run in all_runs(client, second) if FRONT_TAG in run.data.tags]
        assert sorted(tagged) == ["t0", "t0 int8"]
    twin = children(client, second)["t0"]
    assert not [name for name in twin.data.metrics if name.startswith("twin.")]
    assert twin.info.status == "FINISHED"


def test_a_resumed_sweep_reads_a_database_s_tables_and_knows_what_a_search_finds(
    run_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search returns every run with all of its numbers: over a minute for 10,000 stored forms."""
    first = start(run_folder)
    for name in ("t0", "t1", "t2"):
        first.trial_ended(record(name, forms=STORED if name != "t2" else None))
    for name in ("t3", "t4", "t5"):
        first.trial_started(name)
    first.trial_paused("t4", 100, "as asked")
    first.log_front([], 0.5, [ModelId("t0", "int8")], spent_examples=300)
    client.delete_run(children(client, first)["t5"].info.run_id)
    with monkeypatch.context() as tables_alone:
        tables_alone.setattr(
            type(client), "search_runs", lambda *arguments, **options: pytest.fail("it was searched")
        )
        second = start(run_folder, parent_run_id=first.parent_run_id)
    with monkeypatch.context() as as_on_a_server:
        as_on_a_server.setattr(mlflow_runs, "stored_runs", lambda *arguments, **options: None)
        third = start(run_folder, parent_run_id=first.parent_run_id)
    read, searched = second._runs, third._runs
    assert read is not None
    assert searched is not None
    assert len(read._children) == 5 + 2 * len(STORED)
    assert read._children.items() > searched._children.items()
    assert read._started_ms.items() > searched._started_ms.items()
    for known in ("_running", "_paused", "_front", "_ended", "_has_finals"):
        assert getattr(read, known) == getattr(searched, known), known
        assert getattr(read, known)
    assert not read._unread


def test_a_resumed_sweep_reads_of_a_server_the_runs_of_trials_and_of_the_front_alone_and_knows_all_others(
    run_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_runs, "stored_runs", lambda *arguments, **options: None)
    first = start(run_folder)
    for name in ("t0", "t1", "t2"):
        first.trial_ended(record(name, forms=STORED if name != "t2" else None))
    first.trial_started("t3")
    first.log_front([], 0.5, [ModelId("t0", "int8")], spent_examples=300)
    first.finish("interrupted")
    before = {run.info.run_id for run in all_runs(client, first)}
    second = start(run_folder, parent_run_id=first.parent_run_id)
    assert second._runs is not None
    assert set(second._runs._children) == {*map(ModelId, ("t0", "t1", "t2", "t3")), ModelId("t0", "int8")}
    with monkeypatch.context() as nothing_is_left:
        nothing_is_left.setattr(
            SweepRuns, "log_record", lambda *arguments: pytest.fail("it was written again")
        )
        second.catch_up([record(name, forms=STORED if name != "t2" else None) for name in ("t0", "t1", "t2")])
    second.log_front([], 0.6, [ModelId("t1", "int8"), ModelId("t2")], spent_examples=300)
    tagged = {run.info.run_name for run in all_runs(client, second) if FRONT_TAG in run.data.tags}
    assert tagged == {"t1 int8", "t2"}
    second.trial_ended(record("t1", forms=STORED))
    assert {run.info.run_id for run in all_runs(client, second)} == before
    # The runs of an older version do not say which forms a trial has: all are read.
    client.delete_tag(children(client, second)["t1"].info.run_id, "qa.forms")
    third = start(run_folder, parent_run_id=first.parent_run_id)
    assert third._runs is not None
    assert len(third._runs._children) == 4 + 3 + 3
    assert third._runs.holds("t1", record("t1", forms=STORED))


def test_a_form_that_failed_and_was_made_again_is_mirrored_again(run_folder: Path, client: Any) -> None:
    first = start(run_folder)
    first.trial_ended(record("t0", forms=[form("int8", None)]))
    second = start(run_folder, parent_run_id=first.parent_run_id)
    second.catch_up([record("t0", forms=[form("int8", 39.5)])])
    run = form_runs(client, second)["t0 int8"]
    assert (run.info.status, run.data.tags["status"], "reason" in run.data.tags) == ("FINISHED", "ok", False)
    assert points(client, run, "em_percent") == [(400, 39.5)]


def test_a_form_that_was_skipped_has_no_run_and_is_named_on_its_trials(run_folder: Path, client: Any) -> None:
    tracker = start(run_folder)
    skipped = form("int4", None, status="skipped", reason="6.1 MB is more than 4 MB")
    forms = [form("int8", 39.5), skipped]
    tracker.trial_ended(record("t0", forms=forms))
    tracker.finish("finished")
    assert sorted(form_runs(client, tracker)) == ["t0 int8"]
    assert children(client, tracker)["t0"].data.tags["forms_skipped"] == "int4: 6.1 MB is more than 4 MB"
    again = start(run_folder, parent_run_id=tracker.parent_run_id)
    assert again._runs is not None
    assert again._runs.holds("t0", record("t0", forms=forms))  # nothing is left to write
    assert not again._runs.holds("t0", record("t0", forms=[form("int8", 39.5), form("int4", 30.0)]))


def test_the_benchmark_writes_a_run_for_each_trial_and_form_and_tags_its_front(
    run_folder: Path, client: Any
) -> None:
    tracker = mirror.write(run_folder, None, 2, 3)
    assert sorted(children(client, tracker)) == ["t0000", "t0001"]
    assert sorted(form_runs(client, tracker)) == [f"t{n:04d} int{bits}" for n in (0, 1) for bits in (3, 4, 5)]
    assert all(FRONT_TAG in run.data.tags for run in form_runs(client, tracker).values())


# What MLflow's own pages show


OBJECTIVES = [{"name": "em_percent", "goal": "max"}, {"name": "memory_mb", "goal": "min"}]
FRONT = [
    {
        "trial_id": "t1",
        "form": None,
        "em_percent": 41.0,
        "memory_mb": 12.75,
        "family": "bert",
        "methods": "full",
    },
    {
        "trial_id": "t0",
        "form": "int8",
        "em_percent": 39.5,
        "memory_mb": 3.0,
        "family": "t5",
        "methods": "lora",
    },
]


def test_the_parent_tells_what_was_asked_and_its_front_while_the_sweep_runs(
    run_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/qa-sweep", "run", "--quiet"])
    spec = {**SPEC, "objectives": OBJECTIVES, "recipe": {"data": {"train": "my.json"}}}
    tracker = Tracker.start(
        spec, run_folder=run_folder, tracking_uri=None, experiment="qa", notify=pytest.fail
    )
    assert tracker.parent_run_id is not None
    tags = client.get_run(tracker.parent_run_id).data.tags
    assert tags["mlflow.source.type"] == "LOCAL"
    assert "qa-sweep run --quiet" in tags["mlflow.source.name"]
    text = tags["mlflow.note.content"]
    for words in (
        "most em_percent, least memory_mb",
        "budget.trials: 3",
        "`my.json`",
        f"Folder: `{run_folder}`",
    ):
        assert words in text, words
    assert "No model has been trained to its end yet." in text
    tracker.trial_ended(record("t1"))
    tracker.trial_ended(record("t0", forms=STORED))
    tracker.front_changed(FRONT, 2.5, spent_examples=700)
    parent = client.get_run(tracker.parent_run_id)
    text = parent.data.tags["mlflow.note.content"]
    assert "| t1 | 41.00 | 12.75 | bert | full |\n| t0 int8 | 39.50 | 3.00 | t5 | lora |" in text
    assert "Best values on it: em_percent 41.00, memory_mb 3.00." in text
    assert f"export {run_folder} --trial t1 --to {run_folder}-model" in text
    assert points(client, parent, "best.memory_mb") == [(700, 3.0)]
    assert points(client, parent, "front_size") == [(700, 2.0)]
    tagged = {run.info.run_name for run in all_runs(client, tracker) if FRONT_TAG in run.data.tags}
    assert tagged == {"t1", "t0 int8"}


def test_the_parent_names_each_set_of_data_once(run_folder: Path, client: Any) -> None:
    tracker = start(run_folder)
    data = {"train": {"data_hash": "a" * 40}, "evaluation": {"data_hash": "b" * 12}}
    config = {"data": {"train": "train.json", "evaluation": "dev.json"}}
    for trial in ("t0", "t1"):
        tracker.trial_ended(record(trial, data=data, config=config))
    assert tracker.failures == 0
    found = client.get_run(tracker.parent_run_id).inputs.dataset_inputs
    named = {(item.dataset.name, item.dataset.digest, item.tags[0].value) for item in found}
    assert named == {("train.json", "a" * 36, "training"), ("dev.json", "b" * 12, "evaluation")}
    assert len(found) == 2


def test_the_experiment_opens_on_training_and_has_a_view_of_each_sweeps_models_alone(
    run_folder: Path, client: Any
) -> None:
    spec = {**SPEC, "objectives": OBJECTIVES}
    trackers = []
    for name in ("quick-1", "quick-2"):
        folder = run_folder.with_name(name)
        folder.mkdir(exist_ok=True)
        tracker = Tracker.start(
            spec, run_folder=folder, tracking_uri=None, experiment="qa", notify=pytest.fail
        )
        tracker.trial_ended(record("t0", forms=STORED))
        tracker.trial_ended(record("t1"))
        tracker.trial_ended(record("t2", "failed"))
        trackers.append(tracker)
    first = trackers[0]
    assert first.scatter_page is not None
    experiment = client.get_experiment(client.get_run(first.parent_run_id).info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{first.scatter_page.rpartition('=')[2]}"])
    (chart,) = view["compareRunCharts"]
    assert [section["columns"] for section in view["compareRunSections"]] == [1]
    assert (chart["xaxis"]["key"], chart["yaxis"]["key"]) == ("memory_mb", "em_percent")
    shown = client.search_runs([experiment.experiment_id], view["searchFilter"])
    assert sorted(run.info.run_name for run in shown) == ["t0 float32", "t0 int8", "t1"]
    assert {run.data.tags[SWEEP_TAG] for run in shown} == {first.parent_run_id}


def test_a_folder_that_was_moved_or_copied_has_its_own_artifacts(run_folder: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.tracking._tracking_service import utils as tracking_service

    tracker = start(run_folder)
    plot = run_folder / "front.csv"
    plot.write_text("first")
    tracker.log_front([plot], 0.5, [], spent_examples=1)
    tracker.finish("finished")
    copied, moved = tmp_path / "copy of runs", tmp_path / "deep" / "moved"
    shutil.copytree(run_folder.parent, copied)
    moved.parent.mkdir()
    run_folder.parent.rename(moved)
    assert tracker.parent_run_id is not None
    for place in (copied, moved):
        assert reroot(place) == 4  # of two experiments with a run each: one came with the store
        assert reroot(place) == 0
        client = MlflowClient(tracking_uri=tracking_uri_in(place))
        (own,) = place.rglob("mlartifacts/**/front.csv")
        own.write_text(f"in {place.name}")
        found = Path(client.download_artifacts(tracker.parent_run_id, "front/front.csv"))
        assert found.read_text() == f"in {place.name}"
    # A sweep that goes on there, in another process, writes there.
    tracking_service._artifact_repos_cache.clear()
    again = start(moved / "quick-1", parent_run_id=tracker.parent_run_id)
    (moved / "quick-1" / "front.csv").write_text("second")
    again.log_front([moved / "quick-1" / "front.csv"], 0.5, [], spent_examples=2)
    assert (again.failures, run_folder.parent.exists()) == (0, False)
    assert [path.read_text() for path in moved.rglob("mlartifacts/**/front.csv")] == ["second"]


def test_artifacts_in_another_place_than_beside_the_store_stay_where_they_are(
    run_folder: Path, tmp_path: Path, client: Any
) -> None:
    client.create_experiment("elsewhere", artifact_location="s3://bucket/mlartifacts")
    client.create_experiment("other", artifact_location=(tmp_path / "own").as_uri())
    assert reroot(run_folder.parent) > 0  # those of the folder that the store was copied from
    kept = {client.get_experiment_by_name(name).artifact_location for name in ("elsewhere", "other")}
    assert kept == {"s3://bucket/mlartifacts", (tmp_path / "own").as_uri()}


def test_what_is_no_store_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"mlflow\.db: found no such file"):
        reroot(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(b"garbage " * 1000)
    with pytest.raises(StorageError, match="cannot be used as a store of MLflow: file is not a database"):
        reroot(tmp_path)


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


def test_a_resumed_sweep_whose_server_was_down_is_mirrored_once_it_is_back(
    run_folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(run_folder)
    for name in ("t0", "t1", "t2"):
        first.trial_started(name)
    first.trial_ended(record("t0"))
    first.finish("interrupted")  # closes the runs of t1 and t2, whose trials go on

    notes: list[str] = []
    with monkeypatch.context() as down:
        down.setattr(SweepRuns, "open", failing(OSError("refused"), times=100)[0])
        down.setattr(mlflow_retry, "ATTEMPTS", 1)
        second = start(run_folder, parent_run_id=first.parent_run_id, notify=notes.append)
        second.catch_up([record("t0")])
        second.trial_ended(record("t1"))
        assert (second.parent_run_id, len(notes)) == (None, 1)
    second.finish("finished")
    statuses = {name: run.info.status for name, run in children(client, second).items()}
    assert statuses == {"t0": "FINISHED", "t1": "FINISHED", "t2": "KILLED"}

    third = start(run_folder, parent_run_id=first.parent_run_id)
    logged: list[str] = []
    monkeypatch.setattr(SweepRuns, "log_record", lambda self, trial_id, item: logged.append(trial_id))
    third.catch_up([record(name) for name in ("t0", "t1", "t2", "t3")])
    assert logged == ["t2", "t3"]  # what MLflow has whole is not written again


@pytest.mark.long
def test_starting_leaves_nothing_in_the_working_folder_and_prints_nothing(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from sweeps.progress import mlflow_mirror; "
        "from sweeps.progress.mlflow_mirror import Tracker; "
        "mlflow_mirror.SLOW_SECONDS = 600; "  # a busy machine takes long to make the tables, and is told so
        "t = Tracker.start({'name': 'a'}, run_folder=Path('runs/a'), tracking_uri=None, experiment='qa'); "
        "t.finish('finished')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_mlflow_is_silenced_to_warnings(run_folder: Path) -> None:
    start(run_folder)
    assert [logging.getLogger(name).level for name in ("mlflow", "alembic")] == [logging.WARNING] * 2


def test_a_folder_whose_name_means_something_in_an_address_has_its_store_beside_it(
    tmp_path: Path, empty_store: Path
) -> None:
    for name in ("a %41", "b#c?d=1", "ü @:e"):
        root = tmp_path / name
        (root / "run").mkdir(parents=True)
        shutil.copy(empty_store, root / "mlflow.db")
        tracker = start(root / "run")
        assert tracker.parent_run_id is not None
        assert sqlite_file(tracker.tracking_uri) == root / "mlflow.db"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a %41", "b#c?d=1", "ü @:e"]


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


@pytest.mark.parametrize("former", ["0" * 32, "no id"])
def test_a_run_that_the_store_does_not_know_is_replaced_by_a_new_mirror(
    former: str, run_folder: Path, client: Any
) -> None:
    notes: list[str] = []
    tracker = start(run_folder, parent_run_id=former, notify=notes.append)
    assert tracker.parent_run_id not in (None, former)
    tracker.catch_up([record("t0"), record("t1", "failed")])
    assert sorted(children(client, tracker)) == ["t0", "t1"]
    assert notes == [
        f"MLflow: the sweep's former run is not in {masked_address(tracker.tracking_uri)}; "
        "it is mirrored into a new one"
    ]
