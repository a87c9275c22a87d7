"""Attention between two texts, against torch's own module and against loops."""

import pytest
import torch

from qa_core.models.attention import MultiHeadAttention, dot_attention

pytestmark = pytest.mark.numeric

MASK = torch.tensor([[True, True, False, True, False], [False, True, True, True, True]])


def _texts(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 4, width, generator=generator), torch.randn(2, 5, width, generator=generator)


def test_dot_attention_is_the_softmax_of_products_over_the_keys_that_count() -> None:
    queries, keys = _texts(3)
    for scale, factor in ((1.0, 1.0), (None, 3**-0.5)):
        found = dot_attention(queries, keys, MASK, scale=scale)
        for row in range(2):
            counted = keys[row][MASK[row]]
            for place in range(4):
                weights = (counted @ queries[row, place] * factor).softmax(dim=0)
                torch.testing.assert_close(found[row, place], weights @ counted)


def test_multi_head_attention_equals_torchs_where_both_can_be_built() -> None:
    torch.manual_seed(0)
    ours = MultiHeadAttention(6, heads=3, key_size=2)
    theirs = torch.nn.MultiheadAttention(6, 3, batch_first=True)
    with torch.no_grad():
        parts = (ours.query, ours.key, ours.value)
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.weight.copy_(ours.output.weight)
        theirs.out_proj.bias.copy_(ours.output.bias)
    queries, keys = _texts(6)
    expected, _ = theirs(queries, keys, keys, key_padding_mask=~MASK)
    torch.testing.assert_close(ours(queries, keys, MASK), expected)


def test_the_heads_may_be_wider_than_the_texts() -> None:
    attention = MultiHeadAttention(6, heads=5, key_size=7)
    queries, keys = _texts(6)
    assert attention(queries, keys, MASK).shape == queries.shape
    assert sum(item.numel() for item in attention.parameters()) == 3 * (6 * 35 + 35) + 35 * 6 + 6
