"""Where the kept weights of a matrix stand, in few bits: one bit for every weight, or an Elias-Fano code.

Sources: Elias 1974, "Efficient storage and retrieval by content and address of static files", J. ACM 21(2), and Fano
1971, MIT Project MAC memorandum 61. A sorted list of m positions below n is split into low parts of l bits, packed,
and high parts, written in unary: the i-th position sets bit (position >> l) + i. This takes about m (2 + log2(n / m))
bits, at 10 % kept 0.525 bits for each of the n weights, where the entropy is 0.469 and a bit mask takes 1.

No shape depends on a value, so that everything here runs on meta tensors. Dimensions: n weights, m kept, l low bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PositionCode:
    """How m sorted positions below n are written."""

    size: int  # n
    kept: int  # m
    low_bits: int | None  # l of Elias-Fano; None: a bit mask

    @classmethod
    def smallest(cls, size: int, kept: int) -> Self:
        """Return the code that takes the fewest bytes; the bit mask wins a tie, being faster to read."""
        codes = [cls(size, kept, None), *(cls(size, kept, low) for low in range(max(1, size.bit_length())))]
        return min(codes, key=lambda code: code.bytes)

    @classmethod
    def from_settings(cls, size: int, settings: Mapping[str, Any]) -> Self:
        """Read what `settings` gave."""
        return cls(size, settings["kept"], settings["low_bits"])

    @property
    def settings(self) -> dict[str, Any]:
        """The number of kept weights and the code, as JSON values."""
        kind = "bit_mask" if self.low_bits is None else "elias_fano"
        return {"kept": self.kept, "positions": kind, "low_bits": self.low_bits}

    @property
    def high_length(self) -> int:
        """Bits of the unary part."""
        return self.kept + ((self.size - 1) >> (self.low_bits or 0)) + 1 if self.size else 0

    @property
    def bytes(self) -> int:
        """Bytes of the buffers that `written` returns."""
        if self.low_bits is None:
            return packed_bytes(self.size)
        return self.low_bits * packed_bytes(self.kept) + packed_bytes(self.high_length)

    def written(self, positions: Tensor) -> dict[str, Tensor]:
        """Write rising positions [m] int64 into named uint8 buffers."""
        if self.low_bits is None:
            return {"mask": packed(_ones_at(positions, self.size))}
        planes = [packed(((positions >> bit) & 1).to(torch.uint8)) for bit in range(self.low_bits)]
        empty = positions.new_empty(0, packed_bytes(self.kept), dtype=torch.uint8)
        count = torch.arange(self.kept, device=positions.device)
        return {
            "low": torch.stack(planes) if planes else empty,  # [l, ceil(m / 8)]
            "high": packed(_ones_at((positions >> self.low_bits) + count, self.high_length)),
        }

    def mask(self, buffers: Mapping[str, Tensor]) -> Tensor:
        """Return the bit mask [n] bool; only of this code."""
        return unpacked(buffers["mask"], self.size).view(torch.bool)

    def positions(self, buffers: Mapping[str, Tensor]) -> Tensor:
        """Return the rising positions [m] int64."""
        if self.low_bits is None:
            return torch.nonzero_static(self.mask(buffers), size=self.kept).view(-1)
        high = unpacked(buffers["high"], self.high_length).view(torch.bool)
        found = torch.nonzero_static(high, size=self.kept).view(-1)
        found -= torch.arange(self.kept, device=found.device)
        found <<= self.low_bits
        for bit in range(self.low_bits):
            found |= unpacked(buffers["low"][bit], self.kept).long() << bit
        return found


def packed_bytes(bits: int) -> int:
    """Return how many bytes hold so many bits."""
    return -(-bits // 8)


def packed(bits: Tensor) -> Tensor:
    """Pack bits [k] uint8, each 0 or 1, into bytes [ceil(k / 8)] uint8, the first bit lowest."""
    padding = packed_bytes(len(bits)) * 8 - len(bits)
    rows = torch.nn.functional.pad(bits, (0, padding)).view(-1, 8)
    return (rows << _shifts(bits)).sum(dim=1, dtype=torch.uint8)


def unpacked(packed_bits: Tensor, count: int) -> Tensor:
    """Return the first `count` bits of bytes [ceil(count / 8)] uint8, as [count] uint8."""
    return ((packed_bits[:, None] >> _shifts(packed_bits)) & 1).view(-1)[:count]


def _shifts(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)


def _ones_at(positions: Tensor, length: int) -> Tensor:
    return positions.new_zeros(length, dtype=torch.uint8).index_fill_(0, positions, 1)


def top_mask(values: Tensor, kept: int) -> Tensor:
    """Return a bool mask of exactly `kept` largest values; of equal ones at the edge, those that come first.

    Raises:
        FloatingPointError: a value is NaN, which is neither larger nor smaller than another.
    """
    flat = values.flatten()
    if kept <= 0 or kept >= len(flat):
        return torch.full_like(values, kept > 0, dtype=torch.bool)
    if bool(flat.isnan().any()):
        raise FloatingPointError("NaN among the values to be ranked")
    edge = _smallest_kept(flat, kept)
    mask = flat >= edge
    surplus = int(mask.count_nonzero()) - kept
    if surplus > 0:
        mask[(flat == edge).nonzero().view(-1)[-surplus:]] = False
    return mask.view_as(values)


def _smallest_kept(flat: Tensor, kept: int) -> Tensor | float:
    place = len(flat) - kept
    if flat.device.type == "cpu":  # 10 ms for 2.4 million values, where kthvalue takes 95 ms
        return float(np.partition(flat.numpy(), place)[place])
    return flat.kthvalue(place + 1).values
