"""Nested records become flat names and values within MLflow's limits."""

import math

from sweeps.progress.flatten import LONGEST_NAME, LONGEST_VALUE, distinct_names, numbers, texts


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


def test_long_names_are_cut_to_the_limit_and_stay_different() -> None:
    names = list(texts({"n" * 300 + "a": 1, "n" * 300 + "b": 2}))
    assert [len(name) for name in names] == [LONGEST_NAME, LONGEST_NAME]
    assert len(set(names)) == 2
    exact = "n" * LONGEST_NAME
    assert list(texts({exact: 1})) == [exact]
