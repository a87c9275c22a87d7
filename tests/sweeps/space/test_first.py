"""Recipes to begin with: what a space allows, and what a recipe of another sweep is in it."""

from collections.abc import Mapping
from typing import Any

import pytest

from qa_core.errors import ConfigError
from qa_core.values import to_dict
from sweeps.space.compile import compile_space
from sweeps.space.first import NOTHING, assignment_of, taken_over, value_at
from sweeps.space.space import Space
from tests.sweeps.toys import SPACE, toy_space, toy_spec

FULL = {
    "model.family": "gamma",
    "methods": "full",
    "train.learning_rate.1": 1e-4,
    "train.batch_size": 8,
}
ADAPT = {
    "model.family": "beta",
    "model.head": "generate",
    "methods": "adapt+pack",
    "train.learning_rate.2": 0.01,
    "methods.adapt.rank": 4,
    "train.batch_size": 16,
}

pytestmark = pytest.mark.usefixtures("toy_registry")


def config_of(space: Space, assignment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole recipe, as a record has it."""
    return to_dict(space.to_run_config(assignment, seed=3))


@pytest.mark.parametrize("given", [FULL, ADAPT], ids=["full", "adapt"])
def test_an_assignment_comes_back_in_the_order_of_the_space_with_its_own_values(
    given: dict[str, Any],
) -> None:
    shuffled = dict(reversed(given.items()))
    shuffled["train.batch_size"] = float(given["train.batch_size"])
    found = assignment_of(toy_space(), shuffled)
    assert (found, list(found)) == (given, list(given))
    assert isinstance(found["train.batch_size"], int)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.family": "delta"}, "model.family: found 'delta'; allowed: 'alpha', 'beta', 'gamma'"),
        ({"model.family": None}, "model.family: found None; allowed"),
        ({"methods": "adapt"}, "methods: found 'adapt'; allowed: 'full', 'pack', 'sole'"),
        ({"train.learning_rate.1": 0.01}, "train.learning_rate.1: found 0.01; allowed: 1e-05 to 0.001"),
        ({"train.learning_rate.1": True}, "train.learning_rate.1: found True; allowed: 1e-05 to 0.001"),
        ({"train.learning_rate.1": NOTHING}, "train.learning_rate.1: found nothing; allowed: 1e-05 to 0.001"),
        ({"model.head": "span"}, "model.head: found 'span'; allowed: nothing beside the other values"),
        ({"train.batchsize": 8}, "unknown parameter of the space 'train.batchsize'; did you mean"),
    ],
    ids=["value", "null", "illegal", "range", "type", "missing", "inactive", "unknown"],
)
def test_what_a_space_does_not_allow_is_named(changes: dict[str, Any], message: str) -> None:
    given = {key: value for key, value in {**FULL, **changes}.items() if value is not NOTHING}
    with pytest.raises(ConfigError) as refused:
        assignment_of(toy_space(), given)
    assert message in str(refused.value)


@pytest.mark.parametrize("value", [2.5, 17, "4"])
def test_a_whole_number_is_one_of_its_range(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"methods\.adapt\.rank: found .*; allowed: 2 to 16"):
        assignment_of(toy_space(), {**ADAPT, "methods.adapt.rank": value})


def test_the_first_recipes_of_a_file_are_checked_before_anything_is_trained() -> None:
    for first, message in (
        (
            [FULL, {**ADAPT, "train.batch_size": 9}],
            r"searcher.first\[1\]: train.batch_size: found 9; allowed: 8, 16",
        ),
        ([FULL, ADAPT, dict(reversed(FULL.items()))], r"first\[2\]: found what searcher.first\[0\] has"),
    ):
        with pytest.raises(ConfigError, match=message):
            compile_space(toy_spec(searcher={"name": "random", "first": first}))
    assert compile_space(toy_spec(searcher={"name": "random", "first": [FULL, ADAPT]})).legal


def test_a_recipe_of_the_same_space_is_what_it_was() -> None:
    space = toy_space()
    for given in (FULL, ADAPT):
        assert (
            taken_over(space, config_of(space, given), ["train.learning_rate", "train.batch_size"]) == given
        )


def test_paths_are_taken_over_and_not_the_ids_that_entries_have() -> None:
    once = [entry for entry in SPACE if entry["set"] != "train.learning_rate"]
    there = toy_space(space=[*once, {"set": "train.learning_rate", "choice": [1e-4, 1e-2]}])
    given = {**{key: value for key, value in ADAPT.items() if "rate" not in key}, "train.learning_rate": 1e-2}
    assert taken_over(toy_space(), config_of(there, given), ["train.learning_rate"]) == ADAPT


def test_what_the_other_sweep_had_fixed_is_searched_here_under_its_value_or_its_default() -> None:
    there = toy_space(
        recipe={"model": {"family": "alpha", "head": "span"}, "methods": {"adapt": {}}},
        space=[{"set": "train.learning_rate", "choice": [1e-2]}, {"set": "train.batch_size", "choice": [8]}],
    )
    config = config_of(there, {"train.learning_rate": 1e-2, "train.batch_size": 8})
    found = taken_over(toy_space(), config, ["train.learning_rate", "train.batch_size"])
    assert found == {
        "model.family": "alpha",
        "model.head": "span",
        "methods": "adapt",
        "train.learning_rate.2": 1e-2,
        "methods.adapt.rank": 8,  # the default
        "train.batch_size": 8,
    }


def test_methods_are_the_same_in_any_order() -> None:
    there = toy_space(space=[SPACE[0], {"set": "methods", "choice": ["pack+adapt"]}])
    config = config_of(there, {"model.family": "beta", "methods": "pack+adapt"})
    here = toy_space(space=[SPACE[0], SPACE[2]])
    assert taken_over(here, config, ["methods"]) == {"model.family": "beta", "methods": "adapt+pack"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"space": SPACE[:-1], "recipe": {"train": {"batch_size": 8}}},
            "train.batch_size: found 16; allowed: 8, which is not searched",
        ),
        (
            {"space": SPACE[2:], "recipe": {"model": {"family": "alpha", "head": "span"}}},
            "model.family: found 'beta'; allowed: 'alpha', which is not searched",
        ),
        (
            {"space": [*SPACE[:2], *SPACE[-1:]]},
            "methods: found 'adapt+pack'; allowed: 'full', which is not searched",
        ),
        (
            {"space": [*SPACE[:5], {**SPACE[5], "int": [8, 16]}, *SPACE[6:]]},
            "methods.adapt.rank: found 4; allowed: 8 to 16",
        ),
    ],
    ids=["fixed", "family", "methods", "narrower"],
)
def test_a_recipe_that_would_be_another_one_here_is_refused(changes: dict[str, Any], message: str) -> None:
    config = config_of(toy_space(), ADAPT)
    with pytest.raises(ConfigError) as refused:
        taken_over(toy_space(**changes), config, ["model.family", "model.head", "train.batch_size"])
    assert str(refused.value) == message


def test_a_setting_that_a_recipe_has_not_is_no_value() -> None:
    config = config_of(toy_space(), FULL)
    assert value_at(config, "methods") == "full"
    for path in ("methods.adapt.rank", "train.colour", "train.batch_size.deeper"):
        assert value_at(config, path) is NOTHING
    assert value_at(config_of(toy_space(), ADAPT), "methods.adapt.targets") == "all"
