"""Nested records as flat names and values: what a tracker can take as parameters and metrics.

Knows nothing of MLflow but the shape of its limits. Who sends the result: `mlflow_mirror.py`.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

LONGEST_NAME = 250  # characters; MLflow's limits
LONGEST_VALUE = 6000
REFUSED_CHARACTERS = re.compile(r"[^\w\-. :/]", re.ASCII)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return every finite number of a nested mapping under its dotted path; all else is left out."""
    flat = {}
    for path, value in _leaves(values):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            flat[_name(path)] = float(value)
    return flat


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return every leaf of a nested mapping as text under its dotted path, cut to the allowed length.

    Lists and empty mappings become JSON, None becomes "null"; text stays as it is.
    """
    flat = {}
    for path, value in _leaves(values):
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        flat[_name(path)] = text[:LONGEST_VALUE]
    return flat


def distinct_names(names: Iterable[str]) -> dict[str, str]:
    """Return for each name one that may be part of a path of names; those that would become the same keep a digest."""
    plain = {name: REFUSED_CHARACTERS.sub("_", name).replace("/", "_") for name in names}
    counts = Counter(plain.values())
    return {
        name: short if counts[short] == 1 else f"{short}-{_digest(name)}" for name, short in plain.items()
    }


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _name(path: str) -> str:
    """Return an allowed name; two paths that differ keep different names when they are cut."""
    name = REFUSED_CHARACTERS.sub("_", path)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{_digest(path)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
