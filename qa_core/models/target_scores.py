"""Log-probabilities of target texts, for the loss and the scores of families that answer with text.

Targets are padded with -100, as everywhere in this field. For the choice between answers of several windows,
see `qa_core/scoring/decode.py`.

Dimensions: B batch, L prompt tokens, T target tokens, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100


def token_log_probabilities(logits: Tensor, target_ids: Tensor) -> Tensor:
    """Return the natural log-probability of each target token, [B, T] float32, 0 at padding.

    Args:
        logits: [B, T, V], any floating dtype; `logits[:, t]` predicts `target_ids[:, t]`.
        target_ids: [B, T] int64.
    """
    losses = F.cross_entropy(
        logits.float().transpose(1, 2), target_ids, ignore_index=IGNORED, reduction="none"
    )
    return -losses


def target_loss(logits: Tensor, target_ids: Tensor) -> Tensor:
    """Return the mean over windows of each window's mean loss per target token, a scalar.

    Every window counts the same, whatever the length of its answer and however a batch is cut into
    micro-batches.
    """
    token_counts = (target_ids != IGNORED).sum(dim=1)
    return -(token_log_probabilities(logits, target_ids).sum(dim=1) / token_counts).mean()


def repeat_target(token_ids: Sequence[int], batch: Tensor) -> Tensor:
    """Return one target for every row of `batch` [B, ...], on its device: [B, T] int64."""
    return torch.tensor(list(token_ids), dtype=torch.int64, device=batch.device).repeat(len(batch), 1)


def until_end(generated_ids: Tensor, *end_ids: int) -> Tensor:
    """Return generated ids [B, T] as targets: all that follows a row's first of `end_ids` becomes padding."""
    is_end = torch.isin(generated_ids, torch.tensor(end_ids, device=generated_ids.device))
    is_after = is_end.cumsum(dim=1) - is_end.long() > 0
    return generated_ids.masked_fill(is_after, IGNORED)


def append_targets(input_ids: Tensor, attention_mask: Tensor, target_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Write each row's target behind its prompt, for a causal language model.

    Args:
        input_ids, attention_mask: [B, L] int64, right-padded prompts.
        target_ids: [B, T] int64.

    Returns:
        ids [B, L + T], right-padded with whatever was there, which a causal model cannot see from the left;
        and the positions [B, T] whose states predict the target tokens.
    """
    lengths = attention_mask.sum(dim=1, keepdim=True)  # [B, 1]
    steps = torch.arange(target_ids.shape[1], device=target_ids.device)
    room = input_ids.new_zeros(target_ids.shape)
    ids = torch.cat([input_ids, room], dim=1).scatter(1, lengths + steps, target_ids.clamp(min=0))
    return ids, lengths + steps - 1


def left_padded(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the padding of [B, L] ids and mask from right to left, so that all prompts end together."""
    width = input_ids.shape[1]
    shifts = width - attention_mask.sum(dim=1, keepdim=True)  # [B, 1]
    places = torch.arange(width, device=input_ids.device) - shifts
    return input_ids.gather(1, places % width), (places >= 0).to(attention_mask.dtype)
