"""Loading and rebuilding of transformers' networks, with errors that name the setting.

Only safetensors weights are read and no code of a checkpoint is ever run. For the networks of our own, see
the other modules of this package. Whether two names are one weight (an output layer and a table of words) is taken
from the weights, never from the configuration: see `weight_ties.py`.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from qa_core import files
from qa_core.errors import ConfigError, DataError, nearest
from qa_core.models import weight_ties

# Of the machine, of a method's deployed form, or names of labels: none of it shapes the network.
NOT_ARCHITECTURE = (
    "_name_or_path",
    "id2label",
    "label2id",
    "quantization_config",
    "transformers_version",
)
LOAD_ERRORS = (
    DataError,
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    SafetensorError,
    StrictDataclassError,
)


def load_pretrained(
    model_class: type[PreTrainedModel],
    checkpoint: str,
    *,
    presets: Collection[str],
    config_changes: Mapping[str, Any],
    new_modules: tuple[str, ...] = (),
) -> PreTrainedModel:
    """Load a checkpoint in float32; on the meta device only its configuration is read, and weights have no memory.

    Args:
        model_class: a class of transformers; a checkpoint of another model type is refused, never converted.
        checkpoint: a folder or a hub name.
        presets: the family's own names of checkpoints, for the message.
        config_changes: settings that replace the checkpoint's own, such as its dropout.
        new_modules: modules that the checkpoint may lack; they start from random weights.

    Raises:
        ConfigError: the checkpoint cannot be found or read, is of another type, or lacks weights.
    """
    config = _read_config(model_class, checkpoint, presets)
    for name, value in config_changes.items():
        setattr(config, name, value)
    if torch.get_default_device().type == "meta":
        config.dtype = torch.float32
        with no_init_weights():
            skeleton = model_class(config)
        weight_ties.tie(skeleton, apart=weight_ties.apart_in_checkpoint(skeleton, checkpoint))
        return skeleton
    try:
        for path in sorted(Path(checkpoint).glob("*.safetensors")):
            files.check_safetensors(path)
        loaded: Any = model_class.from_pretrained(
            checkpoint,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except LOAD_ERRORS as error:
        raise ConfigError(
            f"model.checkpoint: {checkpoint!r}: its weights cannot be read as {model_class.__name__} "
            f"(allowed: safetensors weights that fit its config.json): {_first_line(error)}"
        ) from error
    model, report = loaded
    missing = sorted(name for name in report["missing_keys"] if not set(name.split(".")) & set(new_modules))
    if missing:
        raise ConfigError(
            f"model.checkpoint: {checkpoint!r} lacks {len(missing)} weights of {model_class.__name__}, "
            f"the first of them {missing[0]!r}"
        )
    weight_ties.record(model, apart=weight_ties.apart_in_network(model))
    return model


def check_vocabulary(model: PreTrainedModel, tokenizer: Any, checkpoint: str) -> None:
    """Refuse a tokenizer with more tokens than the model has embeddings.

    Raises:
        ConfigError: names both sizes.
    """
    rows = model.config.vocab_size
    if len(tokenizer) > rows:
        raise ConfigError(
            f"model.tokenizer: it has {len(tokenizer)} tokens, the checkpoint {checkpoint!r} embeds {rows}; "
            "allowed: the checkpoint's own tokenizer, or one with no more tokens than that"
        )


def check_positions(length_tokens: int, config: PretrainedConfig) -> None:
    """Refuse windows longer than the model has positions.

    Raises:
        ConfigError: names the window's length and the limit.
    """
    if length_tokens > config.max_position_embeddings:
        raise ConfigError(
            f"data.max_length: a window of {length_tokens} tokens; allowed: at most "
            f"{config.max_position_embeddings}, the positions of this model"
        )


def config_as_json(config: PretrainedConfig) -> dict[str, Any]:
    """Return a configuration's settings as JSON values, without what belongs to a machine or a method."""
    return {name: value for name, value in config.to_dict().items() if name not in NOT_ARCHITECTURE}


def build_uninitialised(
    model_class: type[PreTrainedModel], config_values: Mapping[str, Any]
) -> PreTrainedModel:
    """Build the network of `config_as_json`'s values in float32; its weights are whatever the memory held.

    Neither the hub nor a checkpoint is read, and torch's generator is left as it was.
    """
    config_class: Any = model_class.config_class
    with torch.random.fork_rng(devices=[]), no_init_weights():
        model = model_class(config_class.from_dict(dict(config_values)))
    weight_ties.tie(model, apart=config_values.get(weight_ties.APART, ()))
    return model


def _read_config(
    model_class: type[PreTrainedModel], checkpoint: str, presets: Collection[str]
) -> PretrainedConfig:
    names = ", ".join(presets) or "none"
    allowed = f"allowed: one of {names}, a folder with config.json and safetensors weights, or a hub name"
    looks_local = checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1
    if looks_local and not files.is_folder(Path(checkpoint)):
        raise ConfigError(f"model.checkpoint: {checkpoint!r} is no folder ({allowed})")
    try:
        for path in sorted(Path(checkpoint).glob("*.json")):
            files.checked_file(path, most_bytes=files.TOKENIZER_BYTES)
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise ConfigError(
            f"model.checkpoint: {checkpoint!r} cannot be loaded{nearest(checkpoint, presets)} ({allowed}): "
            f"{_first_line(error)}"
        ) from error
    wanted: Any = model_class.config_class
    if config.model_type != wanted.model_type:
        raise ConfigError(
            f"model.checkpoint: {checkpoint!r} is of type {config.model_type!r}; this family reads type "
            f"{wanted.model_type!r} ({allowed})"
        )
    return config


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}"
