"""A driver as its report sees it: every trial once, in the state that it has, while it runs and after."""

from collections import Counter
from pathlib import Path

import pytest

from sweeps.report.answer_book import AnswerBook
from sweeps.report.columns import decoded
from sweeps.report.snapshot import Snapshot
from sweeps.report.story import story
from sweeps.trials.reporting import snapshot_of
from tests.sweeps.trials.toy_driver import final_report, rung_report, toy_driver

pytestmark = pytest.mark.usefixtures("toy_registry")


def states(snapshot: Snapshot) -> dict[str, str]:
    ended = {record.trial_id: record.status for record in snapshot.records}
    return {**ended, **{trial.trial_id: trial.state for trial in snapshot.open_trials}}


def test_every_trial_is_there_once_in_its_state(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    for _ in range(4):
        driver.started(driver.propose().trial_id)
    driver.reported("t0000", rung_report(100), is_stopped=False)
    driver.reported("t0001", rung_report(104), is_stopped=False, is_paused=True)
    driver.ended("t0001", {}, None)
    driver.ended("t0002", final_report(tmp_path / "run/trials/t0002", 40.0), None)
    driver.lost("t0003", "its node is gone", is_own=False)
    snapshot = snapshot_of(driver, tmp_path / "run", is_over=False)
    expected = {"t0000": "running", "t0001": "paused", "t0002": "ok", "t0003": "unfinished"}
    assert (snapshot.state, states(snapshot)) == ("running", expected)
    assert snapshot.result.left_out == {"paused": 1}

    told = story(snapshot, AnswerBook(tmp_path / "run"))
    rows = decoded(told["rows"]["columns"])
    assert Counter(row["trial"] for row in rows) == Counter(expected.keys())
    places = {row["trial"]: (row["place"], row["em_percent"]) for row in rows}
    assert places == {
        "t0000": ("rung", 10),
        "t0001": ("rung", 10),
        "t0002": ("front", 40),
        "t0003": ("none", None),
    }


def test_what_runs_when_the_sweep_ends_is_unfinished(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    driver.started(driver.propose().trial_id)
    assert snapshot_of(driver, tmp_path, is_over=True).state == "ended"
    driver.end("the time is over")
    snapshot = snapshot_of(driver, tmp_path, is_over=True)
    assert (snapshot.state, states(snapshot)) == ("interrupted", {"t0000": "unfinished"})
