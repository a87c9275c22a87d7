"""The memory that training a recipe needs, predicted from the recipe alone: no weights, no time, no device.

A step of the real loop runs on the shape tensors of `shapes.py`, forward and backward, companions of methods
beside the network. What the optimiser keeps is counted by its formula. It is for placing trials on GPUs, and counts
what a trial holds at its worst moment: on a CPU `train_peak_bytes` of a record is measured at the first step, before
which there is no state of the optimiser, and equals `first_step_bytes`.

Kernels are those of a CPU; a GPU's, and the blocks in which the CUDA allocator hands out memory, need other amounts. By
how much was not measured: who places trials leaves room for it (`sweeps/budget/gpu_shares.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import torch

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.artifact.loaded import LoadedArtifact
from qa_core.config import EvaluationConfig, RunConfig, TrainConfig
from qa_core.families.base import Family, Found
from qa_core.memory import protocol as cost
from qa_core.memory.forms import deployed, planned_form, training_skeleton
from qa_core.memory.protocol import Protocol
from qa_core.memory.shapes import (
    CPU,
    META,
    NotPredictable,
    ShapeTensor,
    ShapeTracker,
    predicted_inference_peak_bytes,
    with_shape_tensors,
)
from qa_core.memory.skeleton import without_memory
from qa_core.methods.base import Method
from qa_core.training.deployment import deployed_copy, scores_a_copy
from qa_core.training.kernels import use_training_kernels
from qa_core.training.optimizers import state_bytes
from qa_core.training.train import TrainTask, forward_loss


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of tensors while a recipe trains; a teacher counts, what its own training needed does not.

    `steps_bytes` is the peak of every step after the first, `evaluation_bytes` that of the scores at a rung, both with
    the optimiser's state; where a rung scores a copy in the deployed form, that copy counts beside the network. What
    is alive for a moment while one matrix of it is made does not. A recipe that trains nothing has
    `evaluation_bytes` alone.
    """

    first_step_bytes: int
    steps_bytes: int
    evaluation_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The most that the trial holds."""
        return max(self.first_step_bytes, self.steps_bytes, self.evaluation_bytes)


def predicted_training_memory(
    config: RunConfig,
    family: Family,
    methods: Sequence[Method],
    *,
    tokenizer: Any,
    found: Found,
    precision: str,
    cache_dir: Path,
) -> TrainingMemory:
    """Return what training the recipe needs, on full-length micro-batches.

    Args:
        family, methods: of the recipe. The methods are spent: they hold networks without memory afterwards.
        tokenizer, found: that the network reads, and what `family.prepare` found for it.
        precision: of training and evaluation, float32 or bfloat16.
        cache_dir: of what is found for a teacher.

    Raises:
        NotPredictable: see `shapes.py`.
        ConfigError, ArtifactError: the recipe is at fault, as when the network is built.
    """
    settings = replace(config.evaluation, precision=precision)
    protocol = Protocol(family, tokenizer, config.data.max_length, settings, CPU)
    rows = full_evaluation_rows(settings, protocol.max_length)
    trains = all(method.trains for method in methods)
    if not trains or not scores_a_copy(methods):
        skeleton = _skeleton(config, family, methods, tokenizer=tokenizer, found=found)
        scored = predicted_inference_peak_bytes(skeleton, protocol, rows=rows)
        if not trains:
            return TrainingMemory(0, 0, scored)
    network = _skeleton(config, family, methods, tokenizer=tokenizer, found=found)
    network = _provided(network, config, family, methods, tokenizer=tokenizer, cache_dir=cache_dir)
    if scores_a_copy(methods):
        scored = predicted_inference_peak_bytes(
            deployed_copy(network, methods), protocol, rows=rows, beside=cost.held_tensors(network)
        )
    companions = [item for method in methods for item in method.companions()]
    beside = sum(map(cost.weights_bytes, companions))
    trained = [item.numel() for item in network.parameters() if item.requires_grad]
    state = state_bytes(config.train.optimizer, trained)
    windows: Any = None  # a step is made of the protocol's
    train = replace(config.train, precision=precision)
    task = TrainTask(family, methods, windows, tokenizer.pad_token_id, train, config.seed, CPU)
    peak, left = _step_bytes(network, companions, task, protocol)
    return TrainingMemory(max(peak, left + state), peak + state, scored + beside + state)


def full_micro_batch_rows(train: TrainConfig, max_length: int) -> int:
    """Return how many windows of full length one forward pass of training takes."""
    return max(1, min(train.batch_size, train.micro_batch_tokens // max_length))


def full_evaluation_rows(evaluation: EvaluationConfig, max_length: int) -> int:
    """Return how many windows of full length one batch of scoring takes."""
    return max(1, evaluation.batch_tokens // max_length)


def _skeleton(
    config: RunConfig, family: Family, methods: Sequence[Method], *, tokenizer: Any, found: Found
) -> torch.nn.Module:
    network = training_skeleton(config, family, methods, tokenizer=tokenizer, found=found)
    if config.train.gradient_checkpointing:
        family.enable_gradient_checkpointing(network)
    return network


def _provided(
    network: torch.nn.Module,
    config: RunConfig,
    family: Family,
    methods: Sequence[Method],
    *,
    tokenizer: Any,
    cache_dir: Path,
) -> torch.nn.Module:
    """Hand each method what it needs trained before, without weights."""
    for method in methods:
        needed = method.prerequisite(config)
        if needed is not None:
            network = method.provide(_without_weights(needed, tokenizer, cache_dir), network, family)
    return network


def _without_weights(needed: RunConfig | Path, tokenizer: Any, cache_dir: Path) -> LoadedArtifact:
    """Return the artifact that a method needs: of a recipe the plain network, of a folder what is in it."""
    if isinstance(needed, Path):
        loaded = artifact.load(needed)
        return replace(loaded, model=loaded.model.to(META))
    family = registry.make_family(needed)
    methods = registry.make_methods(needed)
    found = family.prepare(tokenizer, needed.data, cache_dir=cache_dir)
    form = planned_form(needed, family, methods, tokenizer=tokenizer, found=found)
    with without_memory():
        model = deployed(family, form.architecture, form.forms)
    return LoadedArtifact(model.eval(), family, tokenizer, needed, {})


def _step_bytes(
    network: torch.nn.Module, companions: Sequence[torch.nn.Module], task: TrainTask, protocol: Protocol
) -> tuple[int, int]:
    """Return the peak of a forward and backward pass, and what is left of it for the optimiser to step."""
    is_trained = [item.requires_grad for item in network.parameters()]
    network = use_training_kernels(with_shape_tensors(network)).train()
    for parameter, trains in zip(network.parameters(), is_trained, strict=True):
        parameter.requires_grad_(trains)
    networks = [network, *map(with_shape_tensors, companions)]
    tracker = _TrainingTracker(
        [tensor for item in networks for tensor in cost.held_tensors(item)], written_token=None
    )
    batch = tracker.know(protocol.batch(CPU, rows=full_micro_batch_rows(task.config, protocol.max_length)))
    try:
        with torch.random.fork_rng(devices=[]), tracker:
            for method in task.methods:
                method.progress(network, 0.0)
            forward_loss(network, task, batch).backward()
    except NotImplementedError as error:
        raise NotPredictable(str(error).splitlines()[0]) from error
    return tracker.peak_bytes, tracker.current_bytes


class _TrainingTracker(ShapeTracker):
    """Knows what an LSTM's layer keeps for its backward pass on a CPU: torch's shapes leave it out."""

    def _computed(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = super()._computed(func, args, kwargs)
        if func is not torch.ops.aten.mkldnn_rnn_layer.default or not args[-1]:
            return result
        size = _lstm_bytes(args[0].shape, args[10], args[0].element_size())
        kept = torch.empty(size, dtype=torch.uint8, device=META)
        return (*result[:3], ShapeTensor(kept))


def _lstm_bytes(inputs: Sequence[int], hidden_size: int, number_bytes: int) -> int:
    """Return about what oneDNN keeps of one direction for inputs [L, B, D]: gates, states and their gradients.

    The rows of each kind were found by trying sizes, in float32 and in bfloat16: within 5 % from 16 x 64 tokens on.
    """
    length, rows, width = inputs
    gates, widest, hidden = map(_padded, (4 * hidden_size, max(width, hidden_size), hidden_size))
    row_bytes = number_bytes * gates + (2 * number_bytes + 16) * widest + 20 * hidden
    return (length + 1) * rows * row_bytes


def _padded(numbers: int) -> int:
    """Return the numbers of a row as oneDNN lays it out."""
    rounded = 16 * ceil(numbers / 16)
    return rounded + 16 if rounded % 256 == 0 else rounded
