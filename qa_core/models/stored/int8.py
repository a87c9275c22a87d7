"""A matrix in 8 bits: q = round(127 x / absmax), symmetric, one absmax for the matrix, each row or each group.

`dynamic` quantises the inputs too, each token by its own absmax when it arrives, and multiplies integers: int8 by int8
into int32, exactly, then one float factor for each output. torch's own dynamic layers (`torch.ao`) are not used: their
packed weights are seen neither by the memory protocol nor by safetensors, and they have one scale for all tokens.

Dimensions: R rows (outputs), C columns (inputs), M tokens.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from qa_core.models.stored.base import CACHED_ELEMENTS, SLICE_ELEMENTS, StoredMatrix, product_dtype
from qa_core.models.stored.blocks import (
    SMALLEST_STEP,
    block_count,
    rounded_codes,
    scale_blocks,
    stored_absmax,
    whole_block_rows,
)

LEVELS = 127
TOKENS_AT_ONCE = 128  # of a dynamic product: floats and int32 sums of more are never alive together
ROWS_AT_ONCE = 64  # of codes that are floats together where integers cannot be multiplied
EXACT_COLUMNS = 2**24 // LEVELS**2  # float32 holds every sum of so many products of two int8 numbers
INT_MM_MULTIPLE, INT_MM_MORE_ROWS_THAN = 8, 16  # what torch._int_mm asks of sizes on CUDA


class Int8Matrix(StoredMatrix):
    """Codes [R, C] int8 and the absmax of what shares a scale.

    Settings:
        granularity: "tensor" (absmax [1, 1]), "row" ([R, 1]), both float32, or "group": runs of `group_size` numbers,
            row by row, the last one may be short (absmax [groups] float16, as there are many).
        group_size: None, or left out, without groups.
        dynamic: whether inputs are quantised too, for granularity "row"; left out: not.
    """

    name = "int8"
    codes: Tensor
    absmax: Tensor

    def __init__(self, codes: Tensor, absmax: Tensor, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape = (codes.shape[0], codes.shape[1])
        self.granularity: str = settings["granularity"]
        self.group_size: int | None = settings.get("group_size")
        self.dynamic: bool = settings.get("dynamic", False)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)

    @classmethod
    def encode(cls, matrix: Tensor, settings: Mapping[str, Any]) -> Self:
        """Round each number of a matrix [R, C] to the nearest of 255 steps."""
        matrix = matrix.detach().float()
        if settings["granularity"] == "group":
            group_size = settings["group_size"]
            absmax = stored_absmax(matrix.reshape(-1), group_size)
            steps = absmax.float() / LEVELS
            codes = rounded_codes(matrix.reshape(-1), steps, block=group_size, levels=LEVELS).view(
                matrix.shape
            )
        else:
            rows = matrix.abs().amax(dim=1, keepdim=True)
            absmax = rows if settings["granularity"] == "row" else rows.amax(dim=0, keepdim=True)
            codes = (matrix / (absmax / LEVELS).clamp(min=SMALLEST_STEP)).round_().to(torch.int8)
        return cls(codes, absmax, settings)

    @classmethod
    def empty(cls, shape: tuple[int, int], settings: Mapping[str, Any]) -> Self:
        """Return zeros."""
        rows, columns = shape
        if settings["granularity"] == "group":
            group_size = settings["group_size"]
            absmax = torch.zeros(block_count(rows * columns, group_size), dtype=torch.float16)
        else:
            absmax = torch.zeros(rows if settings["granularity"] == "row" else 1, 1, dtype=torch.float32)
        return cls(torch.zeros(shape, dtype=torch.int8), absmax, settings)

    @property
    def settings(self) -> dict[str, Any]:
        """Granularity, group size and whether inputs are quantised."""
        return {"granularity": self.granularity, "group_size": self.group_size, "dynamic": self.dynamic}

    def dense(self) -> Tensor:
        """Return the matrix [R, C] in float32."""
        return self.dense_rows(0, self.shape[0])

    @property
    def rows_at_once(self) -> int:
        """All rows up to `SLICE_ELEMENTS` numbers, more in slices of whole groups."""
        return whole_block_rows(self.shape[1], self.group_size or 1, SLICE_ELEMENTS // max(1, self.shape[1]))

    @property
    def decoded_at_once(self) -> int:
        """Rows of `CACHED_ELEMENTS` numbers, of whole groups."""
        return whole_block_rows(self.shape[1], self.group_size or 1, CACHED_ELEMENTS // max(1, self.shape[1]))

    def dense_rows(self, start: int, stop: int) -> Tensor:
        """Return rows [stop - start, C] in float32; the first begins a group, if there are groups."""
        values = self.codes[start:stop].float()
        if self.group_size is None:
            absmax = self.absmax[start:stop] if self.granularity == "row" else self.absmax
            return values.mul_(absmax / LEVELS)
        first, last = start * self.shape[1], stop * self.shape[1]
        absmax = self.absmax[first // self.group_size : block_count(last, self.group_size)]
        scale_blocks(values.view(-1), absmax.float() / LEVELS, self.group_size)
        return values

    def rows(self, index: Tensor) -> Tensor:
        """Return rows [..., C] in float32 for row numbers [...]; no other row is decoded, unless in groups."""
        if self.group_size:
            return super().rows(index)
        absmax = F.embedding(index, self.absmax) if self.granularity == "row" else self.absmax
        return F.embedding(index, self.codes).float().mul_(absmax / LEVELS)

    def product(self, inputs: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return inputs [..., C] times the matrix transposed, plus a bias [R]: [..., R]."""
        if not self.dynamic:
            return super().product(inputs, bias)
        tokens = inputs.reshape(-1, self.shape[1])  # [M, C]
        outputs = tokens.new_empty(len(tokens), self.shape[0], dtype=product_dtype(inputs))
        weight_steps = (self.absmax / LEVELS).T  # [1, R], or [1, 1]
        for start in range(0, len(tokens), TOKENS_AT_ONCE):
            codes, steps = quantised_tokens(tokens[start : start + TOKENS_AT_ONCE])
            # In float32 at once: else the product makes a copy that nobody counts.
            sums = integer_product(codes, self.codes).float().mul_(steps).mul_(weight_steps)
            outputs[start : start + TOKENS_AT_ONCE] = sums if bias is None else sums.add_(bias)
        return outputs.view(*inputs.shape[:-1], self.shape[0])


def quantised_tokens(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes [M, C] int8 of tokens [M, C] and each token's step [M, 1] float32."""
    floats = tokens.to(torch.float32, copy=True)
    # On a CPU, torch's aminmax along a dimension takes many times as long as both of these, and these take twice as
    # long in bfloat16; the bits are the same.
    steps = torch.maximum(-floats.amin(dim=1, keepdim=True), floats.amax(dim=1, keepdim=True)) / LEVELS
    return floats.div_(steps.clamp(min=SMALLEST_STEP)).round_().to(torch.int8), steps


def integer_product(left: Tensor, right: Tensor) -> Tensor:
    """Return the exact product left rightᵀ, [M, R] int32, of left [M, C] and right [R, C], both int8."""
    if takes_integers(left, right):
        return torch._int_mm(left, right.T)
    sums = torch.zeros(len(left), len(right), dtype=torch.int32, device=left.device)
    device_type = "cpu" if left.is_meta else left.device.type  # autocast knows no meta device
    with torch.autocast(device_type, enabled=False):  # bfloat16 could not hold the sums
        for first in range(0, left.shape[1], EXACT_COLUMNS):
            columns = slice(first, first + EXACT_COLUMNS)
            floats = left[:, columns].float()
            for start in range(0, len(right), ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                sums[:, rows] += F.linear(floats, right[rows, columns].float()).to(torch.int32)
    return sums


def takes_integers(left: Tensor, right: Tensor) -> bool:
    """Tell whether torch multiplies these int8 matrices as they are, and gains by it.

    Without AVX-512 its CPU kernel is a plain loop, and without VNNI its sums are wrong. Meta tensors
    take the path that the CPU of this machine takes.
    """
    if left.is_cuda:
        sizes = (left.shape[1], len(right))
        return len(left) > INT_MM_MORE_ROWS_THAN and not any(size % INT_MM_MULTIPLE for size in sizes)
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and cpu_sums_exactly()


@cache
def cpu_sums_exactly() -> bool:
    """Tell whether torch's product of int8 matrices on this CPU holds at the largest sums.

    oneDNN adds pairs of products in 16 bits, which saturate, on a CPU that cannot add four of them in 32.
    """
    with _disable_current_modes():  # a tracker of memory would count these, the first time alone
        largest = torch.full((32, 64), LEVELS, dtype=torch.int8, device="cpu")
        exact = LEVELS**2 * largest.shape[1]
        return all(
            bool((torch._int_mm(largest, (sign * largest).T) == sign * exact).all()) for sign in (1, -1)
        )
