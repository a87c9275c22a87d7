"""Layers that are quantised as bitsandbytes does it: the same codes and products, without its traps.

A trap is shown on bitsandbytes' own layer where this machine has it, beside the layer that avoids it. It is imported in
the tests alone: that takes two seconds of a processor, which the collection of tests would pay.
"""

import logging
from typing import Any

import pytest
import torch
from torch import nn

from tests.contracts.rounding import assert_same_to_rounding

pytestmark = pytest.mark.numeric


@pytest.fixture
def repacks() -> None:
    """Skip where bitsandbytes does not repack NF4, which it does on CPUs with AVX512-BF16 only."""
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("bitsandbytes repacks NF4 on CPUs with AVX512-BF16 only")


def _linear(rows: int = 48, columns: int = 128, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(columns, rows, bias=bias)


def _nf4(linear: nn.Linear, *, double_quantisation: bool) -> Any:
    from qa_core.models.quantised_linear import Nf4Linear

    return Nf4Linear(linear, double_quantisation=double_quantisation)


def _int8(linear: nn.Linear, *, threshold: float) -> Any:
    from qa_core.models.quantised_linear import Int8Linear

    return Int8Linear(linear, threshold=threshold)


def _bitsandbytes_nf4(linear: nn.Linear, *, double_quantisation: bool = True) -> Any:
    """Return bitsandbytes' own layer with the same weight and bias."""
    import bitsandbytes

    layer = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        quant_type="nf4",
        compress_statistics=double_quantisation,
    )
    layer.load_state_dict(linear.state_dict())
    return layer.to("cpu")


def _bitsandbytes_int8() -> Any:
    """Return bitsandbytes' own layer of [48, 128], its weight not yet quantised."""
    import bitsandbytes

    return bitsandbytes.nn.Linear8bitLt(128, 48, has_fp16_weights=False)


def _inputs(columns: int = 128, rows: int = 6, *, seed: int = 1) -> torch.Tensor:
    return torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("double_quantisation", [True, False])
def test_nf4_codes_and_scales_are_bitsandbytes_own(double_quantisation):
    linear = _linear()
    ours = _nf4(linear, double_quantisation=double_quantisation).state_dict()
    theirs = _bitsandbytes_nf4(linear, double_quantisation=double_quantisation).state_dict()
    assert len(ours) == (7 if double_quantisation else 5)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def test_int8_codes_and_row_scales_are_bitsandbytes_own():
    linear = _linear()
    theirs = _bitsandbytes_int8()
    theirs.load_state_dict(linear.state_dict())
    theirs = theirs.to("cpu").state_dict()
    ours = _int8(linear, threshold=6.0).state_dict()
    assert set(ours) == {"weight", "bias", "SCB", "weight_format"} == set(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    assert ours["weight"].dtype == torch.int8
    assert ours["SCB"].shape == (48,)


@pytest.mark.facts
def test_a_weight_takes_4_127_bits_with_double_quantisation_and_4_5_without():
    linear = _linear(1024, 1024)
    for double, expected in ((True, 4.126953), (False, 4.5)):
        matrix = _nf4(linear, double_quantisation=double).stored()
        bits = 8 * sum(item.nbytes for name, item in matrix.named_buffers() if name != "offset") / 1024**2
        assert bits == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_product_is_that_with_the_decoded_weight(autocast):
    from bitsandbytes.functional import dequantize_4bit

    linear, inputs = _linear(), _inputs()
    nf4 = _nf4(linear, double_quantisation=True)
    int8 = _int8(linear, threshold=6.0)
    decoded = {nf4: dequantize_4bit(nf4.weight.data, nf4.weight.quant_state)}
    decoded[int8] = int8.state.CB.float() * (int8.state.SCB[:, None] / 127)
    for layer, weight in decoded.items():
        assert (weight - linear.weight).abs().max() < 0.02
        assert not torch.equal(weight, linear.weight)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            expected = nn.functional.linear(inputs, weight, linear.bias)
            for training in (True, False):
                found = layer.train(training)(inputs)
                assert found.dtype == expected.dtype
                tolerance = 2e-2 if autocast else 1e-5  # bfloat16: the bias is added after rounding
                torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_gradients_reach_the_inputs_and_not_the_weight():
    for layer in (_nf4(_linear(), double_quantisation=True), _int8(_linear(), threshold=6.0)):
        inputs = _inputs().requires_grad_()
        layer.train()(inputs).sum().backward()
        expected = layer.stored().dense().sum(dim=0).expand_as(inputs)
        torch.testing.assert_close(inputs.grad, expected, atol=1e-5, rtol=1e-5)
        assert not layer.weight.requires_grad


@pytest.mark.usefixtures("repacks")
def test_an_evaluation_with_outputs_no_multiple_of_32_fails_in_theirs_and_not_in_ours():
    linear = _linear(rows=20)
    with torch.no_grad():
        with pytest.raises(AssertionError, match="N must be divisible"):
            _bitsandbytes_nf4(linear).eval()(_inputs())
        assert _nf4(linear, double_quantisation=True).eval()(_inputs()).shape == (2, 6, 20)


def _train_evaluate_train(layer: nn.Module) -> list[torch.Tensor]:
    gradients = []
    for _ in range(2):
        inputs = _inputs().requires_grad_()
        layer.train()(inputs).square().sum().backward()
        gradients.append(inputs.grad)
        with torch.no_grad():
            layer.eval()(_inputs())
    return gradients


@pytest.mark.usefixtures("repacks")
def test_training_after_an_evaluation_fails_in_theirs():
    with pytest.raises(RuntimeError):
        _train_evaluate_train(_bitsandbytes_nf4(_linear(rows=64)))


def test_training_after_an_evaluation_gives_the_same_gradients_in_ours():
    for layer in (
        _nf4(_linear(rows=64), double_quantisation=True),
        _int8(_linear(rows=64), threshold=6.0),
    ):
        first, second = _train_evaluate_train(layer)
        assert torch.equal(first, second)
        assert first.abs().max() > 0


def _drift_by_saving(layer: Any) -> float:
    """Return how far the decoded weight moves when the state is saved after an evaluation, relative to its size."""
    from bitsandbytes.functional import dequantize_4bit

    def decoded() -> torch.Tensor:
        return dequantize_4bit(layer.weight.data, layer.weight.quant_state)

    before = decoded()
    with torch.no_grad():
        layer.eval()(_inputs())
    layer.state_dict()
    return float((decoded() - before).norm() / before.norm())


@pytest.mark.usefixtures("repacks")
def test_saving_after_an_evaluation_damages_the_weight_of_theirs():
    assert _drift_by_saving(_bitsandbytes_nf4(_linear(rows=64), double_quantisation=False)) > 0.01


@pytest.mark.parametrize("double_quantisation", [True, False])
def test_saving_after_an_evaluation_changes_nothing_in_ours(double_quantisation):
    layer = _nf4(_linear(rows=64), double_quantisation=double_quantisation)
    codes = layer.weight.clone()
    assert _drift_by_saving(layer) == 0
    assert torch.equal(layer.weight, codes)


def test_a_frozen_bias_keeps_its_bits_under_autocast_and_theirs_is_cast_for_good():
    linear = _linear(rows=64)
    theirs = _bitsandbytes_nf4(linear)
    theirs.compute_dtype, theirs.compute_type_is_set = torch.bfloat16, True
    theirs.train()(_inputs())
    assert theirs.bias.dtype == torch.bfloat16
    for layer in (_nf4(linear, double_quantisation=True), _int8(linear, threshold=6.0)):
        expected = layer.bias.detach().clone()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer.train()(_inputs())
            layer(_inputs().bfloat16())
        assert layer.bias.dtype == torch.float32
        assert torch.equal(layer.bias, expected)


def test_the_dtype_of_the_first_input_does_not_stay():
    layer = _nf4(_linear(), double_quantisation=True).train()
    expected = layer(_inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(_inputs()).dtype == torch.bfloat16
    assert torch.equal(layer(_inputs()), expected)


def test_int8_logs_nothing_in_training_and_evaluation_where_theirs_logs_each_product(caplog):
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    logger.setLevel(logging.WARNING)
    theirs = _bitsandbytes_int8().to("cpu").eval()
    with torch.no_grad():
        theirs(_inputs())
    assert "inputs will be cast" in caplog.text
    caplog.clear()
    layer = _int8(_linear(), threshold=6.0)
    logger.setLevel(logging.WARNING)  # as if nothing had quietened it: on a CPU it has nothing to say
    for training in (True, False):
        layer.train(training)(_inputs())
    assert caplog.text == ""
    _int8(_linear(), threshold=6.0)
    assert logger.level == logging.ERROR  # and on a GPU it is quiet


def test_int8_evaluates_what_it_trains_on_a_cpu_where_theirs_rounds_inputs_in_evaluation_only():
    linear = _linear()
    theirs = _bitsandbytes_int8()
    theirs.load_state_dict(linear.state_dict())
    theirs = theirs.to("cpu")
    ours = _int8(linear, threshold=0.0)
    with torch.no_grad():
        theirs.eval()(_inputs())  # quantises
        assert (theirs.train()(_inputs()) - theirs.eval()(_inputs())).abs().max() > 1e-3
        assert_same_to_rounding(ours.train()(_inputs()), ours.eval()(_inputs()))
