"""Weights are read into a network a few bytes of the file at a time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from qa_core.artifact import weight_file
from qa_core.errors import ArtifactError

TENSORS = {
    "table": torch.arange(60, dtype=torch.float32).view(20, 3),
    "half": torch.linspace(-1, 1, 14).to(torch.bfloat16).view(2, 7),
    "codes": torch.arange(-40, 40, dtype=torch.int8),
    "number": torch.tensor(7),
    "empty": torch.zeros(0, 4),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def _network() -> dict[str, torch.Tensor]:
    return {f"layer.{name}": torch.full_like(tensor, 1) for name, tensor in TENSORS.items()}


NAMES = {f"layer.{name}": name for name in TENSORS}


@pytest.mark.parametrize("at_once", [1, 24, 2**22])
def test_a_network_is_filled_with_few_bytes_of_the_file_at_a_time(
    path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []  # bytes, of each time that the file was opened

    class Counting:
        def __init__(self, *arguments: Any) -> None:
            self._file = safe_open(*arguments)

        def __enter__(self) -> "Counting":
            self._open = self._file.__enter__()
            taken.append(0)
            return self

        def __exit__(self, *error: Any) -> None:
            self._file.__exit__(*error)

        def get_tensor(self, name: str) -> torch.Tensor:
            taken[-1] += TENSORS[name].nbytes
            return self._open.get_tensor(name)

        def get_slice(self, name: str) -> Any:
            opened = self._open.get_slice(name)

            class Slice:
                def __getitem__(self, rows: slice) -> torch.Tensor:
                    found = opened[rows]
                    taken[-1] += found.nbytes
                    return found

            return Slice()

    monkeypatch.setattr(weight_file, "BYTES_AT_ONCE", at_once)
    monkeypatch.setattr(weight_file, "safe_open", Counting)
    state = _network()

    weight_file.fill(path, NAMES, state)

    for name, tensor in TENSORS.items():
        assert torch.equal(state[f"layer.{name}"], tensor), name
    assert sum(taken) == sum(tensor.nbytes for tensor in TENSORS.values())  # each once
    widest_row = max(tensor[:1].nbytes for tensor in TENSORS.values() if tensor.ndim)
    assert max(taken) <= 2 * max(at_once, widest_row)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer.table": torch.zeros(20, 4)}, r"table: found torch.float32 \[20, 3\]; allowed: .* \[20, 4\]"),
        ({"layer.half": torch.zeros(2, 7)}, r"half: found torch.bfloat16 \[2, 7\]; allowed: torch.float32"),
        (
            {"layer.number": torch.zeros(1, dtype=torch.int64)},
            r"number: found torch.int64 \[\]; allowed: .* \[1\]",
        ),
    ],
    ids=["shape", "dtype", "no-dimension"],
)
def test_a_tensor_that_the_network_has_otherwise_is_refused(
    path: Path, change: Mapping[str, torch.Tensor], words: str
) -> None:
    with pytest.raises(ArtifactError, match=words):
        weight_file.check_tensors(path, NAMES, _network() | change)
