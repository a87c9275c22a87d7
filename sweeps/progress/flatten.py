"""Nested records as flat names and values: what a tracker can take as parameters and metrics.

A tracker sorts and colours runs by parameters of the same name, so what tells models apart has a short one.

Knows nothing of MLflow but the shape of its limits. Who sends the result: `mlflow_runs.py`.
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
BITS = {"bits": "bits", "table_bits": "embedding_bits"}  # short name -> option of `quantize`
UNQUANTISED = 32  # bits
NO_METHODS = "full"
OF_METHODS = ("rank", "density")  # options that have a short name
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
        flat[_name(path)] = storable(text, LONGEST_VALUE)
    return flat


def storable(text: str, longest: int) -> str:
    """Return text that every database takes, cut: NUL, which PostgreSQL refuses, and half characters as escapes."""
    return text.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()[:longest]


def model_params(record: Mapping[str, Any], form: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what tells a model from others, under short names, and the settings of its stored form by their paths.

    `bits` and `table_bits` are there where the model, or another form of the same network, is quantised by `quantize`.

    Args:
        record: in its JSON form.
        form: one of the record's; None for the model of a trial without forms.
    """
    methods = (record.get("config") or {}).get("methods") or {}
    settings = dict((form or {}).get("settings") or {})
    all_settings = [settings, *(item.get("settings") or {} for item in record.get("forms") or ())]
    values: dict[str, Any] = {
        **training_params(record),
        "form": (form or {}).get("label"),
        **settings,
    }
    if "quantize" in methods or any(_of_quantize(item) for item in all_settings):
        options = {**(methods.get("quantize") or {}), **_of_quantize(settings)}
        values |= _bits(options, is_quantised="quantize" in methods or bool(options))
    return {name: value for name, value in values.items() if value is not None}


def training_params(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells one training from others, under the short names that its stored forms have too.

    `rank` and `density` are there where a method of the recipe has them.

    Args:
        record: in its JSON form.
    """
    config = record.get("config") or {}
    model, methods = config.get("model") or {}, config.get("methods") or {}
    options = [given or {} for given in methods.values()]
    values: dict[str, Any] = {
        **{name: model.get(name) for name in ("family", "head", "checkpoint")},
        "methods": "+".join(methods) or NO_METHODS,
        "seed": config.get("seed"),
        "learning_rate": (config.get("train") or {}).get("learning_rate"),
        **{name: next((given[name] for given in options if name in given), None) for name in OF_METHODS},
    }
    return {name: value for name, value in values.items() if value is not None}


def _of_quantize(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `quantize` among the settings of a form, by name."""
    prefix = "methods.quantize."
    return {path.removeprefix(prefix): value for path, value in settings.items() if path.startswith(prefix)}


def _bits(options: Mapping[str, Any], *, is_quantised: bool) -> dict[str, Any]:
    """Return the bits of matrices and tables under these options of `quantize`."""
    from qa_core.methods.quantize import QuantizeOptions

    defaults = QuantizeOptions() if is_quantised else QuantizeOptions(bits=UNQUANTISED)
    return {short: options.get(name, getattr(defaults, name)) for short, name in BITS.items()}


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
