"""The BiLSTM reader: the contract, its options, and that it is trained from scratch only."""

import pytest
import torch

from qa_core.config import ModelConfig
from qa_core.errors import ConfigError
from qa_core.families.lstm import Lstm
from tests.contracts.family import Setting, SpanContract


class TestLstm(SpanContract):
    name = "lstm"
    has_attention_dropout = False
    checkpointing = False

    def test_a_missing_folder_is_refused_at_once_with_the_presets_named(self, setting: Setting) -> None:
        with pytest.raises(ConfigError, match=r"trained from scratch.*'\./no/such/folder'.*micro"):
            Lstm(ModelConfig(family="lstm", checkpoint="./no/such/folder"))

    def test_the_question_changes_the_logits_of_the_context(self, setting: Setting) -> None:
        batch = setting.alone(0)
        other = {**batch, "input_ids": batch["input_ids"].clone()}
        other["input_ids"][0, 1] = batch["input_ids"][0, 2]
        assert batch["token_type_ids"][0, 1] == 0
        assert not torch.allclose(self.logits(setting, batch)[0], self.logits(setting, other)[0], atol=1e-4)


class TestLstmWithoutAttention(TestLstm):
    """The question reaches the context through its mean alone; words in common are not marked."""

    @pytest.fixture(scope="class")
    def setting(self, tmp_path_factory: pytest.TempPathFactory) -> object:
        made = SpanContract.setting.__wrapped__(self, tmp_path_factory)  # type: ignore[attr-defined]
        options = {"attention": "none", "exact_match": False}
        family = Lstm(ModelConfig(family="lstm", checkpoint="micro", dropout=0.0, options=options))
        return Setting(family, made.tokenizer, made.table, made.windows)

    def test_the_options_reach_the_network(self, setting: Setting) -> None:
        _, model = setting.build()
        assert not model.config.attention
        assert not model.config.exact_match


def test_an_unknown_attention_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"model\.options\.attention.*'dott'.*'dot'.*none"):
        Lstm(ModelConfig(family="lstm", options={"attention": "dott"}))
