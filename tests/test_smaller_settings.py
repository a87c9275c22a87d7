"""A setting that asks for less never costs more memory, bytes of weights or of the weight file: products of BERT.

Forms are planned, built with arbitrary weights and measured; nothing is trained. What can be set is walked down one
step at a time, everything else left as it is.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from qa_core import registry
from qa_core.config import EvaluationConfig, RunConfig
from qa_core.data.tokenizers import trained_tokenizer
from qa_core.errors import IllegalCombination
from qa_core.memory import protocol as cost
from qa_core.memory.forms import deployed, planned_form
from qa_core.memory.protocol import Protocol
from qa_core.values import from_dict
from tests.contracts.family import eight_questions

HEADS = [("bert", "span")]  # packing and encodings are the same code for every family
PRUNED: dict[str, Any] = {"density": 0.3}
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora": {"rank": 2}},
    "lora-apart": {"lora": {"rank": 2, "merge": False}},
    "ia3-apart": {"ia3": {"merge": False}},
    "pruned-dense": {"static_prune": PRUNED},
    "pruned-packed": {"static_prune": {**PRUNED, "resident": "packed"}},
    "pruned-half-dense": {"static_prune": {**PRUNED, "value_bits": 16}},
    "distilled-pruned": {"static_prune": PRUNED, "distill": {}},
}
# Each ladder goes down: no step may cost more than the one before.
BODY: list[dict[str, Any]] = [
    {"bits": 32},
    {"bits": 16},
    {"bits": 8},
    {"bits": 8, "granularity": "group", "group_size": 128},
    {"bits": 4, "scheme": "int4", "group_size": 64},
    {"bits": 4, "scheme": "int4"},
]
# Double quantisation alone is no step: its two tensors' names take more of a file than it saves of a small matrix.
NF4: list[dict[str, Any]] = [{"bits": 8}, {"bits": 4, "scheme": "nf4"}]
NF4_PLAIN: list[dict[str, Any]] = [{"bits": 8}, {"bits": 4, "scheme": "nf4", "double_quantisation": False}]
LADDERS: dict[str, list[dict[str, Any]]] = {
    "body": [{"quantize": options} for options in BODY],
    "nf4": [{"quantize": options} for options in NF4],
    "nf4-plain-scales": [{"quantize": options} for options in NF4_PLAIN],
    "tables": [{"quantize": {"bits": 8, "embedding_bits": bits}} for bits in (32, 16, 8)],
    "tables-alone": [{"quantize": {"bits": 32, "embedding_bits": bits}} for bits in (32, 16, 8)],
}
PRUNING: dict[str, list[dict[str, Any]]] = {
    f"{setting}-{resident}": [
        {"static_prune": {"density": 0.3, "resident": resident, setting: value}} for value in values
    ]
    for setting, values in {"density": (0.9, 0.5, 0.1, 0.02), "value_bits": (32, 16)}.items()
    for resident in ("dense", "packed")
} | {
    f"resident-{bits}": [
        {"static_prune": {"density": 0.1, "resident": resident}, "quantize": {"bits": bits}}
        for resident in ("dense", "packed")
    ]
    for bits in (32, 16, 8, 4)
}


def recipe(family: str, head: str, methods: dict[str, Any]) -> RunConfig:
    model = {"family": family, "head": head, "checkpoint": "micro", "vocab_size": 400}
    return from_dict(RunConfig, {"model": model, "methods": methods})


def _cases() -> Iterator[tuple[str, str, str, str]]:
    for (family, head), methods, ladder in itertools.product(HEADS, METHODS, LADDERS):
        config = recipe(family, head, METHODS[methods] | LADDERS[ladder][0])
        try:
            registry.check_combination(registry.make_family(config), registry.make_methods(config))
        except IllegalCombination:
            continue
        yield family, head, methods, ladder


CASES = list(_cases())


def costs(config: RunConfig, cache_dir: Path) -> dict[str, int]:
    family, methods = registry.make_family(config), registry.make_methods(config)
    kind = family.tokenizer_kind
    tokenizer = trained_tokenizer(kind, eight_questions(), vocab_size=400, cache_dir=cache_dir)
    form = planned_form(config, family, methods, tokenizer=tokenizer)
    evaluation = EvaluationConfig(precision="float32", max_new_tokens=2)
    protocol = Protocol(family, tokenizer, 32, evaluation, torch.device("cpu"))
    network = deployed(family, form.architecture, form.forms)
    stored = family.restore(form.architecture)
    for name, item in form.forms.items():
        stored = registry.method_class(name).restore(stored, item)
    tensors = {item.untyped_storage().data_ptr(): item for item in stored.state_dict().values()}.values()
    return {
        "memory": cost.inference_peak_bytes(network, protocol),
        "weights": cost.weights_bytes(network),
        # Without the header: "BF16" in it is a letter longer than "F16".
        "weight file": sum(item.numel() * item.element_size() for item in tensors),
    }


def check(ladder: list[dict[str, Any]], family: str, head: str, cache_dir: Path) -> None:
    found = [costs(recipe(family, head, methods), cache_dir) for methods in ladder]
    for (more, less), methods in zip(itertools.pairwise(found), ladder[1:], strict=True):
        for name in more:
            assert less[name] <= more[name], f"{methods} costs more {name}: {less[name]}, before {more[name]}"
    assert found[-1]["weight file"] < found[0]["weight file"] or "resident" in str(ladder), (
        "the ladder saves something"
    )


def test_all_legal_products_are_walked() -> None:
    assert len(CASES) == len(METHODS) * len(LADDERS) == 8 * 5


@pytest.mark.parametrize(("family", "head", "methods", "ladder"), CASES, ids=lambda item: item)
@pytest.mark.long
def test_fewer_bits_never_cost_more(
    family: str, head: str, methods: str, ladder: str, cache_dir: Path
) -> None:
    check([METHODS[methods] | step for step in LADDERS[ladder]], family, head, cache_dir)


@pytest.mark.parametrize("ladder", PRUNING)
def test_fewer_kept_weights_never_cost_more(ladder: str, cache_dir: Path) -> None:
    check(PRUNING[ladder], "bert", "span", cache_dir)
