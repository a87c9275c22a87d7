"""Nested records become flat names and values within MLflow's limits."""

import math
from typing import Any

import pytest

from sweeps.progress.flatten import (
    LONGEST_NAME,
    LONGEST_VALUE,
    distinct_names,
    model_params,
    numbers,
    texts,
)

QUANTIZE = "methods.quantize"


def test_numbers_keeps_finite_numbers_under_dotted_paths_and_nothing_else() -> None:
    record = {
        "em": 51.5,
        "cost": {"bytes": 7, "device": "cpu", "deep": {"ms": 2.5}},
        "missing": None,
        "flag": True,
        "nan": math.nan,
        "infinite": math.inf,
        "list": [1, 2],
    }
    assert numbers(record) == {"em": 51.5, "cost.bytes": 7.0, "cost.deep.ms": 2.5}


def test_texts_turns_every_leaf_into_text_and_keeps_empty_groups() -> None:
    recipe = {
        "model": {"family": "bert", "head": None},
        "methods": {},
        "train": {"rungs": [1, 2], "learning_rate": 3e-4},
    }
    assert texts(recipe) == {
        "model.family": "bert",
        "model.head": "null",
        "methods": "{}",
        "train.rungs": "[1, 2]",
        "train.learning_rate": "0.0003",
    }


def test_refused_characters_of_a_name_are_replaced() -> None:
    assert texts({"a=b(c)": 1}) == {"a_b_c_": "1"}


def test_sources_that_would_become_one_name_keep_names_of_their_own() -> None:
    sources = ["a/b.json", "a_b.json", "a?b.json", "c.json"]
    names = distinct_names(sources)
    assert names["c.json"] == "c.json"
    assert len(set(names.values())) == 4
    assert all(name.startswith("a_b.json-") for source, name in names.items() if source != "c.json")
    flat = numbers(
        {"cross_domain": {name: {"em": float(place)} for place, name in enumerate(names.values())}}
    )
    assert sorted(flat.values()) == [0.0, 1.0, 2.0, 3.0]
    assert distinct_names(reversed(sources)) == names  # whatever their order


def test_long_values_are_cut_to_the_limit() -> None:
    assert texts({"a": "x" * (LONGEST_VALUE + 5)}) == {"a": "x" * LONGEST_VALUE}


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ({}, {"methods": "full"}),
        ({"lora": {}, "quantize": {"bits": 4}}, {"methods": "lora+quantize", "bits": 4, "table_bits": 32}),
        ({"quantize": None}, {"methods": "quantize", "bits": 8, "table_bits": 32}),
        ({"qlora": {"rank": 8}}, {"methods": "qlora", "rank": 8}),
    ],
    ids=["full", "quantised", "by-default", "another-method-stores-it"],
)
def test_a_model_without_forms_is_told_apart_by_its_recipe(methods: Any, expected: dict[str, Any]) -> None:
    record = {"config": {"model": {"family": "bert", "head": None}, "methods": methods, "seed": 7}}
    assert model_params(record) == {"family": "bert", "seed": 7, **expected}


def test_forms_are_told_apart_by_their_settings_and_each_says_its_bits() -> None:
    twin = {"label": "float32", "settings": {}}
    both = {"label": "int8+e8", "settings": {f"{QUANTIZE}.bits": 8, f"{QUANTIZE}.embedding_bits": 8}}
    tables = {"label": "int8+e16", "settings": {f"{QUANTIZE}.embedding_bits": 16}}  # of all else the defaults
    packed = {"label": "packed", "settings": {"methods.static_prune.resident": "packed"}}
    record = {"config": {"model": {"family": "bert"}, "methods": {"static_prune": {}}}, "forms": [twin, both]}
    shared = {"family": "bert", "methods": "static_prune"}
    assert model_params(record, twin) == {**shared, "form": "float32", "bits": 32, "table_bits": 32}
    assert model_params(record, both) == {
        **shared,
        "form": "int8+e8",
        "bits": 8,
        "table_bits": 8,
        **both["settings"],
    }
    assert model_params({**record, "forms": [tables]}, tables)["bits"] == 8
    assert model_params({**record, "forms": [packed]}, packed) == {
        **shared,
        "form": "packed",
        **packed["settings"],
    }


def test_long_names_are_cut_to_the_limit_and_stay_different() -> None:
    names = list(texts({"n" * 300 + "a": 1, "n" * 300 + "b": 2}))
    assert [len(name) for name in names] == [LONGEST_NAME, LONGEST_NAME]
    assert len(set(names)) == 2
    exact = "n" * LONGEST_NAME
    assert list(texts({exact: 1})) == [exact]
