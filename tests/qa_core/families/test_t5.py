"""T5: the contract for both heads, a pretrained folder, generation against a plain loop, full-size count."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from qa_core.config import ModelConfig, RunConfig
from qa_core.errors import ConfigError
from qa_core.families.base import Family
from qa_core.families.t5 import T5
from qa_core.memory.protocol import weights_bytes
from qa_core.values import from_dict
from tests.contracts.family import GenerateContract, Setting, SpanContract, fit

pytestmark = pytest.mark.numeric

SIZES: dict[str, Any] = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2}


class TestT5Span(SpanContract):
    name = "t5"


class TestT5Generate(GenerateContract):
    name = "t5"
    null_text = "unanswerable"

    def test_the_answer_and_its_score_equal_those_of_a_token_by_token_loop(
        self, setting: Setting, trained: tuple[Family, torch.nn.Module]
    ) -> None:
        family, model = trained
        for index in (0, 3, 6):
            batch = setting.alone(index)
            answer = family.generate(model, batch, setting.tokenizer, max_new_tokens=20)[0]
            written, total = [model.config.decoder_start_token_id], 0.0
            while written[-1] != setting.tokenizer.eos_token_id and len(written) <= 20:
                with torch.no_grad():
                    logits = model(
                        input_ids=batch["input_ids"], decoder_input_ids=torch.tensor([written])
                    ).logits[0, -1]
                written.append(int(logits.argmax()))
                total += float(logits.log_softmax(dim=-1)[written[-1]])
            text = setting.tokenizer.decode(written, skip_special_tokens=True).strip()
            assert answer.text == ("" if text == self.null_text else text)
            assert answer.log_probability == pytest.approx(total, abs=1e-4)
            null_ids = setting.tokenizer(self.null_text, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                targets = torch.tensor([[*null_ids, setting.tokenizer.eos_token_id]])
                logits = model(input_ids=batch["input_ids"], labels=targets).logits[0]
            chances = logits.log_softmax(dim=-1).gather(1, targets[0][:, None])
            assert answer.null_log_probability == pytest.approx(float(chances.sum()), abs=1e-4)


def _checkpoint(folder: Path, tokens: int, **settings: Any) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=tokens, decoder_start_token_id=0, **SIZES, **settings)
    )
    model.save_pretrained(folder)
    return model


def test_presets_read_spans_and_checkpoints_write() -> None:
    assert T5(ModelConfig(family="t5", checkpoint="tiny")).head == "span"
    assert T5(ModelConfig(family="t5", checkpoint="google-t5/t5-base")).head == "generate"
    assert T5(ModelConfig(family="t5", checkpoint="google-t5/t5-base", head="span")).head == "span"


class TestT5Checkpoint:
    """A folder of weights, gated as v1.1 or plain, behind both heads."""

    @pytest.fixture(scope="class")
    def setting(self, tmp_path_factory: pytest.TempPathFactory) -> Any:
        return SpanContract.setting.__wrapped__(TestT5Generate(), tmp_path_factory)  # type: ignore[attr-defined]

    @pytest.mark.parametrize("projection", ["relu", "gated-gelu"])
    def test_generate_gives_the_logits_and_loss_of_transformers_own_class(
        self, setting: Setting, tmp_path: Path, projection: str
    ) -> None:
        theirs = _checkpoint(tmp_path, len(setting.tokenizer), feed_forward_proj=projection).eval()
        family, model = setting.build(checkpoint=str(tmp_path), dropout=0.25, attention_dropout=0.125)
        batch = setting.alone(2)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            expected = theirs(**inputs, labels=batch["target_ids"]).loss
            torch.testing.assert_close(family.loss(model.eval(), batch), expected)
        assert "pretrained" in family.traits
        assert model.config.dropout_rate == 0.25
        attention = model.encoder.block[0].layer[0].SelfAttention
        assert attention.dropout == 0.125
        linear = family.adapter_targets(model)["all_linear"]
        assert ("wi_0" in linear) == (projection == "gated-gelu")
        names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        assert set(linear) <= names

    def test_the_span_head_reads_the_states_of_the_checkpoints_encoder(
        self, setting: Setting, tmp_path: Path
    ) -> None:
        theirs = _checkpoint(tmp_path, len(setting.tokenizer)).eval()
        family, model = setting.build(checkpoint=str(tmp_path), head="span")
        batch = setting.batch()
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            states = theirs.get_encoder()(**inputs).last_hidden_state
            logits = model.qa_outputs.outputs(states)
            start_logits, end_logits = family.span_logits(model.eval(), batch)
        mask = batch["span_mask"]
        torch.testing.assert_close(start_logits[mask], logits[..., 0][mask])
        torch.testing.assert_close(end_logits[mask], logits[..., 1][mask])

    def test_version_1_1_keeps_its_unscaled_outputs_through_an_artifact(
        self, setting: Setting, tmp_path: Path
    ) -> None:
        _checkpoint(tmp_path, len(setting.tokenizer), tie_word_embeddings=False)
        family, model = setting.build(checkpoint=str(tmp_path))
        assert model.config.scale_decoder_outputs is False
        assert family.restore(family.architecture(model)).config.scale_decoder_outputs is False


def _on_meta(**sizes: int) -> T5ForConditionalGeneration:
    with torch.device("meta"):
        return T5(ModelConfig(family="t5", head="generate")).restore(T5Config(**sizes).to_dict())  # type: ignore


def _count(module: torch.nn.Module) -> int:
    return sum(item.numel() for item in module.parameters())


@pytest.mark.facts
def test_t5_base_counts_222903552_parameters_and_its_parts() -> None:
    model = _on_meta(d_model=768, d_ff=3072, num_layers=12, num_heads=12)
    assert _count(model) == 222_903_552
    assert _count(model.shared) == 24_674_304
    linear = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    assert len(linear) == 192
    assert sum(map(_count, linear)) == 198_180_864
    assert 222_903_552 - 24_674_304 - 198_180_864 == 48_384  # norms and position biases
    assert round(weights_bytes(model) / 2**20, 2) == 850.31


@pytest.mark.facts
def test_t5_small_counts_60506624_parameters() -> None:
    assert _count(_on_meta(d_model=512, d_ff=2048, num_layers=6, num_heads=8)) == 60_506_624


@pytest.mark.parametrize("section", ["train", "evaluation"])
def test_float16_is_refused_by_name(section: str) -> None:
    """T5's activations overflow it; bfloat16 has float32's range."""
    values = {"model": {"family": "t5"}, section: {"precision": "float16"}}
    with pytest.raises(
        ConfigError, match=rf"{section}\.precision: found 'float16'; allowed: auto, float32, bfloat16"
    ):
        from_dict(RunConfig, values)


class TestT5Scoring:
    """Answers are scored as they are generated: what the gold answer is cannot help."""

    @pytest.fixture(scope="class")
    def setting(self, tmp_path_factory: pytest.TempPathFactory) -> Any:
        return SpanContract.setting.__wrapped__(TestT5Generate(), tmp_path_factory)  # type: ignore[attr-defined]

    def test_targets_have_no_part_in_an_answer(self, setting: Setting) -> None:
        family, model = setting.build(seed=2)
        fit(family, model, setting.batch(), steps=5)
        model.eval()
        batch = setting.batch()
        other = {**batch, "target_ids": batch["target_ids"].flip(0)}
        without = {name: item for name, item in batch.items() if name != "target_ids"}
        answers = [
            family.generate(model, item, setting.tokenizer, max_new_tokens=12)
            for item in (batch, other, without)
        ]
        assert answers[0] == answers[1] == answers[2]
