import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForQuestionAnswering

from qa_core.models import fused_attention
from qa_core.models.fused_attention import attention_of_transformers, use_fused_attention

pytestmark = pytest.mark.numeric

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
}


class Layer(torch.nn.Module):
    is_causal = False


def parts(dtype: torch.dtype, *, length: int = 37) -> list[torch.Tensor]:
    """Query, key and value laid out as a network's, [B, H, L, D]."""
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(2, length, 3, 16, generator=generator).transpose(1, 2) for _ in range(3)]
    return [tensor.to(dtype).requires_grad_() for tensor in found]


def mask(length: int = 37) -> torch.Tensor:
    counts = torch.arange(length) < torch.tensor([[length], [20]])
    return counts[:, None, None].expand(2, 1, length, length)


def exact(
    inputs: list[torch.Tensor], gradient: torch.Tensor, counts: torch.Tensor | None
) -> list[torch.Tensor]:
    """Gradients of attention written out in float64."""
    query, key, value = (tensor.detach().double().requires_grad_() for tensor in inputs)
    scores = query @ key.transpose(2, 3) * 0.25
    if counts is not None:
        scores = scores.masked_fill(~counts, float("-inf"))
    outputs = torch.softmax(scores, dim=-1) @ value
    return list(torch.autograd.grad(outputs, (query, key, value), gradient.double()))


@pytest.mark.parametrize("counts", [None, mask()])
def test_gradients_in_16_bits_are_closer_to_float64_than_those_of_torch(counts):
    inputs = parts(torch.bfloat16)
    outputs, _ = attention_of_transformers(Layer(), *inputs, counts, scaling=0.25)
    plain = F.scaled_dot_product_attention(*inputs, attn_mask=counts, scale=0.25)
    assert torch.equal(outputs, plain.transpose(1, 2))
    assert type(outputs.grad_fn.next_functions[0][0]).__name__ == "_AttentionBackward"
    gradient = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    found = torch.autograd.grad(outputs, inputs, gradient.transpose(1, 2))
    others = torch.autograd.grad(plain, inputs, gradient)
    for own, other, right in zip(found, others, exact(inputs, gradient, counts), strict=True):
        assert own.dtype is torch.bfloat16
        error = (own - right).norm() / right.norm()
        assert error < 4e-3  # the forward pass is in 16 bits, and a rounding to 16 bits alone is 1.7e-3
        assert error <= (other - right).norm() / right.norm()


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {}),
        (torch.bfloat16, {"dropout": 0.5}),
        (torch.bfloat16, {"is_causal": True}),
        (torch.bfloat16, {"position_bias": torch.zeros(1, 3, 37, 37, dtype=torch.bfloat16)}),
    ],
)
def test_all_else_is_left_to_transformers(dtype, options):
    assert not fused(dtype, **options)


def test_nothing_is_kept_without_a_gradient():
    with torch.no_grad():
        assert not fused(torch.bfloat16)


def fused(dtype: torch.dtype, **options) -> bool:
    """Tell whether the backward pass would be the one in float32."""
    taken = []
    kept = fused_attention._Attention.apply
    fused_attention._Attention.apply = lambda *arguments: taken.append(arguments) or kept(*arguments)
    try:
        attention_of_transformers(Layer(), *parts(dtype), None, **options)
    finally:
        fused_attention._Attention.apply = kept
    return bool(taken)


def test_a_network_of_transformers_answers_as_before_and_its_configuration_is_the_same():
    torch.manual_seed(0)
    network = BertForQuestionAnswering(BertConfig(vocab_size=50, **SIZES))
    other = copy.deepcopy(network)
    use_fused_attention(network)
    assert network.config.to_dict() == other.config.to_dict()
    ids = torch.randint(0, 50, (2, 24))
    counts = (torch.arange(24) < torch.tensor([[24], [9]])).long()
    losses = []
    for one in (network, other):
        with torch.autocast("cpu", torch.bfloat16):
            found = one(
                ids, attention_mask=counts, start_positions=ids[:, 0] % 9, end_positions=ids[:, 1] % 9
            )
        found.loss.backward()
        losses.append(found.loss)
    assert torch.equal(*losses)
    gradients = [one.bert.encoder.layer[0].attention.self.query.weight.grad for one in (network, other)]
    assert not torch.equal(*gradients)
    assert torch.allclose(*gradients, rtol=0, atol=0.02 * gradients[1].abs().max().item())
