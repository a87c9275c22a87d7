"""Which files of its trials a driver keeps, and how much they may hold."""

from pathlib import Path

import pytest

from tests.sweeps.trials.toy_driver import (
    begin,
    pausing_driver,
    report_at,
    rung_report,
    toy_driver,
    trial_with_files,
)

pytestmark = pytest.mark.usefixtures("toy_registry")


def test_only_artifacts_that_can_be_chosen_and_no_checkpoint_of_an_ended_trial_stay(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    first, worse, best = (trial_with_files(driver, em) for em in (20.0, 10.0, 30.0))
    left = {folder.name: sorted(item.name for item in folder.iterdir()) for folder in (first, worse, best)}
    assert left == {
        "t0000": ["answers.parquet"],  # beaten later
        "t0001": ["answers.parquet"],
        "t0002": ["answers.parquet", "artifact"],
    }
    assert [record.artifact for record in driver.records] == [
        f"trials/t000{index}/artifact" for index in range(3)
    ]
    assert driver.files.used_bytes([]) == 1030


def test_all_artifacts_stay_where_that_is_asked_for(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run", budget={"trials": 2, "examples": 900, "keep_artifacts": "all"})
    for folder in [trial_with_files(driver, em) for em in (20.0, 10.0)]:
        assert sorted(item.name for item in folder.iterdir()) == ["answers.parquet", "artifact"]


def test_what_a_killed_driver_did_not_remove_is_removed_when_the_sweep_goes_on(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    kept, beaten = trial_with_files(driver, 20.0), trial_with_files(driver, 10.0)
    running = Path(driver.propose().folder)
    for folder in (kept, beaten, running):
        for name in ("checkpoint", "artifact"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    toy_driver(tmp_path / "run")
    found = [
        [name for name in ("checkpoint", "artifact") if (folder / name).exists()] for folder in (kept, beaten)
    ]
    assert found == [["artifact"], []]
    assert (running / "checkpoint").exists()


def test_a_sweep_whose_trials_hold_more_than_they_may_ends_and_goes_on_with_more(tmp_path: Path) -> None:
    budget = {"trials": 8, "examples": 900, "max_disk_gb": 3e-6}  # 3,000 bytes
    driver = toy_driver(tmp_path / "run", budget=budget)
    trial_with_files(driver, 20.0)
    assert driver.ended_by is None
    running = driver.propose()
    driver.started(running.trial_id)
    (Path(running.folder) / "checkpoint").mkdir(parents=True)
    (Path(running.folder) / "checkpoint" / "weights").write_bytes(bytes(2500))
    driver.reported(running.trial_id, rung_report(100), is_stopped=False)
    assert driver.ended_by is not None
    assert driver.ended_by.startswith("the trials' files hold 3.51e-06 GB (budget.max_disk_gb: 3e-06); ")
    assert driver.pause_file.exists()
    assert driver.propose() is None

    assert toy_driver(tmp_path / "run", budget=budget).ended_by is not None
    more = toy_driver(tmp_path / "run", budget={**budget, "max_disk_gb": 1.0})
    assert (more.ended_by, more.propose().trial_id) == (None, running.trial_id)


def test_above_the_disk_limit_the_worst_paused_trials_are_stopped_before_the_sweep_ends(
    tmp_path: Path,
) -> None:
    driver = pausing_driver(tmp_path / "run", max_disk_gb=4.5e-6)
    running = [begin(driver) for _ in range(4)]  # 1,000 bytes each
    for trial_id, loss in zip(running[:2], (1.0, 2.0), strict=True):
        driver.reported(trial_id, rung_report(104, 5.0), is_stopped=False)
        report_at(driver, trial_id, 304, 5.0, gain=1.0, loss=loss)
    assert (driver.records, list(driver.paused)) == ([], ["t0000", "t0001"])
    (tmp_path / "run/trials/t0003/checkpoint/weights").write_bytes(bytes(2000))
    report_at(driver, running[2], 104, 90.0)  # waits on the front of its rung, and is never given up
    (record,) = driver.records
    assert (record.trial_id, record.status) == ("t0001", "stopped")  # not yet t0000, of the lower loss
    assert record.reason == (
        "stopped at 304 examples, where it was paused, for its disk space (budget.max_disk_gb: 4.5e-06)"
    )
    assert not (tmp_path / "run/trials/t0001/checkpoint").exists()
    assert (driver.ended_by, list(driver.paused)) == (None, ["t0000", "t0002"])
    (tmp_path / "run/trials/t0003/checkpoint/more").write_bytes(bytes(3000))
    driver.reported(running[3], rung_report(104, 5.0), is_stopped=False)
    assert [record.trial_id for record in driver.records] == ["t0001", "t0000"]
    assert list(driver.paused) == ["t0002"]
    assert driver.ended_by.startswith("the trials' files hold")
