"""Which weights of a network of transformers are one tensor under several names, and which are apart.

A class of transformers names the weights that it may tie: an output layer and the table of words, mostly. Whether a
checkpoint ties them is not what its config.json says: transformers 5 sets T5's flag to true whatever stands there, and
a flag of any family may be wrong. `from_pretrained` looks at the tensors, and ties two that are stored with equal
values or of which one is stored. What it made of them is written into the configuration of the network, as the list
`APART` of the names that have a weight of their own, and goes from there into the description of every artifact.

Without memory for weights, the same is found from the header of the weight files, and where both names are stored,
from a look at those two tensors alone.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_safetensors_metadata, try_to_load_from_cache
from huggingface_hub.errors import (
    HTTPError,
    NotASafetensorsRepoError,
    OfflineModeIsEnabled,
    SafetensorsParsingError,
)
from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig, PreTrainedModel

from qa_core import files as files_door  # `files` are those of the weights here
from qa_core.errors import DataError

APART = "untied_weights"  # in a configuration: names with a weight of their own; absent where there are none
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# What comes of weight files that are absent or hold something else: `from_pretrained` says it best.
UNREADABLE = (DataError, OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)


def tie(model: PreTrainedModel, *, apart: Collection[str]) -> None:
    """Tie what the network's class and configuration say, but for the names in `apart`, and record those."""
    ties = possible_ties(model)
    kept_apart = sorted(set(apart) & set(ties))
    model.all_tied_weights_keys = {name: source for name, source in ties.items() if name not in kept_apart}
    model.tie_weights(recompute_mapping=False)
    record(model, apart=kept_apart)


def possible_ties(model: PreTrainedModel) -> dict[str, str]:
    """Return name of a weight -> the one that it shares, as class and configuration say."""
    return model.get_expanded_tied_weights_keys(all_submodels=True)


def apart_in_network(model: PreTrainedModel) -> list[str]:
    """Return, sorted, the names that could be tied and are not."""
    return sorted(
        name
        for name, source in possible_ties(model).items()
        if model.get_parameter_or_buffer(name) is not model.get_parameter_or_buffer(source)
    )


def apart_in_checkpoint(model: PreTrainedModel, checkpoint: str) -> list[str]:
    """Return what `apart_in_network` would, were the checkpoint loaded; the weights themselves are not.

    Args:
        model: on the meta device.
        checkpoint: a folder or a hub name. Of a hub checkpoint that is not in the cache only the headers are fetched,
            and two names that are both stored count as apart; where nothing can be fetched, the configuration is
            believed.
    """
    ties = possible_ties(model)
    if not ties:
        return []
    try:
        places = _places_of_weights(checkpoint)
        stored = places if places else dict.fromkeys(_names_on_hub(checkpoint))
        apart = []
        for name, source in ties.items():
            found, shared = (_stored_name(item, stored, model.base_model_prefix) for item in (name, source))
            if found is not None and shared is not None and not _are_equal(found, shared, places):
                apart.append(name)
    except UNREADABLE:
        return []
    return sorted(apart)


def record(model: PreTrainedModel, *, apart: Collection[str]) -> None:
    """Write into the configuration which names have a weight of their own."""
    forget(model.config)
    if apart:
        setattr(model.config, APART, list(apart))


def forget(config: PretrainedConfig) -> None:
    """Take the record away, for a network of another class with the same configuration."""
    vars(config).pop(APART, None)


def _places_of_weights(checkpoint: str) -> dict[str, Path]:
    """Return name of a stored tensor -> its file; empty when no weight file is on this machine."""
    index = _local_file(checkpoint, INDEX)
    if (weights := _local_file(checkpoint, WEIGHTS)) is not None:
        files = [weights]
    elif index is not None:
        files = [index.with_name(name) for name in _shards(index)]
    else:
        return {}
    places: dict[str, Path] = {}
    for file in files:
        files_door.check_safetensors(file)
        with safe_open(file, "pt") as opened:
            places |= dict.fromkeys(opened.keys(), file)
    return places


def _shards(index: Path) -> Iterator[str]:
    names = sorted(set(files_door.read_object(index)["weight_map"].values()))
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index}: weight_map: found {name!r}; allowed: a file beside it")
        yield name


def _local_file(checkpoint: str, name: str) -> Path | None:
    if Path(checkpoint).is_dir():
        path = Path(checkpoint) / name
        return path if path.is_file() else None
    cached = try_to_load_from_cache(checkpoint, name)
    return Path(cached) if isinstance(cached, str) else None


def _names_on_hub(checkpoint: str) -> list[str]:
    if Path(checkpoint).is_dir():
        return []
    try:
        return list(get_safetensors_metadata(checkpoint).weight_map)
    except (HTTPError, NotASafetensorsRepoError, OfflineModeIsEnabled, SafetensorsParsingError):
        return []


def _stored_name(name: str, stored: Collection[str], prefix: str) -> str | None:
    """Return the name under which a weight is stored: of a body that was saved alone, without its prefix."""
    return next((item for item in (name, name.removeprefix(f"{prefix}.")) if item in stored), None)


def _are_equal(first: str, second: str, places: dict[str, Path]) -> bool:
    """Tell whether two stored tensors hold the same numbers; of headers alone that is not known: no."""
    if not places:
        return False
    tensors: list[Any] = []
    for name in (first, second):
        with safe_open(places[name], "pt") as opened:
            tensors.append(opened.get_tensor(name))
    return torch.equal(*tensors)
