"""Stored matrices and layers: what every encoding keeps, and what is alive in memory while they compute."""

import json
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qa_core.errors import ArtifactError
from qa_core.memory import protocol
from qa_core.models.stored import base, half, int4, int8, nf4
from qa_core.models.stored.base import StoredEmbedding, StoredLinear, StoredMatrix

pytestmark = pytest.mark.numeric

FORMS = {
    "bfloat16": {"encoding": "half", "settings": {"dtype": "bfloat16"}},
    "float16": {"encoding": "half", "settings": {"dtype": "float16"}},
    **{
        f"int8 by {granularity}": {
            "encoding": "int8",
            "settings": {
                "granularity": granularity,
                "group_size": 64 if granularity == "group" else None,
                "dynamic": False,
            },
        }
        for granularity in ("tensor", "row", "group")
    },
    "int8 dynamic": {
        "encoding": "int8",
        "settings": {"granularity": "row", "group_size": None, "dynamic": True},
    },
    "int4": {"encoding": "int4", "settings": {"group_size": 64}},
    "nf4": {"encoding": "nf4", "settings": {"double_quantisation": False}},
    "nf4 double": {"encoding": "nf4", "settings": {"double_quantisation": True}},
}
SHAPES = [(24, 64), (7, 30), (5, 13), (1, 200), (3, 1)]


def _values(shape, *, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def _matrix(form: str, shape=(24, 64), *, seed=0) -> StoredMatrix:
    return base.encoding(FORMS[form]["encoding"]).encode(_values(shape, seed=seed), FORMS[form]["settings"])


def test_encodings_are_found_by_name_and_an_unknown_one_is_refused():
    tried = {form["encoding"] for form in FORMS.values()}
    assert tried == {"half", "int8", "int4", "nf4"}
    for name in tried:
        assert base.encoding(name).name == name
    with pytest.raises(ArtifactError, match="did you mean 'int8'"):
        base.encoding("int9")


@pytest.mark.parametrize(("form", "shape"), product(FORMS, SHAPES))
def test_a_form_survives_json_and_gives_buffers_that_the_state_fits(form, shape):
    matrix = _matrix(form, shape)
    described = json.loads(json.dumps(base.matrix_form(matrix)))
    assert described == {**FORMS[form], "shape": list(shape)}
    empty = base.empty_matrix(described)
    assert torch.isfinite(empty.dense()).all()
    assert not list(matrix.parameters())
    empty.load_state_dict(matrix.state_dict())
    assert torch.equal(empty.dense(), matrix.dense())
    assert matrix.dense().dtype == torch.float32


@pytest.mark.parametrize(("form", "shape"), product(FORMS, SHAPES))
def test_planned_on_meta_it_has_the_same_bytes_and_decodes(form, shape):
    matrix = _matrix(form, shape)
    with torch.device("meta"):
        planned = base.empty_matrix(base.matrix_form(matrix))
    assert {buffer.device.type for buffer in planned.buffers()} == {"meta"}
    assert protocol.weights_bytes(planned) == protocol.weights_bytes(matrix)
    assert planned.dense().shape == shape
    assert planned.rows(torch.zeros(2, 3, dtype=torch.int64, device="meta")).shape == (2, 3, shape[1])
    assert planned.product(torch.zeros(6, shape[1], device="meta")).shape == (6, shape[0])


@pytest.mark.parametrize(
    ("form", "shape"), product([name for name in FORMS if name != "nf4 double"], SHAPES[:-1])
)
def test_encoding_once_more_changes_nothing(form, shape):
    matrix = _matrix(form, shape)
    again = matrix.recoded(FORMS[form])
    assert torch.equal(again.dense(), matrix.dense())
    assert not torch.equal(matrix.dense(), _values(shape))


def test_doubly_quantised_scales_move_a_little_when_encoded_once_more():
    matrix = _matrix("nf4 double", (64, 96))
    again = matrix.recoded(FORMS["nf4 double"])
    error = (again.dense() - matrix.dense()).norm() / matrix.dense().norm()
    assert 0 < error < 0.01


def test_recoding_goes_through_the_decoded_matrix_and_its_form_is_known_without_it():
    matrix = _matrix("int8 by row")
    found = matrix.recoded(FORMS["nf4"])
    expected = base.encoding("nf4").encode(matrix.dense(), FORMS["nf4"]["settings"])
    assert torch.equal(found.dense(), expected.dense())
    planned = type(matrix).recoded_form(base.matrix_form(matrix), FORMS["nf4"])
    assert planned == base.matrix_form(found)


@pytest.mark.parametrize("form", [name for name in FORMS if name != "int8 dynamic"])
def test_a_stored_layer_computes_what_a_dense_one_with_the_decoded_weight_does(form):
    matrix = _matrix(form)
    dense = nn.Linear(64, 24)
    dense.weight = nn.Parameter(matrix.dense())
    layer = StoredLinear(matrix, dense.bias)
    inputs = _values((2, 5, 64), seed=4)
    assert layer.bias is dense.bias
    torch.testing.assert_close(layer(inputs), dense(inputs), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(layer.weight @ inputs[0].T, dense.weight @ inputs[0].T)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = layer(inputs), dense(inputs)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(found, expected)


@pytest.mark.parametrize("form", FORMS)
def test_a_stored_table_gives_the_decoded_rows(form):
    matrix = _matrix(form)
    table = StoredEmbedding(matrix, padding_idx=0)
    index = torch.tensor([[3, 0, 23], [7, 3, 1]])
    assert torch.equal(table(index), F.embedding(index, matrix.dense()))
    assert table(index).dtype == torch.float32


def test_gradients_flow_through_a_stored_layer_to_what_is_trained():
    layer = StoredLinear(_matrix("nf4"), nn.Parameter(torch.zeros(24)))
    inputs = _values((5, 64), seed=1).requires_grad_()
    layer(inputs).square().sum().backward()
    dense = layer.matrix.dense()
    outputs = inputs.detach() @ dense.T
    torch.testing.assert_close(inputs.grad, 2 * outputs @ dense)
    torch.testing.assert_close(layer.bias.grad, 2 * outputs.sum(dim=0))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("columns", [64, 30, 13])
def test_a_large_matrix_is_multiplied_in_slices_that_change_nothing(form, columns, monkeypatch):
    matrix = _matrix(form, (200, columns))
    inputs = _values((3, 2, columns), seed=8)
    expected = matrix.product(inputs)
    for module in (half, int4, int8, nf4):
        monkeypatch.setattr(module, "SLICE_ELEMENTS", 64 * columns + 5)
    assert matrix.rows_at_once == 64
    torch.testing.assert_close(matrix.product(inputs), expected, rtol=1e-6, atol=1e-6)
    step = matrix.rows_at_once
    slices = [matrix.dense_rows(start, min(start + step, 200)) for start in range(0, 200, step)]
    assert torch.equal(torch.cat(slices), matrix.dense())


@pytest.mark.parametrize("form", FORMS)
def test_a_bias_is_added_as_a_layer_adds_it_in_slices_too(form, monkeypatch):
    matrix, bias = _matrix(form, (200, 64)), _values((200,), seed=5)
    inputs = _values((3, 2, 64), seed=8)
    expected = matrix.product(inputs) + bias
    torch.testing.assert_close(matrix.product(inputs, bias), expected, rtol=1e-6, atol=1e-5)
    for module in (half, int4, int8, nf4):
        monkeypatch.setattr(module, "SLICE_ELEMENTS", 64 * 64 + 5)
    torch.testing.assert_close(matrix.product(inputs, bias), expected, rtol=1e-6, atol=1e-5)


def test_a_dynamic_sum_is_rounded_to_16_bits_once_with_its_bias():
    matrix, bias = _matrix("int8 dynamic", (24, 64)), 100 * _values((24,), seed=5)
    inputs = _values((50, 64), seed=8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = matrix.product(inputs, bias)
        sums = matrix.product(inputs)
    codes, steps = int8.quantised_tokens(inputs)
    exact = (codes.double() * steps) @ matrix.dense().double().T + bias.double()
    assert (found - exact).norm() < 0.8 * (sums + bias.bfloat16() - exact).norm()
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize(
    "form", [name for name in FORMS if name.startswith("int8") and name != "int8 dynamic"]
)
@pytest.mark.parametrize("columns", [64, 30])
def test_a_matrix_decoded_to_16_bits_in_slices_is_the_rounded_one(form, columns, monkeypatch):
    matrix = _matrix(form, (200, columns))
    expected = matrix.dense().bfloat16()
    monkeypatch.setattr(int8, "CACHED_ELEMENTS", 64 * columns + 5)
    assert matrix.decoded_at_once == 64
    assert torch.equal(matrix.dense_as(torch.bfloat16), expected)
    assert torch.equal(matrix.dense_as(torch.float32), matrix.dense())


def test_int8_in_16_bits_never_makes_the_whole_matrix_in_float32(monkeypatch):
    monkeypatch.setattr(int8, "CACHED_ELEMENTS", 10 * 64)
    matrix = _matrix("int8 by row", (1000, 64))
    inputs = torch.zeros(2, 64, dtype=torch.bfloat16)
    tracker = protocol.StorageTracker([*matrix.buffers(), inputs])
    held = tracker.peak_bytes
    with torch.inference_mode(), tracker:
        matrix.product(inputs)
    assert 2 * 1000 * 64 < tracker.peak_bytes - held < 2.3 * 1000 * 64


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("has_int_mm", [True, False])
def test_beside_the_codes_one_dense_matrix_is_alive_at_most(form, device, has_int_mm, monkeypatch):
    monkeypatch.setattr(int8, "takes_integers", lambda left, right: has_int_mm)
    width, depth, tokens = 256, 4, 8
    layers = [StoredLinear(_matrix(form, (width, width), seed=seed), None) for seed in range(depth)]
    network = nn.Sequential(*layers).to(device)
    inputs = torch.zeros(tokens, width, device=device)
    tracker = protocol.StorageTracker([*protocol.held_tensors(network), inputs])
    held = tracker.peak_bytes
    with torch.inference_mode(), tracker:
        network(inputs)
    matrix, activations = 4 * width * width, 4 * tokens * width
    extra = tracker.peak_bytes - held
    if (
        form == "int8 dynamic"
    ):  # no weight is decoded, or 64 rows of 256 at a time where the CPU multiplies floats
        assert extra < (0.2 if has_int_mm else 0.45) * matrix
    else:
        assert matrix <= extra - activations <= 1.6 * matrix  # a byte's index into the table takes 4 bytes
    assert tracker.current_bytes == held


def test_a_large_table_that_is_an_output_layer_too_is_never_decoded_whole(monkeypatch):
    monkeypatch.setattr(int8, "SLICE_ELEMENTS", 50 * 64)
    matrix = _matrix("int8 by row", (1000, 64))
    inputs = torch.zeros(2, 64)
    tracker = protocol.StorageTracker([*matrix.buffers(), inputs])
    held = tracker.peak_bytes
    with torch.inference_mode(), tracker:
        matrix.product(inputs)
    assert tracker.peak_bytes - held < 0.1 * 4 * 1000 * 64


def test_16_bits_are_not_copied_where_16_bits_of_the_same_kind_are_multiplied():
    matrix = _matrix("bfloat16", (128, 128))
    inputs = torch.zeros(2, 128, dtype=torch.bfloat16)
    tracker = protocol.StorageTracker([*matrix.buffers(), inputs])
    held = tracker.peak_bytes
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), tracker:
        matrix.product(inputs)
    assert tracker.peak_bytes - held == 2 * 2 * 128
