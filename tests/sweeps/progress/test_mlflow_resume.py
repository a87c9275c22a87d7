"""A resumed sweep and its mirror: what it reads of former runs, and what it makes good."""

from pathlib import Path
from typing import Any

import pytest

from sweeps.progress import mlflow_retry, mlflow_runs
from sweeps.progress.mlflow_runs import FRONT_TAG, SweepRuns
from sweeps.run_folder.masking import masked_address
from sweeps.run_folder.model_id import ModelId
from tests.sweeps.progress.mirrored import (
    STORED,
    all_runs,
    children,
    failing,
    points,
    progress,
    record,
    start,
)


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
