"""LoRA: exact counts, nothing changed at the start, only adapters and head trained, merged equals unmerged."""

import pytest
import torch

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import RunConfig
from qa_core.errors import ConfigError, IllegalCombination
from qa_core.methods.lora import Lora
from qa_core.values import from_dict
from tests.contracts.adapter import (
    ADAPTER_FILE,
    BASE_FILE,
    KeptAdapterContract,
    adapter_file_bytes,
    full_size,
    tensor_names,
)
from tests.contracts.method import MethodContract
from tests.contracts.rounding import assert_same_to_rounding
from tests.qa_core.methods.micro_network import micro_network, span_batch

pytestmark = pytest.mark.numeric


@pytest.mark.facts
@pytest.mark.parametrize(
    ("family", "targets", "rank", "expected"),
    [
        ("distilbert", "attention", 1, 19_970),
        ("distilbert", "attention", 2, 38_402),
        ("distilbert", "attention", 4, 75_266),
        ("distilbert", "attention", 8, 148_994),
        ("distilbert", "attention", 16, 296_450),
        ("distilbert", "attention", 32, 591_362),
        ("distilbert", "attention", 64, 1_181_186),
        ("distilbert", "attention_all", 16, 591_362),
        ("distilbert", "all_linear", 16, 1_328_642),
        ("bert", "attention", 8, 296_450),  # the same as DistilBERT at rank 16
        ("bert", "attention", 16, 591_362),
        ("t5", "attention", 2, 221_184),
        ("t5", "attention", 4, 442_368),
        ("t5", "attention", 8, 884_736),
        ("t5", "attention", 16, 1_769_472),
        ("mamba", "attention", 8, 737_280),
        ("mamba", "all_linear", 8, 1_047_552),
    ],
)
def test_the_trainable_count_of_full_size_models_equals_the_published_one(family, targets, rank, expected):
    family_object, model = full_size(family)
    model = Lora.from_options({"rank": rank, "targets": targets}).attach(model, family_object)
    assert sum(item.numel() for item in model.parameters() if item.requires_grad) == expected


@pytest.mark.facts
def test_16_ranks_are_0_4447_percent_of_distilbert():
    family, model = full_size("distilbert")
    assert sum(item.numel() for item in model.parameters()) == 66_364_418
    model = Lora.from_options({"rank": 16}).attach(model, family)
    trainable = sum(item.numel() for item in model.parameters() if item.requires_grad)
    head = 768 * 2 + 2  # the study's count has it twice: as it was, frozen, and as a copy that is trained
    total = sum(item.numel() for item in model.parameters()) + head
    assert total == 66_660_868
    assert 100 * trainable / total == pytest.approx(0.4447, abs=5e-5)


def test_t5_base_has_144_adapter_matrices():
    family, model = full_size("t5")
    model = Lora.from_options({"rank": 8}).attach(model, family)
    assert len([name for name, _ in model.named_parameters() if ".lora_" in name]) == 144


@pytest.mark.facts
@pytest.mark.parametrize(
    ("family", "rank", "expected"), [("distilbert", 16, 1_189_496), ("t5", 8, 3_558_888)]
)
def test_the_kept_adapter_of_a_full_size_model_has_the_published_file_size(family, rank, expected, tmp_path):
    family_object, model = full_size(family)
    method = Lora.from_options({"rank": rank, "merge": False})
    assert adapter_file_bytes(method, family_object, model, tmp_path) == expected


def test_the_output_is_unchanged_before_the_first_step():
    family, model = micro_network()
    before = family.span_logits(model.eval(), span_batch())
    after = family.span_logits(Lora.from_options({"rank": 4}).attach(model, family).eval(), span_batch())
    assert_same_to_rounding(after, before)


def test_training_moves_adapters_and_head_and_leaves_the_rest_bit_equal():
    family, model = micro_network()
    frozen = {name: item.clone() for name, item in model.state_dict().items()}
    model = Lora.from_options({"rank": 2, "also_train": ["LayerNorm"]}).attach(model, family).train()
    optimizer = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], lr=1e-2)
    for _ in range(3):
        family.loss(model, span_batch()).backward()
        optimizer.step()
        optimizer.zero_grad()
    merged = Lora.from_options({"rank": 2}).export(model).state_dict()
    assert merged.keys() == frozen.keys()
    moved = {name for name, item in merged.items() if not torch.equal(item, frozen[name])}
    expected = {
        name
        for name in frozen
        if name.startswith("qa_outputs")
        or "LayerNorm" in name
        or name.endswith(("query.weight", "value.weight"))
    }
    assert moved == expected


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_merged_equals_unmerged_in_evaluation(rank_stabilised):
    family, model = micro_network()
    method = Lora.from_options({"rank": 4, "rank_stabilised": rank_stabilised, "targets": "all_linear"})
    model = method.attach(model, family)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, item in model.named_parameters():
            if ".lora_" in name:
                item.normal_(0, 0.1, generator=generator)
    unmerged = family.span_logits(model.eval(), span_batch())
    merged = family.span_logits(method.export(model).eval(), span_batch())
    for left, right in zip(unmerged, merged, strict=True):
        torch.testing.assert_close(
            left, right, rtol=1e-4, atol=1e-5
        )  # float32: the sum is taken in another order
    assert (merged[0] - _plain_logits()).abs().max() > 0.01


def _plain_logits() -> torch.Tensor:
    family, model = micro_network()
    return family.span_logits(model.eval(), span_batch())[0]


def test_rank_stabilised_scaling_divides_by_the_square_root_of_the_rank():
    from peft.tuners.lora import LoraLayer

    for stabilised, expected in ((False, 16 / 4), (True, 16 / 2)):
        family, model = micro_network()
        model = Lora.from_options({"rank": 4, "alpha": 16, "rank_stabilised": stabilised}).attach(
            model, family
        )
        scalings = {layer.scaling["default"] for layer in model.modules() if isinstance(layer, LoraLayer)}
        assert scalings == {expected}


def test_a_family_without_linear_layers_is_refused_with_the_reason():
    config = from_dict(RunConfig, {"model": {"family": "lstm"}, "methods": {"lora": {}}})
    with pytest.raises(IllegalCombination, match=r"'lora' needs linear_layers.*'lstm'"):
        registry.check_combination(registry.make_family(config), registry.make_methods(config))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "methods.lora.rank: found 0"),
        ({"alpha": -1}, "methods.lora.alpha"),
        ({"dropout": 1.0}, "methods.lora.dropout"),
        ({"rnk": 4}, "did you mean 'rank'"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        Lora.from_options(options)


def test_an_unknown_target_set_is_named_with_those_that_exist():
    family, model = micro_network()
    with pytest.raises(ConfigError, match="'attention'"):
        Lora.from_options({"targets": "atention"}).attach(model, family)


class TestLoraContract(MethodContract):
    name = "lora"
    options = {"rank": 4, "targets": "all_linear"}
    refused = {("lstm", "span")}


class TestKeptLoraContract(MethodContract):
    name = "lora"
    options = {"rank": 4, "targets": "all_linear", "merge": False}
    refused = {("lstm", "span")}


class TestKeptLoraFolder(KeptAdapterContract):
    name = "lora"
    options = {"rank": 3, "rank_stabilised": True, "targets": "attention_all", "merge": False}
    pairs = [("distilbert", "span"), ("bert", "span"), ("t5", "span"), ("t5", "generate")]


class TestKeptLoraFolderOfMamba(KeptAdapterContract):
    name = "lora"
    options = {"rank": 3, "targets": "all_linear", "merge": False}
    pairs = [("mamba", "span"), ("mamba", "generate")]


def test_modules_trained_in_full_go_with_the_kept_adapter_and_share_no_copy_with_the_base(
    small_squad, cache_dir, tmp_path
):
    """T5's word table is shared: with it in the adapter's file, the base's file holds none of its names."""

    class Kept(KeptAdapterContract):
        name = "lora"
        options = {"rank": 2, "also_train": ["shared", "final_layer_norm"], "merge": False}

    family, batch, expected, base = Kept().ship(("t5", "generate"), small_squad, cache_dir, tmp_path / "a")
    table = base.get_input_embeddings().weight
    in_adapter = tensor_names(tmp_path / "a" / ADAPTER_FILE)
    assert "base_model.model.shared.weight" in in_adapter
    assert len([name for name in in_adapter if "final_layer_norm" in name]) == 2
    assert not [name for name in tensor_names(tmp_path / "a" / BASE_FILE) if "embed_tokens" in name]
    assert (tmp_path / "a" / BASE_FILE).stat().st_size + table.nbytes < 4 * sum(
        item.numel() for item in base.parameters()
    ) + 20_000
    with torch.no_grad():
        found = family.logits(artifact.load(tmp_path / "a").model, batch)
    assert_same_to_rounding(found, expected)


@pytest.mark.parametrize("part", ["bias", "attention"])
def test_what_peft_could_not_store_beside_the_adapter_is_refused_when_it_is_kept_apart(part):
    family, model = micro_network()
    Lora.from_options({"also_train": [part]}).attach(model, family)
    family, model = micro_network()
    method = Lora.from_options({"also_train": [part], "merge": False})
    with pytest.raises(ConfigError, match=r"methods\.lora\.also_train: '.*' would be trained in full"):
        method.attach(model, family)
