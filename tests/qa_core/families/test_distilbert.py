"""DistilBERT: the contract, transformers' own class on real weights, full-size count."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, DistilBertConfig, DistilBertForQuestionAnswering

from qa_core.config import ModelConfig
from qa_core.errors import ConfigError
from qa_core.families.distilbert import DistilBert
from tests.contracts.family import MINIMUM, Setting, SpanContract, eight_questions
from tests.contracts.rounding import assert_same_to_rounding

pytestmark = pytest.mark.numeric


class TestDistilBert(SpanContract):
    name = "distilbert"

    @pytest.mark.parametrize(("preset", "width"), [("micro", 64), ("mini", 192)])
    def test_a_presets_weights_start_at_a_scale_that_suits_its_width(
        self, setting: Setting, preset: str, width: int
    ) -> None:
        _, model = setting.build(checkpoint=preset)
        weight = model.distilbert.transformer.layer[0].attention.q_lin.weight
        assert weight.shape == (width, width)
        assert weight.std().item() == pytest.approx(width**-0.5, rel=0.05)

    def test_token_types_play_no_part(self, setting: Setting) -> None:
        batch = setting.batch()
        plain = self.logits(setting, batch)
        other = self.logits(setting, {**batch, "token_type_ids": 1 - batch["token_type_ids"]})
        assert torch.equal(plain[0], other[0])


def test_real_weights_give_the_logits_of_transformers_own_class(shared: Path) -> None:
    folder = shared / "models" / "minilm-l6-distilbert"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    family = DistilBert(ModelConfig(family="distilbert", checkpoint=str(folder), attention_dropout=0.125))
    model = family.build(tokenizer).eval()
    theirs = DistilBertForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()
    theirs.qa_outputs.load_state_dict(model.qa_outputs.state_dict())
    examples = [eight_questions().example(index) for index in (0, 4)]
    pairs = [(item.question, item.context) for item in examples]
    encoded = tokenizer(*zip(*pairs, strict=True), return_tensors="pt", padding=True)
    encoded.pop("token_type_ids", None)
    span_mask = encoded["attention_mask"].bool()
    with torch.no_grad():
        start_logits, end_logits = family.span_logits(model, {**encoded, "span_mask": span_mask})
        expected = theirs(**encoded)
    assert sum(item.numel() for item in model.parameters()) == 22_564_608 + 2 * 384 + 2
    logits = [item.masked_fill(~span_mask, MINIMUM) for item in (expected.start_logits, expected.end_logits)]
    assert_same_to_rounding((start_logits, end_logits), logits)
    assert (model.config.dropout, model.config.qa_dropout, model.config.attention_dropout) == (
        0.1,
        0.1,
        0.125,
    )


def test_distilbert_base_counts_66364418_parameters() -> None:
    with torch.device("meta"):
        model = DistilBert(ModelConfig(family="distilbert")).restore(DistilBertConfig().to_dict())
    assert sum(item.numel() for item in model.parameters()) == 66_364_418


def test_a_bert_folder_is_refused_not_converted(shared: Path) -> None:
    family = DistilBert(
        ModelConfig(family="distilbert", checkpoint=str(shared / "models" / "minilm-l6-bert"))
    )
    with pytest.raises(ConfigError, match=r"model\.checkpoint.*'bert'.*'distilbert'"):
        family.build(None)  # type: ignore[arg-type]


@pytest.mark.facts
def test_distilbert_base_counts_66364418_parameters_in_265457672_bytes() -> None:
    with torch.device("meta"):
        model = DistilBertForQuestionAnswering(DistilBertConfig())
    count = sum(item.numel() for item in model.parameters())
    assert (count, 4 * count) == (66_364_418, 265_457_672)
