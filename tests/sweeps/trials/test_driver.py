"""The state of a sweep without Ray: what a resumed one takes over, and what is told to whom."""

import json
from pathlib import Path
from typing import Any

import pytest

from qa_core import registry
from sweeps.budget.gpu_shares import GpuShare
from sweeps.run_folder import journal, records
from sweeps.run_folder.layout import HANG_FILE, OUTCOME_FILE, RECORDS_FILE
from sweeps.run_folder.noted_forms import NotedForm, as_note
from sweeps.schedulers.pausing import Verdict
from sweeps.searchers.base import Searcher, make_searcher
from sweeps.space.compile import compile_space
from sweeps.spec.sections import SHARES
from sweeps.trials.driver import Driver
from sweeps.trials.task import as_values, from_values
from tests.sweeps.toys import toy_space, toy_spec
from tests.sweeps.trials.test_ray_driver import _Told

pytestmark = pytest.mark.usefixtures("toy_registry")


def _driver(folder: Path, **changes: Any) -> Driver:
    folder.mkdir(exist_ok=True)
    scheduler = {"name": "pareto_asha", "options": {"grace_examples": 100, "eta": 3}}
    spec, space = toy_spec(scheduler=scheduler, **changes), toy_space()
    past = journal.read(folder)
    return Driver(
        spec,
        space=space,
        searcher=make_searcher(spec, space),
        folder=folder,
        observers=(_Told(),),
        past=past,
    )


def _trial_with_files(driver: Driver, em: float) -> Path:
    """Run a trial to its end; returns its folder, which has what a worker leaves."""
    task = driver.propose()
    driver.started(task.trial_id)
    folder = Path(task.folder)
    for name in ("checkpoint", "artifact", ".checkpoint.17.tmp"):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").write_bytes(bytes(1000))
    (folder / "answers.parquet").write_bytes(bytes(10))
    driver.ended(task.trial_id, _final(folder, em), None)
    return folder


def _report(examples_seen: int, em: float = 10.0) -> dict[str, Any]:
    return {
        "examples_seen": examples_seen,
        "budget_examples": 900,
        "train_loss": 1.0,
        "train_seconds": 1.0,
        "selection_em_percent": em,
        "selection_f1_percent": em,
        "memory_mb": 8.0,
        "memory_batch8_mb": 9.0,
        "inference_peak_bytes": 8_000_000,
        "weights_bytes": 5_000_000,
        "artifact_bytes": 6_000_000,
        "final": False,
    }


def _final(folder: Path, em: float) -> dict[str, Any]:
    result = {
        "quality": {"em_percent": em},
        "cost": {"inference_peak_bytes": 8e6, "device": "toy"},
        "curve": [_report(900, em)],
        "cross_domain": {},
        "prerequisites": {},
        "data": {"evaluation": {"data_hash": "toy"}},
        "artifact": str(folder / "artifact"),
    }
    return {**_report(900, em), "final": True, "result": result}


def test_open_trials_come_first_with_their_recipe_and_what_was_reported(tmp_path: Path) -> None:
    before = _driver(tmp_path / "run")
    tasks = [before.propose() for _ in range(3)]
    for task in tasks:
        before.started(task.trial_id)
    before.reported("t0001", _report(100), is_stopped=False)
    before.ended("t0000", _final(tmp_path / "run/trials/t0000", 40.0), None)

    after = _driver(tmp_path / "run")
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
    undisturbed = _driver(tmp_path / "other")
    expected = [undisturbed.propose().recipe for _ in range(5)]
    assert [after.propose().recipe for _ in range(2)] == expected[3:]


def test_a_trial_makes_the_forms_that_its_notes_name_and_skips_none_as_no_better(tmp_path: Path) -> None:
    listed = _driver(tmp_path / "listed").propose()
    assert (listed.forms, listed.makes_all_forms) == ((), False)
    (tmp_path / "run").mkdir()
    int8 = NotedForm("int8", {"methods.quantize.bits": 8})
    assignment, notes = {"model.family": "alpha"}, {"confirms": "t0007", **as_note([int8])}
    journal.Journal(tmp_path / "run").proposed(
        "t0000", assignment=assignment, notes=notes, recipe=listed.recipe
    )
    task = from_values(as_values(_driver(tmp_path / "run").propose()))
    assert (task.forms, task.makes_all_forms) == (({"label": "int8", "settings": dict(int8.settings)},), True)


def test_a_verdict_that_was_reached_before_the_sweep_ended_is_recorded_when_it_goes_on(
    tmp_path: Path,
) -> None:
    before = _driver(tmp_path / "run")
    before.propose()
    before.started("t0000")
    before.reported("t0000", _report(300, 2.5), is_stopped=True)

    after = _driver(tmp_path / "run")
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
    before = _driver(tmp_path / "run")
    task = before.propose()
    if ended_with is not None:
        Path(task.folder).mkdir(parents=True)
        note = {"status": "paused", "reason": "paused after 110", "traceback": None}
        (Path(task.folder) / OUTCOME_FILE).write_text(json.dumps(note))
    before.started("t0000")
    before.reported("t0000", _report(100), is_stopped=False)
    before.ended("t0000", {}, ended_with)
    assert (before.unfinished(), before.counts()) == (1, {})
    assert not (tmp_path / "run" / RECORDS_FILE).exists()
    assert _driver(tmp_path / "run").propose().trial_id == "t0000"


def test_a_node_that_refuses_its_trial_ends_the_sweep_and_spends_no_trial(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run")
    driver.propose()
    driver.started("t0000")
    driver.refuse("node ab sees no data")
    driver.refuse("node cd sees no data")
    assert (driver.unfinished(), driver.counts(), driver.fault) == (1, {}, None)
    assert driver.propose() is None
    assert driver.pause_file.exists()  # others write checkpoints
    assert str(driver.refused).startswith("node ab sees no data; trials that ended are kept")
    assert _driver(tmp_path / "run").propose().trial_id == "t0000"


def test_a_rung_that_is_reported_again_counts_once(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run")
    driver.propose()
    driver.started("t0000")
    for seen in (100, 100, 300):
        driver.reported("t0000", _report(seen), is_stopped=False)
    assert [point["examples_seen"] for point in driver.running["t0000"].curve] == [100, 300]
    assert driver.spent_examples == 300
    assert len(journal.read(tmp_path / "run").trials[0].curve) == 2


def test_what_a_trial_died_of_without_a_record_is_forgotten_because_it_runs_again(tmp_path: Path) -> None:
    before = _driver(tmp_path / "run")
    task = before.propose()
    before.started("t0000")
    Path(task.folder).mkdir(parents=True)
    (Path(task.folder) / OUTCOME_FILE).write_text('{"status": "failed", "reason": "x", "traceback": "y"}')
    after = _driver(tmp_path / "run")
    assert not (Path(task.folder) / OUTCOME_FILE).exists()
    after.propose()
    after.started("t0000")
    after.ended("t0000", _final(Path(task.folder), 12.0), None)
    (record,) = after.records
    assert (record.status, record.starts, record.artifact) == ("ok", 2, "trials/t0000/artifact")


def test_more_trials_extend_a_sweep_that_had_all_of_its_own(tmp_path: Path) -> None:
    budget = {"trials": 1, "examples": 900}
    before = _driver(tmp_path / "run", budget=budget)
    before.propose()
    before.started("t0000")
    before.ended("t0000", _final(tmp_path / "run/trials/t0000", 12.0), None)
    assert _driver(tmp_path / "run", budget=budget).trials_left == 0
    assert _driver(tmp_path / "run", budget={**budget, "trials": 3}).trials_left == 2


def _fail(driver: Driver, error: str) -> None:
    task = driver.propose()
    assert task is not None
    driver.started(task.trial_id)
    driver.ended(task.trial_id, {}, error)


def test_the_front_counts_every_trial_that_ended_however_it_ended(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run")
    _fail(driver, "Traceback\nValueError: first")
    assert driver.front.left_out == {"failed": 1}
    _trial_with_files(driver, 20.0)
    for _ in range(2):
        task = driver.propose()
        driver.started(task.trial_id)
        driver.reported(task.trial_id, _report(300, 2.5), is_stopped=True)
        driver.ended(task.trial_id, {}, None)
    _fail(driver, "Traceback\nValueError: x")
    assert driver.front.left_out == {"failed": 2, "stopped": 2}
    assert len(driver.front.points) == 1


def test_trials_that_may_differ_from_those_before_say_so_in_their_records(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run")
    _trial_with_files(driver, 20.0)
    driver.mark_mixed(())
    driver.mark_mixed(["device: found a; b"])
    _trial_with_files(driver, 30.0)
    marks = [record.provenance.get("mixed_with_past") for record in driver.records]
    assert marks == [None, ["device: found a; b"]]


def test_trials_in_a_row_that_fail_alike_end_the_sweep_with_their_error(tmp_path: Path) -> None:
    """Numbers and paths do not make errors differ; another ending in between starts the count anew."""
    driver = _driver(tmp_path / "run", budget={"trials": 9, "examples": 900, "max_same_failures": 3})
    _fail(driver, "Traceback\nRuntimeError: expected 3 at /a/b")
    _fail(driver, "Traceback\nRuntimeError: expected 4 at /a/c")
    _fail(driver, "Traceback\nValueError: other")
    _fail(driver, "Traceback\nRuntimeError: expected 5 at /a/c")
    _fail(driver, "Traceback\nRuntimeError: expected 6 at /a/c")
    assert driver.ended_by is None
    assert not driver.pause_file.exists()
    _fail(driver, "Traceback\nRuntimeError: expected 7 at /a/c")
    assert driver.ended_by == (
        "3 trials in a row failed alike (budget.max_same_failures): RuntimeError: expected 7 at /a/c"
    )
    assert driver.pause_file.exists()
    assert driver.propose() is None
    again = _driver(tmp_path / "run", budget={"trials": 9, "examples": 900})
    assert not again.pause_file.exists()
    assert again.propose().trial_id == "t0006"


def test_a_full_disk_ends_the_sweep_and_leaves_the_trial_open(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run")
    driver.propose()
    driver.started("t0000")
    driver.ended(
        "t0000", {}, "StorageError: x/checkpoint: cannot be written: [Errno 28] No space left on device"
    )
    assert driver.fault is not None
    assert "trial t0000: StorageError: x/checkpoint" in str(driver.fault)
    assert (driver.propose(), driver.records, driver.unfinished()) == (None, [], 1)
    assert _driver(tmp_path / "run").propose().trial_id == "t0000"


def test_a_trial_whose_worker_died_goes_on_from_what_it_reported_and_only_so_often(tmp_path: Path) -> None:
    budget = {"trials": 2, "examples": 900, "max_lost_workers": 2}
    driver = _driver(tmp_path / "run", budget=budget)
    task = driver.propose()
    driver.started("t0000")
    driver.reported("t0000", _report(100), is_stopped=False)
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
    driver = _driver(
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


def test_only_artifacts_that_can_be_chosen_and_no_checkpoint_of_an_ended_trial_stay(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run")
    first, worse, best = (_trial_with_files(driver, em) for em in (20.0, 10.0, 30.0))
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
    driver = _driver(tmp_path / "run", budget={"trials": 2, "examples": 900, "keep_artifacts": "all"})
    for folder in [_trial_with_files(driver, em) for em in (20.0, 10.0)]:
        assert sorted(item.name for item in folder.iterdir()) == ["answers.parquet", "artifact"]


def test_what_a_killed_driver_did_not_remove_is_removed_when_the_sweep_goes_on(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run")
    kept, beaten = _trial_with_files(driver, 20.0), _trial_with_files(driver, 10.0)
    running = Path(driver.propose().folder)
    for folder in (kept, beaten, running):
        for name in ("checkpoint", "artifact"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    _driver(tmp_path / "run")
    found = [
        [name for name in ("checkpoint", "artifact") if (folder / name).exists()] for folder in (kept, beaten)
    ]
    assert found == [["artifact"], []]
    assert (running / "checkpoint").exists()


def test_a_sweep_whose_trials_hold_more_than_they_may_ends_and_goes_on_with_more(tmp_path: Path) -> None:
    budget = {"trials": 8, "examples": 900, "max_disk_gb": 3e-6}  # 3,000 bytes
    driver = _driver(tmp_path / "run", budget=budget)
    _trial_with_files(driver, 20.0)
    assert driver.ended_by is None
    running = driver.propose()
    driver.started(running.trial_id)
    (Path(running.folder) / "checkpoint").mkdir(parents=True)
    (Path(running.folder) / "checkpoint" / "weights").write_bytes(bytes(2500))
    driver.reported(running.trial_id, _report(100), is_stopped=False)
    assert driver.ended_by is not None
    assert driver.ended_by.startswith("the trials' files hold 3.51e-06 GB (budget.max_disk_gb: 3e-06); ")
    assert driver.pause_file.exists()
    assert driver.propose() is None

    assert _driver(tmp_path / "run", budget=budget).ended_by is not None
    more = _driver(tmp_path / "run", budget={**budget, "max_disk_gb": 1.0})
    assert (more.ended_by, more.propose().trial_id) == (None, running.trial_id)


def test_lost_nodes_do_not_count_against_the_limit_of_a_trial(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run", budget={"trials": 1, "examples": 900, "max_lost_workers": 0})
    for _ in range(5):
        assert driver.propose().trial_id == "t0000"
        driver.started("t0000")
        driver.lost("t0000", "The actor is unavailable: RPC error: Socket closed", is_own=False)
    assert (driver.records, driver.unfinished()) == ([], 1)


def test_a_worker_that_died_after_the_end_of_its_trial_does_not_undo_it(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run")
    failed, stopped = driver.propose(), driver.propose()
    for task in (failed, stopped):
        driver.started(task.trial_id)
    Path(failed.folder).mkdir(parents=True)
    note = '{"status": "oom", "reason": "full", "traceback": "y", "node": "ab12"}'
    (Path(failed.folder) / OUTCOME_FILE).write_text(note)
    driver.reported(stopped.trial_id, _report(300), is_stopped=True)
    for task in (failed, stopped):
        driver.lost(task.trial_id, "The actor died", is_own=True)
    assert [(record.status, record.starts) for record in driver.records] == [("oom", 1), ("stopped", 1)]
    assert [record.provenance["node"] for record in driver.records] == ["ab12", None]


def test_a_record_says_on_which_node_the_trial_ended(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run")
    task = driver.propose()
    driver.started(task.trial_id)
    driver.ended(task.trial_id, {**_final(Path(task.folder), 12.0), "node": "0123456789ab"}, None)
    assert driver.records[0].provenance["node"] == "0123456789ab"


def test_a_record_names_the_gpus_that_its_worker_used_however_the_trial_ended(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run")
    finished, stopped, failed, on_cpu = (driver.propose() for _ in range(4))
    for task in (finished, stopped, failed, on_cpu):
        driver.started(task.trial_id)
        Path(task.folder).mkdir(parents=True, exist_ok=True)
    note = {"status": "failed", "reason": "x", "traceback": None, "node": None, "gpus": ["A100"]}
    (Path(failed.folder) / OUTCOME_FILE).write_text(json.dumps(note))
    driver.ended(finished.trial_id, {**_final(Path(finished.folder), 12.0), "gpus": ["H200", "H200"]}, None)
    driver.reported(stopped.trial_id, {**_report(300), "gpus": ["L4"]}, is_stopped=True)
    driver.ended(stopped.trial_id, {**_report(300), "gpus": ["L4"]}, None)
    driver.ended(failed.trial_id, {}, "ValueError: x")
    driver.ended(on_cpu.trial_id, _final(Path(on_cpu.folder), 13.0), None)
    found = {record.trial_id: record.provenance["hardware"]["gpus"] for record in driver.records}
    tasks = (finished, stopped, failed, on_cpu)
    assert [found[task.trial_id] for task in tasks] == [["H200", "H200"], ["L4"], ["A100"], []]
    assert all(record.provenance["hardware"]["cpu"] for record in driver.records)


def test_each_proposal_and_each_resumed_trial_gets_its_share_and_the_record_keeps_it(tmp_path: Path) -> None:
    before = _driver(tmp_path / "run", resources={"gpus_per_trial": "auto"})
    assert before.propose().gpu_share == SHARES[0]  # until the nodes have been looked at
    after = _driver(tmp_path / "run", resources={"gpus_per_trial": "auto"})
    after.gpu_share_of = lambda recipe: GpuShare(0.25, 10**9 + recipe.seed)
    task, other = after.propose(), after.propose()
    assert (task.trial_id, task.gpu_share, other.gpu_share) == ("t0000", 0.25, 0.25)
    assert task.predicted_bytes == 10**9 + task.recipe["seed"] != other.predicted_bytes
    after.started("t0000")
    after.ended("t0000", _final(tmp_path / "run/trials/t0000", 40.0), None)
    (record,) = after.records
    assert record.provenance["gpu_share"] == 0.25
    assert record.provenance["predicted_train_peak_bytes"] == task.predicted_bytes


def test_a_share_that_the_user_names_is_given_to_all(tmp_path: Path) -> None:
    driver = _driver(tmp_path / "run", resources={"gpus_per_trial": 0.5})
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
    return Driver(spec, space=space, searcher=make_searcher(spec, space), folder=folder, observers=(_Told(),))


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
    final = _final(Path(task.folder), 40.0)
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
        observers=(_Told(),),
        past=journal.read(tmp_path / "run"),
    )
    assert after.propose() == task


# Pausing


def _pausing_driver(folder: Path, *, searcher: Any = None, **budget: Any) -> Driver:
    """Return a driver whose reports are judged, at rungs 100 and 300."""
    named = {} if searcher is None else {"searcher": searcher}
    return _driver(folder, budget={"trials": 4, "examples": 900, **budget}, **named)


def _report_at(
    driver: Driver, trial_id: str, seen: int, em: float, *, gain: float = 50.0, loss: float = 1.0
) -> Verdict:
    """Report as Ray does: the scheduler, then the driver's word, then the report, then the end."""
    learnt = {
        "selection_baseline": "no_answer",
        "selection_gain_percent": gain,
        "selection_gain_error_percent": 1.0,
        "train_loss": loss,
    }
    report = {**_report(seen, em), **learnt}
    verdict = driver.judged(trial_id, report, driver.judge.verdict(trial_id, report))
    assert driver.pauses(trial_id) == (verdict is Verdict.PAUSE)
    stops = {"is_stopped": verdict is Verdict.STOP, "is_paused": verdict is Verdict.PAUSE}
    driver.reported(trial_id, report, **stops)
    if verdict is not Verdict.GO_ON:
        driver.ended(trial_id, {}, None)
    return verdict


def _begin(driver: Driver) -> str:
    task = driver.propose()
    driver.started(task.trial_id)
    (Path(task.folder) / "checkpoint").mkdir(parents=True, exist_ok=True)
    (Path(task.folder) / "checkpoint" / "weights").write_bytes(bytes(1000))
    return task.trial_id


def test_a_paused_trial_has_no_record_keeps_its_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    driver = _pausing_driver(tmp_path / "run")
    verdicts = [_report_at(driver, _begin(driver), 104, em) for em in (50.0, 20.0, 60.0)]
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
    driver = _pausing_driver(tmp_path / "run")
    for em in (60.0, 20.0, 50.0):
        trial_id = _begin(driver)
        verdict = _report_at(driver, trial_id, 104, em)
    assert (trial_id, verdict) == ("t0002", Verdict.STOP)
    task = driver.propose()
    assert (task.trial_id, task.reported_examples) == ("t0000", 104)
    driver.started("t0000")
    assert driver.running["t0000"].starts == 2
    assert (tmp_path / "run/trials/t0000/checkpoint").exists()


def _searched(folder: Path, trials: int) -> Driver:
    """Return a driver whose searcher learns from reports."""
    searcher = {"name": "surrogate", "options": {"startup_trials": 3, "random_every": 4}}
    return _pausing_driver(folder, trials=trials, searcher=searcher)


def _go_on(driver: Driver, events: int) -> list[tuple[str, Any]]:
    """Let one worker train until so many reports and ends are told; returns what it took up. EM hangs on the recipe."""
    taken = []
    while events > 0 and (task := driver.propose()) is not None:
        driver.started(task.trial_id)
        running = driver.running[task.trial_id]
        taken.append((task.trial_id, running.proposal.assignment))
        em = 10.0 * len(running.proposal.assignment["methods"]) + 7 * len(task.recipe["model"]["family"])
        verdict = Verdict.GO_ON
        for seen in [rung for rung in (104, 304) if rung > task.reported_examples]:
            if verdict is Verdict.GO_ON and events > 0:
                verdict = _report_at(driver, task.trial_id, seen, em * seen / 900)
                events -= 1
        if verdict is Verdict.GO_ON and events > 0:
            final = _final(Path(task.folder), em)
            final["result"]["curve"] = [_report(seen, em * seen / 900) for seen in (104, 304, 900)]
            driver.ended(task.trial_id, final, None)
            events -= 1
    return taken


def test_a_sweep_whose_searcher_learns_from_reports_proposes_the_same_wherever_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.searchers.surrogate.CANDIDATES", 32)
    monkeypatch.setattr("sweeps.searchers.gaussian_process.STEPS", 8)
    undisturbed = _go_on(_searched(tmp_path / "whole", 14), 1000)
    proposed = dict(undisturbed)
    assert list(proposed) == [f"t{number:04d}" for number in range(14)]
    by_chance = _driver(tmp_path / "random", budget={"trials": 14, "examples": 900})
    drawn = {
        task.trial_id: by_chance.running[task.trial_id].proposal
        for _ in range(14)
        if (task := by_chance.propose())
    }
    modelled = [drawn[name].assignment != proposed[name] for name in drawn]
    assert modelled[:3] == [False] * 3
    assert sum(modelled) >= 4  # most others are the model's
    for events in (1, 6, 11, 16, 20):
        folder = tmp_path / f"cut{events}"
        _go_on(_searched(folder, 14), events)
        after = _searched(folder, 14)
        _go_on(after, 1000)
        found = {trial.trial_id: trial.assignment for trial in journal.read(folder).trials}
        assert found == proposed
        assert [record.status for record in after.records].count("ok") >= 1


def test_a_searcher_is_told_of_each_report_when_it_comes_and_on_a_resume_of_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Searcher, "_observe", lambda self, *report: seen.append(report))
    before = _pausing_driver(tmp_path / "run")
    for em in (60.0, 20.0):
        _report_at(before, _begin(before), 104, em)
    third = _begin(before)
    before.reported(third, {**_report(104), "memory_mb": None}, is_stopped=False)
    expected = [(0, 104, [60.0, 8.0]), (1, 104, [20.0, 8.0]), (2, 104, [10.0, None])]
    assert seen == expected
    before.ended(third, _final(tmp_path / "run/trials/t0002", 40.0), None)
    assert seen[3:] == [(2, 900, [40.0, 8.0])]
    seen.clear()
    _pausing_driver(tmp_path / "run")
    # Of a trial that has ended, the record's curve; here that of the end alone.
    assert sorted(seen) == sorted([*expected[:2], (2, 900, [40.0, 8.0])])


def test_who_is_paused_is_paused_after_a_resume_and_more_trials_may_let_it_go_on(tmp_path: Path) -> None:
    before = _pausing_driver(tmp_path / "run", trials=3)
    for em in (50.0, 20.0):
        _report_at(before, _begin(before), 104, em)
    after = _pausing_driver(tmp_path / "run", trials=3)
    assert (list(after.paused), after.unfinished(), after.trials_left) == (["t0000", "t0001"], 0, 1)
    assert after.spent_examples == 208
    assert [len(curve) for curve in after.history().values()] == [1, 1]
    assert after.has_work()
    assert after.propose().trial_id == "t0002"
    assert _pausing_driver(tmp_path / "run", trials=4).propose().trial_id == "t0002"


def test_a_trial_that_pauses_for_no_other_to_come_goes_on_at_once(tmp_path: Path) -> None:
    driver = _pausing_driver(tmp_path / "run", trials=2)
    first = _begin(driver)
    assert _report_at(driver, first, 104, 50.0) is Verdict.PAUSE  # another trial will come
    second = _begin(driver)
    assert _report_at(driver, second, 104, 40.0) is Verdict.STOP  # no more: the front goes on, the rest stops
    assert driver.propose().trial_id == first
    driver.started(first)
    assert _report_at(driver, first, 312, 55.0) is Verdict.GO_ON
    driver.ended(first, _final(tmp_path / "run/trials/t0000", 60.0), None)
    assert (driver.propose(), driver.has_work(), driver.counts()) == (None, False, {"ok": 1, "stopped": 1})


def test_at_the_floor_the_lowest_loss_goes_on_when_nothing_else_is_left_and_one_front_point_is_enough(
    tmp_path: Path,
) -> None:
    driver = _pausing_driver(tmp_path / "run", trials=3)
    running = [_begin(driver) for _ in range(3)]
    for trial_id in running:
        driver.reported(trial_id, {**_report(104, 5.0), "selection_gain_percent": 0.0}, is_stopped=False)
    found = [
        _report_at(driver, trial_id, 304, 5.0, gain=1.0, loss=loss)
        for trial_id, loss in zip(running, (2.0, 1.5, 1.9), strict=True)
    ]
    assert found == [Verdict.PAUSE] * 3  # the last of them too: another has the lowest loss
    assert driver.observers[0].named("note") == [
        ("rung 300 tells nothing yet: 3 of 3 trials at the score of no answer",)
    ]
    assert _pausing_driver(tmp_path / "run", trials=3)._told_rungs == {
        300
    }  # told once, not again on a resume
    assert driver.propose().trial_id == "t0001"
    assert driver.propose() is None  # while it runs
    driver.started("t0001")
    driver.ended("t0001", _final(tmp_path / "run/trials/t0001", 30.0), None)
    assert (driver.propose(), driver.has_work()) == (None, False)
    assert driver.counts() == {"ok": 1, "paused": 2}
    resumed = _pausing_driver(tmp_path / "run", trials=3)
    assert (resumed.has_work(), resumed.counts()) == (False, {"ok": 1, "paused": 2})


def test_a_trial_that_fails_after_its_report_has_failed_and_is_not_paused(tmp_path: Path) -> None:
    driver = _pausing_driver(tmp_path / "run")
    trial_id = _begin(driver)
    folder = tmp_path / "run/trials/t0000"
    (folder / OUTCOME_FILE).write_text('{"status": "failed", "reason": "x", "traceback": "y"}')
    assert _report_at(driver, trial_id, 104, 50.0) is Verdict.PAUSE
    assert (driver.counts(), driver.paused) == ({"failed": 1}, {})


def test_a_worker_that_dies_after_its_trial_paused_loses_nothing(tmp_path: Path) -> None:
    driver = _pausing_driver(tmp_path / "run")
    trial_id = _begin(driver)
    driver.reported(trial_id, _report(104), is_stopped=False, is_paused=True)
    driver.lost(trial_id, "The actor died", is_own=True)
    assert (list(driver.paused), driver.trials_left) == (["t0000"], 3)


def test_above_the_disk_limit_the_worst_paused_trials_are_stopped_before_the_sweep_ends(
    tmp_path: Path,
) -> None:
    driver = _pausing_driver(tmp_path / "run", max_disk_gb=4.5e-6)
    running = [_begin(driver) for _ in range(4)]  # 1,000 bytes each
    for trial_id, loss in zip(running[:2], (1.0, 2.0), strict=True):
        driver.reported(trial_id, _report(104, 5.0), is_stopped=False)
        _report_at(driver, trial_id, 304, 5.0, gain=1.0, loss=loss)
    assert (driver.records, list(driver.paused)) == ([], ["t0000", "t0001"])
    (tmp_path / "run/trials/t0003/checkpoint/weights").write_bytes(bytes(2000))
    _report_at(driver, running[2], 104, 90.0)  # waits on the front of its rung, and is never given up
    (record,) = driver.records
    assert (record.trial_id, record.status) == ("t0001", "stopped")  # not yet t0000, of the lower loss
    assert record.reason == (
        "stopped at 304 examples, where it was paused, for its disk space (budget.max_disk_gb: 4.5e-06)"
    )
    assert not (tmp_path / "run/trials/t0001/checkpoint").exists()
    assert (driver.ended_by, list(driver.paused)) == (None, ["t0000", "t0002"])
    (tmp_path / "run/trials/t0003/checkpoint/more").write_bytes(bytes(3000))
    driver.reported(running[3], _report(104, 5.0), is_stopped=False)
    assert [record.trial_id for record in driver.records] == ["t0001", "t0000"]
    assert list(driver.paused) == ["t0002"]
    assert driver.ended_by.startswith("the trials' files hold")


def test_a_sweep_ends_when_no_stretch_fits_into_its_examples_and_says_what_is_paused(tmp_path: Path) -> None:
    """What one training needs to its end is kept back until one has come to it; figures stand at each step."""
    driver = _pausing_driver(tmp_path / "run", trials=9, total_examples=1299)
    first = _begin(driver)
    _report_at(driver, first, 100, 90.0)
    for em in (20.0, 95.0):
        trial_id = _begin(driver)
        verdict = _report_at(driver, trial_id, 100, em)
    assert (trial_id, verdict) == (
        "t0002",
        Verdict.GO_ON,
    )  # 300 consumed; to 500 reserved, 600 more to its end
    assert driver.propose().trial_id == "t0003"  # to 600: with those 600 kept back, 1,200
    driver.started("t0003")
    assert [record.trial_id for record in driver.records] == ["t0000", "t0001"]
    assert driver.propose() is None  # a fifth does not fit: 1,300
    assert (
        _report_at(driver, "t0003", 100, 99.0) is Verdict.PAUSE
    )  # 600 consumed or reserved, 200 + 600 more: 1,400
    assert driver.observers[0].named("trial_paused")[-1] == ("t0003", 100, "budget.total_examples")
    assert _report_at(driver, "t0002", 300, 95.0) is Verdict.GO_ON  # nobody else may reach this rung
    driver.ended("t0002", _final(tmp_path / "run/trials/t0002", 60.0), None)
    assert driver.propose() is None
    assert (driver.has_work(), driver.ended_by, driver.unfinished()) == (False, None, 0)
    assert driver.spent_note() == (
        "budget.total_examples: 1200 of 1299 are spent, and no trial's next stretch fits into the rest; 1 trial "
        "paused. A resumed sweep takes another --total-examples"
    )
    assert len(journal.read(tmp_path / "run").trials) == 4  # the fifth was not begun
    more = _pausing_driver(tmp_path / "run", trials=9, total_examples=1500)
    assert more.propose().trial_id == "t0003"
    assert more.spent_note() is None


def test_no_rung_waits_for_a_trial_that_was_cut_short_and_cannot_be_paid_for(tmp_path: Path) -> None:
    before = _pausing_driver(tmp_path / "run", trials=2)
    _report_at(before, _begin(before), 104, 50.0)
    assert (_begin(before), list(before.paused)) == ("t0001", ["t0000"])
    # t0001 needs 100, with 800 kept back for an end: 1,000. t0000 needs 200 and then 600: 900.
    resumed = _pausing_driver(tmp_path / "run", trials=2, total_examples=950)
    assert [running.task.trial_id for running in resumed.cut_short] == ["t0001"]
    assert resumed.has_work()
    assert resumed.propose().trial_id == "t0000"
    assert _pausing_driver(tmp_path / "run", trials=2, total_examples=1000).propose().trial_id == "t0001"


def test_a_sweep_that_had_all_of_its_trials_has_no_note_on_examples(tmp_path: Path) -> None:
    driver = _pausing_driver(tmp_path / "run", trials=1, total_examples=5000)
    trial_id = _begin(driver)
    driver.ended(trial_id, _final(tmp_path / "run/trials/t0000", 60.0), None)
    assert (driver.propose(), driver.spent_note()) == (None, None)
