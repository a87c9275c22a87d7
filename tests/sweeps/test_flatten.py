"""Nested records become flat names and values within MLflow's limits."""

import math

from sweeps.flatten import LONGEST_NAME, LONGEST_VALUE, numbers, texts


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


def test_long_values_are_cut_to_the_limit() -> None:
    assert texts({"a": "x" * (LONGEST_VALUE + 5)}) == {"a": "x" * LONGEST_VALUE}


def test_long_names_are_cut_to_the_limit_and_stay_different() -> None:
    names = list(texts({"n" * 300 + "a": 1, "n" * 300 + "b": 2}))
    assert [len(name) for name in names] == [LONGEST_NAME, LONGEST_NAME]
    assert len(set(names)) == 2
    exact = "n" * LONGEST_NAME
    assert list(texts({exact: 1})) == [exact]
