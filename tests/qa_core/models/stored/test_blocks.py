"""Blocks and packed codes: short last blocks, odd counts, the order of codes in a byte."""

import pytest
import torch

from qa_core.models.stored import blocks

pytestmark = pytest.mark.numeric

LEVELS = [0.5 * code - 3 for code in range(16)]


@pytest.mark.parametrize("size", [1, 5, 8, 13])
def test_packed_codes_come_back_in_order(size):
    codes = torch.arange(3, 3 + size, dtype=torch.uint8) % 16
    packed = blocks.pack_nibbles(codes)
    assert packed.dtype == torch.uint8
    assert packed.numel() == (size + 1) // 2
    values = blocks.unpack_nibbles(packed, blocks.pair_table(LEVELS))[:size]
    assert values.dtype == torch.float32
    assert values.tolist() == [LEVELS[code] for code in codes.tolist()]


def test_the_first_code_of_a_byte_is_in_the_high_bits():
    assert blocks.pack_nibbles(torch.tensor([10, 3, 7], dtype=torch.uint8)).tolist() == [0xA3, 0x70]


def test_a_short_last_block_has_its_own_scale():
    values = torch.tensor([1.0, -4.0, 2.0, 0.5, -0.25])
    assert blocks.block_absmax(values, 2).tolist() == [4.0, 2.0, 0.25]
    scales = torch.tensor([2.0, 10.0, 4.0])
    assert blocks.scale_blocks(values, scales, 2).tolist() == [2.0, -8.0, 20.0, 5.0, -1.0]
    assert blocks.block_count(5, 2) == len(scales)


def test_rounded_codes_keep_zeros_and_stay_within_the_levels():
    values = torch.tensor([0.0, 0.0, 0.9, -3.0, 1.49, 1.51])
    codes = blocks.rounded_codes(values, torch.tensor([0.0, 0.2, 1.0]), block=2, levels=7)
    assert codes.tolist() == [0, 0, 4, -7, 1, 2]


@pytest.mark.parametrize(
    ("columns", "wanted", "expected"), [(64, 10, 10), (48, 10, 8), (7, 10, 64), (7, 200, 192)]
)
def test_slices_of_rows_begin_with_a_whole_block(columns, wanted, expected):
    rows = blocks.whole_block_rows(columns, 64, wanted)
    assert rows == expected
    assert rows * columns % 64 == 0
