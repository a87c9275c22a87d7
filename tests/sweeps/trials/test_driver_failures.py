"""Failing trials, dead or hanging workers, refusing nodes and a full disk: what a driver makes of them."""

from pathlib import Path

import pytest

from sweeps.run_folder.layout import HANG_FILE, OUTCOME_FILE
from tests.sweeps.trials.toy_driver import fail, rung_report, toy_driver

pytestmark = pytest.mark.usefixtures("toy_registry")


def test_a_node_that_refuses_its_trial_ends_the_sweep_and_spends_no_trial(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    driver.propose()
    driver.started("t0000")
    driver.refuse("node ab sees no data")
    driver.refuse("node cd sees no data")
    assert (driver.unfinished(), driver.counts(), driver.fault) == (1, {}, None)
    assert driver.propose() is None
    assert driver.pause_file.exists()  # others write checkpoints
    assert str(driver.refused).startswith("node ab sees no data; trials that ended are kept")
    assert toy_driver(tmp_path / "run").propose().trial_id == "t0000"


def test_trials_in_a_row_that_fail_alike_end_the_sweep_with_their_error(tmp_path: Path) -> None:
    """Numbers and paths do not make errors differ; another ending in between starts the count anew."""
    driver = toy_driver(tmp_path / "run", budget={"trials": 9, "examples": 900, "max_same_failures": 3})
    fail(driver, "Traceback\nRuntimeError: expected 3 at /a/b")
    fail(driver, "Traceback\nRuntimeError: expected 4 at /a/c")
    fail(driver, "Traceback\nValueError: other")
    fail(driver, "Traceback\nRuntimeError: expected 5 at /a/c")
    fail(driver, "Traceback\nRuntimeError: expected 6 at /a/c")
    assert driver.ended_by is None
    assert not driver.pause_file.exists()
    fail(driver, "Traceback\nRuntimeError: expected 7 at /a/c")
    assert driver.ended_by == (
        "3 trials in a row failed alike (budget.max_same_failures): RuntimeError: expected 7 at /a/c"
    )
    assert driver.pause_file.exists()
    assert driver.propose() is None
    again = toy_driver(tmp_path / "run", budget={"trials": 9, "examples": 900})
    assert not again.pause_file.exists()
    assert again.propose().trial_id == "t0006"


def test_a_full_disk_ends_the_sweep_and_leaves_the_trial_open(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    driver.propose()
    driver.started("t0000")
    driver.ended(
        "t0000", {}, "StorageError: x/checkpoint: cannot be written: [Errno 28] No space left on device"
    )
    assert driver.fault is not None
    assert "trial t0000: StorageError: x/checkpoint" in str(driver.fault)
    assert (driver.propose(), driver.records, driver.unfinished()) == (None, [], 1)
    assert toy_driver(tmp_path / "run").propose().trial_id == "t0000"


def test_a_trial_whose_worker_died_goes_on_from_what_it_reported_and_only_so_often(tmp_path: Path) -> None:
    budget = {"trials": 2, "examples": 900, "max_lost_workers": 2}
    driver = toy_driver(tmp_path / "run", budget=budget)
    task = driver.propose()
    driver.started("t0000")
    driver.reported("t0000", rung_report(100), is_stopped=False)
    driver.lost("t0000", "The actor is dead because its worker process has died", is_own=True)
    assert (driver.records, driver.running, driver.unfinished()) == ([], {}, 1)

    again = driver.propose()
    assert (again.trial_id, again.recipe, again.reported_examples) == ("t0000", task.recipe, 100)
    assert driver.propose().trial_id == "t0001"
    assert driver.propose() is None  # the budget's two are out
    driver.started("t0000")
    driver.lost("t0000", "The actor is dead because its worker process has died", is_own=True)
    assert driver.propose().trial_id == "t0000"
    driver.started("t0000")
    driver.lost("t0000", "The actor is dead because its worker process has died", is_own=True)
    assert driver.propose() is None
    (record,) = driver.records
    assert (record.status, record.starts, record.examples_seen) == ("failed", 3, 100)
    assert record.reason == "its worker died, after 2 (budget.max_lost_workers) before"
    assert "its worker process has died" in record.traceback


def test_a_worker_that_was_ended_for_hanging_is_named_so_and_in_the_end_the_record_says_where(
    tmp_path: Path,
) -> None:
    driver = toy_driver(
        tmp_path / "run", budget={"trials": 1, "examples": 900, "max_lost_workers": 1, "hang_minutes": 2.5}
    )
    folder = Path(driver.propose().folder)
    folder.mkdir(parents=True)
    stacks = (
        "Timeout (0:02:30)!\nThread 0x1 (most recent call first):\n"
        '  File "/x/qa_core/training/train.py", line 9 in train\n'
    )
    for _ in range(2):
        driver.started("t0000")
        (folder / HANG_FILE).write_text(stacks)
        driver.lost("t0000", "The actor is dead because its worker process has died", is_own=True)
        driver.propose()
    where = "it did nothing for more than 2.5 min (budget.hang_minutes) at train.py:9, in train"
    assert driver.observers[0].named("note") == [(f"t0000: {where} (1 of 1 times); it resumes",)]
    (record,) = driver.records
    assert (record.status, record.starts) == ("failed", 2)
    assert record.reason == f"{where}, after 1 (budget.max_lost_workers) before"
    assert record.traceback.startswith(stacks)


def test_lost_nodes_do_not_count_against_the_limit_of_a_trial(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run", budget={"trials": 1, "examples": 900, "max_lost_workers": 0})
    for _ in range(5):
        assert driver.propose().trial_id == "t0000"
        driver.started("t0000")
        driver.lost("t0000", "The actor is unavailable: RPC error: Socket closed", is_own=False)
    assert (driver.records, driver.unfinished()) == ([], 1)


def test_a_worker_that_died_after_the_end_of_its_trial_does_not_undo_it(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    failed, stopped = driver.propose(), driver.propose()
    for task in (failed, stopped):
        driver.started(task.trial_id)
    Path(failed.folder).mkdir(parents=True)
    note = '{"status": "oom", "reason": "full", "traceback": "y", "node": "ab12"}'
    (Path(failed.folder) / OUTCOME_FILE).write_text(note)
    driver.reported(stopped.trial_id, rung_report(300), is_stopped=True)
    for task in (failed, stopped):
        driver.lost(task.trial_id, "The actor died", is_own=True)
    assert [(record.status, record.starts) for record in driver.records] == [("oom", 1), ("stopped", 1)]
    assert [record.provenance["node"] for record in driver.records] == ["ab12", None]
