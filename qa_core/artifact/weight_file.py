"""What weight files say of themselves, held against a network and its description before they are read.

A weight file is safetensors: a header of names, dtypes, shapes and places, and numbers. See `artifact.py`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from qa_core import files
from qa_core.artifact.manifest import MANIFEST, WEIGHTS
from qa_core.errors import ArtifactError

# A file's name of a dtype -> torch's.
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
BYTES_AT_ONCE = 2**22  # of a file that are in memory beside the network that they fill
COMMON_NUMBER = 10**6  # what a description may say whatever the weights are


def write_network(path: Path, model: torch.nn.Module, names: Mapping[str, str]) -> dict[str, str]:
    """Write all parameters and buffers; of a tensor with several names the first one. Equal networks, equal bytes.

    Args:
        path: of the file.
        model: the network.
        names: name in the network -> name in the file, where the two differ.

    Returns:
        Those of `names` that are in the file.

    `save_model` of safetensors notes the other names in the header, in an order that changes from process to process.
    """
    tensors: dict[str, torch.Tensor] = {}
    used: list[str] = []
    written: set[tuple[Any, ...]] = set()
    for name, tensor in sorted(model.state_dict().items()):
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() == 0 or place not in written:
            tensors[names.get(name, name)] = tensor.contiguous()
            used.append(name)
        written.add(place)
    save_file(tensors, path, metadata={"format": "pt"})
    return {name: names[name] for name in used if name in names}


def check_numbers(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a description of a network that its weights cannot fill: building it could take all memory or time.

    No number is larger than the weights have bytes, and none of layers larger than they have tensors.

    Raises:
        ArtifactError: names the entry, what was found and what is allowed.
    """
    names = {WEIGHTS, *manifest["weight_files"], *manifest["renamed"]}
    size = sum(manifest["files"][name]["bytes"] for name in names)
    tensors = sum(_tensor_count(folder / name) for name in names)
    for place, value in _numbers({name: manifest[name] for name in ("architecture", "forms")}, ""):
        allowed = tensors if "layer" in place.rpartition(".")[2] else max(COMMON_NUMBER, size)
        if abs(value) > allowed:
            raise ArtifactError(
                f"{folder / MANIFEST}: {place}: found {value}; allowed: at most {allowed}, for weights of {size} bytes "
                f"in {tensors} tensors"
            )


def check_tensors(path: Path, names: Mapping[str, str], state: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors of another dtype or shape than the network's: nothing is cast, and the bytes are the file's.

    Args:
        path: of the weight file.
        names: name in the network -> name in the file.
        state: of the network; what it does not have is not looked at.

    Raises:
        ArtifactError: names the tensor, what was found and what is allowed.
    """
    with safe_open(path, "pt") as file:
        for here, there in names.items():
            if here in state:
                tensor, network = file.get_slice(there), state[here]
                dtype = DTYPES.get(tensor.get_dtype(), tensor.get_dtype())
                found, wanted = (dtype, tensor.get_shape()), (network.dtype, list(network.shape))
                if found != wanted:
                    raise ArtifactError(
                        f"{path}: {there}: found {found[0]} {found[1]}; allowed: {wanted[0]} {wanted[1]}, as the "
                        "network has it"
                    )


def fill(path: Path, names: Mapping[str, str], state: Mapping[str, torch.Tensor]) -> None:
    """Fill tensors of a network with those of a weight file, few bytes at a time: a mapped file counts as memory.

    Args:
        path, names, state: as for `check_tensors`, which has passed.
    """
    for pieces in _pieces({here: there for here, there in names.items() if here in state}, state):
        with safe_open(path, "pt") as file:  # the bytes are given back when it is closed
            for here, there, rows in pieces:
                if rows is None:
                    state[here].copy_(file.get_tensor(there))
                else:
                    state[here][rows].copy_(file.get_slice(there)[rows])


def _pieces(
    names: Mapping[str, str], state: Mapping[str, torch.Tensor]
) -> Iterator[list[tuple[str, str, slice | None]]]:
    """Return (name in the network, name in the file, rows, or all) in groups of about `BYTES_AT_ONCE`."""
    group: list[tuple[str, str, slice | None]] = []
    size = 0
    for here, there in names.items():
        tensor = state[here]
        many = max(1, BYTES_AT_ONCE // max(1, tensor[:1].nbytes)) if tensor.ndim else 1
        parts = (
            [slice(start, start + many) for start in range(0, len(tensor), many)] if tensor.ndim else [None]
        )
        for rows in parts:
            group.append((here, there, rows))
            size += tensor.nbytes if rows is None else tensor[rows].nbytes
            if size >= BYTES_AT_ONCE:
                yield group
                group, size = [], 0
    if group:
        yield group


def tensor_names(path: Path) -> set[str]:
    """Return the names of the tensors in a weight file."""
    with safe_open(path, "pt") as file:
        return set(file.keys())


def _tensor_count(path: Path) -> int:
    files.check_safetensors(path)
    return len(tensor_names(path))


def _numbers(value: Any, place: str) -> Iterator[tuple[str, int | float]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _numbers(item, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, place)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value
