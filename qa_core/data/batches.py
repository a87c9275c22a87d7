"""Batches: which windows go together, and their tensors.

Windows of similar length go together, because padding is the largest waste of a CPU step: padding to the
maximum length costs 2.2 times the tokens of real paragraphs.
"""

from typing import TYPE_CHECKING

import numpy as np

from qa_core.data.windows import WindowSet
from qa_core.seeding import numpy_generator

if TYPE_CHECKING:
    from torch import Tensor

# Steps whose windows are sorted by length together: long enough to pad little, short enough to mix.
POOL_STEPS = 64
# Lengths are rounded up to at most this many distinct ones: the CPU kernels keep work space for every shape they have
# met, tens of MB each, and real paragraphs have hundreds of lengths.
DISTINCT_LENGTHS = 16
SHORTEST_STEP = 8  # tokens
IGNORED = -100  # target of a padded position, which the loss leaves out


def plan_training_batches(
    lengths: np.ndarray, *, batch_size: int, micro_batch_tokens: int, seed: int, epoch: int
) -> list[list[np.ndarray]]:
    """Plan one epoch: every window exactly once.

    Windows are shuffled and cut into pools; those of a pool are sorted by length and cut into steps; steps
    are shuffled. All of it follows from seed and epoch.

    Args:
        lengths: tokens of each window, [W].
        batch_size: windows of one optimiser step; one step of the epoch is smaller when it does not divide W.
        micro_batch_tokens: padded tokens of one forward pass at most, except that one longer window goes
            alone.
        seed: of the order.
        epoch: counts from 0; each has its own order.

    Returns:
        Optimiser steps, each a list of micro-batches, each an int64 array of window indices.
    """
    lengths = np.asarray(lengths)
    generator = numpy_generator(seed, "training_batches", epoch)
    shuffled = generator.permutation(len(lengths))
    pool_size = batch_size * POOL_STEPS
    padded = round_up(lengths, lengths.max(initial=0))
    steps: list[np.ndarray] = []
    for first in range(0, len(shuffled), pool_size):
        pool = shuffled[first : first + pool_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        steps.extend(pool[start : start + batch_size] for start in range(0, len(pool), batch_size))
    return [_fill(steps[index], padded, micro_batch_tokens) for index in generator.permutation(len(steps))]


def plan_inference_batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Cut all windows into batches of at most `batch_tokens` padded tokens, by length.

    The longest come first, so that a batch that does not fit into memory fails at once. One window that is
    longer than the limit goes alone. Returns int64 arrays of window indices.
    """
    lengths = np.asarray(lengths)
    padded = round_up(lengths, lengths.max(initial=0))
    return _fill(np.argsort(-lengths.astype(np.int64), kind="stable"), padded, batch_tokens)


def round_up(lengths: np.ndarray, longest: int) -> np.ndarray:
    """Round lengths in tokens up, but not past `longest`, so that few distinct ones are left."""
    step = SHORTEST_STEP
    while step * DISTINCT_LENGTHS < longest:
        step *= 2
    return np.minimum(-(-np.asarray(lengths, dtype=np.int64) // step) * step, longest)


def collate(windows: WindowSet, indices: np.ndarray, pad_id: int) -> "dict[str, Tensor]":
    """Make the batch of `qa_core.families.base` from some windows, padded to the longest of them, rounded up.

    Args:
        windows: the set.
        indices: B window numbers.
        pad_id: token id of padding.

    Returns:
        The tensors named there, and `window_index` [B] int64. `target_ids` only where the layout has targets.
    """
    import torch

    indices = np.asarray(indices, dtype=np.int64)
    length = int(round_up(windows.lengths[indices], windows.longest).max(initial=0))
    positions, is_token = _ragged(windows.token_starts, indices, length)  # [B, L] each
    null_positions = windows.null_positions[indices].astype(np.int64)
    span_mask = (windows.char_starts[positions] >= 0) & is_token
    span_mask[np.arange(len(indices)), null_positions] = True
    batch = {
        "input_ids": np.where(is_token, windows.token_ids[positions], pad_id).astype(np.int64),
        "attention_mask": is_token.astype(np.int64),
        "token_type_ids": (windows.segments[positions] * is_token).astype(np.int64),
        "span_mask": span_mask,
        "null_positions": null_positions,
        "start_positions": windows.start_positions[indices].astype(np.int64),
        "end_positions": windows.end_positions[indices].astype(np.int64),
        "window_index": indices,
    }
    if len(windows.target_ids):
        length = int(np.diff(windows.target_starts)[indices].max(initial=0))
        positions, is_token = _ragged(windows.target_starts, indices, length)  # [B, T] each
        batch["target_ids"] = np.where(is_token, windows.target_ids[positions], IGNORED).astype(np.int64)
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def _fill(order: np.ndarray, lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Cut an order of windows into runs whose padded size stays within `tokens`."""
    batches: list[np.ndarray] = []
    start, longest = 0, 0
    for end, length in enumerate(lengths[order].tolist()):
        longest = max(longest, length)
        if end > start and (end + 1 - start) * longest > tokens:
            batches.append(order[start:end])
            start, longest = end, length
    if start < len(order):
        batches.append(order[start:])
    return batches


def _ragged(starts: np.ndarray, indices: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places in the flat array [B, L] and where they are real; padded places point at 0."""
    first = starts[indices][:, None]
    lengths = starts[indices + 1][:, None] - first
    steps = np.arange(length)[None]
    is_real = steps < lengths
    return np.where(is_real, first + steps, 0), is_real
