"""The state of a sweep without Ray: what counts, and what a resumed one takes over."""

import json
from pathlib import Path

import pytest

from sweeps.run_folder import journal, records
from sweeps.run_folder.layout import OUTCOME_FILE, RECORDS_FILE
from sweeps.run_folder.noted_forms import NotedForm, as_note
from sweeps.trials.task import as_values, from_values
from tests.sweeps.trials.toy_driver import final_report, rung_report, toy_driver

pytestmark = pytest.mark.usefixtures("toy_registry")


def test_open_trials_come_first_with_their_recipe_and_what_was_reported(tmp_path: Path) -> None:
    before = toy_driver(tmp_path / "run")
    tasks = [before.propose() for _ in range(3)]
    for task in tasks:
        before.started(task.trial_id)
    before.reported("t0001", rung_report(100), is_stopped=False)
    before.ended("t0000", final_report(tmp_path / "run/trials/t0000", 40.0), None)

    after = toy_driver(tmp_path / "run")
    assert after.trials_left == 8 - 1
    assert after.spent_examples == before.spent_examples == 900 + 100
    assert {name: [point["examples_seen"] for point in curve] for name, curve in after.history().items()} == {
        "t0000": [900],
        "t0001": [100],
        "t0002": [],
    }
    again = [after.propose() for _ in range(2)]
    assert [(task.trial_id, task.recipe, task.folder) for task in again] == [
        (task.trial_id, task.recipe, task.folder) for task in tasks[1:]
    ]
    assert [task.reported_examples for task in again] == [100, 0]
    undisturbed = toy_driver(tmp_path / "other")
    expected = [undisturbed.propose().recipe for _ in range(5)]
    assert [after.propose().recipe for _ in range(2)] == expected[3:]


def test_a_trial_makes_the_forms_that_its_notes_name_and_skips_none_as_no_better(tmp_path: Path) -> None:
    listed = toy_driver(tmp_path / "listed").propose()
    assert (listed.forms, listed.makes_all_forms) == ((), False)
    (tmp_path / "run").mkdir()
    int8 = NotedForm("int8", {"methods.quantize.bits": 8})
    assignment, notes = {"model.family": "alpha"}, {"confirms": "t0007", **as_note([int8])}
    journal.Journal(tmp_path / "run").proposed(
        "t0000", assignment=assignment, notes=notes, recipe=listed.recipe
    )
    task = from_values(as_values(toy_driver(tmp_path / "run").propose()))
    assert (task.forms, task.makes_all_forms) == (({"label": "int8", "settings": dict(int8.settings)},), True)


def test_a_verdict_that_was_reached_before_the_sweep_ended_is_recorded_when_it_goes_on(
    tmp_path: Path,
) -> None:
    before = toy_driver(tmp_path / "run")
    before.propose()
    before.started("t0000")
    before.reported("t0000", rung_report(300, 2.5), is_stopped=True)

    after = toy_driver(tmp_path / "run")
    after.settle()
    (record,) = records.load(tmp_path / "run" / RECORDS_FILE).records
    assert (record.status, record.examples_seen, record.starts) == ("stopped", 300, 1)
    assert record.reason == "stopped by scheduler 'pareto_asha' at 300 examples"
    assert after.propose().trial_id == "t0001"
    assert after.counts() == {"stopped": 1}


@pytest.mark.parametrize("ended_with", [None, "Traceback\n  x\nqa_core.errors.Paused: paused after 110"])
def test_a_trial_that_the_end_of_the_sweep_cut_short_has_no_record_and_goes_on(
    ended_with: str | None, tmp_path: Path
) -> None:
    before = toy_driver(tmp_path / "run")
    task = before.propose()
    if ended_with is not None:
        Path(task.folder).mkdir(parents=True)
        note = {"status": "paused", "reason": "paused after 110", "traceback": None}
        (Path(task.folder) / OUTCOME_FILE).write_text(json.dumps(note))
    before.started("t0000")
    before.reported("t0000", rung_report(100), is_stopped=False)
    before.ended("t0000", {}, ended_with)
    assert (before.unfinished(), before.counts()) == (1, {})
    assert not (tmp_path / "run" / RECORDS_FILE).exists()
    assert toy_driver(tmp_path / "run").propose().trial_id == "t0000"


def test_a_rung_that_is_reported_again_counts_once(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    driver.propose()
    driver.started("t0000")
    for seen in (100, 100, 300):
        driver.reported("t0000", rung_report(seen), is_stopped=False)
    assert [point["examples_seen"] for point in driver.running["t0000"].curve] == [100, 300]
    assert driver.spent_examples == 300
    assert len(journal.read(tmp_path / "run").trials[0].curve) == 2


def test_what_a_trial_died_of_without_a_record_is_forgotten_because_it_runs_again(tmp_path: Path) -> None:
    before = toy_driver(tmp_path / "run")
    task = before.propose()
    before.started("t0000")
    Path(task.folder).mkdir(parents=True)
    (Path(task.folder) / OUTCOME_FILE).write_text('{"status": "failed", "reason": "x", "traceback": "y"}')
    after = toy_driver(tmp_path / "run")
    assert not (Path(task.folder) / OUTCOME_FILE).exists()
    after.propose()
    after.started("t0000")
    after.ended("t0000", final_report(Path(task.folder), 12.0), None)
    (record,) = after.records
    assert (record.status, record.starts, record.artifact) == ("ok", 2, "trials/t0000/artifact")


def test_more_trials_extend_a_sweep_that_had_all_of_its_own(tmp_path: Path) -> None:
    budget = {"trials": 1, "examples": 900}
    before = toy_driver(tmp_path / "run", budget=budget)
    before.propose()
    before.started("t0000")
    before.ended("t0000", final_report(tmp_path / "run/trials/t0000", 12.0), None)
    assert toy_driver(tmp_path / "run", budget=budget).trials_left == 0
    assert toy_driver(tmp_path / "run", budget={**budget, "trials": 3}).trials_left == 2
