"""Packed matrices: bit-equal after loading, near the entropy bound, decodable when empty and on meta tensors."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model, save_model

from qa_core.models.stored.base import ENCODINGS, StoredLinear, empty_matrix, encoding, matrix_form
from qa_core.models.stored.half import HalfMatrix
from qa_core.models.stored.positions import PositionCode, packed, top_mask, unpacked
from qa_core.models.stored.sparse import SparseMatrix, sparse_form, unpacked_linear

pytestmark = pytest.mark.numeric

PLAIN = {"encoding": "plain", "settings": {}}
FLOAT16 = {"encoding": "half", "settings": {"dtype": "float16"}}
REAL_SHAPES = [(768, 768), (3072, 768), (384, 384)]


def _entropy(density: float) -> float:
    """Bits per weight that the positions of a random mask take at least."""
    return -sum(share * math.log2(share) for share in (density, 1 - density) if share)


def _random(shape: tuple[int, int], density: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator)
    mask = top_mask(torch.randn(shape, generator=generator), math.floor(density * weight.numel()))
    return weight, mask


def _written(matrix: SparseMatrix, path: Path) -> int:
    """Bytes of the matrix's data in a safetensors file, its header left out: a layer's is about 500 bytes."""
    save_model(StoredLinear(matrix, None), str(path))
    header_length = int.from_bytes(path.read_bytes()[:8], "little")
    return path.stat().st_size - 8 - header_length


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_bits_come_back_packed_eight_to_a_byte(count):
    bits = (torch.arange(count) * 7 % 3 == 1).to(torch.uint8)
    assert packed(bits).shape == (-(-count // 8),)
    assert torch.equal(unpacked(packed(bits), count), bits)


def test_the_first_bit_is_the_lowest_of_its_byte():
    assert packed(torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 0, 1], dtype=torch.uint8)).tolist() == [1, 2]


@pytest.mark.parametrize("low_bits", [None, 0, 1, 3, 6, 12])
@pytest.mark.parametrize("density", [0.0, 0.003, 0.1, 0.5, 1.0])
def test_every_code_gives_back_any_positions_in_the_bytes_it_promises(low_bits, density):
    size = 60 * 61 + 3
    mask = torch.rand(size, generator=torch.Generator().manual_seed(2)) < density
    positions = mask.nonzero().view(-1)
    code = PositionCode(size, len(positions), low_bits)
    buffers = code.written(positions)
    assert all(buffer.dtype == torch.uint8 for buffer in buffers.values())
    assert sum(buffer.numel() for buffer in buffers.values()) == code.bytes
    assert torch.equal(code.positions(buffers), positions)
    assert PositionCode.from_settings(size, json.loads(json.dumps(code.settings))) == code


def test_the_last_position_and_a_run_at_the_end_come_back():
    for positions in ([999], [0], [997, 998, 999], [0, 1, 512, 999]):
        code = PositionCode(1000, len(positions), 7)
        written = code.written(torch.tensor(positions))
        assert code.positions(written).tolist() == positions


@pytest.mark.parametrize(
    ("density", "kind"), [(0.03, "elias_fano"), (0.1, "elias_fano"), (0.5, "bit_mask"), (1.0, "bit_mask")]
)
def test_the_smaller_code_is_chosen_and_recorded(density, kind):
    size = 768 * 768
    code = PositionCode.smallest(size, math.floor(density * size))
    assert code.settings["positions"] == kind
    others = [PositionCode(size, code.kept, low) for low in (None, *range(20))]
    assert code.bytes == min(other.bytes for other in others)


@pytest.mark.facts
@pytest.mark.parametrize(("density", "floor_mib"), [(0.10, 4.75), (0.03, 1.97)])
def test_the_positions_of_bert_base_take_little_more_than_their_entropy(density, floor_mib):
    """84,934,656 scores of 72 matrices: 10,616,832 bytes as bit masks."""
    sizes = [768 * 768] * 48 + [768 * 3072] * 24
    assert sum(PositionCode(size, 0, None).bytes for size in sizes) == 10_616_832
    floor = _entropy(density) * sum(sizes) / 8
    assert round(floor / 2**20, 2) == floor_mib
    stored = sum(PositionCode.smallest(size, math.floor(density * size)).bytes for size in sizes)
    assert floor < stored < 1.13 * floor


@pytest.mark.parametrize("shape", REAL_SHAPES)
@pytest.mark.parametrize(("values", "bits"), [(PLAIN, 32), (FLOAT16, 16)])
def test_at_a_tenth_the_written_bytes_are_near_the_entropy_bound(shape, values, bits, tmp_path):
    weight, mask = _random(shape, 0.1)
    found = _written(SparseMatrix.pack(weight, mask, values), tmp_path / "m.safetensors")
    bound = (_entropy(0.1) + 0.1 * bits) * weight.numel() / 8
    assert bound * 0.99 < found < 1.05 * bound


@pytest.mark.parametrize("shape", REAL_SHAPES)
def test_at_a_tenth_8_bit_values_stay_within_130_percent_of_the_bound(shape, tmp_path):
    """Of the encoding `int8` where it is registered, in groups of 64 with 16-bit scales."""
    if "int8" not in ENCODINGS:
        pytest.skip("no encoding int8 is registered")
    weight, mask = _random(shape, 0.1)
    settings = {"granularity": "group", "group_size": 64}
    matrix = SparseMatrix.pack(weight, mask, {"encoding": "int8", "settings": settings})
    bound = (_entropy(0.1) + 0.1 * 8) * weight.numel() / 8
    assert bound * 0.99 < _written(matrix, tmp_path / "m.safetensors") < 1.3 * bound


@pytest.mark.parametrize("density", [0.0, 0.03, 0.1, 0.5, 0.9, 1.0])
def test_a_packed_matrix_loads_back_bit_equal_through_its_form(density, tmp_path):
    weight, mask = _random((64, 96), density)
    bias = torch.nn.Parameter(torch.randn(64))
    layer = StoredLinear(SparseMatrix.pack(weight, mask, PLAIN), bias)
    form = json.loads(json.dumps(matrix_form(layer.matrix)))
    assert form == sparse_form((64, 96), int(mask.sum()), PLAIN)
    save_model(layer, str(tmp_path / "layer.safetensors"))
    loaded = StoredLinear(empty_matrix(form), torch.nn.Parameter(torch.zeros(64)))
    load_model(loaded, str(tmp_path / "layer.safetensors"), strict=True)
    assert torch.equal(loaded.weight, weight * mask)
    inputs = torch.randn(5, 96)
    torch.testing.assert_close(loaded(inputs), torch.nn.functional.linear(inputs, weight * mask, bias))
    index = torch.tensor([[3, 63], [0, 3]])
    assert torch.equal(loaded.matrix.rows(index), (weight * mask)[index])


def test_half_values_are_the_rounded_kept_weights():
    weight, mask = _random((64, 96), 0.3)
    found = SparseMatrix.pack(weight, mask, FLOAT16).dense()
    assert found.dtype == torch.float32
    assert torch.equal(found, (weight * mask).half().float())


def test_encoding_a_decoded_matrix_once_more_changes_nothing():
    weight, mask = _random((64, 96), 0.1)
    weight[mask.nonzero()[0, 0], mask.nonzero()[0, 1]] = 0.0  # a kept weight that is zero
    for values in (PLAIN, FLOAT16):
        first = SparseMatrix.pack(weight, mask, values)
        again = SparseMatrix.encode(first.dense(), first.settings)
        assert torch.equal(again.dense(), first.dense())
        assert matrix_form(again) == matrix_form(first)


def test_encode_keeps_the_largest_magnitudes():
    weight = torch.tensor([[0.1, -3.0, 2.0], [-0.2, 0.3, 1.0]])
    found = SparseMatrix.encode(weight, {"kept": 3, "values": PLAIN}).dense()
    assert found.tolist() == [[0.0, -3.0, 2.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize("density", [0.0, 0.03, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("values", [PLAIN, FLOAT16])
def test_an_empty_matrix_is_decodable_with_the_shapes_of_a_full_one_on_meta_too(density, values):
    weight, mask = _random((64, 96), density)
    full = SparseMatrix.pack(weight, mask, values)
    form = json.loads(json.dumps(matrix_form(full)))
    empty = empty_matrix(form)
    with torch.device("meta"):
        meta = empty_matrix(form)
    described = {name: (item.shape, item.dtype) for name, item in full.state_dict().items()}
    for other in (empty, meta):
        assert {name: (item.shape, item.dtype) for name, item in other.state_dict().items()} == described
        assert other.dense().shape == (64, 96)
        assert other.dense().dtype == torch.float32
    assert meta.dense().is_meta
    assert not empty.dense().any()


def test_recoding_keeps_the_positions_and_its_form_is_known_without_data():
    weight, mask = _random((64, 96), 0.1)
    matrix = SparseMatrix.pack(weight, mask, PLAIN)
    recoded = matrix.recoded(FLOAT16)
    assert isinstance(recoded, SparseMatrix)
    assert torch.equal(recoded.dense(), (weight * mask).half().float())
    planned = SparseMatrix.recoded_form(matrix_form(matrix), FLOAT16)
    assert json.loads(json.dumps(planned)) == matrix_form(recoded)
    assert torch.equal(matrix.dense(), weight * mask), "the first one is left as it was"


def test_where_nothing_is_kept_recoding_has_nothing_to_encode():
    matrix = SparseMatrix.pack(torch.randn(8, 8), torch.zeros(8, 8, dtype=torch.bool), PLAIN)
    assert matrix.recoded(FLOAT16) is matrix
    assert SparseMatrix.recoded_form(matrix_form(matrix), FLOAT16) == matrix_form(matrix)


def test_recoding_a_dense_stored_matrix_decodes_and_encodes_it():
    matrix = HalfMatrix.encode(torch.randn(4, 6), {"dtype": "bfloat16"})
    recoded = matrix.recoded(FLOAT16)
    assert type(recoded) is HalfMatrix
    assert torch.equal(recoded.dense(), matrix.dense().half().float())
    assert encoding("half").recoded_form(matrix_form(matrix), FLOAT16) == matrix_form(recoded)


def test_unpacking_gives_an_ordinary_layer_or_one_in_the_smaller_encoding_of_the_values():
    weight, mask = _random((64, 96), 0.1)
    bias = torch.nn.Parameter(torch.randn(64))
    plain = unpacked_linear(StoredLinear(SparseMatrix.pack(weight, mask, PLAIN), bias))
    assert type(plain) is torch.nn.Linear
    assert torch.equal(plain.weight, weight * mask)
    assert plain.bias is bias
    half = unpacked_linear(StoredLinear(SparseMatrix.pack(weight, mask, FLOAT16), None))
    assert isinstance(half, StoredLinear)
    assert isinstance(half.matrix, HalfMatrix)
    assert torch.equal(half.weight, (weight * mask).half().float())
    assert half.bias is None
