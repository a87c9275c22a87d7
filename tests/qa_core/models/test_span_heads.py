"""Masked span logits and their loss, by exact values."""

import math

import pytest
import torch

from qa_core.models.span_heads import SpanReader, TokenSpanHead, mask_span_logits, span_loss

pytestmark = pytest.mark.numeric


def test_masked_places_get_float32s_minimum_and_the_others_stay() -> None:
    logits = torch.tensor([[1.5, -2.0, 8.0]], dtype=torch.bfloat16)
    masked = mask_span_logits(logits, torch.tensor([[True, True, False]]))
    assert masked.dtype == torch.float32
    assert masked.tolist() == [[1.5, -2.0, torch.finfo(torch.float32).min]]


def test_the_loss_is_the_mean_of_both_cross_entropies_over_allowed_places() -> None:
    mask = torch.tensor([[True, True, False, True], [False, True, True, False]])
    start = mask_span_logits(torch.tensor([[1.0, 3.0, 50.0, 4.0], [9.0, 1.0, 1.0, 9.0]]).log(), mask)
    end = mask_span_logits(torch.tensor([[2.0, 2.0, 50.0, 4.0], [9.0, 1.0, 3.0, 9.0]]).log(), mask)
    loss = span_loss(start, end, start_positions=torch.tensor([1, 2]), end_positions=torch.tensor([3, 2]))
    start_loss = -(math.log(3 / 8) + math.log(1 / 2)) / 2
    end_loss = -(math.log(4 / 8) + math.log(3 / 4)) / 2
    assert loss.item() == pytest.approx((start_loss + end_loss) / 2, rel=1e-6)


def test_masked_places_get_no_gradient() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    masked = mask_span_logits(logits, torch.tensor([[True, False, True]]))
    gold = torch.tensor([0])
    span_loss(masked, masked, start_positions=gold, end_positions=gold).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.5, 0.0, 0.5]]))


def test_a_reader_splits_the_heads_two_logits_in_order() -> None:
    class Body(torch.nn.Module):
        config = "settings"

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
            states = torch.stack([input_ids, attention_mask, input_ids * 0], dim=-1).float()
            return type("Output", (), {"last_hidden_state": states})()

    head = TokenSpanHead(3)
    with torch.no_grad():
        head.outputs.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 10.0, 0.0]]))
        head.outputs.bias.zero_()
    reader = SpanReader(Body(), head)
    start_logits, end_logits = reader(torch.tensor([[4, 5]]), torch.tensor([[1, 0]]))
    assert (start_logits.tolist(), end_logits.tolist()) == ([[4.0, 5.0]], [[10.0, 0.0]])
    assert reader.config == "settings"
