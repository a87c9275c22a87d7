"""Which stored forms a recipe has: legal combinations of the lists, each once, under a label of its own."""

from typing import Any

import pytest

from qa_core.config import RunConfig
from qa_core.values import from_dict, to_dict
from sweeps.space.forms import form_of, forms_of

BITS = {"bits": [32, 8], "embedding_bits": [32, 8]}


def recipe(methods: dict[str, Any] | None = None, **model: Any) -> RunConfig:
    return from_dict(RunConfig, {"model": {"family": "bert", **model}, "methods": methods or {}})


def labels(config: RunConfig, listed: dict[str, Any]) -> list[str]:
    return [form.label for form in forms_of(config, listed)]


def test_a_form_is_the_recipe_with_the_options_of_its_combination() -> None:
    forms = forms_of(recipe(), {"quantize": BITS})
    assert {form.label: dict(form.settings) for form in forms} == {
        "float32": {},
        "float32+e8": {"methods.quantize.bits": 32, "methods.quantize.embedding_bits": 8},
        "int8": {"methods.quantize.bits": 8, "methods.quantize.embedding_bits": 32},
        "int8+e8": {"methods.quantize.bits": 8, "methods.quantize.embedding_bits": 8},
    }
    twin, *_, last = forms
    assert twin.is_twin
    assert twin.recipe == recipe()
    assert last.recipe == recipe({"quantize": {"bits": 8, "embedding_bits": 8}})
    assert not last.is_twin
    assert form_of(recipe(), last.label, last.settings) == last  # as a worker makes it of plain values


@pytest.mark.parametrize(
    ("methods", "listed", "expected"),
    [
        ({}, {}, []),
        # without its unquantised value no twin
        ({}, {"quantize": {"bits": [16, 4]}}, ["bfloat16", "nf4"]),
        # what the recipe has not drops out, whole or in part
        ({}, {"static_prune": {"resident": ["dense", "packed"]}}, []),
        ({"lora": {}}, {"quantize": {"bits": [8]}, "ia3": {"merge": [True, False]}}, ["int8"]),
        # the recipe, or a method of it, says itself how it is stored
        ({"quantize": {"bits": 8}}, {"quantize": BITS}, []),
        ({"qlora": {}}, {"quantize": BITS}, []),
        ({"lora_int8": {}}, {"quantize": BITS}, []),
        # options of its own methods
        ({"lora": {}}, {"lora": {"merge": [True, False]}}, ["merged", "apart"]),
        ({"lora": {"merge": False}}, {"lora": {"merge": [True]}}, ["merged"]),
        (
            {"static_prune": {}},
            {"static_prune": {"resident": ["dense", "packed"], "value_bits": [32, 16]}},
            ["dense-v32", "dense-v16", "packed-v32", "packed-v16"],
        ),
        (
            {"static_prune": {}},
            {"quantize": {"bits": [32, 8]}, "static_prune": {"resident": ["dense", "packed"]}},
            ["float32", "float32+packed", "int8", "int8+packed"],
        ),
        (
            {"static_prune": {"resident": "packed"}},
            {"quantize": {"bits": [8]}, "static_prune": {"resident": ["dense"]}},
            ["int8+dense"],
        ),
        # values that do not go together are left out, and equal ones are one
        ({}, {"quantize": {"bits": [8, 4], "scheme": ["dynamic", "int4"]}}, ["int8-dynamic", "int4"]),
        ({}, {"quantize": {"bits": [32], "scheme": [None]}}, ["float32"]),
        # a label for each, also where its words are those of another
        ({}, {"quantize": {"bits": [8], "scheme": [None, "weight_only"]}}, ["int8", "int8-2"]),
        (
            {},
            {"quantize": {"bits": [8], "granularity": [None, "tensor", "group"], "group_size": [None, 64]}},
            ["int8", "int8-tensor", "int8-group", "int8-group-g64"],
        ),
        (
            {},
            {"quantize": {"bits": [4], "double_quantisation": [None, False], "embedding_bits": [16]}},
            ["nf4+e16", "nf4-single+e16"],
        ),
    ],
)
def test_the_forms_of_a_recipe_by_their_labels(
    methods: dict[str, Any], listed: dict[str, Any], expected: list[str]
) -> None:
    assert labels(recipe(methods), listed) == expected


def test_a_prompted_network_has_forms_too() -> None:
    config = recipe({"few_shot": {}}, family="t5", head="generate")
    assert labels(config, {"quantize": BITS}) == ["float32", "float32+e8", "int8", "int8+e8"]


def test_the_recipe_is_left_as_it_is() -> None:
    config = recipe({"static_prune": {"density": 0.5}})
    before = to_dict(config)
    forms = forms_of(config, {"static_prune": {"resident": ["packed"]}, "quantize": {"bits": [4]}})
    assert to_dict(config) == before
    assert dict(forms[0].recipe.methods) == {
        "static_prune": {"density": 0.5, "resident": "packed"},
        "quantize": {"bits": 4},
    }
