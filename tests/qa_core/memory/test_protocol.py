"""The memory protocol: exact bytes on networks small enough to count by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from qa_core import registry
from qa_core.config import EvaluationConfig, ModelConfig
from qa_core.memory import protocol as cost
from qa_core.memory.protocol import Protocol, StorageTracker
from qa_core.models.stored.base import StoredEmbedding, StoredLinear
from qa_core.models.stored.half import HalfMatrix

pytestmark = pytest.mark.numeric

FLOAT = 4


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(100, 200, bias=False), nn.ReLU(), nn.Linear(200, 10, bias=False))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_peak_of_a_small_network_is_the_sum_counted_by_hand(device):
    network = _mlp().to(device)
    inputs = torch.zeros(8, 100, device=device)
    tracker = StorageTracker([*network.parameters(), inputs])
    held = FLOAT * (100 * 200 + 200 * 10 + 8 * 100)
    assert tracker.peak_bytes == held
    with torch.inference_mode(), tracker:
        for _ in range(3):
            network(inputs)
    two_hidden_layers_at_once = FLOAT * 8 * (200 + 200)
    assert tracker.peak_bytes == held + two_hidden_layers_at_once
    assert tracker.current_bytes == held


def test_a_training_step_counts_activations_gradients_and_moments():
    network = nn.Linear(50, 40, bias=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    inputs = torch.zeros(8, 50)

    def step() -> None:
        network(inputs).sum().backward()
        optimizer.step()

    peak = cost.tracked_step_peak_bytes(step, [*network.parameters(), inputs])
    weight = FLOAT * 50 * 40
    assert peak >= 4 * weight + FLOAT * 8 * 50  # weight, gradient and two moments are alive together
    assert peak <= 6 * weight + FLOAT * 8 * (50 + 2 * 40) + 64


def test_shared_storages_are_counted_once():
    first = nn.Linear(30, 30, bias=False)
    second = nn.Linear(30, 30, bias=False)
    second.weight = first.weight
    shared = nn.Sequential(first, second)
    assert cost.weights_bytes(shared) == FLOAT * 900
    assert cost.parameter_count(shared) == 900


def test_numbers_of_stored_matrices_count_as_parameters_and_shared_ones_once():
    plain = nn.Linear(30, 20)
    matrix = HalfMatrix.encode(plain.weight, {"dtype": "float16"})
    stored = nn.ModuleList([StoredLinear(matrix, plain.bias), StoredEmbedding(matrix, None)])
    assert cost.parameter_count(stored) == cost.parameter_count(plain) == 620
    assert cost.parameter_count(stored, trainable_only=True) == 20
    assert cost.weights_bytes(stored) == 2 * 600 + FLOAT * 20


def test_buffers_outside_the_state_dict_count_as_weights():
    network = nn.Linear(3, 3, bias=False)
    network.register_buffer("positions", torch.zeros(10, dtype=torch.int64), persistent=False)
    assert cost.weights_bytes(network) == FLOAT * 9 + 80


class _Tokenizer(SimpleNamespace):
    def __len__(self) -> int:
        return 400


TOKENIZER = _Tokenizer(
    pad_token_id=0, unk_token_id=1, cls_token_id=2, sep_token_id=3, eos_token_id=1, bos_token_id=None
)


def test_measuring_leaves_mode_and_random_state_alone():
    family = registry.family_class("bert")(ModelConfig("bert", checkpoint="micro"))
    protocol = Protocol(family, TOKENIZER, 64, EvaluationConfig(precision="float32"), torch.device("cpu"))
    model = family.build(TOKENIZER).train()
    before = torch.get_rng_state()
    cost.inference_peak_bytes(model, protocol)
    assert model.training
    assert torch.equal(before, torch.get_rng_state())


def test_percentile_is_linear_between_neighbours():
    assert cost.percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert cost.percentile([0.0, 10.0], 0.95) == pytest.approx(9.5)
