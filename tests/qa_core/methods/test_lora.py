"""LoRA: exact counts, nothing changed at the start, only adapters and head trained, merged equals unmerged."""

from types import SimpleNamespace

import pytest
import torch

from qa_core import registry
from qa_core.config import ModelConfig, RunConfig, from_dict
from qa_core.errors import ConfigError, IllegalCombination
from qa_core.methods.lora import Lora
from tests.contracts.method import MethodContract

TOKENIZER = SimpleNamespace(pad_token_id=0, unk_token_id=1, cls_token_id=2, sep_token_id=3)


class _Tokens(SimpleNamespace):
    def __len__(self) -> int:
        return 300


def _bert(checkpoint: str = "micro"):
    torch.manual_seed(0)
    family = registry.family_class("bert")(ModelConfig("bert", checkpoint=checkpoint, dropout=0.0))
    return family, family.build(_Tokens(**vars(TOKENIZER)))


def _batch(rows: int = 3, length: int = 20) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    types = (torch.arange(length) > 6).long().expand(rows, length)
    return {
        "input_ids": torch.randint(4, 300, (rows, length), generator=generator),
        "attention_mask": torch.ones(rows, length, dtype=torch.long),
        "token_type_ids": types,
        "span_mask": types.bool(),
        "null_positions": torch.zeros(rows, dtype=torch.long),
        "start_positions": torch.tensor([8, 9, 10]),
        "end_positions": torch.tensor([9, 11, 10]),
    }


@pytest.mark.parametrize(
    ("family", "model_class", "config", "rank", "expected"),
    [
        ("distilbert", "DistilBertForQuestionAnswering", "DistilBertConfig", 1, 19_970),
        ("distilbert", "DistilBertForQuestionAnswering", "DistilBertConfig", 16, 296_450),
        ("distilbert", "DistilBertForQuestionAnswering", "DistilBertConfig", 64, 1_181_186),
        ("bert", "BertForQuestionAnswering", "BertConfig", 8, 296_450),
        ("bert", "BertForQuestionAnswering", "BertConfig", 16, 591_362),
    ],
)
def test_the_trainable_count_of_full_size_models_equals_the_published_one(
    family, model_class, config, rank, expected
):
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, model_class)(getattr(transformers, config)())
    family_object = registry.family_class(family)(ModelConfig(family))
    model = Lora.from_options({"rank": rank}).attach(model, family_object)
    assert sum(item.numel() for item in model.parameters() if item.requires_grad) == expected


def test_t5_base_rank_8_adapters_count_884736():
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "d_kv": 64, "vocab_size": 32128}
    with torch.device("meta"):
        model = T5ForConditionalGeneration(T5Config(**sizes))
    family = registry.family_class("t5")(ModelConfig("t5", head="generate"))
    model = Lora.from_options({"rank": 8}).attach(model, family)
    adapters = [item.numel() for name, item in model.named_parameters() if ".lora_" in name]
    assert len(adapters) == 144
    assert sum(adapters) == 884_736


def test_the_output_is_unchanged_before_the_first_step():
    family, model = _bert()
    before = family.span_logits(model.eval(), _batch())
    after = family.span_logits(Lora.from_options({"rank": 4}).attach(model, family).eval(), _batch())
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_training_moves_adapters_and_head_and_leaves_the_rest_bit_equal():
    family, model = _bert()
    frozen = {name: item.clone() for name, item in model.state_dict().items()}
    model = Lora.from_options({"rank": 2, "also_train": ["LayerNorm"]}).attach(model, family).train()
    optimizer = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], lr=1e-2)
    for _ in range(3):
        family.loss(model, _batch()).backward()
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
    family, model = _bert()
    method = Lora.from_options({"rank": 4, "rank_stabilised": rank_stabilised, "targets": "all_linear"})
    model = method.attach(model, family)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, item in model.named_parameters():
            if ".lora_" in name:
                item.normal_(0, 0.1, generator=generator)
    unmerged = family.span_logits(model.eval(), _batch())
    merged = family.span_logits(method.export(model).eval(), _batch())
    for left, right in zip(unmerged, merged, strict=True):
        torch.testing.assert_close(
            left, right, rtol=1e-4, atol=1e-5
        )  # float32: the sum is taken in another order
    assert not torch.equal(merged[0], _plain_logits())


def _plain_logits() -> torch.Tensor:
    family, model = _bert()
    return family.span_logits(model.eval(), _batch())[0]


def test_rank_stabilised_scaling_divides_by_the_square_root_of_the_rank():
    from peft.tuners.lora import LoraLayer

    for stabilised, expected in ((False, 16 / 4), (True, 16 / 2)):
        family, model = _bert()
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
    family, model = _bert()
    with pytest.raises(ConfigError, match="'attention'"):
        Lora.from_options({"targets": "atention"}).attach(model, family)


class TestLoraContract(MethodContract):
    name = "lora"
    options = {"rank": 4, "targets": "all_linear"}
    refused = {("lstm", "span")}
