"""The BiLSTM readers: the contract with every attention and kind of vectors, the study's models and their counts."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from qa_core.artifact import artifact
from qa_core.config import DataConfig, ModelConfig, RunConfig
from qa_core.errors import ConfigError
from qa_core.families.base import NOTHING, Found
from qa_core.families.lstm import Lstm
from qa_core.models.lstm_options import ATTENTIONS, STUDY_MODELS
from qa_core.models.position_reader import answered_span_loss
from qa_core.models.span_heads import span_loss
from qa_core.run import run
from qa_core.schema import as_json
from qa_core.values import from_dict
from tests.contracts.family import MINIMUM, Setting, SpanContract, fit

pytestmark = pytest.mark.numeric


class TestLstm(SpanContract):
    name = "lstm"
    has_attention_dropout = False
    checkpointing = False
    checkpoint: ClassVar[str] = "micro"
    reader_options: ClassVar[dict[str, Any]] = {}
    question_effect: ClassVar[float] = 1e-4  # of one other word, on a logit, before training

    @pytest.fixture(scope="class")
    def setting(self, tmp_path_factory: pytest.TempPathFactory) -> Setting:
        made = SpanContract.setting.__wrapped__(self, tmp_path_factory)  # type: ignore[attr-defined]
        model = ModelConfig(
            family="lstm", checkpoint=self.checkpoint, dropout=0.0, options=self.reader_options
        )
        return Setting(Lstm(model), made.tokenizer, made.table, made.windows)

    def test_a_missing_folder_is_refused_at_once_with_the_presets_named(self, setting: Setting) -> None:
        for checkpoint, nearest in (("./no/such/folder", ""), ("modell1", "did you mean 'model1'")):
            with pytest.raises(ConfigError, match=rf"trained from scratch.*'{checkpoint}'.*{nearest}.*micro"):
                Lstm(ModelConfig(family="lstm", checkpoint=checkpoint)).build(setting.tokenizer)

    def test_the_question_changes_the_logits_of_the_context(self, setting: Setting) -> None:
        batch = setting.alone(0)
        other = {**batch, "input_ids": batch["input_ids"].clone()}
        other["input_ids"][0, 1] = batch["input_ids"][0, 2]
        assert batch["token_type_ids"][0, 1] == 0
        difference = self.logits(setting, batch)[0] - self.logits(setting, other)[0]
        assert difference[batch["span_mask"]].abs().max() > self.question_effect

    def test_every_parameter_takes_part(self, setting: Setting) -> None:
        family, model = setting.build()
        family.loss(model.train(), setting.batch()).backward()
        idle = [name for name, item in model.named_parameters() if item.grad is None or not item.grad.any()]
        assert idle == []


class TestLstmWithoutAttention(TestLstm):
    """The question reaches the context through its mean alone; words in common are not marked."""

    reader_options: ClassVar[dict[str, Any]] = {"attention": "none", "exact_match": False}

    def test_the_options_reach_the_network(self, setting: Setting) -> None:
        _, model = setting.build()
        assert model.config.attention == "none"
        assert not model.config.exact_match


class TestLstmWithMultiHeadAttention(TestLstm):
    reader_options: ClassVar[dict[str, Any]] = {"attention": "multi_head"}


class TestLstmWithSelfAttention(TestLstm):
    reader_options: ClassVar[dict[str, Any]] = {"attention": "self"}


class TestLstmWithHashedVectors(TestLstm):
    reader_options: ClassVar[dict[str, Any]] = {"vectors": "hashed", "buckets": 2048}

    def test_words_that_share_letters_share_vectors(self, setting: Setting) -> None:
        _, model = setting.build()
        network: Any = model
        names = ["stand", "stands", "bell", "[PAD]", "[SEP]"]
        words = setting.tokenizer.convert_tokens_to_ids(names)
        assert setting.tokenizer.unk_token_id not in words
        grams = [set(network.embedding.grams[word].tolist()) - {2048} for word in words]
        assert [len(found) for found in grams] == [15, 19, 10, 0, 1]
        # <st <sta <stan <stand, sta stan stand, tan tand, and: what begins before the word's end mark
        assert len(grams[0] & grams[1]) == 10
        assert not network.embedding(torch.tensor([words[3]])).any()


class StudyContract(TestLstm):
    """What holds for the study's models too, in small sizes; memorising eight windows is all that learning means here.

    Two clauses are others. The three sizes of the pointer reader say nothing about these models; and their only
    dropout has a rate of its own. That an answer is found wherever it stands is no clause, and they could not keep it:
    what is learnt of one place says nothing of the next.
    """

    has_dropout = False
    has_blocks = False  # its states stand at fixed places
    question_effect = 1e-6  # Keras' first vectors are small
    width: ClassVar[int] = 16  # of words and of one direction's states
    switches: ClassVar[dict[str, bool]] = {}

    @pytest.fixture(scope="class")
    def setting(self, tmp_path_factory: pytest.TempPathFactory) -> Setting:
        sizes = {"embedding_size": self.width, "hidden_size": self.width, "positions": 40}
        type(self).reader_options = {**sizes, "question_positions": 12, "head_dropout": 0.0, **self.switches}
        return TestLstm.setting.__wrapped__(self, tmp_path_factory)  # type: ignore[attr-defined]

    def test_every_preset_builds_and_each_is_larger_than_the_last(self, setting: Setting) -> None:
        counts = []
        for hidden in (8, 16, 24):
            _, model = setting.build(options={**self.reader_options, "hidden_size": hidden})
            counts.append(sum(item.numel() for item in model.parameters()))
        assert counts == sorted(set(counts))

    def test_the_dropout_before_the_heads_acts_in_training_alone(self, setting: Setting) -> None:
        family, model = setting.build(options={**self.reader_options, "head_dropout": 0.5})
        plain, plain_model = setting.build()
        with torch.no_grad():
            expected = plain.loss(plain_model.eval(), setting.batch())
            torch.testing.assert_close(family.loss(model.eval(), setting.batch()), expected)
            assert (family.loss(model.train(), setting.batch()) - expected).abs() > 1e-4

    def test_the_loss_is_that_of_the_spans_and_half_the_penalty(self, setting: Setting) -> None:
        family, model = setting.build()
        network: Any = model
        batch = setting.batch()
        logits = family.logits(model, batch)
        loss = family.loss(model, batch, logits)
        assert torch.equal(family.loss(model, batch), loss)
        names = ["start_positions", "end_positions"]
        spans = span_loss if network.config.null_slot else answered_span_loss
        if spans is answered_span_loss:
            names.append("null_positions")
        penalty = network.kernel_penalty()
        assert (penalty is None) == (STUDY_MODELS[self.checkpoint].kernel_l2 == 0)
        expected = spans(*logits, **{name: batch[name] for name in names}) + (penalty or 0) / 2
        torch.testing.assert_close(loss, expected)
        assert penalty is None or penalty > 1e-3


class TestModel1(StudyContract):
    checkpoint = "model1"


class TestModel2(StudyContract):
    checkpoint = "model2"


class TestModel3(StudyContract):
    checkpoint = "model3"
    width = 48


class TestModel4(StudyContract):
    checkpoint = "model4"
    width = 48


class TestModel4AsCoded(StudyContract):
    """Question-blind, padding read, place 0 both the first word and "no answer", which nothing teaches it."""

    checkpoint = "model4"
    width = 48
    switches: ClassVar[dict[str, bool]] = {"mask_padding": False, "null_slot": False, "see_question": False}

    def test_the_question_changes_the_logits_of_the_context(self, setting: Setting) -> None:
        batch = setting.batch([0, 1])
        for logits in self.logits(setting, batch):
            is_context = batch["token_type_ids"].bool() & batch["span_mask"]
            torch.testing.assert_close(logits[0][is_context[0]], logits[1][is_context[1]])

    def test_it_can_learn_each_answer_and_no_answer(self, setting: Setting) -> None:
        """One answer for each of the two paragraphs is all that it can get right."""
        family, model = setting.build()
        batch = setting.batch()
        losses = fit(family, model, batch, steps=100)
        with torch.no_grad():
            logits = family.span_logits(model.eval(), batch)
        for one, gold in zip(logits, (batch["start_positions"], batch["end_positions"]), strict=True):
            assert (one.argmax(dim=1) == gold).sum() == 2
        # Six of eight windows have an answer, three for the same input: log 3 each is the least they can cost.
        assert 6 / 8 * math.log(3) < losses[-1] < 0.9

    def test_logits_are_float32_and_the_minimum_outside_the_span_mask_only(self, setting: Setting) -> None:
        """In one window; another question on the same paragraph gets the same logits."""
        for index in range(len(setting.windows)):
            batch = setting.alone(index)
            for logits in self.logits(setting, batch):
                assert torch.equal(logits == MINIMUM, ~batch["span_mask"])
                assert logits[batch["span_mask"]].unique().numel() > batch["span_mask"].sum() / 2

    def test_the_null_logits_are_those_of_the_first_word(self, setting: Setting) -> None:
        batch = setting.batch()
        first = batch["token_type_ids"].argmax(dim=1)
        for logits in self.logits(setting, batch):
            assert torch.equal(logits[:, 0], logits.gather(1, first[:, None])[:, 0])


# What the study's models weigh


VOCABULARY = {"model1": 94_577, "model2": 94_578, "model3": 94_578, "model4": 94_578}


def _on_meta(checkpoint: str, **options: Any) -> Any:
    tokens = SimpleNamespace(pad_token_id=0, unk_token_id=1)
    model = ModelConfig(family="lstm", checkpoint=checkpoint, options=options)
    with torch.device("meta"):
        return Lstm(model).build(_Sized(VOCABULARY[checkpoint], **vars(tokens)))  # type: ignore[arg-type]


class _Sized(SimpleNamespace):
    def __init__(self, size: int, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.size = size

    def __len__(self) -> int:
        return self.size


def _count(model: torch.nn.Module, *, trainable_only: bool = False) -> int:
    return sum(item.numel() for item in model.parameters() if item.requires_grad or not trainable_only)


COUNTS = [
    # checkpoint, options, all, trainable
    ("model1", {}, 499_227_000, 499_227_000),
    ("model2", {"train_vectors": False}, 51_218_344, 41_757_984 + 2_560),
    ("model3", {"train_vectors": False}, 36_378_296, 7_999_776 + 5_120),
    ("model4", {"train_vectors": False, "see_question": False}, 31_034_552, 2_658_080 + 3_072),
    ("model4", {"train_vectors": False}, 32_177_336, 3_798_816 + 5_120),
]


@pytest.mark.facts
@pytest.mark.parametrize(("checkpoint", "options", "parameters", "trainable"), COUNTS)
def test_a_studys_model_has_exactly_its_parameters(
    checkpoint: str, options: dict[str, Any], parameters: int, trainable: int
) -> None:
    model = _on_meta(checkpoint, **options)
    assert _count(model) == parameters
    assert _count(model, trainable_only=True) == trainable


@pytest.mark.facts
@pytest.mark.parametrize(
    ("checkpoint", "part", "keras", "second_biases"),
    [
        ("model1", "embedding", 94_577_000, 0),
        ("model1", "context_reader", 1_921_600, 1_600),
        ("model1", "question_reader", 1_921_600, 1_600),
        ("model1", "fusion", 800_800, 800),
        ("model1", "start", 200_001_000, 0),
        ("model1", "end", 200_001_000, 0),
        ("model3", "attention", 4_200_960, 0),
        ("model4", "question_reader", 32_172_216 - 31_031_480, 2_048),
    ],
)
def test_a_part_has_the_studys_parameters_and_a_second_bias_for_each_gate(
    checkpoint: str, part: str, keras: int, second_biases: int
) -> None:
    assert _count(getattr(_on_meta(checkpoint), part)) == keras + second_biases


@pytest.mark.facts
def test_the_studys_models_differ_in_attention_pooling_dropout_and_penalty() -> None:
    names = ("attention", "pooling", "kernel_l2", "head_dropout")
    assert {name: tuple(getattr(item, key) for key in names) for name, item in STUDY_MODELS.items()} == {
        "model1": ("dot", "flatten", 0.0, 0.3),
        "model2": ("dot", "flatten", 1e-4, 0.4),
        "model3": ("multi_head", "max", 1e-4, 0.5),
        "model4": ("self", "max", 1e-4, 0.5),
    }
    sizes = ("hidden_size", "positions", "question_positions")
    assert {name: tuple(Lstm.presets[name][key] for key in sizes) for name in STUDY_MODELS} == {
        "model1": (200, 1000, 200),
        "model2": (128, 400, 50),
        "model3": (256, 400, 50),
        "model4": (256, 400, 50),
    }


# Options


def test_an_unknown_attention_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"model\.options\.attention.*'dott'.*none.*'dot'"):
        Lstm(ModelConfig(family="lstm", options={"attention": "dott"}))
    assert ATTENTIONS == ("dot", "multi_head", "none", "self")


@pytest.mark.parametrize(
    ("checkpoint", "option", "value", "message"),
    [
        ("tiny", "positions", 64, r"positions: found 64, which changes nothing.*only with model1 to model4"),
        ("tiny", "null_slot", False, r"null_slot: found False, which changes nothing"),
        (
            "model1",
            "attention",
            "dot",
            r"attention: found 'dot', which changes nothing.*micro, tiny and mini",
        ),
        ("model1", "exact_match", True, r"exact_match: found True"),
        ("model3", "see_question", False, r"see_question: found False.*only with model4"),
        ("tiny", "buckets", 100, r"buckets: found 100.*vectors 'random'.*only with vectors: hashed"),
        ("tiny", "hidden_size", 0, r"hidden_size: found 0; allowed: 1 or more, or null"),
        ("model2", "head_dropout", 1.0, r"head_dropout: found 1\.0; allowed: 0 <= share < 1"),
    ],
)
def test_an_option_that_cannot_act_or_is_out_of_range_is_refused(
    checkpoint: str, option: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"model\.options\.{message}"):
        Lstm(ModelConfig(family="lstm", checkpoint=checkpoint, options={option: value}))


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"positions": 100}, {"max_length": 103}, r"max_length: found 103; allowed: at most 102"),
        ({"positions": 100, "null_slot": False}, {"max_length": 104}, r"max_length: found 104.*at most 103"),
        ({"mask_padding": False}, {"max_question_length": 51}, r"max_question_length: found 51.*at most 50"),
    ],
)
def test_windows_that_may_hold_more_words_than_places_are_refused_before_they_are_made(
    options: dict[str, Any], data: dict[str, int], message: str, tmp_path: Path
) -> None:
    family = Lstm(ModelConfig(family="lstm", checkpoint="model2", options=options))
    settings = {"max_length": 102, "stride": 8, "max_question_length": 50}
    assert family.prepare(None, DataConfig(**settings), cache_dir=tmp_path) == NOTHING  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"data\.{message}"):
        family.prepare(None, DataConfig(**{**settings, **data}), cache_dir=tmp_path)  # type: ignore[arg-type]


# Vectors from a file, and whole trials


def _vectors(folder: Path, words: list[str], *, size: int = 6) -> Path:
    lines = [
        " ".join([word, *(str((index + 1) / (place + 2)) for place in range(size))])
        for index, word in enumerate(words)
    ]
    path = folder / "vectors.txt"
    path.write_text("\n".join([*lines, ""]))
    return path


def _with_vectors(setting: Setting, path: Path, folder: Path, **options: Any) -> tuple[Any, Found]:
    values = {"vectors": str(path), **options}
    family = Lstm(ModelConfig(family="lstm", checkpoint="micro", dropout=0.0, options=values))
    return family, family.prepare(setting.tokenizer, DataConfig(), cache_dir=folder)


class TestVectorsFromAFile:
    name = "lstm"
    head = "span"
    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(scope="class")
    def setting(self, tmp_path_factory: pytest.TempPathFactory) -> Setting:
        return SpanContract.setting.__wrapped__(self, tmp_path_factory)  # type: ignore[attr-defined]

    def test_found_words_have_the_files_numbers_and_the_missing_ones_are_counted(
        self, setting: Setting, tmp_path: Path
    ) -> None:
        path = _vectors(tmp_path, ["organ", "zebra", "[UNK]", "bell"])
        family, found = _with_vectors(setting, path, tmp_path)
        facts = found.facts["vectors"]
        vocabulary = len(setting.tokenizer) - 4
        assert facts == {
            "file": "vectors.txt",
            "sha256": facts["sha256"],
            "file_words": 4,
            "size": 6,
            "vocabulary_words": vocabulary,
            "found_words": 2,
            "missing_words": vocabulary - 2,
        }
        torch.manual_seed(0)
        table = family.build(setting.tokenizer, found).embedding.weight
        organ, bell, unknown = setting.tokenizer.convert_tokens_to_ids(["organ", "bell", "[UNK]"])
        torch.testing.assert_close(table[organ], 1 / torch.arange(2.0, 8.0))
        torch.testing.assert_close(table[bell], 4 / torch.arange(2.0, 8.0))
        assert not torch.allclose(table[unknown], 3 / torch.arange(2.0, 8.0))
        assert not table[setting.tokenizer.pad_token_id].any()
        others = [place for place in range(4, len(table)) if place not in (organ, bell)]
        spread = torch.stack([table[organ], table[bell]]).std()
        assert table[others].std() == pytest.approx(float(spread), rel=0.1)

    def test_they_are_frozen_unless_the_recipe_says_so(self, setting: Setting, tmp_path: Path) -> None:
        path = _vectors(tmp_path, ["organ", "bell"])
        batch = setting.batch()
        for train_vectors in (None, False, True):
            options = {} if train_vectors is None else {"train_vectors": train_vectors}
            family, found = _with_vectors(setting, path, tmp_path, **options)
            model = family.build(setting.tokenizer, found)
            before = model.embedding.weight.detach().clone()
            fit(family, model, batch, steps=2)
            assert torch.equal(model.embedding.weight, before) == (not train_vectors)

    def test_its_size_may_be_repeated_but_not_contradicted(self, setting: Setting, tmp_path: Path) -> None:
        path = _vectors(tmp_path, ["organ"])
        _with_vectors(setting, path, tmp_path, embedding_size=6)
        with pytest.raises(
            ConfigError, match=r"embedding_size: found 7; allowed: 6, the size of the vectors"
        ):
            _with_vectors(setting, path, tmp_path, embedding_size=7)

    def test_a_missing_file_is_refused_with_what_is_allowed(self, setting: Setting, tmp_path: Path) -> None:
        with pytest.raises(
            ConfigError, match=r"vectors: found 'hashd'.*did you mean 'hashed'.*GloVe or fastText"
        ):
            _with_vectors(setting, Path("hashd"), tmp_path)

    def test_real_vectors_are_found_for_frequent_words(
        self, setting: Setting, shared: Path, tmp_path: Path
    ) -> None:
        path = shared / "data" / "vectors" / "glove-300d-600-words.txt.gz"
        family, found = _with_vectors(setting, path, tmp_path)
        facts = found.facts["vectors"]
        assert facts["file_words"] == 600
        assert facts["size"] == 300
        assert 0 < facts["found_words"] < facts["vocabulary_words"]
        table = family.build(setting.tokenizer, found).embedding.weight
        (the,) = setting.tokenizer.convert_tokens_to_ids(["the"])
        assert table.shape == (len(setting.tokenizer), 300)
        assert float(table[the].norm()) > 1


def _recipe(small_squad: Path, model: dict[str, Any], *, train: dict[str, Any] | None = None) -> RunConfig:
    values = {
        "model": {"family": "lstm", "vocab_size": 300, **model},
        "data": {
            "train": str(small_squad),
            "evaluation": str(small_squad),
            "max_length": 64,
            "stride": 8,
            "max_question_length": 24,
        },
        "train": {
            "budget_examples": 96,
            "batch_size": 16,
            "learning_rate": 3e-3,
            "precision": "float32",
            **(train or {}),
        },
        "evaluation": {"precision": "float32", "latency_runs": 2},
        "seed": 5,
    }
    return from_dict(RunConfig, values)


SMALL = {"embedding_size": 12, "hidden_size": 8, "positions": 64}


@pytest.mark.parametrize(
    "model",
    [
        {"checkpoint": "model1", "options": SMALL},
        {"checkpoint": "model3", "options": {**SMALL, "vectors": "hashed", "buckets": 500}},
        {"checkpoint": "micro", "options": {"attention": "self", "vectors": "hashed"}},
        {"checkpoint": "micro", "options": {"attention": "multi_head"}},
    ],
    ids=["model1", "model3-hashed", "self-hashed", "multi-head"],
)
def test_a_trial_measures_the_memory_that_was_predicted_and_logs_index_accuracy_for_the_studys_models_alone(
    model: dict[str, Any], small_squad: Path, cache_dir: Path, tmp_path: Path
) -> None:
    config = _recipe(small_squad, model)
    result = run(config, lambda report: None, folder=tmp_path / "t", cache_dir=cache_dir)
    cost, quality = result.cost, as_json(result.quality)
    assert cost.inference_peak_bytes == cost.predicted_inference_peak_bytes == cost.form_inference_peak_bytes
    json.dumps(quality, allow_nan=False)
    names = ("index_accuracy_percent", "index_accuracy_constant_0_percent")
    if model["checkpoint"] == "micro":
        assert [quality[name] for name in names] == [None, None]
        return
    assert 0 <= quality["index_accuracy_percent"] <= 100
    # 12 of 60 questions have no answer, and no answer begins or ends with the first word.
    assert quality["index_accuracy_constant_0_percent"] == pytest.approx(20.0)


def test_an_artifact_loads_without_the_file_that_its_vectors_came_from(
    small_squad: Path, cache_dir: Path, tmp_path: Path
) -> None:
    path = _vectors(tmp_path, ["door", "built"])
    config = _recipe(small_squad, {"checkpoint": "micro", "options": {"vectors": str(path)}})
    result = run(config, lambda report: None, folder=tmp_path / "t", cache_dir=cache_dir)
    assert result.data["vectors"]["found_words"] == 2
    assert result.cost.trainable_parameters < result.cost.parameters
    path.unlink()
    loaded: Any = artifact.load(Path(result.artifact))
    (door,) = loaded.tokenizer.convert_tokens_to_ids(["door"])
    torch.testing.assert_close(loaded.model.embedding.weight[door], 1 / torch.arange(2.0, 8.0))


def test_a_recipe_that_starts_from_an_artifact_of_the_studys_models_goes_on_with_it(
    small_squad: Path, cache_dir: Path, tmp_path: Path
) -> None:
    first = run(
        _recipe(small_squad, {"checkpoint": "model2", "options": SMALL}),
        lambda report: None,
        folder=tmp_path / "a",
        cache_dir=cache_dir,
    )
    again = run(
        _recipe(small_squad, {"checkpoint": first.artifact}, train={"budget_examples": 0}),
        lambda report: None,
        folder=tmp_path / "b",
        cache_dir=cache_dir,
    )
    assert again.quality == first.quality
    assert again.quality.index_accuracy_percent is not None
    assert again.cost.inference_peak_bytes == first.cost.inference_peak_bytes
