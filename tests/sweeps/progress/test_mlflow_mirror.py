"""The tracker against a real SQLite store: the run of a sweep, and those of its trials."""

import logging
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.mlflow_runs import FRONT_TAG
from sweeps.progress.mlflow_store import sqlite_file
from sweeps.run_folder.model_id import ModelId
from tests.sweeps.progress.mirrored import children, form, form_runs, points, progress, record, start


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
