"""A stored LSTM computes what nn.LSTM does with the decoded weights."""

import pytest
import torch
from torch import nn

from qa_core.models.lstm_states import lstm_states
from qa_core.models.stored.base import encoding
from qa_core.models.stored.lstm import StoredLstm, matrix_names
from tests.contracts.rounding import assert_same_to_rounding

pytestmark = pytest.mark.numeric

NF4 = {"double_quantisation": False}
KINDS = {
    "one direction": {},
    "batch first": {"batch_first": True},
    "two directions": {"bidirectional": True},
    "two layers without biases": {"num_layers": 2, "bias": False},
}


def _pair(**options) -> tuple[nn.LSTM, StoredLstm, nn.LSTM]:
    """Return an LSTM, its stored form and an LSTM with the decoded weights."""
    torch.manual_seed(0)
    lstm, decoded = (nn.LSTM(20, 12, **options).eval() for _ in range(2))
    decoded.load_state_dict(lstm.state_dict())
    matrices = {name: encoding("nf4").encode(getattr(lstm, name), NF4) for name in matrix_names(lstm)}
    with torch.no_grad():
        for name, matrix in matrices.items():
            decoded.get_parameter(name).copy_(matrix.dense())
    return lstm, StoredLstm(lstm, matrices).eval(), decoded


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_final_state_are_those_of_the_decoded_weights(kind):
    lstm, stored, decoded = _pair(**KINDS[kind])
    inputs = torch.randn(7, 5, 20)
    with torch.no_grad():
        outputs, (hidden, cell) = stored(inputs)
        expected, (expected_hidden, expected_cell) = decoded(inputs)
        assert_same_to_rounding(outputs, expected)
        assert_same_to_rounding((hidden, cell), (expected_hidden, expected_cell))
        again, _ = stored(inputs, (hidden, cell))
        assert_same_to_rounding(again, decoded(inputs, (hidden, cell))[0])
        assert not torch.allclose(outputs, lstm(inputs)[0], atol=1e-3)


def test_biases_stay_the_same_parameters_in_float32():
    lstm, stored, _ = _pair(bidirectional=True)
    parameters = dict(stored.named_parameters())
    assert set(parameters) == {
        "bias_ih_l0",
        "bias_hh_l0",
        "bias_ih_l0_reverse",
        "bias_hh_l0_reverse",
    }
    for name, parameter in parameters.items():
        assert parameter is getattr(lstm, name)


def test_under_autocast_it_does_what_nn_lstm_does():
    _, stored, decoded = _pair()
    inputs = torch.randn(7, 5, 20)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, expected = lstm_states(stored, inputs), lstm_states(decoded, inputs)
    assert outputs.dtype == expected.dtype == torch.bfloat16
    assert_same_to_rounding(outputs, expected)
