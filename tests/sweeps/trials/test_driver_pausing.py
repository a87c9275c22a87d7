"""Trials that wait at a rung: who goes on, and what the examples of a budget still pay for."""

from pathlib import Path

import pytest

from sweeps.run_folder import journal
from sweeps.run_folder.layout import OUTCOME_FILE, RECORDS_FILE
from sweeps.schedulers.pausing import Verdict
from tests.sweeps.trials.toy_driver import begin, final_report, pausing_driver, report_at, rung_report

pytestmark = pytest.mark.usefixtures("toy_registry")


def test_a_paused_trial_has_no_record_keeps_its_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    driver = pausing_driver(tmp_path / "run")
    verdicts = [report_at(driver, begin(driver), 104, em) for em in (50.0, 20.0, 60.0)]
    assert verdicts == [Verdict.PAUSE, Verdict.PAUSE, Verdict.GO_ON]
    assert (driver.counts(), driver.unfinished(), list(driver.paused)) == (
        {"paused": 2},
        1,
        ["t0000", "t0001"],
    )
    assert driver.observers[0].named("trial_paused")[0] == ("t0000", 104, "fewer than 3 results at this rung")
    assert not (tmp_path / "run" / RECORDS_FILE).exists()
    # With three results the first two are judged; of three one goes on, and t0002 is better than both.
    task = driver.propose()
    assert task.trial_id == "t0003"
    assert [(record.trial_id, record.status) for record in driver.records] == [
        ("t0000", "stopped"),
        ("t0001", "stopped"),
    ]
    assert driver.records[0].reason == "stopped by scheduler 'pareto_asha' at 104 examples"
    assert not (tmp_path / "run/trials/t0000/checkpoint").exists()
    assert driver.counts() == {"stopped": 2}


def test_a_promoted_trial_is_told_what_it_has_reported(tmp_path: Path) -> None:
    driver = pausing_driver(tmp_path / "run")
    for em in (60.0, 20.0, 50.0):
        trial_id = begin(driver)
        verdict = report_at(driver, trial_id, 104, em)
    assert (trial_id, verdict) == ("t0002", Verdict.STOP)
    task = driver.propose()
    assert (task.trial_id, task.reported_examples) == ("t0000", 104)
    driver.started("t0000")
    assert driver.running["t0000"].starts == 2
    assert (tmp_path / "run/trials/t0000/checkpoint").exists()


def test_who_is_paused_is_paused_after_a_resume_and_more_trials_may_let_it_go_on(tmp_path: Path) -> None:
    before = pausing_driver(tmp_path / "run", trials=3)
    for em in (50.0, 20.0):
        report_at(before, begin(before), 104, em)
    after = pausing_driver(tmp_path / "run", trials=3)
    assert (list(after.paused), after.unfinished(), after.trials_left) == (["t0000", "t0001"], 0, 1)
    assert after.spent_examples == 208
    assert [len(curve) for curve in after.history().values()] == [1, 1]
    assert after.has_work()
    assert after.propose().trial_id == "t0002"
    assert pausing_driver(tmp_path / "run", trials=4).propose().trial_id == "t0002"


def test_a_trial_that_pauses_for_no_other_to_come_goes_on_at_once(tmp_path: Path) -> None:
    driver = pausing_driver(tmp_path / "run", trials=2)
    first = begin(driver)
    assert report_at(driver, first, 104, 50.0) is Verdict.PAUSE  # another trial will come
    second = begin(driver)
    assert report_at(driver, second, 104, 40.0) is Verdict.STOP  # no more: the front goes on, the rest stops
    assert driver.propose().trial_id == first
    driver.started(first)
    assert report_at(driver, first, 312, 55.0) is Verdict.GO_ON
    driver.ended(first, final_report(tmp_path / "run/trials/t0000", 60.0), None)
    assert (driver.propose(), driver.has_work(), driver.counts()) == (None, False, {"ok": 1, "stopped": 1})


def test_at_the_floor_the_lowest_loss_goes_on_when_nothing_else_is_left_and_one_front_point_is_enough(
    tmp_path: Path,
) -> None:
    driver = pausing_driver(tmp_path / "run", trials=3)
    running = [begin(driver) for _ in range(3)]
    for trial_id in running:
        driver.reported(trial_id, {**rung_report(104, 5.0), "selection_gain_percent": 0.0}, is_stopped=False)
    found = [
        report_at(driver, trial_id, 304, 5.0, gain=1.0, loss=loss)
        for trial_id, loss in zip(running, (2.0, 1.5, 1.9), strict=True)
    ]
    assert found == [Verdict.PAUSE] * 3  # the last of them too: another has the lowest loss
    assert driver.observers[0].named("note") == [
        ("rung 300 tells nothing yet: 3 of 3 trials at the score of no answer",)
    ]
    assert pausing_driver(tmp_path / "run", trials=3)._told_rungs == {300}  # told once, not again on a resume
    assert driver.propose().trial_id == "t0001"
    assert driver.propose() is None  # while it runs
    driver.started("t0001")
    driver.ended("t0001", final_report(tmp_path / "run/trials/t0001", 30.0), None)
    assert (driver.propose(), driver.has_work()) == (None, False)
    assert driver.counts() == {"ok": 1, "paused": 2}
    resumed = pausing_driver(tmp_path / "run", trials=3)
    assert (resumed.has_work(), resumed.counts()) == (False, {"ok": 1, "paused": 2})


def test_a_trial_that_fails_after_its_report_has_failed_and_is_not_paused(tmp_path: Path) -> None:
    driver = pausing_driver(tmp_path / "run")
    trial_id = begin(driver)
    folder = tmp_path / "run/trials/t0000"
    (folder / OUTCOME_FILE).write_text('{"status": "failed", "reason": "x", "traceback": "y"}')
    assert report_at(driver, trial_id, 104, 50.0) is Verdict.PAUSE
    assert (driver.counts(), driver.paused) == ({"failed": 1}, {})


def test_a_worker_that_dies_after_its_trial_paused_loses_nothing(tmp_path: Path) -> None:
    driver = pausing_driver(tmp_path / "run")
    trial_id = begin(driver)
    driver.reported(trial_id, rung_report(104), is_stopped=False, is_paused=True)
    driver.lost(trial_id, "The actor died", is_own=True)
    assert (list(driver.paused), driver.trials_left) == (["t0000"], 3)


def test_a_sweep_ends_when_no_stretch_fits_into_its_examples_and_says_what_is_paused(tmp_path: Path) -> None:
    """What one training needs to its end is kept back until one has come to it; figures stand at each step."""
    driver = pausing_driver(tmp_path / "run", trials=9, total_examples=1299)
    first = begin(driver)
    report_at(driver, first, 100, 90.0)
    for em in (20.0, 95.0):
        trial_id = begin(driver)
        verdict = report_at(driver, trial_id, 100, em)
    assert (trial_id, verdict) == (
        "t0002",
        Verdict.GO_ON,
    )  # 300 consumed; to 500 reserved, 600 more to its end
    assert driver.propose().trial_id == "t0003"  # to 600: with those 600 kept back, 1,200
    driver.started("t0003")
    assert [record.trial_id for record in driver.records] == ["t0000", "t0001"]
    assert driver.propose() is None  # a fifth does not fit: 1,300
    assert (
        report_at(driver, "t0003", 100, 99.0) is Verdict.PAUSE
    )  # 600 consumed or reserved, 200 + 600 more: 1,400
    assert driver.observers[0].named("trial_paused")[-1] == ("t0003", 100, "budget.total_examples")
    assert report_at(driver, "t0002", 300, 95.0) is Verdict.GO_ON  # nobody else may reach this rung
    driver.ended("t0002", final_report(tmp_path / "run/trials/t0002", 60.0), None)
    assert driver.propose() is None
    assert (driver.has_work(), driver.ended_by, driver.unfinished()) == (False, None, 0)
    assert driver.spent_note() == (
        "budget.total_examples: 1200 of 1299 are spent, and no trial's next stretch fits into the rest; 1 trial "
        "paused. A resumed sweep takes another --total-examples"
    )
    assert len(journal.read(tmp_path / "run").trials) == 4  # the fifth was not begun
    more = pausing_driver(tmp_path / "run", trials=9, total_examples=1500)
    assert more.propose().trial_id == "t0003"
    assert more.spent_note() is None


def test_no_rung_waits_for_a_trial_that_was_cut_short_and_cannot_be_paid_for(tmp_path: Path) -> None:
    before = pausing_driver(tmp_path / "run", trials=2)
    report_at(before, begin(before), 104, 50.0)
    assert (begin(before), list(before.paused)) == ("t0001", ["t0000"])
    # t0001 needs 100, with 800 kept back for an end: 1,000. t0000 needs 200 and then 600: 900.
    resumed = pausing_driver(tmp_path / "run", trials=2, total_examples=950)
    assert [running.task.trial_id for running in resumed.cut_short] == ["t0001"]
    assert resumed.has_work()
    assert resumed.propose().trial_id == "t0000"
    assert pausing_driver(tmp_path / "run", trials=2, total_examples=1000).propose().trial_id == "t0001"


def test_a_sweep_that_had_all_of_its_trials_has_no_note_on_examples(tmp_path: Path) -> None:
    driver = pausing_driver(tmp_path / "run", trials=1, total_examples=5000)
    trial_id = begin(driver)
    driver.ended(trial_id, final_report(tmp_path / "run/trials/t0000", 60.0), None)
    assert (driver.propose(), driver.spent_note()) == (None, None)
