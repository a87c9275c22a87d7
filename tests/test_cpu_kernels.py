"""The passes of `make numeric` compute with the kernels that their names say; elsewhere there is nothing to hold."""

import os
import platform
import subprocess
import sys

import pytest
import torch

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(
        "ATEN_CPU_CAPABILITY" not in os.environ or platform.machine() != "x86_64",
        reason="ATEN_CPU_CAPABILITY is not set, or this is no x86 CPU: `make numeric` chooses kernels",
    ),
]

# ATEN_CPU_CAPABILITY -> the instructions that oneDNN names, and the mode that MKL names. MKL says AVX2 on Intel's CPUs
# alone: on others it neither names nor takes a choice of instructions, but has the mode that every CPU can reproduce.
TOLD = {"default": ("isa:Intel SSE4.1", "CNR:COMPATIBLE"), "avx2": ("isa:Intel AVX2", "CNR:")}

PROGRAM = """
import torch
torch.ones(64, 64) @ torch.ones(64, 64)
torch.nn.LSTM(4, 4)(torch.ones(3, 2, 4))
"""


def test_torchs_own_kernels_are_those_that_the_environment_names() -> None:
    told = os.environ["ATEN_CPU_CAPABILITY"]
    assert told in TOLD
    assert torch.backends.cpu.get_cpu_capability() == told.upper()
    assert f"CPU capability usage: {told.upper()}\n" in torch.__config__.show()


def test_onednn_and_mkl_were_told_the_same() -> None:
    instructions, mode = TOLD[os.environ["ATEN_CPU_CAPABILITY"]]
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    said = done.stdout + done.stderr
    assert instructions + "\n" in said, said[:2000]
    assert mode in said, said[:2000]
