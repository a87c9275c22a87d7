"""A recipe in a few words, for lines of 80 columns: what tells trials apart comes first, and names are short."""

from collections.abc import Mapping
from typing import Any

WIDEST_CHECKPOINT = 28  # characters; of a longer name the end is shown
SHORT = {
    "learning_rate": "lr",
    "batch_size": "batch",
    "max_length": "length",
    "embedding_bits": "table",
    "merge": "merge",
}
FIRST = ("learning_rate", "rank", "bits", "density")  # last parts of paths, in this order; then all others


def recipe_words(settings: Mapping[str, Any], *, family: str, methods: str, checkpoint: str) -> str:
    """Return "bert lora ...ers/all-MiniLM-L6-v2 lr=0.003 rank=8".

    Args:
        settings: path -> value of what is searched beside family, methods and checkpoint.
        family, methods, checkpoint: "" for what is not to be named.
    """
    words = [family, methods, tail(checkpoint)]
    names = {path: path.rpartition(".")[2] for path in settings}
    order = sorted(
        settings, key=lambda path: FIRST.index(names[path]) if names[path] in FIRST else len(FIRST)
    )
    words += [f"{SHORT.get(names[path], names[path])}={short_value(settings[path])}" for path in order]
    return " ".join(filter(None, words))


def tail(name: str) -> str:
    """Return the end of a name, which says most of a path."""
    return name if len(name) <= WIDEST_CHECKPOINT else "..." + name[3 - WIDEST_CHECKPOINT :]


def short_value(value: Any) -> str:
    """Return a value in a few characters; of text, the end."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return tail(str(value))
