"""Networks are built without memory and without random numbers that nobody would see."""

import subprocess
import sys

import torch
from torch import nn

from qa_core.memory.skeleton import without_memory

BUILD = """
import sys
from torch import nn
from qa_core.memory.skeleton import without_memory
with without_memory():
    nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.LSTM(4, 4))
print("torch._dynamo" in sys.modules)
"""


def test_a_network_without_memory_has_the_shapes_of_one_with() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 4), nn.LSTM(4, 4))

    with without_memory():
        skeleton = build()
    built = build()
    assert {name: item.shape for name, item in skeleton.state_dict().items()} == {
        name: item.shape for name, item in built.state_dict().items()
    }
    assert all(parameter.is_meta for parameter in skeleton.parameters())


def test_what_has_memory_is_still_drawn_and_generators_go_on_as_before() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with without_memory():
        real = torch.zeros(64, device="cpu").normal_()
        nn.init.uniform_(torch.empty(8))
    assert real.std() > 0.1
    assert torch.equal(torch.rand(4), expected)


def test_torchs_compiler_is_not_loaded_to_build_one() -> None:
    found = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
