"""The semantic score: rules for nothing, masking, batching, and what a real encoder thinks near."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5Model

from qa_core.errors import ConfigError
from qa_core.scoring.semantic import SentenceEncoder, load_encoder, semantic_scores

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
ROUNDING = 1e-5  # of a cosine in float32, whose sums another batch or kernel takes in another order
WORDS = ["[PAD]", "[UNK]", "red", "green", "clay", "the", "lamp", "tower"]


def save_tokenizer(folder: Path) -> None:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder
    )


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of one layer with a tokenizer of eight words and 6 positions."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=6,
    )
    BertModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> SentenceEncoder:
    return load_encoder(str(tiny_folder), setting="--semantic", device=CPU)


def test_nothing_against_nothing_is_one_and_against_text_zero(tiny):
    answers = ["", "the!", "", "red", "red", ""]
    golds = [[], ["the"], ["red"], [], ["a"], ["the", "red"]]
    assert semantic_scores(answers, golds, tiny).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_a_text_against_itself_is_one_and_the_nearest_gold_counts(tiny):
    golds = [["green tower", "red clay"], ["green tower"], ["red clay"], ["the", "red clay"]]
    both, first, second, dropped = semantic_scores(["red clay"] * 4, golds, tiny)
    assert [both, second, dropped] == pytest.approx([1.0] * 3, abs=ROUNDING)
    assert first < 0.999


def test_the_score_is_the_cosine_of_means_over_the_texts_own_tokens(tiny):
    """Computed text by text without padding, from the network's hidden states."""
    answers, golds = ["red", "green lamp tower"], [["clay lamp the tower red"], ["clay"]]

    def mean(text: str) -> torch.Tensor:
        ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
        with torch.no_grad():
            return tiny.model(input_ids=ids).last_hidden_state[0].mean(0)

    expected = [
        float(torch.cosine_similarity(mean(answer), mean(texts[0]), dim=0))
        for answer, texts in zip(answers, golds, strict=True)
    ]
    np.testing.assert_allclose(semantic_scores(answers, golds, tiny), expected, rtol=0, atol=ROUNDING)


def test_batches_and_order_change_no_score(tiny):
    answers = ["red", "green lamp tower", "clay lamp", "", "the tower red green"]
    golds = [["clay lamp the tower red"], ["clay"], ["lamp clay", "red"], ["red"], ["tower"]]
    together = semantic_scores(answers, golds, tiny)
    np.testing.assert_allclose(
        semantic_scores(answers, golds, tiny, batch_texts=1), together, rtol=0, atol=ROUNDING
    )
    turned = semantic_scores(answers[::-1], golds[::-1], tiny)[::-1]
    np.testing.assert_allclose(turned, together, rtol=0, atol=ROUNDING)
    assert len(set(together.round(6).tolist())) == 5


def test_texts_beyond_the_encoders_positions_are_cut(tiny):
    assert tiny.max_tokens == 6
    long, longer = "red green clay lamp red tower", "red green clay lamp red tower green"
    assert semantic_scores([long], [[longer]], tiny)[0] == pytest.approx(1.0, abs=ROUNDING)


def test_the_encoder_is_in_evaluation_mode_and_draws_no_random_number(tiny):
    assert not tiny.model.training
    state = torch.random.get_rng_state()
    semantic_scores(["red"], [["green"]], tiny)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_of_an_encoder_with_a_decoder_the_encoder_is_taken(tmp_path):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    T5Model(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    encoder = load_encoder(str(tmp_path), setting="--semantic", device=CPU)
    scores = semantic_scores(["red clay", "red clay"], [["red clay"], ["tower"]], encoder)
    assert scores[0] == pytest.approx(1.0, abs=ROUNDING)
    assert scores[1] < 0.999


def test_half_precision_weights_are_computed_in_float32(tiny_folder, tmp_path):
    BertModel.from_pretrained(tiny_folder, dtype=torch.float16).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    encoder = load_encoder(str(tmp_path), setting="--semantic", device=CPU)
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.float32}


def test_what_is_no_encoder_is_refused_with_the_setting(tiny_folder, tmp_path):
    with pytest.raises(ConfigError, match=r"--semantic: found '/nowhere/x'.*no such file or folder"):
        load_encoder("/nowhere/x", setting="--semantic", device=CPU)
    save_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match=r"--semantic: found .*cannot be loaded.*allowed: a folder"):
        load_encoder(str(tmp_path), setting="--semantic", device=CPU)
    (tmp_path / "config.json").write_text((tiny_folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(ConfigError, match=r"--semantic: found .*lacks \d+ weights \(embeddings"):
        load_encoder(str(tmp_path), setting="--semantic", device=CPU)


def test_vectors_that_are_not_finite_are_refused(tiny_folder, tmp_path):
    model = BertModel.from_pretrained(tiny_folder)
    torch.nn.init.constant_(model.embeddings.LayerNorm.weight, float("nan"))
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="zero or not finite"):
        load_encoder(str(tmp_path), setting="--semantic", device=CPU)


def test_a_real_encoder_puts_other_wordings_of_an_answer_nearer_than_other_answers(shared):
    """Golds of one question against each other and against golds of other questions on the same paragraph."""
    from qa_core.data.squad import load_table
    from qa_core.scoring.scores import question_scores

    encoder = load_encoder(str(shared / "models" / "minilm-l6-bert"), setting="--semantic", device=CPU)
    table = load_table(str(shared / "data" / "squad" / "dev-v1.1.json.gz"), split="dev").take(range(250))
    golds = table.rows.column("answer_texts").to_pylist()
    contexts = table.context_index.tolist()
    same, other = [], []
    for row in range(len(golds) - 1):
        first = golds[row][0]
        same += [(first, text) for text in golds[row][1:] if question_scores([first], text)[0] == 0][:1]
        is_other = question_scores(golds[row + 1], first)[1] == 0 and contexts[row] == contexts[row + 1]
        other += [(first, golds[row + 1][0])] if is_other else []
    assert min(len(same), len(other)) > 40
    near, far = (
        semantic_scores([answer for answer, _ in pairs], [[gold] for _, gold in pairs], encoder)
        for pairs in (same, other)
    )
    wins = (near[:, None] > far[None, :]).mean()  # the area under the ROC curve
    assert wins > 0.9
