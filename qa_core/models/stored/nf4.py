"""A matrix in NF4: 4-bit codes of 16 values that are equally likely under a normal distribution, in blocks of 64.

Source: Dettmers et al. 2023, arXiv 2305.14314, section 3. A weight takes 4 bits and its share of the block's absmax:
4.5 bits with float32, 4.127 with double quantisation, where the mean of all absmax is taken off and the rest stored
in 8 bits, in blocks of 256. What is stored is bitsandbytes' state, bit for bit; it encodes, and only here is decoded,
so that nothing but torch is needed to read an artifact, on meta tensors too.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from qa_core.models.stored.base import SLICE_ELEMENTS, StoredMatrix
from qa_core.models.stored.blocks import (
    block_count,
    pair_table,
    scale_blocks,
    unpack_nibbles,
    whole_block_rows,
)

BLOCK, ABSMAX_BLOCK = 64, 256
CODEBOOK = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
PAIRS = pair_table(CODEBOOK)


def _absmax_levels() -> Tensor:
    """Return the values of the 8-bit codes of an absmax, [256], rising: the dynamic type of arXiv 1511.04561.

    Seven decades from 1e-6 to 1; each has twice as many values as the one below, in the middle of equal parts of
    0.1 to 1, of either sign, and 0 and 1 besides.
    """
    levels = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float32, device="cpu")
        middles = 10 ** (decade - 6) * ((edges[:-1] + edges[1:]) / 2)
        levels += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(levels), dtype=torch.float32, device="cpu")


ABSMAX_LEVELS = _absmax_levels()


class Nf4Matrix(StoredMatrix):
    """Codes, two in a byte, and the absmax of each block; blocks run row by row, the last one may be short.

    With double quantisation, encoding the decoded matrix once more changes its scales a little: their mean has moved.

    Settings:
        double_quantisation: whether the absmax are stored in 8 bits.
    """

    name = "nf4"
    packed: Tensor  # [ceil(R C / 2)] uint8
    absmax: Tensor  # [blocks] float32, or their codes, uint8
    nested_absmax: Tensor  # [blocks of absmax] float32; only with double quantisation, like the next
    offset: Tensor  # [] float32: the mean absmax

    def __init__(self, shape: tuple[int, int], state: Mapping[str, Tensor]) -> None:
        """Hold the buffers by name: packed and absmax, and both others or neither."""
        super().__init__()
        self.shape = shape
        for name, buffer in state.items():
            self.register_buffer(name, buffer)

    @classmethod
    def encode(cls, matrix: Tensor, settings: Mapping[str, Any]) -> Self:
        """Store the nearest code of each number of a matrix [R, C] in its block."""
        from bitsandbytes.functional import quantize_4bit

        values = matrix.detach().float().contiguous()
        packed, state = quantize_4bit(
            values,
            blocksize=BLOCK,
            compress_statistics=settings["double_quantisation"],
            quant_type="nf4",
        )
        buffers = {"packed": packed.view(-1), "absmax": state.absmax}
        if settings["double_quantisation"]:
            buffers |= {"nested_absmax": state.state2.absmax, "offset": state.offset}
        return cls((matrix.shape[0], matrix.shape[1]), buffers)

    @classmethod
    def empty(cls, shape: tuple[int, int], settings: Mapping[str, Any]) -> Self:
        """Return a matrix whose numbers are all -absmax, and that is 0."""
        size = shape[0] * shape[1]
        blocks = block_count(size, BLOCK)
        buffers = {"packed": torch.zeros(block_count(size, 2), dtype=torch.uint8)}
        if settings["double_quantisation"]:
            buffers |= {
                "absmax": torch.zeros(blocks, dtype=torch.uint8),
                "nested_absmax": torch.zeros(block_count(blocks, ABSMAX_BLOCK), dtype=torch.float32),
                "offset": torch.zeros((), dtype=torch.float32),
            }
        else:
            buffers["absmax"] = torch.zeros(blocks, dtype=torch.float32)
        return cls(shape, buffers)

    @property
    def settings(self) -> dict[str, Any]:
        """Whether the absmax are stored in 8 bits."""
        return {"double_quantisation": self.absmax.dtype == torch.uint8}

    def dense(self) -> Tensor:
        """Return the matrix [R, C] in float32."""
        return self.dense_rows(0, self.shape[0])

    @property
    def rows_at_once(self) -> int:
        """All rows up to `SLICE_ELEMENTS` numbers, more in slices of whole blocks."""
        return whole_block_rows(self.shape[1], BLOCK, SLICE_ELEMENTS // max(1, self.shape[1]))

    def dense_rows(self, start: int, stop: int) -> Tensor:
        """Return rows [stop - start, C] in float32; the first begins a block."""
        first, last = start * self.shape[1], stop * self.shape[1]
        values = unpack_nibbles(self.packed[first // 2 : block_count(last, 2)], PAIRS)[: last - first]
        scales = self._scales()[first // BLOCK : block_count(last, BLOCK)]
        return scale_blocks(values, scales, BLOCK).view(-1, self.shape[1])

    def _scales(self) -> Tensor:
        if self.absmax.dtype != torch.uint8:
            return self.absmax
        levels = ABSMAX_LEVELS.to(self.absmax.device, copy=True)
        scales = levels.index_select(0, self.absmax.int())
        return scale_blocks(scales, self.nested_absmax, ABSMAX_BLOCK).add_(self.offset)
