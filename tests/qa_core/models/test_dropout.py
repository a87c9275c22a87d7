import pytest
import torch
from torch import nn

from qa_core.models.dropout import BitDropout, use_bit_dropout

pytestmark = pytest.mark.numeric

SHAPE = (3, 41, 7)  # 861 numbers: not a multiple of the draws in one number of 64 bits


def dropout(share: float = 0.1) -> BitDropout:
    torch.manual_seed(0)
    return BitDropout(share).train()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_is_scaled_and_the_gradient_is_that_of_the_same_numbers(dtype):
    inputs = (torch.randn(SHAPE) + 5).to(dtype).requires_grad_()
    outputs = dropout(0.25)(inputs)
    kept = outputs != 0
    assert 0 < kept.sum() < kept.numel()
    expected = inputs.detach() * kept * (4 / 3)
    assert torch.allclose(outputs, expected, rtol=torch.finfo(dtype).eps * 2, atol=0)
    (gradient,) = torch.autograd.grad(outputs, inputs, torch.ones_like(outputs))
    assert torch.equal(gradient != 0, kept)
    assert torch.allclose(gradient[kept].float(), torch.tensor(4 / 3), rtol=1e-2)


def test_each_place_drops_its_share_and_neighbours_are_independent():
    outputs = dropout(0.1)(torch.ones(1000, 1000))
    dropped = (outputs == 0).double()
    assert dropped.mean() == pytest.approx(0.1, abs=0.0015)  # five standard errors
    assert torch.allclose(dropped.mean(dim=0), torch.tensor(0.1).double(), atol=0.06)
    pairs = (dropped[:, :-1] * dropped[:, 1:]).mean()
    assert pairs == pytest.approx(0.01, abs=0.0006)
    assert outputs.double().mean() == pytest.approx(1, abs=0.002)


def test_a_seed_gives_the_same_draws_and_calls_differ():
    inputs = torch.ones(SHAPE)
    layer = dropout()
    first, second = layer(inputs), layer(inputs)
    assert torch.equal(dropout()(inputs), first)
    assert not torch.equal(first, second)


def test_evaluation_and_no_share_change_nothing_and_all_is_all():
    inputs = torch.randn(SHAPE)
    assert torch.equal(dropout().eval()(inputs), inputs)
    assert torch.equal(dropout(0.0)(inputs), inputs)
    assert not dropout(1.0)(inputs).any()


def test_a_transposed_tensor_is_dropped_in_its_own_layout():
    inputs = torch.randn(SHAPE).transpose(0, 2)
    outputs = dropout()(inputs)
    kept = outputs != 0
    assert torch.allclose(outputs[kept], inputs[kept] * (65_536 / (65_536 - 6_554)))


def test_the_mask_is_kept_in_one_byte_for_each_number():
    kept = []
    inputs = torch.randn(SHAPE, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor), lambda tensor: tensor):
        dropout()(inputs)
    assert [(tensor.dtype, tensor.shape) for tensor in kept] == [(torch.bool, SHAPE)]


def test_only_plain_dropout_is_exchanged_and_its_share_stays():
    network = nn.Sequential(nn.Dropout(0.3), nn.Dropout1d(0.3), nn.Dropout(0.3, inplace=True))
    use_bit_dropout(network)
    assert [type(module) for module in network] == [BitDropout, nn.Dropout1d, nn.Dropout]
    assert network[0].p == 0.3
