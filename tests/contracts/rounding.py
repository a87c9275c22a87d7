"""How far two implementations of one computation may be apart.

Equal bits are asked only of two runs of one implementation on one machine: the same kernels, shapes and threads. PEFT
and the project, merged and kept adapters, a batch and one of its rows, stored and plain weights add the same numbers in
another order or by another kernel, and which kernel that is depends on the CPU.
"""

from typing import Any

import torch

# Of the largest value that is compared. float32 keeps 2^-24 of a number; through a few layers with sums of 64 to 3,072
# terms, logits came 4.5e-5 apart (PEFT's LoRA on Mamba, AVX2). A forgotten factor or bias moves them by more than 1e-2.
# bfloat16 keeps 2^-9, and one rounding more or less is two such steps.
ROUNDING = {torch.float32: 3e-4, torch.bfloat16: 2**-6}


def assert_same_to_rounding(found: Any, expected: Any) -> None:
    """Compare tensors, or equally long sequences of them, of dtype, shape and masked places that must be equal."""
    if not isinstance(expected, torch.Tensor):
        for left, right in zip(found, expected, strict=True):
            assert_same_to_rounding(left, right)
        return
    is_masked = expected == torch.finfo(expected.dtype).min
    assert ((found == torch.finfo(expected.dtype).min) == is_masked).all(), "other places are masked"
    scale = float(expected.detach()[~is_masked].abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING[expected.dtype] * scale)
