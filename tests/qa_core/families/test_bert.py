"""BERT: the contract, transformers' own class on real weights, full-size counts, refusals."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForQuestionAnswering

from qa_core.config import ModelConfig
from qa_core.errors import ConfigError
from qa_core.families.bert import Bert
from tests.contracts.family import MINIMUM, Setting, SpanContract, eight_questions
from tests.contracts.rounding import assert_same_to_rounding

pytestmark = pytest.mark.numeric


class TestBert(SpanContract):
    name = "bert"

    @pytest.mark.parametrize(("preset", "width"), [("micro", 64), ("mini", 192)])
    def test_a_presets_weights_start_at_a_scale_that_suits_its_width(
        self, setting: Setting, preset: str, width: int
    ) -> None:
        _, model = setting.build(checkpoint=preset)
        weight = model.bert.encoder.layer[0].attention.self.query.weight
        assert weight.shape == (width, width)
        assert weight.std().item() == pytest.approx(width**-0.5, rel=0.05)


class TestBertWithTheLanguageModelsHead(SpanContract):
    name = "bert"
    options = {"span_head": "lm_rows"}

    def test_the_head_holds_the_transform_and_two_rows_and_is_no_head_to_train(
        self, setting: Setting
    ) -> None:
        family, model = setting.build()
        assert family.head_modules == ()
        assert {name: tuple(item.shape) for name, item in model.qa_outputs.named_parameters()} == {
            "transform.dense.weight": (64, 64),
            "transform.dense.bias": (64,),
            "transform.LayerNorm.weight": (64,),
            "transform.LayerNorm.bias": (64,),
            "rows.weight": (2, 64),
            "rows.bias": (2,),
        }
        assert model.qa_outputs.rows.weight.std().item() == pytest.approx(64**-0.5, rel=0.2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random small BERT, 100 tokens and 32 positions."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=100, max_position_embeddings=32, **sizes)
    BertForQuestionAnswering(config).save_pretrained(folder)
    return folder


class _Tokens:
    pad_token_id = 0

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def _build(checkpoint: Path, tokens: int = 100) -> torch.nn.Module:
    family = Bert(ModelConfig(family="bert", checkpoint=str(checkpoint)))
    return family.build(_Tokens(tokens))  # type: ignore[arg-type]


def test_real_weights_give_the_logits_of_transformers_own_class(shared: Path) -> None:
    folder = shared / "models" / "minilm-l6-bert"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    family = Bert(ModelConfig(family="bert", checkpoint=str(folder), dropout=0.0))
    model = family.build(tokenizer).eval()
    theirs = BertForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()
    theirs.qa_outputs.load_state_dict(model.qa_outputs.state_dict())
    examples = [eight_questions().example(index) for index in (0, 4)]
    pairs = [(item.question, item.context) for item in examples]
    encoded = tokenizer(*zip(*pairs, strict=True), return_tensors="pt", padding=True)
    span_mask = encoded["token_type_ids"].bool()
    span_mask[:, 0] = True
    assert encoded["attention_mask"].sum(dim=1).unique().numel() == 2
    with torch.no_grad():
        start_logits, end_logits = family.span_logits(model, {**encoded, "span_mask": span_mask})
        expected = theirs(**encoded)
    assert sum(item.numel() for item in model.parameters()) == 22_565_376 + 2 * 384 + 2
    logits = [item.masked_fill(~span_mask, MINIMUM) for item in (expected.start_logits, expected.end_logits)]
    assert_same_to_rounding((start_logits, end_logits), logits)


class _Words(_Tokens):
    unk_token_id = 1

    def __init__(self, words: dict[str, int]) -> None:
        super().__init__(100)
        self.words = words

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.words.get(token, self.unk_token_id)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random small masked language model whose decoder has a bias of its own."""
    folder = tmp_path_factory.mktemp("mlm")
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    model = BertForMaskedLM(BertConfig(vocab_size=100, max_position_embeddings=32, **sizes))
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
    model.save_pretrained(folder)
    return folder


def _language_model_reader(folder: Path, words: dict[str, int]) -> tuple[Bert, torch.nn.Module]:
    family = Bert(ModelConfig(family="bert", checkpoint=str(folder), options={"span_head": "lm_rows"}))
    return family, family.build(_Words(words))  # type: ignore[arg-type]


def test_the_language_models_rows_of_yes_and_no_are_the_start_and_end_logits(language_model: Path) -> None:
    family, model = _language_model_reader(language_model, {"yes": 37, "no": 12})
    theirs = BertForMaskedLM.from_pretrained(language_model, dtype=torch.float32).eval()
    ids = torch.randint(2, 100, (3, 20), generator=torch.Generator().manual_seed(0))
    types = (torch.arange(20) > 7).long().expand(3, 20)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": types}
    with torch.no_grad():
        expected = theirs(**inputs).logits
        start, end = family.span_logits(model.eval(), {**inputs, "span_mask": torch.ones(3, 20).bool()})
    torch.testing.assert_close(start, expected[..., 37])
    torch.testing.assert_close(end, expected[..., 12])
    assert not torch.allclose(start, end)
    assert not any(item.is_meta for item in model.state_dict().values())
    body = sum(item.numel() for item in theirs.bert.parameters())
    assert sum(item.numel() for item in model.parameters()) == body + 16 * 16 + 3 * 16 + 2 * 16 + 2


def test_a_checkpoint_without_the_language_models_head_is_refused_by_name(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"lacks \d+ weights of BertForMaskedLM.*'cls\.predictions"):
        _language_model_reader(checkpoint, {"yes": 37, "no": 12})


def test_a_tokenizer_without_the_two_words_is_refused(language_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.options\.span_head.*'no'"):
        _language_model_reader(language_model, {"yes": 37})


def test_an_unknown_span_head_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.options\.span_head.*'lm_rows'"):
        Bert(ModelConfig(family="bert", options={"span_head": "lm_row"}))


def test_bert_base_counts_108893186_parameters() -> None:
    with torch.device("meta"):
        model = Bert(ModelConfig(family="bert")).restore(BertConfig().to_dict())
    assert sum(item.numel() for item in model.parameters()) == 108_893_186


def test_a_checkpoint_is_pretrained_and_its_dropout_is_the_recipes(checkpoint: Path) -> None:
    settings = ModelConfig(family="bert", checkpoint=str(checkpoint), dropout=0.25, attention_dropout=0.125)
    family = Bert(settings)
    assert "pretrained" in family.traits
    config = family.build(_Tokens(100)).config  # type: ignore[arg-type]
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.25, 0.125)


def test_a_checkpoint_of_a_classifier_still_gets_two_outputs(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    weights = load_file(checkpoint / "model.safetensors")
    body = {name: item for name, item in weights.items() if not name.startswith("qa_outputs")}
    save_file(body, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    labels = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    (tmp_path / "config.json").write_text(json.dumps({**config, **labels}))
    assert _build(tmp_path).qa_outputs.out_features == 2


def test_an_architecture_holds_no_path_of_the_machine(checkpoint: Path) -> None:
    family = Bert(ModelConfig(family="bert", checkpoint=str(checkpoint)))
    architecture = family.architecture(family.build(_Tokens(100)))  # type: ignore[arg-type]
    assert str(checkpoint) not in json.dumps(architecture)


def test_a_checkpoint_of_another_type_is_refused_not_converted(shared: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.checkpoint.*'distilbert'.*'bert'.*micro"):
        _build(shared / "models" / "minilm-l6-distilbert", tokens=30522)


def test_a_misspelt_preset_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"'tinny'.*did you mean 'tiny'.*micro, tiny, mini"):
        _build(Path("tinny"))


def test_pickled_weights_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint / "config.json", tmp_path)
    torch.save(
        BertForQuestionAnswering.from_pretrained(checkpoint).state_dict(), tmp_path / "pytorch_model.bin"
    )
    with pytest.raises(ConfigError, match=r"model\.checkpoint.*safetensors"):
        _build(tmp_path)


def test_weights_that_lack_a_layer_are_refused_with_its_name(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(ConfigError, match=r"lacks 16 weights.*encoder\.layer\.1"):
        _build(tmp_path)


def test_weights_of_another_size_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 28}))
    with pytest.raises(ConfigError, match=r"model\.checkpoint.*cannot be read"):
        _build(tmp_path)


def test_broken_weights_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}")
    with pytest.raises(ConfigError, match=r"model\.checkpoint.*cannot be read"):
        _build(tmp_path)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.tokenizer: it has 101 tokens.*100"):
        _build(checkpoint, tokens=101)


def test_a_window_longer_than_the_positions_is_refused(checkpoint: Path) -> None:
    family = Bert(ModelConfig(family="bert", checkpoint=str(checkpoint)))
    model = family.build(_Tokens(100))  # type: ignore[arg-type]
    ones = torch.ones(1, 33, dtype=torch.long)
    batch = {"input_ids": ones, "attention_mask": ones, "token_type_ids": ones, "span_mask": ones.bool()}
    with pytest.raises(ConfigError, match=r"data\.max_length.*33.*32"):
        family.span_logits(model, batch)


def test_a_tokenizer_without_cls_is_refused_by_name() -> None:
    class Bytes:
        sep_token_id = cls_token_id = None
        special_tokens_map = {"eos_token": "<|endoftext|>"}

    with pytest.raises(ConfigError, match=r"'bert' needs a sep token.*eos_token"):
        Bert(ModelConfig(family="bert")).layout(Bytes())  # type: ignore[arg-type]


@pytest.mark.facts
def test_bert_base_counts_108893186_parameters_and_its_parts() -> None:
    with torch.device("meta"):
        model = BertForQuestionAnswering(BertConfig())
    counts = {name: sum(item.numel() for item in part.parameters()) for name, part in _parts(model).items()}
    assert counts == {
        "all": 108_893_186,
        "encoder": 85_054_464,
        "embeddings": 23_837_184,
        "head": 1_538,
    }
    assert 4 * counts["all"] == 435_572_744  # bytes in float32


@pytest.mark.facts
@pytest.mark.parametrize(("kind", "expected"), [("BertModel", 109_482_240), ("BertForMaskedLM", 109_514_298)])
def test_bert_base_with_its_pooler_or_its_language_model_head_has_the_published_count(kind, expected) -> None:
    with torch.device("meta"):
        model = getattr(transformers, kind)(BertConfig())
    assert sum(item.numel() for item in model.parameters()) == expected


def _parts(model: BertForQuestionAnswering) -> dict[str, torch.nn.Module]:
    bert = model.bert
    return {"all": model, "encoder": bert.encoder, "embeddings": bert.embeddings, "head": model.qa_outputs}
