"""Values that are known to work, and the recipes with which a searcher can start before it knows anything.

A table of data, and one function that lays it over a space. The values come from pretrained checkpoints, mostly of base
size. Networks that are trained from scratch want rates ten to a hundred times as high: there, a known value clipped
into the range is its lower end, which is no good start. So no searcher begins with these recipes unless it is asked to.

In `source`, A is "From BERT to Mamba" and B "LoRA against (IA)3 on DistilBERT", both in docs/studies.md; files are
those of `sweeps/configs/`, and the tests hold the table to them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qa_core.seeding import numpy_generator
from sweeps.space.domains import Choice, Domain
from sweeps.space.paths import FAMILY_PATH, METHODS_PATH, NO_METHOD, method_names
from sweeps.space.space import Assignment, Space


@dataclass(frozen=True)
class Known:
    """One value of one setting. It holds for a family and for products with a method; None is any."""

    path: str
    value: Any
    source: str
    family: str | None = None
    method: str | None = None


KNOWN = (  # the first row that fits counts
    # Where an adapter is trained, the rate is the adapter's. B's 5e-5 was the edge of its grid and far too low.
    Known("train.learning_rate", 3.0e-3, "Liu et al. 2022", method="ia3"),
    Known("train.learning_rate", 5.0e-4, "bert_to_mamba.yaml", method="lora"),
    Known("train.learning_rate", 5.0e-4, "bert_to_mamba.yaml", method="qlora"),
    Known("train.learning_rate", 5.0e-4, "bert_to_mamba.yaml", method="lora_int8"),
    Known("train.learning_rate", 3.0e-5, "bert_to_mamba.yaml", family="bert"),
    Known("train.learning_rate", 3.0e-5, "as bert, from which it was distilled", family="distilbert"),
    Known("train.learning_rate", 1.0e-4, "bert_to_mamba.yaml", family="t5"),
    Known("train.learning_rate", 1.0e-3, "bert_to_mamba.yaml; A, model 1", family="lstm"),
    Known("train.learning_rate", 5.0e-5, "bert_to_mamba.yaml", family="mamba"),
    Known("train.batch_size", 8, "B", family="distilbert"),
    Known("train.batch_size", 16, "bert_to_mamba.yaml"),
    Known("data.window", "1536/128", "bert_to_mamba.yaml", method="few_shot"),
    Known("data.window", "256/64", "B", family="distilbert"),
    Known("data.window", "384/128", "bert_to_mamba.yaml"),
    Known("data.max_length", 256, "B", family="distilbert"),
    Known("data.max_length", 384, "A, pruned BERT"),
    Known("data.stride", 64, "B", family="distilbert"),
    Known("data.stride", 128, "A, pruned BERT"),
    Known("methods.lora.rank", 16, "B", family="distilbert"),
    Known("methods.lora.rank", 8, "bert_to_mamba.yaml; A"),
    Known("methods.lora.alpha", 32.0, "B", family="distilbert"),
    Known("methods.lora.alpha", 16.0, "bert_to_mamba.yaml"),
    Known("methods.lora.dropout", 0.1, "B", family="distilbert"),
    Known("methods.lora.targets", "attention", "A and B: queries and values"),
    Known("methods.ia3.variant", "canonical", "Liu et al. 2022"),
    Known("methods.qlora.rank", 8, "bert_to_mamba.yaml; A"),
    Known("methods.qlora.alpha", 32.0, "bert_to_mamba.yaml; A"),
    Known("methods.qlora.dropout", 0.05, "bert_to_mamba.yaml; A"),
    Known("methods.lora_int8.rank", 8, "bert_to_mamba.yaml; A"),
    Known("methods.lora_int8.alpha", 32.0, "bert_to_mamba.yaml; A"),
    Known("methods.lora_int8.dropout", 0.05, "bert_to_mamba.yaml; A"),
    Known("methods.quantize.bits", 8, "bert_to_mamba.yaml; A"),
    Known("methods.static_prune.criterion", "smp_s", "bert_to_mamba.yaml; A"),
    Known("methods.static_prune.density", 0.5, "A: its best row, EM 82.74"),
    Known("methods.static_prune.score_learning_rate", 2.0e-2, "bert_to_mamba.yaml; A"),
    Known("methods.distill.temperature", 2.0, "bert_to_mamba.yaml; A"),
    Known("methods.distill.weight", 0.5, "bert_to_mamba.yaml; A"),
    Known("methods.few_shot.shots", 3, "A"),
)


def known_value(path: str, family: str, methods: Sequence[str]) -> Any:
    """Return the known value of a setting for a family and a product of methods, or None."""
    for row in KNOWN:
        is_of_family = row.family is None or row.family == family
        is_of_method = row.method is None or row.method in methods
        if row.path == path and is_of_family and is_of_method:
            return row.value
    return None


def known_recipes(space: Space, *, seed: int) -> list[Assignment]:
    """Return one recipe for each family and product of methods in the space.

    A known value is clipped into its range, or is the nearest number of a choice. A setting without one takes the
    middle of its range, on the range's own scale, or the first choice.

    The order is shuffled by seed: a budget that ends before the list does should not always leave out the families
    that stand last in the spec.
    """
    starts: dict[tuple[str, str], Mapping[str, Any]] = {}
    distances: dict[tuple[str, str], int] = {}
    for item in space.legal:
        key = _combination(space, item)
        distance = _distance(space, item, *key)
        if distance < distances.get(key, math.inf):
            starts[key], distances[key] = item, distance
    recipes = [_complete(space, item, *key) for key, item in starts.items()]
    order = numpy_generator(seed, "known recipes").permutation(len(recipes))
    return [recipes[index] for index in order]


def _combination(space: Space, structure: Mapping[str, Any]) -> tuple[str, str]:
    """Return the family and the product of methods of an assignment of the structural parameters."""
    found = {
        item.path: structure[item.id]
        for item in space.parameters
        if item.id in structure and item.path in (FAMILY_PATH, METHODS_PATH)
    }
    shared = "+".join(space.recipe.get(METHODS_PATH) or ()) or NO_METHOD
    return found.get(FAMILY_PATH) or space.recipe["model"]["family"], found.get(METHODS_PATH, shared)


def _distance(space: Space, structure: Mapping[str, Any], family: str, methods: str) -> int:
    """Return how many values of an assignment of the structural parameters are not those to start with."""
    return sum(
        structure[item.id] != _start(item.path, item.domain, family, methods)
        for item in space.parameters
        if item.id in structure
    )


def _complete(space: Space, structure: Mapping[str, Any], family: str, methods: str) -> Assignment:
    assignment: Assignment = {}
    for item in space.parameters:
        if item.id in structure:
            assignment[item.id] = structure[item.id]
        elif item.is_active(assignment):
            assignment[item.id] = _start(item.path, item.domain, family, methods)
    return assignment


def _start(path: str, domain: Domain, family: str, methods: str) -> Any:
    known = known_value(path, family, method_names(methods))
    if not isinstance(domain, Choice):
        middle = domain.grid(1)[0]
        return middle if known is None else type(middle)(min(max(known, domain.low), domain.high))
    if known is not None and known in domain.values:
        return domain.values[domain.values.index(known)]
    numbers = [value for value in domain.values if _is_number(value)]
    if numbers and _is_number(known):
        return min(numbers, key=lambda value: abs(value - known))
    return domain.values[0]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
