"""What MLflow's own pages show of a sweep: notes, data sets, and the view of its models."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.mlflow_runs import FRONT_TAG, SWEEP_TAG
from tests.sweeps.progress.mirrored import OBJECTIVES, SPEC, STORED, all_runs, points, record, start

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
