"""The optimisers by name: they train, their state has the promised size, and rates stay with their groups."""

import pytest
import torch

from qa_core.config import OPTIMIZERS, RunConfig
from qa_core.errors import ConfigError
from qa_core.training.optimizers import STEP_BYTES, optimizer_of, state_bytes
from qa_core.values import from_dict

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    return sum(
        tensor.nbytes
        for values in optimizer.state.values()
        for name, tensor in values.items()
        if isinstance(tensor, torch.Tensor) and not name.startswith("qmap")  # one table for all parameters
    )


def _trained(name: str, *, steps: int = 60) -> tuple[torch.optim.Optimizer, list[float]]:
    """Fit a matrix to another; returns the optimiser and the losses."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(96, 64, generator=generator)
    matrix = torch.nn.Parameter(torch.zeros(96, 64))
    bias = torch.nn.Parameter(torch.zeros(96, 1))
    groups = [
        {"params": [matrix], "peak_lr": 0.1, "weight_decay": 0.01},
        {"params": [bias], "peak_lr": 0.2, "weight_decay": 0.0},
    ]
    optimizer = optimizer_of(name, groups, learning_rate=0.1, device=CPU)
    losses = []
    for _ in range(steps):
        loss = (matrix + bias - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return optimizer, losses


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_all_optimisers_fit_a_matrix_as_adamw_does():
    assert len(OPTIMIZERS) == 4
    _, expected = _trained("adamw")
    assert expected[-1] < 0.01 * expected[0]
    for name in OPTIMIZERS[1:]:
        _, losses = _trained(name)
        # 8-bit moments are rounded to 256 levels, so the paths part; float32 ones differ in the last bits
        tolerance = 0.1 if "8bit" in name else 1e-4
        assert losses == pytest.approx(expected, rel=tolerance, abs=2e-3), name
        assert losses[1:] != expected[1:], f"{name} is not torch's"


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_the_8_bit_state_is_a_quarter_and_small_parameters_keep_float32():
    elements, small = 96 * 64, 96
    blocks = elements // 256
    for name in OPTIMIZERS:
        optimizer, _ = _trained(name, steps=1)
        bits_32 = 2 * 4 * (elements + small)
        bits_8 = 2 * (elements + 4 * blocks) + 2 * 4 * small
        expected = bits_8 if "8bit" in name else bits_32
        steps = 2 * 4 if name == "adamw" else 0  # torch counts steps in a tensor
        assert _state_bytes(optimizer) == expected + steps, name


def test_paging_on_a_cpu_is_said_to_be_none():
    with pytest.warns(UserWarning, match="not supported on CPU"):
        _trained("paged_adamw_8bit", steps=1)


def test_groups_keep_their_own_rates():
    for name in OPTIMIZERS:
        groups = [
            {"params": [torch.nn.Parameter(torch.zeros(2))], "peak_lr": rate, "weight_decay": decay}
            for rate, decay in ((0.1, 0.0), (0.3, 0.5))
        ]
        optimizer = optimizer_of(name, groups, learning_rate=0.1, device=CPU)
        found = [(group["peak_lr"], group["weight_decay"]) for group in optimizer.param_groups]
        assert found == [(0.1, 0.0), (0.3, 0.5)]


def test_an_unknown_optimiser_is_refused_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"train\.optimizer: found 'adam'; allowed: adamw, adamw_8bit"):
        from_dict(RunConfig, {"model": {"family": "bert"}, "train": {"optimizer": "adam"}})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_bytes_of_the_state_are_known_before_there_is_one(name):
    optimizer, _ = _trained(name, steps=1)
    counts = [item.numel() for group in optimizer.param_groups for item in group["params"]]
    assert counts == [96 * 64, 96]  # one above and one below the size from which numbers take 8 bits
    assert state_bytes(name, counts) == pytest.approx(_state_bytes(optimizer), abs=2 * STEP_BYTES)
