"""A lazy weight: a tensor for whoever looks, decoded once for each operation."""

import pytest
import torch
from torch.nn import functional as F

from qa_core.models.stored.lazy_weight import LazyWeight

pytestmark = pytest.mark.numeric


class _Counted:
    def __init__(self) -> None:
        self.tensor = torch.arange(12.0).view(3, 4)
        self.calls = 0
        self.weight = LazyWeight(self._decode, shape=(3, 4), device=torch.device("cpu"))

    def _decode(self) -> torch.Tensor:
        self.calls += 1
        return self.tensor


def test_looking_decodes_nothing():
    counted = _Counted()
    weight = counted.weight
    assert isinstance(weight, torch.Tensor)
    assert (weight.dtype, weight.shape, weight.device) == (torch.float32, (3, 4), torch.device("cpu"))
    assert (weight.size(0), weight.dim(), weight.ndim, weight.numel()) == (3, 2, 2, 12)
    assert not weight.requires_grad
    assert not weight.is_cuda
    assert counted.calls == 0


def test_each_operation_gets_the_decoded_tensor_and_gives_a_plain_one():
    counted = _Counted()
    weight, tensor = counted.weight, counted.tensor
    inputs = torch.randn(2, 4)
    for found, expected in (
        (F.linear(inputs, weight), F.linear(inputs, tensor)),
        (weight @ inputs.T, tensor @ inputs.T),
        (inputs @ weight.T, inputs @ tensor.T),
        (weight[1:], tensor[1:]),
        (torch.cat([weight, tensor]), torch.cat([tensor, tensor])),
        (weight.to(torch.float64), tensor.double()),
        (F.embedding(torch.tensor([2, 0]), weight), tensor[[2, 0]]),
    ):
        assert type(found) is torch.Tensor
        assert torch.equal(found, expected)
    assert counted.calls == 7
