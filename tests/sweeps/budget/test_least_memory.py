"""What is said to be needed at least is needed: bounds that cost nothing, held against predictions."""

from pathlib import Path
from typing import Any

import pytest

from qa_core.config import RunConfig
from qa_core.values import from_dict
from sweeps.budget import least_memory
from sweeps.budget.memory import MemoryForecast

SMALLEST = {"quantize": {"bits": [4], "embedding_bits": [8]}}


def recipe(family: str, checkpoint: str, methods: dict[str, Any] | None = None, **model: Any) -> RunConfig:
    values = {
        "model": {"family": family, "checkpoint": checkpoint, **model},
        "methods": methods or {},
        "data": {"max_length": 96, "stride": 8},
        "evaluation": {"precision": "float32"},
    }
    return from_dict(RunConfig, values)


@pytest.mark.parametrize("family", ["bert", "distilbert", "t5", "mamba"])
def test_the_table_is_a_bound_for_the_smallest_form_of_a_network_of_the_package(
    family: str, tmp_path: Path
) -> None:
    forecast = MemoryForecast(cache_dir=tmp_path, listed=SMALLEST)
    config = recipe(family, "sample-tiny")
    bound, need = least_memory.of_the_table(config), forecast.smallest(config)
    assert need is not None
    assert need / 10 < bound < need


def test_nothing_is_said_of_presets_names_of_the_hub_and_other_tokenizers(tmp_path: Path) -> None:
    assert least_memory.of_the_table(recipe("bert", "micro")) == 0
    assert least_memory.of_the_table(recipe("bert", "somebody/some-bert")) == 0
    assert least_memory.of_the_table(recipe("bert", "sample-tiny", tokenizer="somebody/some-bert")) == 0
    for text in ("{", "[]", '{"vocab_size": "9", "hidden_size": 8}', '{"vocab_size": 9}'):
        (tmp_path / "config.json").write_text(text)
        assert least_memory.of_the_table(recipe("bert", str(tmp_path))) == 0


@pytest.mark.parametrize("added", [{"lora": {"rank": 4}}, {"lora": {"rank": 4, "merge": False}}, {"ia3": {}}])
def test_a_recipe_needs_no_less_than_without_what_only_adds(added: dict[str, Any], tmp_path: Path) -> None:
    config = recipe("bert", "sample-micro", added)
    plain = least_memory.without_what_only_adds(config)
    assert plain == recipe("bert", "sample-micro")
    for listed in ({}, SMALLEST):
        forecast = MemoryForecast(cache_dir=tmp_path, listed=listed)
        least, need = forecast.smallest(plain), forecast.smallest(config)
        assert least is not None
        assert need is not None
        assert least <= need


def test_what_can_make_a_network_smaller_is_left_in_a_recipe() -> None:
    pruned = {"static_prune": {"density": 0.5}}
    assert least_memory.without_what_only_adds(recipe("bert", "micro", pruned)) is None
    assert least_memory.without_what_only_adds(recipe("bert", "micro")) is None
    teacher = {"distill": {"teacher_recipe": {"model": {"checkpoint": "tiny"}}}}
    found = least_memory.without_what_only_adds(recipe("bert", "micro", {**pruned, **teacher}))
    assert found == recipe("bert", "micro", pruned)
