"""When an artifact is a folder of transformers too, and under which names and configuration transformers opens it.

It is one where the network is a class of transformers and its weights are floats, in 32 or 16 bits: trained in full,
merged, or the base of an adapter, which PEFT puts onto it. Its `model.safetensors` then names weights as that class
does, and `config.json` names the class. `docs/artifacts.md` has a table of families and forms. Of the files only the
tokenizer's are written here, the others in `artifact.py`.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qa_core.artifact.manifest import OwnFolder
from qa_core.families.base import Family
from qa_core.models.stored.base import StoredMatrix
from qa_core.models.stored.half import HalfMatrix

CONFIG = "config.json"
BESIDE_ADAPTER, IN_HALF = ".base_layer.", ".matrix.values"  # parts of names in a network of this project


@dataclass(frozen=True)
class PlainFolder:
    """What makes an artifact a folder of transformers.

    Attributes:
        names: name in the network -> name in the weight file, where the two differ.
        config: the text of `config.json`.
    """

    names: Mapping[str, str]
    config: str


def plain_folder(
    family: Family,
    model: torch.nn.Module,
    architecture: Mapping[str, Any],
    own_folders: Sequence[OwnFolder],
) -> PlainFolder | None:
    """Return names and configuration for transformers, or None where it cannot open the artifact.

    Args:
        family: of the network.
        model: as exported by all methods, with memory or without.
        architecture: of the network, as the manifest says it.
        own_folders: weights that lie in folders of their own, such as an adapter.
    """
    class_name = family.plain_class(model)
    is_float = all(isinstance(item, HalfMatrix) for item in model.modules() if isinstance(item, StoredMatrix))
    if class_name is None or not is_float or _is_shared_with(model, own_folders):
        return None
    names = {name: _plain_name(name) for name in model.state_dict()}
    return PlainFolder(
        {name: plain for name, plain in names.items() if name != plain},
        _config_text(class_name, architecture),
    )


def _config_text(class_name: str, architecture: Mapping[str, Any]) -> str:
    # float32 is what this project computes in, whatever the bits in which weights are stored.
    document = {**architecture, "architectures": [class_name], "dtype": "float32"}
    return json.dumps(document, indent=2, sort_keys=True)


def _plain_name(name: str) -> str:
    plain = name.replace(BESIDE_ADAPTER, ".")
    return plain.removesuffix(IN_HALF) + ".weight" if plain.endswith(IN_HALF) else plain


def _is_shared_with(model: torch.nn.Module, own_folders: Sequence[OwnFolder]) -> bool:
    """Tell whether a weight in a folder of its own is the base's too under another name, which PEFT would not know."""
    apart = {name for own in own_folders for name in own.tensors}
    state = model.state_dict(keep_vars=True)
    moved = {id(state[name]) for name in apart}
    return any(id(tensor) in moved for name, tensor in state.items() if name not in apart)


def write_tokenizer(folder: Path, tokenizer: Any, family: Family) -> None:
    """Write the tokenizer's files, for `AutoTokenizer` too: called on two texts, it returns what the network reads."""
    names = list(family.tokenizer_outputs)
    written = copy.copy(tokenizer)
    written.model_input_names, written.init_kwargs = (
        names,
        {**tokenizer.init_kwargs, "model_input_names": names},
    )
    written.save_pretrained(folder)
