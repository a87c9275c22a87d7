"""Kinds of stored forms: what rounds the values, and whether the rung scores them so."""

from collections.abc import Mapping
from typing import Any

import pytest

from qa_core.config import RunConfig
from qa_core.form_kinds import kind_of
from qa_core.registry import make_methods
from qa_core.values import from_dict

Methods = Mapping[str, Mapping[str, Any]]
SCORED = "scored at rungs: "


def kind(stored: Methods, trained: Methods) -> str:
    def methods(named: Methods) -> Any:
        values = {
            "model": {"family": "bert", "checkpoint": "micro"},
            "data": {"train": "x"},
            "methods": named,
        }
        return make_methods(from_dict(RunConfig, values))

    return kind_of(methods(stored), methods(trained))


@pytest.mark.parametrize(
    ("stored", "trained", "expected"),
    [
        ({}, {}, f"{SCORED}float32"),
        ({"quantize": {"bits": 32}}, {}, f"{SCORED}float32"),
        ({"quantize": {"bits": 8}}, {}, "int8"),
        ({"quantize": {"bits": 8, "embedding_bits": 8}}, {}, "int8+e8"),
        ({"quantize": {"bits": 8, "scheme": "dynamic"}}, {}, "int8-dynamic"),
        ({"quantize": {"bits": 8}}, {"quantize": {"bits": 8}}, f"{SCORED}int8"),
        ({"quantize": {"bits": 8}}, {"quantize": {"bits": 4}}, "int8"),
        ({"qlora": {}}, {"qlora": {}}, f"{SCORED}nf4"),
        ({"lora_int8": {}}, {"lora_int8": {}}, f"{SCORED}int8"),
    ],
)
def test_a_kind_is_what_the_values_are_rounded_to_and_whether_rungs_score_that(
    stored: Methods, trained: Methods, expected: str
) -> None:
    assert kind(stored, trained) == expected


def test_layout_and_merging_make_no_kind() -> None:
    pruned: Methods = {"static_prune": {"density": 0.5}}
    packed: Methods = {"static_prune": {"density": 0.5, "resident": "packed"}}
    assert kind(packed, pruned) == kind(pruned, pruned) == kind({}, {})
    rounded: Methods = {"static_prune": {"density": 0.5, "value_bits": 16}}
    assert kind(rounded, pruned) == "kept16"
    apart: Methods = {"lora": {"merge": False}}
    merged: Methods = {"lora": {"merge": True}}
    assert kind(apart, merged) == kind(merged, merged)
    assert kind({**apart, "quantize": {"bits": 8}}, merged) == kind({"quantize": {"bits": 8}}, {}) == "int8"
