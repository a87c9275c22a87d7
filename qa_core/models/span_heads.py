"""What all span readers share: masked logits, their loss, and a span reader made of a body and a head.

Dimensions: B batch, L tokens, D width. For the choice of the best span, see `qa_core/scoring/decode.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mask_span_logits(logits: Tensor, span_mask: Tensor) -> Tensor:
    """Return float32 logits with float32's minimum where no answer may start or end.

    Args:
        logits: [B, L], any floating dtype.
        span_mask: [B, L] bool.
    """
    return logits.float().masked_fill(~span_mask, torch.finfo(torch.float32).min)


def span_loss(
    start_logits: Tensor, end_logits: Tensor, *, start_positions: Tensor, end_positions: Tensor
) -> Tensor:
    """Return the mean of start and end cross-entropy, averaged over the batch, a scalar.

    Args:
        start_logits, end_logits: [B, L] float32, masked: the softmax runs over allowed positions only.
        start_positions, end_positions: [B] int64, gold positions.
    """
    return (F.cross_entropy(start_logits, start_positions) + F.cross_entropy(end_logits, end_positions)) / 2


class TokenSpanHead(nn.Module):
    """Start and end logits from each token's own state, by one linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.outputs = nn.Linear(width, 2)

    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits [B, L, 2] of states [B, L, D]; the mask is not needed."""
        return self.outputs(states)


class SpanReader(nn.Module):
    """A body that gives one state for each token, and a head that turns states into start and end logits.

    The head is called with states [B, L, D] and the mask [B, L], and gives [B, L, 2]. It is named
    `qa_outputs`, as in transformers' own span readers: methods look for that name.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.qa_outputs = head

    @property
    def config(self) -> Any:
        """The configuration of the body."""
        return self.body.config

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the body's activations in the backward pass."""
        self.body.gradient_checkpointing_enable()  # type: ignore[operator]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return unmasked start and end logits, each [B, L], from ids and mask, each [B, L] int64."""
        states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # [B, L, D]
        logits = self.qa_outputs(states, attention_mask)  # [B, L, 2]
        return logits[..., 0], logits[..., 1]
