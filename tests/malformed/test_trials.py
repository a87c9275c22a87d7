"""Damaged checkpoints and notes: a named error, which is the trial's reason and not the sweep's end."""

import json
from pathlib import Path

import pytest
import torch

from qa_core.errors import CheckpointError, DataError
from qa_core.training import checkpoint
from qa_core.training.checkpoint import TrainState
from sweeps.run_folder.layout import FINAL_FILE, OUTCOME_FILE
from sweeps.trials import worker
from sweeps.trials.task import TrialTask, as_values, read_final, read_outcome
from tests.ids import plain
from tests.malformed.artifact_cases import MARKER
from tests.malformed.checkpoint_cases import BAD, FINALS, OUTCOMES, Damage, network


def ids(table: list[tuple]) -> list[str | None]:
    return [plain(name) for name, *_ in table]


@pytest.mark.parametrize(("name", "damage", "says"), BAD, ids=ids(BAD))
def test_a_damaged_checkpoint_is_refused_with_its_folder_and_reason(
    name: str, damage: Damage, says: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoint"
    model, optimizer = network()
    checkpoint.save(folder, model, optimizer, TrainState(examples_seen=8))
    assert checkpoint.restore(folder, *network()) == TrainState(examples_seen=8)
    damage(folder)
    with pytest.raises(CheckpointError) as refusal:
        checkpoint.restore(folder, *network())
    assert str(refusal.value).startswith(f"{folder}: ")
    assert [part for part in says if part not in str(refusal.value)] == []
    assert not Path(MARKER).exists()


def test_a_device_that_is_full_is_not_the_checkpoints_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = network()
    checkpoint.save(tmp_path / "checkpoint", model, optimizer, TrainState())

    def full(*arguments: object, **named: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(model, "load_state_dict", full)
    with pytest.raises(torch.OutOfMemoryError):
        checkpoint.restore(tmp_path / "checkpoint", model, optimizer)


@pytest.mark.parametrize(("name", "content"), OUTCOMES, ids=ids(OUTCOMES))
def test_a_damaged_outcome_is_a_failure_that_names_the_file(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / OUTCOME_FILE).write_bytes(content)
    found = read_outcome(tmp_path)
    assert found is not None
    assert (found["status"], found["traceback"]) == ("failed", None)
    assert found["reason"].startswith(f"DataError: {tmp_path / OUTCOME_FILE}: ")


def test_a_whole_outcome_is_read_as_it_was_written(tmp_path: Path) -> None:
    outcome = {"status": "oom", "reason": "full", "traceback": "Traceback ...", "node": "1a2b", "gpus": None}
    (tmp_path / OUTCOME_FILE).write_text(json.dumps(outcome))
    assert read_outcome(tmp_path) == outcome


@pytest.mark.parametrize(("name", "content"), FINALS, ids=ids(FINALS))
def test_a_damaged_final_report_fails_its_trial_alone(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "artifact").mkdir()
    (tmp_path / FINAL_FILE).write_bytes(content)
    with pytest.raises(DataError, match=FINAL_FILE):
        read_final(tmp_path)
    monkeypatch.setattr(worker, "execute", lambda *arguments: pytest.fail("the trial ran again"))
    task = TrialTask("t0000", {}, str(tmp_path), str(tmp_path / "cache"), 1)
    with pytest.raises(DataError):
        worker.run_trial(as_values(task))
    found = read_outcome(tmp_path)
    assert found is not None
    assert found["status"] == "failed"
    assert str(tmp_path / FINAL_FILE) in found["reason"]
