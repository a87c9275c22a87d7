"""Tokenizers trained on the data: special ids, round trips, and the same result in every process."""

import subprocess
import sys

import pytest

from qa_core.data.trained_tokenizers import KINDS, train_tokenizer
from qa_core.errors import ConfigError

TEXTS = [
    f"The {noun} of {place} was built in {year} by {name}, who lived near the {place} river for {year % 97} "
    "years."
    for year, (noun, place, name) in enumerate(
        [("tower", "Oder", "Ina Brandt"), ("bridge", "Ødegård", "Otto Łuk"), ("mill", "Çal", "Ída Ñuñez")]
        * 20,
        1900,
    )
]
PRINT_HASHES = """
import hashlib, sys
sys.path[:0] = {path!r}
from qa_core.data.trained_tokenizers import KINDS, train_tokenizer
for kind in sorted(KINDS):
    tokenizer = train_tokenizer(kind, {texts!r}, vocab_size=300)
    print(kind, hashlib.sha256(tokenizer.to_str().encode()).hexdigest())
"""


@pytest.mark.parametrize(
    ("kind", "specials"),
    [
        ("wordpiece", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
        ("unigram", ["<pad>", "</s>", "<unk>"]),
        ("bytes", ["<|endoftext|>"]),
        ("word", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]),
    ],
)
def test_special_tokens_have_the_first_ids(kind: str, specials: list[str]) -> None:
    tokenizer = train_tokenizer(kind, TEXTS, vocab_size=300)
    assert [tokenizer.id_to_token(index) for index in range(len(specials))] == specials


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_vocabulary_has_the_size_asked_for_or_fewer(kind: str) -> None:
    tokenizer = train_tokenizer(kind, TEXTS, vocab_size=300)
    assert 64 < tokenizer.get_vocab_size() <= 300
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.get_vocab_size()))


def test_lower_case_kinds_ignore_case_and_the_others_keep_it() -> None:
    for kind, ignores_case in (("wordpiece", True), ("word", True), ("unigram", False), ("bytes", False)):
        tokenizer = train_tokenizer(kind, TEXTS, vocab_size=300)
        assert (tokenizer.encode("The Tower").ids == tokenizer.encode("the tower").ids) is ignores_case


@pytest.mark.parametrize("kind", ["unigram", "bytes"])
def test_text_comes_back_from_its_tokens(kind: str) -> None:
    tokenizer = train_tokenizer(kind, TEXTS, vocab_size=300)
    text = "Otto Łuk lived near the Oder in 1912."
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_frequent_words_are_one_token_and_punctuation_stands_alone(kind: str) -> None:
    tokenizer = train_tokenizer(kind, TEXTS, vocab_size=400)
    text = " was built by Ina Brandt, the tower, near years."
    pieces = [
        text[start:end].strip() for start, end in tokenizer.encode(text, add_special_tokens=False).offsets
    ]
    assert pieces == ["was", "built", "by", "Ina", "Brandt", ",", "the", "tower", ",", "near", "years", "."]


def test_words_outside_the_vocabulary_become_unknown_whole() -> None:
    tokenizer = train_tokenizer("word", TEXTS, vocab_size=300)
    assert tokenizer.encode("the zebra", add_special_tokens=False).tokens == ["the", "[UNK]"]


def test_a_pair_is_framed_as_the_models_expect() -> None:
    pair = train_tokenizer("wordpiece", TEXTS, vocab_size=300).encode("the tower", "the mill")
    assert (pair.tokens[0], pair.tokens[-1], pair.tokens.count("[SEP]")) == ("[CLS]", "[SEP]", 2)
    assert pair.type_ids == [0] * (pair.tokens.index("[SEP]") + 1) + [1] * (
        len(pair) - pair.tokens.index("[SEP]") - 1
    )
    pair = train_tokenizer("unigram", TEXTS, vocab_size=300).encode("the tower", "the mill")
    assert (pair.tokens[-1], pair.tokens.count("</s>")) == ("</s>", 2)


def test_every_process_trains_the_same_tokenizer() -> None:
    # The library's trainers seed their hash tables anew in each process; two can agree by luck, four hardly.
    code = PRINT_HASHES.format(path=sys.path, texts=TEXTS)
    outputs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(4)
    }
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == len(KINDS) == 4


def test_an_unknown_kind_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="unknown tokenizer kind 'wordpeice'; did you mean 'wordpiece'"):
        train_tokenizer("wordpeice", TEXTS, vocab_size=300)
