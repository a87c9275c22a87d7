"""Stored forms: a run for each, below the run of its trial."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import mirror
from sweeps.progress.mlflow_runs import FRONT_TAG, SweepRuns
from sweeps.run_folder.model_id import ModelId
from tests.sweeps.progress.mirrored import (
    STORED,
    all_runs,
    children,
    form,
    form_runs,
    points,
    progress,
    record,
    start,
)


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
