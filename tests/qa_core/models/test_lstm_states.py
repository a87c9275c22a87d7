"""An LSTM under autocast: on a CPU without a kernel for it as on one with, and untouched without autocast."""

import pytest
import torch
from torch import nn

from qa_core.models.lstm_states import lstm_states
from tests.contracts.rounding import assert_same_to_rounding

pytestmark = pytest.mark.numeric


def _lstm() -> tuple[nn.LSTM, torch.Tensor]:
    torch.manual_seed(0)
    return nn.LSTM(20, 12), torch.randn(7, 5, 20)


@pytest.mark.parametrize("capability", ["DEFAULT", "AVX2", "as it is"])
def test_under_autocast_states_and_gradients_are_near_those_of_float32(
    capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if capability != "as it is":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    lstm, inputs = _lstm()
    expected = lstm(inputs)[0]
    expected.square().sum().backward()
    gradients = {name: item.grad for name, item in lstm.named_parameters()}
    lstm.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lstm_states(lstm, inputs.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=2e-2)  # bfloat16 keeps 2^-9 of an input
    found.float().square().sum().backward()
    for name, item in lstm.named_parameters():
        torch.testing.assert_close(
            item.grad, gradients[name], rtol=0.1, atol=0.05 * float(gradients[name].abs().max())
        )


def test_without_autocast_the_states_are_the_layers_own() -> None:
    lstm, inputs = _lstm()
    assert_same_to_rounding(lstm_states(lstm, inputs), lstm(inputs)[0])
