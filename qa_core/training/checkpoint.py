"""Save and restore a running trial, exactly and atomically.

A checkpoint is a folder of safetensors and JSON: trainable weights and buffers, the optimiser's state, the random
state and the place in the data. A trial restored from it ends with the same bits as one that was never stopped (on
the CPU). Frozen weights are not stored: they come from the checkpoint that the recipe names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qa_core import files
from qa_core.errors import CheckpointError, ConfigError, DataError
from qa_core.values import Setting, check_ranges, from_dict

FORMAT_VERSION = 1
MOMENTS = ("exp_avg", "exp_avg_sq")  # of an optimiser's state: one number for each weight
# What comes of files that hold something else.
DAMAGE = (
    ConfigError,
    DataError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RuntimeError,  # RecursionError too
    SafetensorError,
)


AtLeast0 = Annotated[int, Setting("A count.", at_least=0)]


@dataclass
class TrainState:
    """Where training stands. Mutable: the loop advances it."""

    examples_seen: AtLeast0 = 0
    epoch: AtLeast0 = 0
    step_in_epoch: AtLeast0 = 0
    train_seconds: float = 0.0
    rung_seconds: float = 0.0  # of scoring at rungs, which training's do not hold
    loss_sum: float = 0.0  # since the last rung
    loss_windows: AtLeast0 = 0
    # Micro-batches are cut into this many: doubled each time that the device was full.
    micro_batch_parts: Annotated[int, Setting("Parts of a micro-batch.", at_least=1)] = 1
    curve: list[dict[str, Any]] = field(default_factory=list)


def save(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: TrainState) -> None:
    """Write a checkpoint in place of any former one; a crash in between leaves the former one readable."""
    files.remove_leftovers(folder)  # of a worker that was killed; a trial has one at a time
    with files.written_folder(folder) as target:
        save_file(_trained_tensors(model), target / "model.safetensors")
        moments, scalars = _flatten_optimizer(optimizer)
        save_file(moments, target / "optimizer.safetensors")
        save_file(_random_state(), target / "random.safetensors")
        document = {"format": FORMAT_VERSION, "state": vars(state), "optimizer_scalars": scalars}
        files.write_json(target / "state.json", document)


def restore(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> TrainState | None:
    """Load a checkpoint into model, optimiser and random state.

    Returns None when there is no checkpoint. An interrupted replacement is undone first.

    Raises:
        CheckpointError: the checkpoint is damaged or belongs to another recipe.
    """
    files.undo_interrupted_replacement(folder)
    if not files.is_folder(folder):
        return None
    try:
        return _restore(folder, model, optimizer)
    except torch.OutOfMemoryError:  # of the device, not of the checkpoint
        raise
    except DAMAGE as error:
        raise CheckpointError(f"{folder}: damaged checkpoint: {type(error).__name__}: {error}") from error


def _restore(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
    document = files.read_object(folder / "state.json", inside=folder)
    if document["format"] != FORMAT_VERSION:
        raise CheckpointError(f"{folder}: format {document['format']!r}; allowed: {FORMAT_VERSION}")
    trained, moments, random_state = (_tensors(folder, name) for name in ("model", "optimizer", "random"))
    state = _train_state(document["state"])
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in _trained_tensors(model).items()}
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in trained.items()}
    if expected != found:
        differing = sorted(set(expected.items()) ^ set(found.items()), key=str)[:3]
        raise CheckpointError(f"{folder}: belongs to another recipe: tensors differ, e.g. {differing}")
    model.load_state_dict(trained, strict=False)
    _restore_optimizer(optimizer, moments, document["optimizer_scalars"])
    _set_random_state(random_state)
    return state


def _tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = folder / f"{name}.safetensors"
    files.check_safetensors(path, inside=folder)
    return load_file(path)


def _train_state(values: Any) -> TrainState:
    """Return the state after a look at every value; raises ConfigError."""
    state = from_dict(TrainState, values, path="state", strict=True)
    check_ranges(state, "state")
    return state


def _trained_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = dict(model.named_buffers())
    tensors |= {name: item for name, item in model.named_parameters() if item.requires_grad}
    return {name: item.detach().to("cpu").contiguous().clone() for name, item in tensors.items()}


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return tensors and scalars of the optimiser's state, which may be nested, by dotted keys."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {}
    for key, value in _leaves(optimizer.state_dict()["state"]):
        if isinstance(value, torch.Tensor):
            tensors[key] = value.detach().to("cpu").contiguous().clone()
        else:
            scalars[key] = value
    return tensors, scalars


def _leaves(values: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", leaf) for key, leaf in _leaves(value))
        else:
            yield str(name), value


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], scalars: dict[str, Any]
) -> None:
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    document = optimizer.state_dict()
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **scalars}.items():
        index, *path, name = key.split(".")
        place = state.setdefault(int(index), {})
        for part in path:
            place = place.setdefault(part, {})
        place[name] = value
        wanted = parameters[int(index)].shape
        if name in MOMENTS and (not isinstance(value, torch.Tensor) or value.shape != wanted):
            found = list(value.shape) if isinstance(value, torch.Tensor) else value
            raise ValueError(f"optimiser: {key}: found {found}; allowed: a tensor of {list(wanted)}")
    document["state"] = state
    optimizer.load_state_dict(document)


def _random_state() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_state(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
