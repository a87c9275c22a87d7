"""NF4: the studies' codebook and sizes, bitsandbytes' state, the nearest code, the error on normal numbers."""

import pytest
import torch

from qa_core.models.stored import nf4
from qa_core.models.stored.nf4 import Nf4Matrix

pytestmark = pytest.mark.numeric

DOUBLE, SINGLE = {"double_quantisation": True}, {"double_quantisation": False}
SHAPES = [(96, 256), (48, 100), (7, 9), (1, 333), (300, 64)]


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.facts
def test_the_codebook_is_that_of_the_studies():
    expected = [-1, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0]
    expected += [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1]
    assert pytest.approx(expected, abs=5e-8) == nf4.CODEBOOK


@pytest.mark.facts
@pytest.mark.parametrize(("settings", "bits"), [(DOUBLE, 4.126953), (SINGLE, 4.5)])
def test_a_weight_takes_so_many_bits(settings, bits):
    matrix = Nf4Matrix.encode(_normal(768, 1024), settings)
    stored = {name: buffer.nbytes for name, buffer in matrix.named_buffers()}
    assert stored.pop("offset", 4) == 4  # one number for the whole matrix
    assert sum(stored.values()) * 8 / (768 * 1024) == pytest.approx(bits, abs=5e-7)


@pytest.mark.facts
def test_the_error_on_standard_normal_numbers():
    values = _normal(1024, 1024)
    for settings in (SINGLE, DOUBLE):
        error = (Nf4Matrix.encode(values, settings).dense() - values).square().mean().sqrt()
        assert error.item() == pytest.approx(0.0922, abs=3e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_state_and_decoded_values_are_those_of_bitsandbytes(shape):
    from bitsandbytes.functional import create_dynamic_map, dequantize_4bit, quantize_4bit

    values = _normal(*shape)
    for settings in (DOUBLE, SINGLE):
        packed, state = quantize_4bit(
            values, blocksize=64, compress_statistics=settings["double_quantisation"], quant_type="nf4"
        )
        matrix = Nf4Matrix.encode(values, settings)
        assert torch.equal(matrix.packed, packed.view(-1))
        assert torch.equal(matrix.absmax, state.absmax)
        if settings["double_quantisation"]:
            assert torch.equal(matrix.nested_absmax, state.state2.absmax)
            assert torch.equal(matrix.offset, state.offset)
            assert state.state2.blocksize == nf4.ABSMAX_BLOCK
            assert torch.equal(nf4.ABSMAX_LEVELS, state.state2.code)
        if values.numel() % 2 == 0:  # for odd sizes bitsandbytes compiles a decoder first, for many seconds
            # Two products of float32 in another order, of which each rounds once.
            torch.testing.assert_close(matrix.dense(), dequantize_4bit(packed, state), rtol=2**-22, atol=0)
    assert torch.equal(nf4.ABSMAX_LEVELS, create_dynamic_map())


@pytest.mark.parametrize("shape", SHAPES)
def test_each_code_is_the_nearest_in_its_block(shape):
    values = _normal(*shape, seed=2)
    flat = values.flatten()
    codebook = torch.tensor(nf4.CODEBOOK)
    decoded = Nf4Matrix.encode(values, SINGLE).dense().flatten()
    for start in range(0, len(flat), 64):
        block = flat[start : start + 64]
        absmax = block.abs().max()
        distances = (block[:, None] - absmax * codebook).abs()
        found = (block - decoded[start : start + 64]).abs()
        torch.testing.assert_close(found, distances.amin(dim=1), rtol=1e-5, atol=1e-7)


def test_double_quantisation_moves_values_a_little_and_no_code():
    values = _normal(96, 256)
    double, single = Nf4Matrix.encode(values, DOUBLE), Nf4Matrix.encode(values, SINGLE)
    assert torch.equal(double.packed, single.packed)
    difference = (double.dense() - single.dense()).norm() / single.dense().norm()
    assert 0 < difference < 0.01


def test_a_block_of_zeros_stays_zeros():
    values = _normal(4, 64)
    values[2] = 0
    assert Nf4Matrix.encode(values, SINGLE).dense()[2].abs().max() == 0
