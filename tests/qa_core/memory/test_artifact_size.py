"""The bytes of the folder that ships: planned from the recipe, equal to what is written, for every family and form."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig
from qa_core.data.prepare import recipe_tokenizer
from qa_core.errors import IllegalCombination
from qa_core.memory.artifact_size import CODES, planned_artifact_bytes, safetensors_bytes, weight_tensors
from qa_core.memory.forms import training_skeleton

FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "full": {},
    "lora kept, nf4": {"lora": {"merge": False}, "quantize": {"bits": 4}},
    "ia3 kept": {"ia3": {"merge": False}},
    "qlora": {"qlora": {}},
    "lora on int8": {"lora_int8": {}},
    "int8 tables": {"quantize": {"bits": 8, "embedding_bits": 8}},
    "pruned": {"static_prune": {"density": 0.3, "criterion": "magnitude", "value_bits": 16}},
}
HEADS = [(name, head) for name in sorted(registry.FAMILIES) for head in registry.family_class(name).heads]


def recipe(pair: tuple[str, str], form: str, squad: Any = "sample") -> RunConfig:
    return RunConfig(
        ModelConfig(pair[0], head=pair[1], checkpoint="micro", vocab_size=300),
        methods=FORMS[form],
        data=DataConfig(train=str(squad), max_length=48, max_question_length=16, stride=8),
        evaluation=EvaluationConfig(precision="float32"),
    )


def is_legal(pair: tuple[str, str], form: str) -> bool:
    config = recipe(pair, form)
    try:
        registry.check_combination(registry.make_family(config), registry.make_methods(config))
    except IllegalCombination:
        return False
    return True


CASES = [(pair, form) for pair, form in itertools.product(HEADS, FORMS) if is_legal(pair, form)]


def test_every_legal_combination_is_a_case():
    assert len(HEADS) == 7
    for_lstm = 2  # it has no linear layers to adapt or to mask
    without_ia3 = 2  # mamba, of two heads, has no attention
    assert len(CASES) == 6 * len(FORMS) - without_ia3 + for_lstm


@pytest.mark.parametrize(("pair", "form"), CASES)
def test_the_planned_bytes_are_those_of_the_folder_whatever_the_threshold(
    pair, form, small_squad, cache_dir, tmp_path
):
    config = recipe(pair, form, small_squad)
    family, methods = registry.make_family(config), registry.make_methods(config)
    tokenizer = recipe_tokenizer(config, family, cache_dir=cache_dir)
    skeleton = training_skeleton(config, family, methods, tokenizer=tokenizer)
    planned = planned_artifact_bytes(config, family, skeleton, methods, tokenizer=tokenizer)

    family, methods = registry.make_family(config), registry.make_methods(config)
    model = family.build(tokenizer)
    for method in methods:
        model = method.attach(model, family)
    forms = {}
    for method in methods:
        if (stored := method.deployed_form(model)) is not None:
            forms[method.name] = stored
        model = method.export(model)
    own_folders = [own for method in methods if (own := method.own_folder(model)) is not None]
    folder = tmp_path / "a"
    artifact.write(folder, model, config=config, tokenizer=tokenizer, forms=forms, own_folders=own_folders)
    for threshold in (None, 3.0, -0.1234567890123456):
        artifact.set_null_threshold(folder, threshold)
        on_disk = sum(item.stat().st_size for item in folder.rglob("*") if item.is_file())
        assert artifact.load(folder).artifact_bytes == on_disk == planned


def test_a_file_of_tensors_has_the_planned_size_whatever_their_types_names_and_shapes(tmp_path: Path):
    tensors = {f"t{number}.é": torch.zeros(number + 1, 3).to(dtype) for number, dtype in enumerate(CODES)}
    tensors |= {"none": torch.zeros(0, 4), "scalar": torch.zeros(())}
    for count in range(1, len(tensors) + 1):  # headers of many lengths
        some = dict(itertools.islice(tensors.items(), count))
        for metadata in (None, {"shared": '{"a": "b"}'}):
            save_file(some, tmp_path / "x.safetensors", metadata=metadata)
            assert (tmp_path / "x.safetensors").stat().st_size == safetensors_bytes(some, metadata)


def test_the_same_network_is_written_as_the_same_bytes(small_squad, cache_dir, tmp_path):
    config = recipe(("t5", "generate"), "full", small_squad)  # three names of one table
    family = registry.make_family(config)
    tokenizer = recipe_tokenizer(config, family, cache_dir=cache_dir)
    model = family.build(tokenizer)
    written = []
    for number in range(6):
        folder = tmp_path / str(number)
        artifact.write(folder, model, config=config, tokenizer=tokenizer, forms={})
        written.append({item.name: item.read_bytes() for item in folder.iterdir()})
    assert all(item == written[0] for item in written)
    assert len(weight_tensors(model, ())) <= len(model.state_dict()) - 2
