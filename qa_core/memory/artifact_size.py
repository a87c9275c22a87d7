"""What an artifact weighs on disk, known before anything is trained: the bytes of every file of the folder that ships.

The figure is that of `LoadedArtifact.artifact_bytes`: weights, tokenizer, recipe, manifest and the folders that methods
keep apart. Nothing is written but a tokenizer into a temporary folder; of the weights only names, types and shapes are
read, from a network without memory. It is exact where shapes follow from the recipe. Where training decides how much
each mask keeps, the form is planned with their mean (`Method.deployed_form`), and the final figure differs a little.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.artifact.manifest import NO_HASH, RECIPE, WEIGHTS, OwnFolder, manifest_text
from qa_core.artifact.plain_folder import CONFIG, plain_folder, write_tokenizer
from qa_core.config import RunConfig
from qa_core.families.base import Family
from qa_core.memory.forms import PlannedForm, planned_forms
from qa_core.memory.skeleton import without_memory
from qa_core.methods.base import Method

METADATA: Mapping[str, str] = {"format": "pt"}  # of every weight file here
# The code of each type in a safetensors file, in the order in which the format lays them out: largest alignment first.
CODES: Mapping[torch.dtype, str] = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def planned_artifact_bytes(
    config: RunConfig, family: Family, model: torch.nn.Module, methods: Sequence[Method], *, tokenizer: Any
) -> int:
    """Return the bytes of all files of the artifact that the recipe will leave.

    Args:
        family: of the recipe; of a network that is prompted, with its demonstrations.
        model: the network in training, with memory or without; only its architecture is read.
        methods: of the recipe, attached to the network.
    """
    architecture = family.architecture(model)
    planned = PlannedForm(architecture, planned_forms(family, architecture, methods))
    network = written_skeleton(family, planned)
    own_folders = [own for method in methods if (own := method.own_folder(network)) is not None]
    state = network.state_dict()
    plain = plain_folder(family, network, architecture, own_folders)
    tensors = weight_tensors(network, own_folders)
    names = {} if plain is None else {name: plain.names[name] for name in tensors if name in plain.names}
    written = {names.get(name, name): tensor for name, tensor in tensors.items()}
    sizes = {WEIGHTS: safetensors_bytes(written)}
    if plain is not None:
        sizes[CONFIG] = len(plain.config.encode())
    for own in own_folders:
        apart = {there: state[here] for here, there in own.tensors.items()}
        sizes[f"{own.folder}/{own.weights_file}"] = safetensors_bytes(apart)
        for name, document in own.documents.items():
            sizes[f"{own.folder}/{name}"] = len(artifact.document_text(document).encode())
    with tempfile.TemporaryDirectory(prefix="qa-tokenizer-") as folder:
        write_tokenizer(Path(folder), tokenizer, family)
        sizes |= {item.name: item.stat().st_size for item in Path(folder).iterdir()}
    sizes[RECIPE] = len(artifact.recipe_text(config).encode())
    manifest = artifact.manifest_values(
        family,
        architecture=planned.architecture,
        forms=planned.forms,
        prompting=family.prompting,
        own_folders=own_folders,
        names=names,
        recorded={name: {"sha256": NO_HASH, "bytes": size} for name, size in sorted(sizes.items())},
    )
    return sum(sizes.values()) + len(manifest_text(manifest).encode())


def written_skeleton(family: Family, planned: PlannedForm) -> torch.nn.Module:
    """Return the network without memory whose tensors the weight files hold: restored, and not settled."""
    with without_memory():
        network = family.restore(planned.architecture)
        for name, form in planned.forms.items():
            network = registry.method_class(name).restore(network, form)
    return network


def weight_tensors(network: torch.nn.Module, own_folders: Sequence[OwnFolder]) -> dict[str, torch.Tensor]:
    """Return the tensors of the main weight file by name, as `weight_file.write_network` chooses them.

    Of those that are one under several names the first by name; what stands in a method's own folder is left out.
    """
    state = network.state_dict()
    seen = {_place(state[name]) for own in own_folders for name in own.tensors}
    tensors = {}
    for name, tensor in sorted(state.items()):
        if tensor.numel() == 0 or _place(tensor) not in seen:
            tensors[name] = tensor
        seen.add(_place(tensor))
    return tensors


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return where a tensor lies, on the meta device too: equal for two that are one."""
    return (id(tensor.untyped_storage()), tensor.storage_offset(), tensor.shape, tensor.stride())


def safetensors_bytes(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = METADATA
) -> int:
    """Return the size of a safetensors file: eight bytes, a header padded to a multiple of eight, the tensors.

    The format: https://github.com/huggingface/safetensors#format. Tensors lie by type (`CODES`), then by name.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    order, end = list(CODES), 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (order.index(item[1].dtype), item[0])):
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + -(-len(text) // 8) * 8 + end
