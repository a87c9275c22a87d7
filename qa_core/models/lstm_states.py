"""Runs an LSTM layer under autocast on every CPU: not all of them have a kernel for it in bfloat16."""

import torch
from torch import Tensor, nn


def lstm_states(lstm: nn.Module, inputs: Tensor) -> Tensor:
    """Return the outputs of an `nn.LSTM` or a `StoredLstm`, in autocast's dtype where autocast is on.

    oneDNN computes LSTMs in bfloat16 on CPUs with AVX-512 alone, and torch raises on others. There the layer computes
    in float32 and its outputs are rounded; torch's own kernels for bfloat16 take four to six times as long.
    """
    if not _lacks_autocast_kernel(inputs):
        return lstm(inputs)[0]
    dtype = torch.get_autocast_dtype("cpu")
    with torch.autocast("cpu", enabled=False):
        return lstm(inputs.float())[0].to(dtype)


def _lacks_autocast_kernel(inputs: Tensor) -> bool:
    return (
        inputs.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.backends.cpu.get_cpu_capability() != "AVX512"
    )
