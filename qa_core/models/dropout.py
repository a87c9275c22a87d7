"""Dropout that draws 16 random bits for each number, and keeps one byte of it for the backward pass.

torch's own draws each number by itself on a CPU, which takes four times as long, and keeps the mask in the dtype of
the numbers. The share that is dropped is rounded to a 65,536th, and what is kept is scaled by the rounded share, so
that the mean stays. Draws come from torch's generator.
"""

from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

STEPS = 2**16  # values of 16 bits
DRAWS = 4  # of 16 bits in a number of 64


class BitDropout(nn.Dropout):
    """As `nn.Dropout`; elsewhere than on a CPU, and for shares that round to nothing or all, it is that."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the numbers with a share `p` of them set to 0, scaled, in training; else as they are."""
        dropped = round(self.p * STEPS)
        if not self.training or input.device.type != "cpu" or not 0 < dropped < STEPS:
            return super().forward(input)
        return _Dropped.apply(input, dropped)


def use_bit_dropout(network: nn.Module) -> None:
    """Let every `nn.Dropout` of a network draw bits, in place."""
    for module in network.modules():
        if type(module) is nn.Dropout and not module.inplace:
            module.__class__ = BitDropout


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, dropped: int) -> Tensor:
        size = inputs.numel()
        draws = inputs.new_empty(ceil(size / DRAWS), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.int16)[:size].view(inputs.shape) >= dropped - STEPS // 2
        ctx.save_for_backward(kept)
        ctx.scale = STEPS / (STEPS - dropped)
        return (inputs * kept).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradient * kept).mul_(ctx.scale), None
