"""A trial in its worker: the final report, recorded failures, nothing left over."""

import gc
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from qa_core.data import squad, trained_tokenizers, vectors, windows
from qa_core.errors import Paused, StorageError
from sweeps.nodes.preflight import NodeRefused
from sweeps.run_folder.layout import FINAL_FILE, WORKER_LOCK
from sweeps.spec.objectives import are_settled_by_form
from sweeps.trials import worker
from sweeps.trials.task import TrialTask, as_values, from_values, packed, read_final, read_outcome, unpacked


def _task(folder: Path, cache_dir: Path, small_squad: Path, **changes) -> TrialTask:
    recipe = {
        "model": {"family": "bert", "checkpoint": "micro", "vocab_size": 300},
        "data": {
            "train": str(small_squad),
            "evaluation": str(small_squad),
            "max_length": 64,
            "stride": 8,
            "max_question_length": 24,
        },
        "train": {"budget_examples": 60, "rungs": [20], "precision": "float32"},
        "evaluation": {"precision": "float32", "latency_runs": 2},
    }
    values = {
        "trial_id": "t0000",
        "recipe": recipe,
        "folder": str(folder),
        "cache_dir": str(cache_dir),
        "threads": 1,
        "objectives": ("em_percent", "memory_mb"),
    }
    return TrialTask(**{**values, **changes})


def test_the_final_report_carries_the_result_and_is_plain_json(small_squad, cache_dir, tmp_path):
    reports = []
    final = worker.execute(_task(tmp_path / "t", cache_dir, small_squad), reports.append)
    assert [report.examples_seen for report in reports] == [32]
    assert final["final"] is True
    assert final["examples_seen"] == 60
    assert final["memory_mb"] == final["result"]["cost"]["inference_peak_bytes"] / 1e6
    assert json.loads(json.dumps(final, allow_nan=False)) == final


def test_a_task_arrives_in_the_worker_as_it_was(small_squad, cache_dir, tmp_path):
    task = _task(
        tmp_path / "t", cache_dir, small_squad, gpu_share=0.25, predicted_bytes=2**40, max_memory_mb=0.1 + 0.2
    )
    values = as_values(task)
    assert from_values(values) == task
    assert (values["trial_id"], values["gpu_share"]) == ("t0000", 0.25)
    assert all(isinstance(value, str | float) for value in values.values())


def test_a_process_names_the_gpus_that_it_sees_once_it_has_computed_on_one(monkeypatch) -> None:
    assert worker.used_gpus() == []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    assert worker.used_gpus() == [], "a look would take memory there"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert worker.used_gpus() == ["GPU 0", "GPU 1"]


def test_what_ray_is_sent_at_the_end_has_no_numbers_of_the_result_and_arrives_as_it_was() -> None:
    final = {
        "examples_seen": 60,
        "final": True,
        "result": {"quality": {"em_percent": 0.1 + 0.2}, "curve": [{}]},
    }
    sent = packed(final)
    assert sent["examples_seen"] == 60
    assert isinstance(sent["result"], str)
    assert unpacked(sent) == final
    rung = {"examples_seen": 20, "final": False}
    assert unpacked(rung) == rung


def test_nothing_of_a_finished_trial_stays_in_the_worker(small_squad, cache_dir, tmp_path):
    before = worker.leftover_tensor_bytes()
    worker.execute(_task(tmp_path / "t", cache_dir, small_squad), lambda report: None)
    after = worker.leftover_tensor_bytes()
    assert after - before < worker.CLEAN_START_BYTES
    held = torch.zeros(worker.CLEAN_START_BYTES, dtype=torch.float32)
    assert worker.leftover_tensor_bytes() - after >= held.nbytes


def test_what_a_later_trial_leaves_is_still_found_when_imported_modules_are_left_out(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(worker, "_has_run_before", False)
    gc.unfreeze()
    counts = []
    with monkeypatch.context() as patches:
        patches.setattr(
            worker, "leftover_tensor_bytes", lambda: 0
        )  # other tests' tensors live in this process
        for name in ("a", "b"):
            worker.execute(_task(tmp_path / name, cache_dir, small_squad), lambda report: None)
            counts.append(gc.get_freeze_count())
    assert counts[0] == 0
    assert counts[1] > 100_000
    before = worker.leftover_tensor_bytes()
    held = torch.zeros(worker.CLEAN_START_BYTES, dtype=torch.float32)
    assert worker.leftover_tensor_bytes() - before == held.nbytes
    gc.unfreeze()


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"max_memory_mb": 0.1}, "stopped", "OverMemoryBudget"),
        ({"recipe": {"model": {"family": "bertt"}}}, "failed", "did you mean 'bert'"),
    ],
)
def test_a_trial_that_cannot_go_on_leaves_a_note_with_its_traceback(
    changes, status, words, small_squad, cache_dir, tmp_path
):
    task = _task(tmp_path / "t", cache_dir, small_squad, **changes)
    with pytest.raises(Exception, match=words.partition(" ")[0] if status == "failed" else "max_memory_mb"):
        worker.run_trial(as_values(task))
    note = read_outcome(tmp_path / "t")
    assert note is not None
    assert note["status"] == status
    assert words in note["reason"]
    assert "Traceback" in note["traceback"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError("no"), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"), "oom"),
        (RuntimeError("shapes differ"), "failed"),
    ],
)
def test_out_of_memory_is_told_from_other_failures(error, status):
    assert worker.status_of(error) == status


def test_a_trial_without_a_note_has_none(tmp_path):
    assert read_outcome(tmp_path) is None


def _reports_of(task: TrialTask, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    from ray import tune

    reports: list[dict] = []
    monkeypatch.setattr(tune, "report", reports.append)
    worker.run_trial(as_values(task))
    return [unpacked(report) for report in reports]


def test_a_trial_that_ended_unheard_sends_its_final_report_again_without_training(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    task = _task(tmp_path / "t", cache_dir, small_squad)
    first = _reports_of(task, monkeypatch)
    assert [report["examples_seen"] for report in first] == [32, 60]
    monkeypatch.setattr(worker, "execute", lambda *_: pytest.fail("trained again"))
    assert _reports_of(task, monkeypatch) == first[1:]
    moved = tmp_path / "moved"
    (tmp_path / "t").rename(moved)
    (again,) = _reports_of(replace(task, folder=str(moved)), monkeypatch)
    assert again["result"]["artifact"] == str(moved / "artifact")
    shutil.rmtree(moved / "artifact")
    assert read_final(moved) is None


def test_reports_that_the_driver_has_are_not_sent_again(small_squad, cache_dir, tmp_path, monkeypatch):
    task = _task(tmp_path / "t", cache_dir, small_squad, reported_examples=32)
    assert [report["examples_seen"] for report in _reports_of(task, monkeypatch)] == [60]


def test_a_folder_that_another_worker_holds_is_waited_for_and_then_refused(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    task = _task(tmp_path / "t", cache_dir, small_squad)
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(worker, "LOCK_SECONDS", 0.2)
    with FileLock(tmp_path / "t" / WORKER_LOCK), pytest.raises(StorageError, match="another worker"):
        worker.run_trial(as_values(task))
    assert read_outcome(tmp_path / "t") is None


def test_a_trial_that_is_to_pause_leaves_a_checkpoint_and_no_word_of_its_end(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(worker, "PAUSE_LOOK_SECONDS", 0.0)
    (tmp_path / "pause").touch()
    task = _task(tmp_path / "t", cache_dir, small_squad, pause_file=str(tmp_path / "pause"))
    with pytest.raises(Paused, match=r"paused after \d+ of 60 examples"):
        _reports_of(task, monkeypatch)
    assert (tmp_path / "t" / "checkpoint" / "state.json").exists()
    note = read_outcome(tmp_path / "t")
    assert note is not None
    assert (note["status"], read_final(tmp_path / "t")) == ("paused", None)
    (tmp_path / "pause").unlink()
    assert [report["examples_seen"] for report in _reports_of(task, monkeypatch)] == [32, 60]


def test_the_pause_file_is_looked_for_once_a_second_at_most(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: now[0])
    is_to_pause = worker._pause_watch(str(tmp_path / "pause"))
    (tmp_path / "pause").touch()
    assert is_to_pause() is False
    now[0] += 1.0
    assert is_to_pause() is True
    assert worker._pause_watch(None)() is False


def test_a_worker_that_does_not_see_the_sweeps_folder_trains_nothing(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(worker, "_node", lambda: "abcdef123456")
    run = tmp_path / "run"
    task = _task(run / "trials" / "t0000", cache_dir, small_squad, sweep_folder=str(run))
    with pytest.raises(NodeRefused, match=r"node abcdef123456 does not see .*run/preflight\.json"):
        worker.run_trial(as_values(task))
    assert not run.exists()


def test_a_second_trial_on_a_node_parses_nothing_trains_no_tokenizer_and_builds_no_windows(
    small_squad, tmp_path, monkeypatch
):
    """What is made of the sources is made under a lock in the cache folder: the makers are where it can be counted."""
    made = []

    def count(module, name):
        maker = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: made.append(name) or maker(*a, **k))

    count(squad, "read_json")
    count(trained_tokenizers, "train_tokenizer")
    count(windows, "encode_table")
    count(vectors, "_parse")
    (tmp_path / "vectors.txt").write_text("the 0.1 0.2\nof 0.3 0.4\n")
    (tmp_path / "train.json").write_bytes(
        small_squad.read_bytes() + b" "
    )  # other content than the evaluation's
    finals = []
    for learning_rate in (0.001, 0.004):
        folder = tmp_path / str(learning_rate)
        task = _task(folder, tmp_path / "cache", small_squad)
        recipe = {
            **task.recipe,
            "model": {
                **task.recipe["model"],
                "family": "lstm",
                "options": {"vectors": str(tmp_path / "vectors.txt")},
            },
            "data": {**task.recipe["data"], "train": str(tmp_path / "train.json")},
            "train": {**task.recipe["train"], "learning_rate": learning_rate},
        }
        finals.append(worker.execute(replace(task, recipe=recipe), lambda report: None))
        if folder.name == "0.001":
            assert sorted(made) == [
                "_parse",
                *["encode_table"] * 3,  # training, selection and evaluation set
                *["read_json"] * 2,  # training and evaluation file
                "train_tokenizer",
            ]
            del made[:]
    assert made == []
    data = [final["result"]["data"] for final in finals]
    assert data[0] == data[1]


def test_a_trial_that_was_killed_between_its_artifact_and_its_final_report_runs_again(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    task = _task(tmp_path / "t", cache_dir, small_squad)
    (final,) = _reports_of(task, monkeypatch)[-1:]
    (tmp_path / "t" / FINAL_FILE).unlink()
    again = _reports_of(task, monkeypatch)[-1]
    assert again["result"]["quality"] == final["result"]["quality"]


INT8 = {"label": "int8", "settings": {"methods.quantize.bits": 8}}
TWIN = {"label": "float32", "settings": {}}


def test_a_task_with_forms_ends_with_a_result_of_each(small_squad, cache_dir, tmp_path, monkeypatch):
    task = _task(tmp_path / "t", cache_dir, small_squad, forms=(INT8, TWIN))
    assert from_values(as_values(task)) == task
    (final,) = _reports_of(task, monkeypatch)[-1:]
    forms = {form["label"]: form for form in final["result"]["forms"]}
    assert [(label, form["status"], form["settings"]) for label, form in forms.items()] == [
        ("int8", "ok", INT8["settings"]),
        ("float32", "ok", {}),
    ]
    assert forms["float32"]["quality"] == final["result"]["quality"]
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "t", moved)
    again = read_final(moved)
    assert again is not None
    assert [form["artifact"] for form in again["result"]["forms"]] == [
        str(moved / "forms" / "int8" / "artifact"),
        str(moved / "artifact"),
    ]
    assert all(Path(form["artifact"]).is_dir() for form in again["result"]["forms"])


def test_a_worker_that_was_killed_between_two_forms_goes_on_with_the_next(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    from qa_core import stored_forms

    task = _task(tmp_path / "t", cache_dir, small_squad, forms=(INT8, TWIN))
    with monkeypatch.context() as patches:
        patches.setattr(stored_forms, "make_forms", lambda *_, **__: pytest.fail("killed"))
        patches.setattr("qa_core.run.make_forms", stored_forms.make_forms)
        with pytest.raises(BaseException, match="killed"):
            _reports_of(task, monkeypatch)
    weights = tmp_path / "t" / "artifact" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    monkeypatch.setattr("qa_core.training.train.accumulate", lambda *_: pytest.fail("trained again"))
    (final,) = _reports_of(task, monkeypatch)[-1:]
    assert [form["status"] for form in final["result"]["forms"]] == ["ok", "ok"]
    assert weights.stat().st_mtime_ns == before


def test_a_form_that_fails_leaves_its_traceback_without_secrets(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    from qa_core import stored_forms

    def broken(*_):
        raise RuntimeError("https://me:secret-word@host/x")

    monkeypatch.setattr(stored_forms, "write_form", broken)
    worker.execute(_task(tmp_path / "t", cache_dir, small_squad, forms=(INT8, TWIN)), lambda report: None)
    text = (tmp_path / "t" / "forms" / "int8" / "outcome.json").read_text()
    assert "Traceback" in text
    assert "secret-word" not in text


def test_forms_are_skipped_only_where_no_objective_could_prefer_them():
    assert are_settled_by_form(("em_percent", "memory_mb", "artifact_bytes", "train_peak_bytes"))
    for other in ("f1_percent", "latency_p50_ms", "latency_p95_ms"):
        assert not are_settled_by_form(("em_percent", "memory_mb", other))
