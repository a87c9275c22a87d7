"""A matrix in 4 bits, rounded to nearest: whole steps from -7 to 7, one float16 absmax for each group of numbers.

With groups of g numbers a weight takes 4 + 16 / g bits.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from qa_core.models.stored.base import SLICE_ELEMENTS, StoredMatrix
from qa_core.models.stored.blocks import (
    block_count,
    pack_nibbles,
    pair_table,
    rounded_codes,
    scale_blocks,
    stored_absmax,
    unpack_nibbles,
    whole_block_rows,
)

LEVELS = 7
OFFSET = 8  # a code is stored as code + 8: 1 to 15
PAIRS = pair_table([float(code - OFFSET) for code in range(16)])


class Int4Matrix(StoredMatrix):
    """Codes, two in a byte, and the absmax of each group; groups run row by row, the last one may be short.

    Settings:
        group_size: numbers that share an absmax; even.
    """

    name = "int4"
    packed: Tensor  # [ceil(R C / 2)] uint8
    absmax: Tensor  # [groups] float16

    def __init__(self, shape: tuple[int, int], packed: Tensor, absmax: Tensor, *, group_size: int) -> None:
        super().__init__()
        self.shape = shape
        self.group_size = group_size
        self.register_buffer("packed", packed)
        self.register_buffer("absmax", absmax)

    @classmethod
    def encode(cls, matrix: Tensor, settings: Mapping[str, Any]) -> Self:
        """Round each number of a matrix [R, C] to the nearest of 15 steps of its group."""
        group_size = settings["group_size"]
        values = matrix.detach().float().reshape(-1)
        absmax = stored_absmax(values, group_size)
        codes = rounded_codes(values, absmax.float() / LEVELS, block=group_size, levels=LEVELS)
        packed = pack_nibbles((codes + OFFSET).to(torch.uint8))
        return cls((matrix.shape[0], matrix.shape[1]), packed, absmax, group_size=group_size)

    @classmethod
    def empty(cls, shape: tuple[int, int], settings: Mapping[str, Any]) -> Self:
        """Return zeros."""
        size, group_size = shape[0] * shape[1], settings["group_size"]
        packed = torch.zeros(block_count(size, 2), dtype=torch.uint8)
        absmax = torch.zeros(block_count(size, group_size), dtype=torch.float16)
        return cls(shape, packed, absmax, group_size=group_size)

    @property
    def settings(self) -> dict[str, Any]:
        """The group size."""
        return {"group_size": self.group_size}

    def dense(self) -> Tensor:
        """Return the matrix [R, C] in float32."""
        return self.dense_rows(0, self.shape[0])

    @property
    def rows_at_once(self) -> int:
        """All rows up to `SLICE_ELEMENTS` numbers, more in slices of whole groups."""
        return whole_block_rows(self.shape[1], self.group_size, SLICE_ELEMENTS // max(1, self.shape[1]))

    def dense_rows(self, start: int, stop: int) -> Tensor:
        """Return rows [stop - start, C] in float32; the first begins a group."""
        first, last = start * self.shape[1], stop * self.shape[1]
        values = unpack_nibbles(self.packed[first // 2 : block_count(last, 2)], PAIRS)[: last - first]
        groups = self.absmax[first // self.group_size : block_count(last, self.group_size)]
        return scale_blocks(values, groups.float() / LEVELS, self.group_size).view(-1, self.shape[1])
