"""Offsets without white space, and gold answers among the tokens."""

from pathlib import Path

import pytest

from qa_core.data.encoding import encode_table
from qa_core.data.layout import WindowLayout
from qa_core.data.squad import QaTable, read_squad
from qa_core.data.tokenizers import load_tokenizer, trained_tokenizer

LAYOUT = WindowLayout((), (), (), "first")
CONTEXT = "\u00a0A  wide\n\u3000gap \U0001f600 here:\tnaïve ﬁn 3.5\u2009km. "


def spaced_table(*answers: str) -> QaTable:
    qas = [
        {"id": str(index), "question": "Q", "answers": [{"text": text, "answer_start": CONTEXT.index(text)}]}
        for index, text in enumerate(answers)
    ]
    return read_squad({"data": [{"paragraphs": [{"context": CONTEXT, "qas": qas}]}]}, "spaced")


@pytest.mark.parametrize("kind", ["bytes", "unigram", "wordpiece", "word"])
def test_offsets_never_begin_or_end_in_white_space(kind: str, tmp_path: Path) -> None:
    table = spaced_table("wide")
    tokenizer = trained_tokenizer(kind, table, vocab_size=300, cache_dir=tmp_path)
    encoded = encode_table(table, tokenizer, LAYOUT, max_question_length=9)
    spans = list(zip(encoded.char_starts.tolist(), encoded.char_ends.tolist(), strict=True))
    assert spans == sorted(spans)
    pieces = [CONTEXT[start:end] for start, end in spans]
    assert all(piece == piece.strip() for piece in pieces)
    assert sum(start == end for start, end in spans) == sum(not piece for piece in pieces)
    covered = {place for start, end in spans for place in range(start, end)}
    missed = set(range(len(CONTEXT))) - covered
    assert all(CONTEXT[place].isspace() for place in missed)


@pytest.mark.parametrize("kind", ["bytes", "unigram", "word"])
@pytest.mark.parametrize(
    "answer", ["A", "wide", "gap \U0001f600", "naïve", "3.5\u2009km", "\u3000gap ", "here:\tnaïve"]
)
def test_the_tokens_of_an_answer_cover_it_and_begin_and_end_in_it(
    kind: str, answer: str, tmp_path: Path
) -> None:
    table = spaced_table(answer)
    tokenizer = trained_tokenizer(kind, table, vocab_size=300, cache_dir=tmp_path)
    encoded = encode_table(table, tokenizer, LAYOUT, max_question_length=9)
    first, end = int(encoded.answer_starts[0]), int(encoded.answer_ends[0])
    assert CONTEXT[encoded.char_starts[first] : encoded.char_ends[end - 1]] == answer.strip()


def test_an_answer_inside_a_token_takes_the_whole_token(tmp_path: Path) -> None:
    table = spaced_table("id")
    tokenizer = trained_tokenizer("word", table, vocab_size=300, cache_dir=tmp_path)
    encoded = encode_table(table, tokenizer, LAYOUT, max_question_length=9)
    first, end = int(encoded.answer_starts[0]), int(encoded.answer_ends[0])
    assert end == first + 1
    assert CONTEXT[encoded.char_starts[first] : encoded.char_ends[first]] == "wide"


@pytest.mark.parametrize(
    "name", ["bert-base-uncased-vocab.txt", "t5-tokenizer.json", "gpt-neox-20b-tokenizer.json"]
)
def test_real_answers_are_found_among_real_tokens(shared: Path, many: QaTable, name: str) -> None:
    tokenizer = load_tokenizer(str(shared / "vocab" / name))
    encoded = encode_table(many, tokenizer, LAYOUT, max_question_length=64)
    exact = answerable = 0
    for index, example in enumerate(many.examples()):
        first, end = int(encoded.answer_starts[index]), int(encoded.answer_ends[index])
        assert (end > first) is bool(example.answers)
        if example.answers:
            start = int(encoded.contexts.starts[encoded.context_index[index]])
            found = example.context[encoded.char_starts[start + first] : encoded.char_ends[start + end - 1]]
            assert example.answers[0].text.strip() in found
            exact += found == example.answers[0].text.strip()
            answerable += 1
    assert answerable > 150
    assert exact / answerable > 0.95  # the rest share a token with punctuation
