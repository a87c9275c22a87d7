"""Known values: each is a real setting, agrees with the file it is taken from, and lands inside the space."""

from pathlib import Path
from typing import Any

import pytest

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.values import from_dict
from sweeps.space.compile import compile_space
from sweeps.space.known_recipes import KNOWN, Known, known_recipes, known_value
from sweeps.space.paths import method_names
from sweeps.space.settings import setting_type
from sweeps.spec.load import load_spec
from sweeps.spec.sections import SweepSpec
from tests.sweeps.toys import HEAD, OBJECTIVES

CONFIGS = Path(__file__).resolve().parents[3] / "sweeps" / "configs"
FAMILIES = [
    {"set": "model.family", "choice": ["lstm", "bert"]},
    {"set": "methods", "choice": ["quantize", "full", "lora"]},
]


def spec_of(space: list[dict[str, Any]], **recipe: Any) -> SweepSpec:
    budget = {"trials": 4, "examples": 900}
    return SweepSpec.model_validate(
        {**HEAD, "objectives": OBJECTIVES, "budget": budget, "space": space, "recipe": recipe}
    )


def recipes(space: list[dict[str, Any]], seed: int = 0, **recipe: Any) -> list[dict[str, Any]]:
    return known_recipes(compile_space(spec_of(space, **recipe)), seed=seed)


def values_in(spec: SweepSpec, path: str) -> list[Any]:
    """Return every value that a spec gives a setting, shared or searched."""
    found: Any = spec.recipe
    for part in path.split("."):
        found = (found or {}).get(part)
    searched = [value for entry in spec.space if entry.path == path for value in entry.choice or ()]
    return [*searched, *([] if found is None else [found])]


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: f"{row.path}-{row.family}-{row.method}")
def test_a_known_value_is_one_that_its_setting_takes(row: Known) -> None:
    setting_type(row.path, "here")
    assert row.family is None or row.family in registry.FAMILIES
    assert row.method is None or row.method in registry.METHODS
    assert row.source
    section, *rest = row.path.split(".")
    if section == "methods":
        options = registry.method_class(rest[0]).Options
        assert getattr(options(**{rest[1]: row.value}), rest[1]) == row.value
    else:
        config = from_dict(RunConfig, {"model": {"family": "bert"}, section: {rest[0]: row.value}})
        assert getattr(getattr(config, section), rest[0]) == row.value


def test_values_taken_from_a_sweep_are_the_sweeps() -> None:
    first = load_spec(CONFIGS / "bert_to_mamba.yaml")
    second = load_spec(CONFIGS / "lora_vs_ia3.yaml", scales=["study_final"])
    # The windows of the second study stand in one setting there; the next test compares them.
    for name, spec, count in (("bert_to_mamba.yaml", first, 23), ("B", second, 5)):
        rows = [row for row in KNOWN if name in row.source.replace(";", "").split()]
        rows = [row for row in rows if row.path not in ("data.max_length", "data.stride")]
        assert len(rows) == count
        for row in rows:
            assert row.value in values_in(spec, row.path), row


def test_a_window_is_known_the_same_whole_and_in_parts() -> None:
    for family in ("bert", "distilbert"):
        length, stride = (known_value(f"data.{name}", family, ()) for name in ("max_length", "stride"))
        assert known_value("data.window", family, ()) == f"{length}/{stride}"


def test_the_rates_of_the_first_study_are_those_of_each_of_its_rows() -> None:
    space = compile_space(load_spec(CONFIGS / "bert_to_mamba.yaml"))
    found = {}
    for recipe in known_recipes(space, seed=0):
        values = {
            item.path: recipe[item.id] for item in space.parameters if item.id in recipe
        }  # one choice each
        family, methods = values["model.family"], values["methods"]
        found[family, methods] = values["train.learning_rate"]
        assert (
            known_value("train.learning_rate", family, method_names(methods)) == values["train.learning_rate"]
        )
    assert len(found) == 12


def test_there_is_one_recipe_for_each_family_and_product() -> None:
    found = recipes(
        [
            *FAMILIES,
            {
                "set": "train.learning_rate",
                "log_uniform": [1e-6, 1],
                "when": {"methods": ["full", "quantize"]},
            },
            {"set": "train.learning_rate", "log_uniform": [1e-6, 1], "when": {"methods": "lora"}},
            {"set": "methods.lora.rank", "int": [2, 64], "when": {"methods": "lora"}},
            {"set": "methods.quantize.bits", "choice": [4, 8], "when": {"methods": "quantize"}},
        ]
    )
    rows = {(item["model.family"], item["methods"]): list(item.items())[2:] for item in found}
    assert rows == {
        ("lstm", "quantize"): [("train.learning_rate.1", 1e-3), ("methods.quantize.bits", 8)],
        ("lstm", "full"): [("train.learning_rate.1", 1e-3)],
        ("bert", "quantize"): [("train.learning_rate.1", 3e-5), ("methods.quantize.bits", 8)],
        ("bert", "full"): [("train.learning_rate.1", 3e-5)],
        ("bert", "lora"): [("train.learning_rate.2", 5e-4), ("methods.lora.rank", 8)],
    }  # an LSTM has no layers for lora
    assert len(found) == 5


def test_a_value_outside_of_its_range_is_clipped_and_a_choice_gives_the_nearest_number() -> None:
    entries = [
        {"set": "methods", "choice": ["lora"]},
        {"set": "methods.lora.rank", "int": [12, 64]},
        {"set": "methods.lora.alpha", "choice": [64, 20, 4]},
        {"set": "train.learning_rate", "log_uniform": [1e-5, 1e-4]},
        {"set": "train.batch_size", "choice": [64, 32, 16, 8]},
        {"set": "methods.lora.targets", "choice": ["all_linear", "attention"]},
    ]
    (recipe,) = recipes(entries, model={"family": "bert"})
    assert recipe == {
        "methods": "lora",
        "methods.lora.rank": 12,
        "methods.lora.alpha": 20,
        "train.learning_rate": 1e-4,
        "train.batch_size": 16,
        "methods.lora.targets": "attention",
    }
    assert type(recipe["methods.lora.rank"]) is int


def test_a_setting_that_nothing_is_known_of_takes_the_middle_or_the_first_choice() -> None:
    entries = [
        {"set": "train.weight_decay", "log_uniform": [1e-4, 1e-2]},
        {"set": "train.warmup_share", "uniform": [0.0, 0.5]},
        {"set": "model.vocab_size", "int": [100, 200]},
        {"set": "train.schedule", "choice": ["constant", "linear"]},
        {"set": "model.head", "choice": [None, "span"]},
    ]
    (recipe,) = recipes(entries, model={"family": "bert"}, methods={"lora": {}})
    assert recipe.pop("train.weight_decay") == pytest.approx(1e-3)
    assert recipe == {
        "train.warmup_share": 0.25,
        "model.vocab_size": 150,
        "train.schedule": "constant",
        "model.head": None,
    }


def test_a_setting_that_decides_legality_takes_its_known_value_where_that_is_legal() -> None:
    bits = {"set": "methods.quantize.bits", "choice": [4, 16, 8], "when": {"methods": "quantize"}}
    named = {"set": "train.weight_decay", "choice": [0.1], "when": {"methods.quantize.bits": 4}}
    found = {(item["model.family"], item["methods"]): item for item in recipes([*FAMILIES, bits, named])}
    assert found["bert", "quantize"]["methods.quantize.bits"] == 8
    assert "train.weight_decay" not in found["bert", "quantize"]


def test_the_order_is_shuffled_by_seed() -> None:
    orders = [[(item["model.family"], item["methods"]) for item in recipes(FAMILIES, s)] for s in range(4)]
    assert orders[0] == [(item["model.family"], item["methods"]) for item in recipes(FAMILIES, 0)]
    assert len({tuple(order) for order in orders}) > 1
    assert {frozenset(order) for order in orders} == {frozenset(orders[0])}


def test_known_recipes_of_every_shipped_sweep_are_legal() -> None:
    counts = {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        space = compile_space(load_spec(path))
        found = known_recipes(space, seed=1)
        for recipe in found:
            config = space.to_run_config(recipe, seed=0)
            registry.check_combination(registry.make_family(config), registry.make_methods(config))
        counts[path.stem] = len(found)
    assert counts == {"bert_to_mamba": 12, "lora_vs_ia3": 3, "minilm_v1": 4, "quickstart": 6}
