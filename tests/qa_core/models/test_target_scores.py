"""Scores of target texts: exact values, and what padding, prompts and ends do to them."""

import math

import pytest
import torch

from qa_core.models.target_scores import (
    append_targets,
    left_padded,
    repeat_target,
    target_loss,
    token_log_probabilities,
    until_end,
)

pytestmark = pytest.mark.numeric

# Rows of odds 1:3 and 1:1:2 (the last token has probability 0 in the first row).
LOGITS = torch.tensor([[[1.0, 3.0, 1e-30], [1.0, 1.0, 2.0]], [[1.0, 1.0, 2.0], [5.0, 5.0, 5.0]]]).log()
TARGETS = torch.tensor([[1, 2], [0, -100]])


def test_each_target_token_gets_its_log_probability_and_padding_zero() -> None:
    expected = torch.tensor([[math.log(3 / 4), math.log(1 / 2)], [math.log(1 / 4), 0.0]])
    torch.testing.assert_close(token_log_probabilities(LOGITS, TARGETS), expected)
    assert token_log_probabilities(LOGITS.bfloat16(), TARGETS).dtype == torch.float32


def test_the_loss_is_the_mean_over_windows_of_the_mean_over_tokens() -> None:
    first = -(math.log(3 / 4) + math.log(1 / 2)) / 2
    assert target_loss(LOGITS, TARGETS).item() == pytest.approx((first + math.log(4)) / 2, rel=1e-6)


def test_targets_are_written_right_behind_each_prompt() -> None:
    ids = torch.tensor([[11, 12, 13], [21, 99, 99]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    targets = torch.tensor([[7, -100], [8, 9]])
    full, places = append_targets(ids, mask, targets)
    assert full[0, :4].tolist() == [11, 12, 13, 7]
    assert full[1, :3].tolist() == [21, 8, 9]
    assert full.shape == (2, 5)
    assert places.tolist() == [[2, 3], [0, 1]]


def test_prompts_move_to_the_right_edge_with_their_mask() -> None:
    ids = torch.tensor([[11, 12, 13, 14], [21, 22, 99, 98]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    shifted, shifted_mask = left_padded(ids, mask)
    assert shifted[0].tolist() == [11, 12, 13, 14]
    assert shifted[1, 2:].tolist() == [21, 22]
    assert shifted_mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]


def test_a_generated_row_counts_up_to_its_first_end_token() -> None:
    generated = torch.tensor([[5, 1, 1, 6], [5, 6, 7, 8], [1, 5, 1, 5]])
    assert until_end(generated, 1).tolist() == [[5, 1, -100, -100], [5, 6, 7, 8], [1, -100, -100, -100]]


def test_one_target_is_repeated_for_every_row() -> None:
    assert repeat_target((4, 5), torch.zeros(3, 9)).tolist() == [[4, 5]] * 3
