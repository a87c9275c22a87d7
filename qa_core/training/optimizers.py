"""The optimisers that a recipe can name: AdamW of torch, and bitsandbytes' with smaller or paged state.

Sources: Loshchilov and Hutter 2019, arXiv 1711.05101; 8-bit state: Dettmers et al. 2022, arXiv 2110.02861; paging:
Dettmers et al. 2023, arXiv 2305.14314, section 3. The state of a parameter with few elements
(`LEAST_IN_8_BITS`) stays in float32 in the 8-bit ones too. Which names there are: `OPTIMIZERS` in `qa_core/config.py`.
"""

from collections.abc import Sequence
from typing import Any

import torch

STEP_BYTES = 4  # AdamW of torch counts its steps in a float32 of each parameter
LEAST_IN_8_BITS, BLOCK_OF_8_BITS = 4096, 256  # numbers of a parameter; numbers that share a scale


def optimizer_of(
    name: str, groups: Sequence[dict[str, Any]], *, learning_rate: float, device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimiser of a name over parameter groups.

    Paging lets the state move between GPU and host memory. On a CPU there is nowhere to move it to: bitsandbytes then
    warns once and computes the same without paging. State restored from a checkpoint is not paged either.
    """
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, fused=device.type in ("cpu", "cuda"))
    import bitsandbytes

    optimizer_class = {
        "adamw_8bit": bitsandbytes.optim.AdamW8bit,
        "paged_adamw_32bit": bitsandbytes.optim.PagedAdamW32bit,
        "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
    }[name]
    return optimizer_class(groups, lr=learning_rate)


def state_bytes(name: str, parameter_counts: Sequence[int]) -> int:
    """Return the bytes that an optimiser keeps for parameters of so many numbers each, in float32.

    Paged state counts as if it stayed on the device.
    """
    if not name.endswith("_8bit"):
        return sum(2 * 4 * count + STEP_BYTES for count in parameter_counts)
    small = sum(2 * 4 * count for count in parameter_counts if count < LEAST_IN_8_BITS)
    codes = sum(
        2 * (count + 4 * -(-count // BLOCK_OF_8_BITS))
        for count in parameter_counts
        if count >= LEAST_IN_8_BITS
    )
    return small + codes
