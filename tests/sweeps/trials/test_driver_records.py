"""What a driver sends with a trial and keeps in its record: node, GPUs, share and stored forms."""

import json
from pathlib import Path
from typing import Any

import pytest

from qa_core import registry
from sweeps.budget.gpu_shares import GpuShare
from sweeps.run_folder import journal, records
from sweeps.run_folder.layout import OUTCOME_FILE, RECORDS_FILE
from sweeps.searchers.base import make_searcher
from sweeps.space.compile import compile_space
from sweeps.spec.sections import SHARES
from sweeps.trials.driver import Driver
from tests.sweeps.told import Told
from tests.sweeps.toys import toy_spec
from tests.sweeps.trials.toy_driver import fail, final_report, rung_report, toy_driver, trial_with_files

pytestmark = pytest.mark.usefixtures("toy_registry")


def test_the_front_counts_every_trial_that_ended_however_it_ended(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    fail(driver, "Traceback\nValueError: first")
    assert driver.front.left_out == {"failed": 1}
    trial_with_files(driver, 20.0)
    for _ in range(2):
        task = driver.propose()
        driver.started(task.trial_id)
        driver.reported(task.trial_id, rung_report(300, 2.5), is_stopped=True)
        driver.ended(task.trial_id, {}, None)
    fail(driver, "Traceback\nValueError: x")
    assert driver.front.left_out == {"failed": 2, "stopped": 2}
    assert len(driver.front.points) == 1


def test_trials_that_may_differ_from_those_before_say_so_in_their_records(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    trial_with_files(driver, 20.0)
    driver.mark_mixed(())
    driver.mark_mixed(["device: found a; b"])
    trial_with_files(driver, 30.0)
    marks = [record.provenance.get("mixed_with_past") for record in driver.records]
    assert marks == [None, ["device: found a; b"]]


def test_a_record_says_on_which_node_the_trial_ended(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    task = driver.propose()
    driver.started(task.trial_id)
    driver.ended(task.trial_id, {**final_report(Path(task.folder), 12.0), "node": "0123456789ab"}, None)
    assert driver.records[0].provenance["node"] == "0123456789ab"


def test_a_record_names_the_gpus_that_its_worker_used_however_the_trial_ended(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run")
    finished, stopped, failed, on_cpu = (driver.propose() for _ in range(4))
    for task in (finished, stopped, failed, on_cpu):
        driver.started(task.trial_id)
        Path(task.folder).mkdir(parents=True, exist_ok=True)
    note = {"status": "failed", "reason": "x", "traceback": None, "node": None, "gpus": ["A100"]}
    (Path(failed.folder) / OUTCOME_FILE).write_text(json.dumps(note))
    driver.ended(
        finished.trial_id, {**final_report(Path(finished.folder), 12.0), "gpus": ["H200", "H200"]}, None
    )
    driver.reported(stopped.trial_id, {**rung_report(300), "gpus": ["L4"]}, is_stopped=True)
    driver.ended(stopped.trial_id, {**rung_report(300), "gpus": ["L4"]}, None)
    driver.ended(failed.trial_id, {}, "ValueError: x")
    driver.ended(on_cpu.trial_id, final_report(Path(on_cpu.folder), 13.0), None)
    found = {record.trial_id: record.provenance["hardware"]["gpus"] for record in driver.records}
    tasks = (finished, stopped, failed, on_cpu)
    assert [found[task.trial_id] for task in tasks] == [["H200", "H200"], ["L4"], ["A100"], []]
    assert all(record.provenance["hardware"]["cpu"] for record in driver.records)


def test_each_proposal_and_each_resumed_trial_gets_its_share_and_the_record_keeps_it(tmp_path: Path) -> None:
    before = toy_driver(tmp_path / "run", resources={"gpus_per_trial": "auto"})
    assert before.propose().gpu_share == SHARES[0]  # until the nodes have been looked at
    after = toy_driver(tmp_path / "run", resources={"gpus_per_trial": "auto"})
    after.gpu_share_of = lambda recipe: GpuShare(0.25, 10**9 + recipe.seed)
    task, other = after.propose(), after.propose()
    assert (task.trial_id, task.gpu_share, other.gpu_share) == ("t0000", 0.25, 0.25)
    assert task.predicted_bytes == 10**9 + task.recipe["seed"] != other.predicted_bytes
    after.started("t0000")
    after.ended("t0000", final_report(tmp_path / "run/trials/t0000", 40.0), None)
    (record,) = after.records
    assert record.provenance["gpu_share"] == 0.25
    assert record.provenance["predicted_train_peak_bytes"] == task.predicted_bytes


def test_a_share_that_the_user_names_is_given_to_all(tmp_path: Path) -> None:
    driver = toy_driver(tmp_path / "run", resources={"gpus_per_trial": 0.5})
    assert {driver.propose().gpu_share for _ in range(3)} == {0.5}


@pytest.fixture
def quantizing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with one real family and one real method."""
    monkeypatch.setattr(registry, "FAMILIES", {"bert": "qa_core.families.bert:Bert"})
    monkeypatch.setattr(registry, "METHODS", {"quantize": "qa_core.methods.quantize:Quantize"})


def _real_driver(folder: Path, forms: dict[str, Any]) -> Driver:
    folder.mkdir()
    spec = toy_spec(
        recipe={"model": {"family": "bert"}},
        space=[{"set": "train.batch_size", "choice": [8, 16]}],
        forms=forms,
    )
    space = compile_space(spec)
    return Driver(spec, space=space, searcher=make_searcher(spec, space), folder=folder, observers=(Told(),))


def test_the_forms_of_the_sweep_go_to_the_worker_and_into_the_record(
    tmp_path: Path, quantizing: None
) -> None:
    driver = _real_driver(tmp_path / "run", {"quantize": {"bits": [32, 8, 4]}})
    task = driver.propose()
    assert [(form["label"], form["settings"]) for form in task.forms] == [
        ("float32", {}),
        ("int8", {"methods.quantize.bits": 8}),
        ("nf4", {"methods.quantize.bits": 4}),
    ]
    assert "forms" not in task.recipe
    driver.started(task.trial_id)
    final = final_report(Path(task.folder), 40.0)
    nothing = dict.fromkeys(("reason", "quality", "cost", "against_twin", "artifact", "traceback"))
    final["result"]["forms"] = [
        {**nothing, **task.forms[2], "status": "failed", "reason": "https://me:secret-word@host"},
        {
            **nothing,
            **task.forms[1],
            "status": "ok",
            "quality": {"em_percent": 38.0},
            "cost": {"inference_peak_bytes": 3e6},
            "against_twin": {"em_difference_percent": -2.0},
            "artifact": str(Path(task.folder) / "forms" / "int8" / "artifact"),
        },
        {**nothing, **task.forms[0], "status": "skipped", "reason": "over budget"},
    ]
    driver.ended(task.trial_id, final, None)
    (record,) = records.load(tmp_path / "run" / RECORDS_FILE).records
    assert (record.objectives, record.artifact) == (
        {"em_percent": 40.0, "memory_mb": 8.0},
        "trials/t0000/artifact",
    )
    failed, made, twin = record.forms
    assert (made.label, made.objectives, made.artifact) == (
        "int8",
        {"em_percent": 38.0, "memory_mb": 3.0},
        "trials/t0000/forms/int8/artifact",
    )
    assert made.against_twin == {"em_difference_percent": -2.0}
    assert (failed.status, twin.status, twin.reason, twin.objectives) == (
        "failed",
        "skipped",
        "over budget",
        None,
    )
    ((told,),) = driver.observers[0].named("trial_ended")
    assert [form["label"] for form in told["forms"]] == ["nf4", "int8", "float32"]
    assert "secret-word" not in str(told)


def test_a_resumed_trial_is_sent_with_the_same_forms(tmp_path: Path, quantizing: None) -> None:
    listed = {"quantize": {"bits": [32, 8]}}
    before = _real_driver(tmp_path / "run", listed)
    task = before.propose()
    after = Driver(
        before.spec,
        space=before.space,
        searcher=make_searcher(before.spec, before.space),
        folder=tmp_path / "run",
        observers=(Told(),),
        past=journal.read(tmp_path / "run"),
    )
    assert after.propose() == task
