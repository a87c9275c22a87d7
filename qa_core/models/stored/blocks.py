"""What block-wise encodings share: a matrix read row by row, cut into blocks with one scale each; codes in bytes.

The last block may be short. Codes of 4 bits stand two in a byte, the first in the high bits; a byte is decoded by one
look-up of a pair of float32 values that is moved as one number of 8 bytes. On one core, looking up the two codes by
themselves takes 4 to 5 times as long to decode an NF4 matrix, looking up pairs through `F.embedding` twice as long.

Everything here works on meta tensors: no shape depends on a value.
"""

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_STEP = 1e-38  # below every step but 0: a block of zeros stays zeros


def block_count(size: int, block: int) -> int:
    """Return how many blocks of `block` numbers cover `size` numbers."""
    return -(-size // block)


def block_absmax(values: Tensor, block: int) -> Tensor:
    """Return the largest magnitude in each block, [blocks], of values [n]."""
    padded = F.pad(values, (0, -len(values) % block))
    return padded.view(-1, block).abs().amax(dim=1)


def scale_blocks(values: Tensor, scales: Tensor, block: int) -> Tensor:
    """Multiply each block of values [n] by its scale, [blocks], in place, and return the values."""
    whole = len(values) // block
    values[: whole * block].view(whole, block).mul_(scales[:whole, None])
    if whole < len(scales):
        values[whole * block :].mul_(scales[whole:])
    return values


def stored_absmax(values: Tensor, block: int) -> Tensor:
    """Return the absmax of each block of values [n] in float16, [blocks]; one beyond its range is its largest."""
    return block_absmax(values, block).clamp_(max=torch.finfo(torch.float16).max).half()


def rounded_codes(values: Tensor, steps: Tensor, *, block: int, levels: int) -> Tensor:
    """Return values [n] in steps of their block, [blocks], rounded to whole numbers from -levels to levels, int8."""
    inverse = steps.clamp(min=SMALLEST_STEP).reciprocal()
    return scale_blocks(values.clone(), inverse, block).round_().clamp_(-levels, levels).to(torch.int8)


def pack_nibbles(codes: Tensor) -> Tensor:
    """Return bytes [ceil(n / 2)] of 4-bit codes [n] uint8; an odd one out is followed by 0."""
    codes = F.pad(codes, (0, len(codes) % 2))
    return (codes[::2] << 4) | codes[1::2]


def pair_table(levels: Sequence[float]) -> Tensor:
    """Return the pairs of float32 values that each byte stands for, [256] float64: bits to move, not a number.

    Args:
        levels: the value of each of the 16 codes.
    """
    values = torch.tensor(levels, dtype=torch.float32, device="cpu")
    codes = torch.arange(256, device="cpu")
    return torch.stack([values[codes >> 4], values[codes & 15]], dim=1).view(torch.float64).view(-1)


def unpack_nibbles(packed: Tensor, table: Tensor) -> Tensor:
    """Return the float32 values [2 * bytes] of packed codes [bytes] uint8 by a `pair_table`, kept on the CPU."""
    # Copied on the CPU too, so that every device and the prediction on meta tensors allocate the same.
    table = table.to(packed.device, copy=True)
    return table.index_select(0, packed.int()).view(torch.float32)


def whole_block_rows(columns: int, block: int, wanted: int) -> int:
    """Return the row count nearest to `wanted`, at least one step, whose rows fill whole blocks."""
    step = block // gcd(block, columns)
    return max(1, wanted // step) * step
