"""A recipe in a few words, for lines of 80 columns: what tells trials apart comes first, and names are short."""

from collections.abc import Mapping
from typing import Any

WIDEST_NAME = 24  # characters; of a longer name the end is shown
SHORT = {
    "learning_rate": "lr",
    "batch_size": "batch",
    "max_length": "length",
    "embedding_bits": "table",
}
FIRST = (
    "learning_rate",
    "rank",
    "bits",
    "density",
)  # last parts of paths: before the checkpoint, in this order


def recipe_words(settings: Mapping[str, Any], *, family: str, methods: str, checkpoint: str) -> str:
    """Return "bert lora lr=0.003 rank=8 ...mers/all-MiniLM-L6-v2 length=256".

    Args:
        settings: path -> value of what is searched beside family, methods and checkpoint.
        family, methods, checkpoint: "" for what is not to be named.
    """
    ranks = {path: _rank(path) for path in settings}
    order = sorted(settings, key=lambda path: ranks[path])
    first = [_named(path, settings[path]) for path in order if ranks[path] < len(FIRST)]
    others = [_named(path, settings[path]) for path in order if ranks[path] == len(FIRST)]
    return " ".join(filter(None, [family, methods, *first, tail(checkpoint), *others]))


def _rank(path: str) -> int:
    name = path.rpartition(".")[2]
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _named(path: str, value: Any) -> str:
    name = path.rpartition(".")[2]
    return f"{SHORT.get(name, name)}={short_value(value)}"


def tail(name: str) -> str:
    """Return the end of a name, which says most of a path."""
    return name if len(name) <= WIDEST_NAME else "..." + name[3 - WIDEST_NAME :]


def short_value(value: Any) -> str:
    """Return a value in a few characters; of text, the end."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return tail(str(value))
