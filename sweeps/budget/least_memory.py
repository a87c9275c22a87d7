"""Bounds from below on what a recipe needs, by which others need not be predicted: no network is built for them."""

from dataclasses import replace
from pathlib import Path

from qa_core import files, registry
from qa_core.config import RunConfig
from qa_core.errors import DataError

CONFIG = "config.json"
# Names that configurations of transformers have for the numbers of one word.
WIDTHS = ("hidden_size", "dim", "d_model")


def of_the_table(config: RunConfig) -> float:
    """Return what the table of words takes at least, in MB, a byte for each number: no method stores it smaller.

    0 where it is not known: of a preset, of a name of the hub, beside a tokenizer of another place.
    """
    family = registry.make_family(config)
    if family.is_preset or config.model.tokenizer is not None:
        return 0.0
    path = Path(family.place_of(config.model.checkpoint)).expanduser() / CONFIG
    try:
        values = files.read_object(path)
    except DataError:
        return 0.0
    rows, width = values.get("vocab_size"), next((values[name] for name in WIDTHS if name in values), None)
    if not isinstance(rows, int) or not isinstance(width, int):
        return 0.0
    return rows * width / 1e6


def without_what_only_adds(config: RunConfig) -> RunConfig | None:
    """Return the recipe without the methods that never make it smaller; None where it has none of them.

    What it needs is a bound for the recipe itself.
    """
    kept = {
        name: options
        for name, options in config.methods.items()
        if not registry.method_class(name).is_never_smaller
    }
    return replace(config, methods=kept) if len(kept) < len(config.methods) else None
