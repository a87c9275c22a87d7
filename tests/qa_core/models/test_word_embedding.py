"""Subword vectors: FNV-1a and n-grams of fastText, means by hand, and rows of a file in a table."""

import numpy as np
import pytest
import torch

from qa_core.data.vectors import FoundVectors
from qa_core.models.word_embedding import (
    GRAMS_AT_MOST,
    EmbeddingConfig,
    HashedEmbedding,
    fnv1a,
    make_embedding,
    vocabulary_grams,
    word_grams,
    write_grams,
    write_vectors,
)

pytestmark = pytest.mark.numeric

MANY = 2**40  # buckets: hashes stay as they are


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0x811C9DC5), ("a", 0xE40C292C), ("b", 0xE70C2DE5), ("foobar", 0xBF9CF968)],
)
def test_ascii_hashes_are_the_published_values_of_fnv_1a(text: str, expected: int) -> None:
    assert fnv1a(text) == expected


def test_bytes_above_127_are_mixed_in_as_signed_numbers() -> None:
    state = np.array(
        [2166136261], np.uint32
    )  # arithmetic of C: int8 widened to uint32, products cut to 32 bits
    for byte in np.frombuffer("né".encode(), np.int8):
        state = (state ^ byte.astype(np.int32).view(np.uint32)) * np.uint32(16777619)
    assert fnv1a("né") == int(state[0])


def test_hashing_goes_on_where_it_stopped() -> None:
    assert fnv1a("bar", fnv1a("foo")) == fnv1a("foobar")


def test_the_n_grams_of_a_word_are_those_of_the_paper_and_the_word_itself() -> None:
    # Bojanowski et al. 2017, section 3.2: "where" with n = 3 is <wh, whe, her, ere, re> and <where>.
    found = word_grams("where", MANY)
    threes = ["<wh", "whe", "her", "ere", "re>"]
    fours = ["<whe", "wher", "here", "ere>"]
    others = ["<wher", "where", "here>", "<where", "where>", "<where>"]
    assert sorted(found) == sorted(fnv1a(text) for text in [*threes, *fours, *others])
    assert found[-1] == fnv1a("<where>")


def test_a_short_word_counts_itself_once_and_characters_not_bytes_make_an_n_gram() -> None:
    assert word_grams("a", MANY) == [fnv1a("<a>")]
    assert word_grams("né", MANY) == [fnv1a(text) for text in ("<né", "né>", "<né>")]


def test_a_long_word_keeps_its_beginning_and_its_end() -> None:
    word = "abcdefghijklmnopqrstuvwxyz"
    found = word_grams(word, MANY)
    assert len(found) == GRAMS_AT_MOST
    assert found[0] == fnv1a("<ab")
    assert found[-2:] == [fnv1a("yz>"), fnv1a(f"<{word}>")]
    assert (
        len(word_grams(word[:17], MANY)) == 63
    )  # nothing is cut: 4 lengths from 19 characters, and the word
    assert len(set(word_grams(word[:18], MANY))) == 64  # three are cut


def test_a_special_token_is_one_whole() -> None:
    lists = vocabulary_grams(["[SEP]", "sep"], special={"[SEP]"}, buckets=MANY)
    assert lists == [[fnv1a("[SEP]")], word_grams("sep", MANY)]


def test_a_words_vector_is_the_mean_of_its_buckets_and_padding_is_zero() -> None:
    torch.manual_seed(0)
    config = EmbeddingConfig(vocab_size=3, pad_id=0, size=4, is_trained=True, buckets=5, grams=3)
    embedding = make_embedding(config)
    assert isinstance(embedding, HashedEmbedding)
    write_grams(embedding, [[], [4, 1, 1], [2]])
    token_ids = torch.tensor([[2, 1, 0], [1, 1, 2]])
    rows = embedding.table.weight.detach()
    vectors = [torch.zeros(4), (rows[4] + 2 * rows[1]) / 3, rows[2]]
    expected = torch.stack([torch.stack([vectors[token] for token in row]) for row in token_ids.tolist()])
    found = embedding(token_ids)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    gradient = embedding.table.weight.grad
    assert gradient is not None
    torch.testing.assert_close(gradient[:, 0], torch.tensor([0.0, 2.0, 2.0, 0.0, 1.0, 0.0]))


def test_rows_of_a_file_are_written_and_the_others_scaled_to_match() -> None:
    torch.manual_seed(0)
    config = EmbeddingConfig(vocab_size=500, pad_id=0, size=8, is_trained=False)
    embedding = make_embedding(config)
    assert isinstance(embedding, torch.nn.Embedding)
    assert not embedding.weight.requires_grad
    vectors = np.random.default_rng(1).normal(scale=0.2, size=(20, 8)).astype(np.float32)
    places = np.arange(40, 20, -1)
    write_vectors(embedding, FoundVectors(places, vectors))
    assert torch.equal(embedding.weight[torch.from_numpy(places)], torch.from_numpy(vectors))
    assert not embedding.weight[0].any()
    assert embedding.weight[41:].std() == pytest.approx(vectors.std(), rel=0.1)


def test_a_file_without_a_word_of_the_vocabulary_changes_nothing() -> None:
    config = EmbeddingConfig(vocab_size=5, pad_id=0, size=2, is_trained=True)
    embedding = make_embedding(config)
    assert isinstance(embedding, torch.nn.Embedding)
    before = embedding.weight.detach().clone()
    write_vectors(embedding, FoundVectors(np.empty(0, np.int64), np.empty((0, 2), np.float32)))
    assert torch.equal(embedding.weight, before)
