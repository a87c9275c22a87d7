"""A trial's cap on its GPU, with a CUDA that only notes what it is told: no GPU is at hand."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from qa_core.turns import ALONE
from sweeps.budget import gpu_cap
from sweeps.budget.gpu_shares import PROCESS_BYTES
from sweeps.budget.gpu_turns import DeviceTurns

DEVICE_BYTES = 100 * PROCESS_BYTES


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list:
    """What a CUDA device is told: fractions, and `empty` for its cache."""
    told: list = []
    properties = SimpleNamespace(total_memory=DEVICE_BYTES, uuid="a-device")
    fakes = {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "synchronize": lambda: None,
        "get_device_properties": lambda index: properties,
        "set_per_process_memory_fraction": told.append,
        "empty_cache": lambda: told.append("empty"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(gpu_cap.tempfile, "gettempdir", lambda: str(tmp_path))
    return told


def test_a_share_caps_the_process_until_the_trial_ends_however_it_ends(told):
    def trial() -> None:
        with gpu_cap.on_share(0.25, "auto") as turns:
            assert isinstance(turns, DeviceTurns)
            assert told == [0.24]
            raise MemoryError

    with pytest.raises(MemoryError):
        trial()
    assert told == [0.24, 1.0]


def test_a_whole_device_has_no_cap_even_where_an_earlier_trial_left_one(told):
    with gpu_cap.on_share(1.0, "auto") as turns:
        assert not isinstance(turns, DeviceTurns)
    assert told == [1.0]


def test_the_cap_is_lifted_for_a_measurement_and_comes_back(told):
    with gpu_cap.on_share(0.5, "cuda") as turns, turns.working():
        told.clear()
        with turns.measuring():
            assert told == ["empty", 1.0]
        assert told == ["empty", 1.0, "empty", 0.49]


def test_a_gpu_that_ray_does_not_keep_for_the_trial_is_shared_without_a_cap(told):
    with gpu_cap.on_share(0.0, "auto") as turns:
        assert isinstance(turns, DeviceTurns)
    assert told == [1.0, 1.0]


def test_a_recipe_for_the_cpu_touches_no_gpu(told):
    with gpu_cap.on_share(0.25, "cpu"):
        assert told == []


def test_without_cuda_there_is_nothing_to_do(told, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with gpu_cap.on_share(0.25, "auto") as turns:
        assert type(turns) is type(ALONE)
    assert told == []
    assert list(tmp_path.iterdir()) == []


def test_processes_on_one_device_meet_in_one_folder_of_their_user(told, tmp_path):
    folder = gpu_cap.device_folder()
    assert folder.name == "a-device"
    assert folder.parent.parent == tmp_path
    with gpu_cap.on_share(0.5, "auto"):
        assert folder.parent.stat().st_mode & 0o777 == 0o700
