"""The scan: exact values, exact gradients, whatever the chunks, and agreement with its plain reading."""

import math

import pytest
import torch
from torch import Tensor

from qa_core.models import selective_scan as module
from qa_core.models.selective_scan import selective_scan, selective_scan_reference
from tests.contracts.rounding import assert_same_to_rounding

pytestmark = pytest.mark.numeric

NAMES = ("inputs", "steps", "decay", "input_gates", "output_gates")


def _arguments(
    batch: int = 2, length: int = 7, width: int = 5, state_width: int = 3, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    values = [
        draw(batch, length, width),
        draw(batch, length, width).exp() * 0.3,
        -draw(width, state_width).exp(),
        draw(batch, length, state_width),
        draw(batch, length, state_width),
    ]
    return [item.requires_grad_() for item in values]


def _call(function: object, arguments: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    inputs, steps, decay, input_gates, output_gates = arguments
    return function(  # type: ignore[operator]
        inputs, steps, decay=decay, input_gates=input_gates, output_gates=output_gates
    )


def _set_chunk(monkeypatch: pytest.MonkeyPatch, steps: int, arguments: list[Tensor]) -> None:
    per_step = arguments[0].shape[0] * arguments[2].numel()
    monkeypatch.setitem(module.CHUNK_ELEMENTS, "cpu", steps * per_step)


def test_two_steps_of_one_channel_by_hand() -> None:
    half = math.log(2.0)  # exp(-half) = 0.5
    outputs = selective_scan(
        torch.tensor([[[3.0], [5.0]]]),
        torch.tensor([[[half], [2 * half]]]),
        decay=torch.tensor([[-1.0]]),
        input_gates=torch.tensor([[[1.0], [2.0]]]),
        output_gates=torch.tensor([[[10.0], [100.0]]]),
    )
    first = 3 * half  # h_1 = dt u B
    second = 0.25 * first + 2 * half * 5 * 2  # h_2 = exp(-2 half) h_1 + dt u B
    torch.testing.assert_close(outputs, torch.tensor([[[10 * first], [100 * second]]]))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100])
def test_gradients_equal_finite_differences_in_float64(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    arguments = _arguments()
    _set_chunk(monkeypatch, chunk, arguments)
    assert torch.autograd.gradcheck(lambda *items: _call(selective_scan, items), arguments)


@pytest.mark.parametrize("chunk", [1, 4, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_outputs_and_gradients_equal_the_reference(
    monkeypatch: pytest.MonkeyPatch, chunk: int, dtype: torch.dtype, tolerance: float
) -> None:
    arguments = _arguments(batch=3, length=41, width=6, state_width=4, dtype=dtype)
    _set_chunk(monkeypatch, chunk, arguments)
    weights = torch.randn(3, 41, 6, generator=torch.Generator().manual_seed(1), dtype=dtype)
    outputs = [_call(function, arguments) for function in (selective_scan, selective_scan_reference)]
    torch.testing.assert_close(*outputs, atol=tolerance, rtol=tolerance)
    gradients = [torch.autograd.grad((item * weights).sum(), arguments) for item in outputs]
    for name, ours, reference in zip(NAMES, *gradients, strict=True):
        scale = reference.abs().max()
        torch.testing.assert_close(ours / scale, reference / scale, atol=tolerance, rtol=0, msg=name)


def test_without_gradients_the_outputs_are_the_same() -> None:
    arguments = _arguments(length=33, dtype=torch.float32)
    trained = _call(selective_scan, arguments)
    with torch.no_grad():
        assert_same_to_rounding(_call(selective_scan, arguments), trained.detach())
    assert trained.requires_grad


def test_what_comes_later_changes_nothing_before_it() -> None:
    arguments = [item.detach() for item in _arguments(length=9)]
    changed = [item.clone() for item in arguments]
    for index in (0, 1, 3, 4):
        changed[index][:, 6:] += 0.5
    before, after = _call(selective_scan, arguments), _call(selective_scan, changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_the_gradient_of_the_gradient_is_refused_not_wrong() -> None:
    arguments = _arguments()
    (gradient,) = torch.autograd.grad(
        _call(selective_scan, arguments).square().sum(), arguments[:1], create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
