"""Checkpoints: what a replacement that was interrupted at any moment leaves can be gone on from."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qa_core.training import checkpoint
from qa_core.training.train import TrainState

# Saves a second checkpoint and is killed before the folder itself is moved for the first or the second time.
KILLED_AT = """
import os, signal, sys
from pathlib import Path
from tests.qa_core.training.test_checkpoint import saved

folder, moves = Path(sys.argv[1]), 0

def killing(move):
    def moved(source, target, **options):
        global moves
        moves += folder in (Path(source), Path(target))
        if moves == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return move(source, target, **options)
    return moved

os.rename, os.replace = killing(os.rename), killing(os.replace)
saved(folder, examples_seen=20)
"""


def saved(folder: Path, *, examples_seen: int) -> torch.nn.Module:
    """Write a checkpoint whose every weight is the number of examples; returns the network."""
    model, optimizer = _network()
    with torch.no_grad():
        for item in model.parameters():
            item.fill_(float(examples_seen))
    checkpoint.save(folder, model, optimizer, TrainState(examples_seen=examples_seen))
    return model


def _network() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(3, 2)
    return model, torch.optim.AdamW(model.parameters())


def _restored(folder: Path) -> int | None:
    """Return the examples that the restored checkpoint names, as which its weights must read; None: there is none."""
    model, optimizer = _network()
    state = checkpoint.restore(folder, model, optimizer)
    if state is None:
        return None
    assert all((item == state.examples_seen).all() for item in model.parameters())
    return state.examples_seen


def test_a_second_checkpoint_replaces_the_first_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    assert _restored(folder) is None
    for examples_seen in (10, 20):
        saved(folder, examples_seen=examples_seen)
        assert _restored(folder) == examples_seen
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("move", [1, 2])
@pytest.mark.long
def test_a_process_killed_at_any_step_of_a_replacement_leaves_the_former_checkpoint(
    move: int, tmp_path: Path
) -> None:
    """Before the former one is set aside, and between that and the new one's coming to its place."""
    folder = tmp_path / "checkpoint"
    saved(folder, examples_seen=10)
    command = [sys.executable, "-c", KILLED_AT, str(folder), str(move)]
    killed = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert folder.exists() == (move == 1)
    assert _restored(folder) == 10
    saved(folder, examples_seen=30)
    assert _restored(folder) == 30
