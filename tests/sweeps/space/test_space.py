"""The search space: what is legal, what is active, what becomes of it as a recipe."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from qa_core import registry
from qa_core.errors import ConfigError
from sweeps.space.compile import compile_space
from sweeps.space.domains import Choice, FloatRange, IntRange
from sweeps.space.paths import method_names
from sweeps.space.space import Space
from sweeps.spec.sections import SweepSpec
from tests.sweeps.toys import HEAD, OBJECTIVES, SPACE, toy_space, toy_spec

pytestmark = pytest.mark.usefixtures("toy_registry")


def entries(*changed: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"set": "model.family", "choice": ["alpha", "beta"]}, *changed]


def refusal(space: list[dict[str, Any]], **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        toy_space(space=space, **changes)
    return str(caught.value)


def test_the_legal_product_has_its_hand_counted_size() -> None:
    space = toy_space()
    # alpha span 5, beta span 5, beta generate 4 (no sole), gamma 3 (no adapt): 17 of 5 * 5
    legal = Counter((item["model.family"], item.get("model.head")) for item in space.legal)
    assert legal == {("alpha", "span"): 5, ("beta", "span"): 5, ("beta", "generate"): 4, ("gamma", None): 3}
    assert len(space.dropped) == 8


def test_what_is_dropped_says_which_part_and_why() -> None:
    dropped = {tuple(item.assignment.values()): item.reason for item in toy_space().dropped}
    assert dropped[("gamma", "adapt")].startswith("method 'adapt' needs linear_layers")
    assert dropped[("alpha", "generate", "full")] == "family 'alpha' has no head 'generate' (it has: span)"
    assert "needs span_output" in dropped[("beta", "generate", "sole")]


def test_methods_that_exclude_each_other_are_dropped_and_an_empty_space_is_an_error() -> None:
    message = refusal(entries({"set": "methods", "choice": ["adapt+sole"]}))
    assert "no legal combination" in message
    assert "cannot be combined" in message


def test_a_combination_that_only_one_checkpoint_forbids_is_listed_with_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry.method_class("pack"), "needs", frozenset({"pretrained"}))
    space = toy_space(
        space=entries(
            {"set": "model.checkpoint", "choice": ["tiny", "some/hub-name"]},
            {"set": "methods", "choice": ["full", "pack"]},
        )
    )
    assert [dict(item.assignment) for item in space.dropped] == [
        {"model.family": family, "model.checkpoint": "tiny", "methods": "pack"}
        for family in ("alpha", "beta")
    ]
    assert len(space.legal) == 6


def test_samples_are_legal_and_hold_active_parameters_only() -> None:
    space = toy_space()
    legal = {tuple(item.items()) for item in space.legal}
    seen = set()
    for seed in range(400):
        assignment = space.sample(np.random.default_rng(seed))
        structure = tuple((key, value) for key, value in assignment.items() if key in space.structural)
        assert structure in legal
        seen.add(structure)
        adapts = "adapt" in method_names(assignment["methods"])
        assert ("methods.adapt.rank" in assignment) is adapts
        assert ("model.head" in assignment) is (assignment["model.family"] != "gamma")
        slow = assignment["methods"] in ("full", "sole")
        assert ("train.learning_rate.1" in assignment) is slow
        assert ("train.learning_rate.2" in assignment) is not slow
    assert seen == legal


def test_a_repeated_setting_gets_numbered_ids_and_one_place_in_the_recipe() -> None:
    space = toy_space()
    assert [parameter.id for parameter in space.parameters] == [
        "model.family",
        "model.head",
        "methods",
        "train.learning_rate.1",
        "train.learning_rate.2",
        "methods.adapt.rank",
        "train.batch_size",
    ]
    assignment = {
        "model.family": "beta",
        "model.head": "generate",
        "methods": "adapt+pack",
        "train.learning_rate.2": 0.02,
        "methods.adapt.rank": 5,
        "train.batch_size": 8,
    }
    config = space.to_run_config(assignment, seed=11, rungs=(300, 600))
    assert (config.model.family, config.model.head, config.seed) == ("beta", "generate", 11)
    assert dict(config.methods) == {"adapt": {"rank": 5}, "pack": {}}
    assert list(config.methods) == ["adapt", "pack"]
    assert (config.train.learning_rate, config.train.batch_size) == (0.02, 8)
    assert (config.train.budget_examples, config.train.rungs) == (900, (300, 600))
    assert space.label(assignment) == "beta adapt+pack lr=0.02 rank=5 head=generate batch=8"


def test_options_in_the_recipe_apply_to_chosen_methods_alone() -> None:
    space = toy_space(
        recipe={"methods": {"adapt": {"targets": "some"}}},
        space=entries({"set": "methods", "choice": ["full", "adapt"]}),
    )
    with_adapt = space.to_run_config({"model.family": "alpha", "methods": "adapt"}, seed=0)
    without = space.to_run_config({"model.family": "alpha", "methods": "full"}, seed=0)
    assert dict(with_adapt.methods) == {"adapt": {"targets": "some"}}
    assert dict(without.methods) == {}
    assert space.recipe == {"methods": {"adapt": {"targets": "some"}}}  # not written to


def test_an_unknown_parameter_id_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'model.famly'.*did you mean 'model.family'"):
        toy_space().to_run_config({"model.famly": "alpha"}, seed=0)


def test_the_grid_lists_every_legal_recipe_once_with_the_last_parameter_fastest() -> None:
    space = toy_space()
    grid = list(space.grid(3))
    # each structure: 3 learning rates x 2 batch sizes, and x 3 ranks for the 3 * 2 with adapt
    with_adapt = sum("adapt" in item["methods"] for item in space.legal)
    assert with_adapt == 6
    assert len(grid) == (len(space.legal) - with_adapt) * 6 + with_adapt * 18
    assert len({tuple(item.items()) for item in grid}) == len(grid)
    assert (grid[0]["train.batch_size"], grid[1]["train.batch_size"]) == (8, 16)
    rates = sorted({item["train.learning_rate.1"] for item in grid if "train.learning_rate.1" in item})
    assert rates == pytest.approx([1e-5, 1e-4, 1e-3])


def test_domains_cut_and_sample_as_they_say() -> None:
    rng = np.random.default_rng(0)
    assert Choice(("b", "a")).grid(1) == ("b", "a")
    assert FloatRange(0.0, 1.0, log=False).grid(3) == (0.0, 0.5, 1.0)
    assert FloatRange(0.0, 1.0, log=False).grid(1) == (0.5,)
    assert IntRange(2, 32, log=True).grid(3) == (2, 8, 32)
    assert IntRange(1, 2, log=False).grid(5) == (1, 2)
    logs = [FloatRange(1e-4, 1e-2, log=True).sample(rng) for _ in range(2000)]
    assert 1e-4 <= min(logs) < max(logs) <= 1e-2
    assert np.mean(np.array(logs) < 1e-3) == pytest.approx(0.5, abs=0.05)
    assert Counter(IntRange(3, 5, log=False).sample(rng) for _ in range(300)).keys() == {3, 4, 5}
    assert {IntRange(1, 4, log=True).sample(rng) for _ in range(300)} == {1, 2, 3, 4}


def test_a_share_of_a_domain_is_a_value_and_even_shares_are_even_values() -> None:
    shares = [0.0, 0.25, 0.5, 0.75, 1.0 - 2**-53]
    assert [Choice(("a", "b", "c")).at(share) for share in shares] == ["a", "a", "b", "c", "c"]
    assert [FloatRange(1.0, 3.0, log=False).at(share) for share in shares[:4]] == [1.0, 1.5, 2.0, 2.5]
    logs = FloatRange(1e-4, 1e-2, log=True)
    assert [logs.at(share) for share in shares] == pytest.approx([1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2])
    assert 1e-4 <= logs.at(0.0) <= logs.at(shares[-1]) <= 1e-2
    assert [IntRange(3, 6, log=False).at(share) for share in shares] == [3, 4, 5, 6, 6]
    # On the logarithm 1 has the part from 0.5 to 1.5, half of what is between 0.5 and 4.5.
    shares = [0.0, 0.25, 0.49, 0.51, 0.75, 1.0 - 2**-53]
    assert [IntRange(1, 4, log=True).at(share) for share in shares] == [1, 1, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"set": "train.learning_rte", "uniform": [0, 1]}, "did you mean 'learning_rate'"),
        ({"set": "model", "choice": [1]}, "is not a single value"),
        ({"set": "train.learning_rate.x", "choice": [1]}, "has no settings inside"),
        ({"set": "methods.adapt.rnk", "int": [1, 2], "when": {"methods": "adapt"}}, "did you mean 'rank'"),
        ({"set": "methods.adpt.rank", "int": [1, 2]}, "unknown method 'adpt'; did you mean 'adapt'"),
        ({"set": "methods", "choice": ["adopt"]}, "unknown method 'adopt'; did you mean 'adapt'"),
        ({"set": "methods", "choice": ["adapt+adapt"]}, "names a method twice"),
        ({"set": "methods", "choice": ["full+adapt"]}, "stands alone; write 'adapt'"),
        ({"set": "methods", "int": [1, 2]}, "use `choice`"),
        ({"set": "seed", "choice": [1]}, "set the top-level seed instead"),
        ({"set": "train.budget_examples", "choice": [1]}, "set budget.examples instead"),
        ({"set": "train.batch_size", "uniform": [1, 8]}, "the setting is a whole number"),
        ({"set": "data.train", "int": [1, 8]}, "the setting is text"),
        (
            {"set": "train.batch_size", "choice": [8, "many"]},
            "value 'many': train.batch_size: found 'many'",
        ),
        (
            {"set": "train.weight_decay", "uniform": [-1, 1]},
            "space[1]: for model.family=alpha: train.weight_decay: found -1.0",
        ),
        ({"set": "methods.adapt.rank", "int": [2, 8]}, "active without its method for model.family=alpha"),
        ({"set": "model.options.size", "choice": [1]}, "unknown setting 'size'"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_name_and_what_is_allowed(
    entry: dict[str, Any], expected: str
) -> None:
    message = refusal(entries(entry))
    assert expected in message
    assert "space" in message


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"train.batch_size": 8}, "unknown earlier parameter 'train.batch_size'"),
        ({"model.family": "alpa"}, "unknown value 'alpa'; did you mean 'alpha'"),
        ({"methods": "adopt"}, "unknown earlier parameter 'methods'"),
    ],
)
def test_a_condition_names_an_earlier_parameter_and_one_of_its_values(
    when: dict[str, Any], expected: str
) -> None:
    message = refusal(
        entries(
            {"set": "train.learning_rate", "uniform": [0.1, 1], "when": when},
            {"set": "train.batch_size", "choice": [8, 16]},
        )
    )
    assert expected in message


PRODUCTS = {"set": "methods", "choice": ["full", "adapt", "pack", "adapt+pack"]}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("adapt", {"adapt", "adapt+pack"}),
        ({"is": "adapt"}, {"adapt"}),
        ({"is": ["pack+adapt"]}, {"adapt+pack"}),  # a product has no order
        ({"is": ["full", "pack"]}, {"full", "pack"}),
        (["full", "pack"], {"full", "pack", "adapt+pack"}),
    ],
)
def test_a_condition_on_methods_asks_for_a_part_of_a_product_or_for_exactly_one(
    when: Any, expected: set[str]
) -> None:
    space = toy_space(
        space=entries(PRODUCTS, {"set": "train.batch_size", "value": 64, "when": {"methods": when}})
    )
    sizes = {item["methods"]: space.to_run_config(item, seed=0).train.batch_size for item in space.grid()}
    assert len(sizes) == 4
    assert {methods for methods, size in sizes.items() if size == 64} == expected


def test_exact_conditions_let_two_entries_of_one_setting_exclude_each_other() -> None:
    rates = [
        {"set": "train.learning_rate", "uniform": [0.1, 1], "when": {"methods": {"is": [*names]}}}
        for names in (("full", "adapt"), ("pack", "adapt+pack"))
    ]
    assert len(toy_space(space=entries(PRODUCTS, *rates)).legal) == 8
    rates[0]["when"] = {"methods": ["full", "adapt"]}
    assert "searched by space[2] as well" in refusal(entries(PRODUCTS, *rates))


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (
            {"model.family": {"is": "alpha"}},
            "space[2].when.model.family: found {is: ...}; allowed: for methods alone",
        ),
        ({"methods": {"is": "adopt"}}, "unknown value 'adopt'; did you mean 'adapt'?"),
    ],
)
def test_a_wrong_exact_condition_is_refused(when: dict[str, Any], expected: str) -> None:
    assert expected in refusal(entries(PRODUCTS, {"set": "train.batch_size", "value": 64, "when": when}))


def test_a_condition_cannot_name_a_range() -> None:
    message = refusal(
        entries(
            {"set": "train.weight_decay", "uniform": [0, 1]},
            {"set": "train.batch_size", "choice": [8], "when": {"train.weight_decay": 0.5}},
        )
    )
    assert "train.weight_decay is a range" in message


def test_a_narrowed_family_choice_leaves_entries_that_are_never_active() -> None:
    space = toy_space(
        space=entries({"set": "train.weight_decay", "uniform": [0, 1], "when": {"model.family": "gamma"}})
    )
    assert [list(space.sample(np.random.default_rng(seed))) for seed in range(5)] == [["model.family"]] * 5


def test_two_entries_of_one_setting_that_can_be_active_together_are_refused() -> None:
    message = refusal(
        entries(
            {"set": "methods", "choice": ["adapt", "adapt+pack"]},
            {"set": "train.learning_rate", "uniform": [0.1, 1], "when": {"methods": "adapt"}},
            {"set": "train.learning_rate", "uniform": [1, 2], "when": {"methods": "pack"}},
        )
    )
    assert "searched by space[2] as well" in message
    assert "methods=adapt+pack" in message


def test_conditions_chain_through_inactive_parameters() -> None:
    space = toy_space(
        space=entries(
            {"set": "train.batch_size", "choice": [8, 16], "when": {"model.family": "alpha"}},
            {"set": "train.weight_decay", "uniform": [0.1, 1], "when": {"train.batch_size": 8}},
        )
    )
    for seed in range(50):
        found = space.sample(np.random.default_rng(seed))
        assert ("train.batch_size" in found) is (found["model.family"] == "alpha")
        assert ("train.weight_decay" in found) is (found.get("train.batch_size") == 8)


def test_a_setting_both_in_the_recipe_and_unconditionally_searched_is_refused() -> None:
    message = refusal(
        entries({"set": "train.batch_size", "choice": [8]}), recipe={"train": {"batch_size": 4}}
    )
    assert "recipe.train.batch_size is set as well" in message


def test_a_recipe_value_holds_where_the_searched_one_is_not_active() -> None:
    space = toy_space(
        recipe={"train": {"batch_size": 4}},
        space=entries({"set": "train.batch_size", "choice": [8], "when": {"model.family": "beta"}}),
    )
    sizes = {
        item["model.family"]: space.to_run_config(item, seed=0).train.batch_size for item in space.grid()
    }
    assert sizes == {"alpha": 4, "beta": 8}


def test_a_space_needs_a_family() -> None:
    message = refusal([{"set": "train.batch_size", "choice": [8]}])
    assert "no family; set recipe.model.family" in message


def test_values_that_only_clash_together_are_refused_before_any_trial() -> None:
    message = refusal(
        entries(
            {"set": "data.max_length", "choice": [384, 160]},
            {"set": "data.stride", "choice": [32, 128]},
        )
    )
    assert "a recipe of the space is refused" in message
    assert "data.stride: found 128" in message


def test_the_default_toy_space_is_what_the_other_tests_rely_on() -> None:
    assert len(SPACE) == len(toy_space().parameters) == 7
    assert not toy_space().is_finite


@pytest.fixture
def real_space(monkeypatch: pytest.MonkeyPatch) -> Space:
    monkeypatch.undo()  # the real families and methods
    spec = SweepSpec.model_validate(
        {
            **HEAD,
            "objectives": OBJECTIVES,
            "budget": {"trials": 1, "examples": 10},
            "space": [
                {"set": "model.family", "choice": ["bert", "distilbert", "lstm", "mamba", "t5"]},
                {"set": "methods", "choice": ["full", "lora"]},
            ],
        }
    )
    return compile_space(spec)


def test_all_families_take_lora_but_the_one_without_linear_layers(real_space: Space) -> None:
    assert [dict(item.assignment) for item in real_space.dropped] == [
        {"model.family": "lstm", "methods": "lora"}
    ]
    assert len(real_space.legal) == 9
    for assignment in real_space.grid():
        config = real_space.to_run_config(assignment, seed=0)
        registry.check_combination(registry.make_family(config), registry.make_methods(config))


def test_a_spec_survives_its_own_plain_form() -> None:
    spec = toy_spec()
    assert SweepSpec.model_validate(spec.as_dict()).as_dict() == spec.as_dict()
