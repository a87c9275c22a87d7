"""The ceiling of exact match: exact shares on questions made for it, the cache, the draw from large data."""

import unicodedata
from pathlib import Path

import pytest

from qa_core.data.layout import WindowLayout
from qa_core.data.squad import QaTable, load_table, read_squad
from qa_core.data.tokenizers import load_tokenizer, trained_tokenizer
from qa_core.scoring import ceiling
from qa_core.scoring.ceiling import Ceiling, find_ceiling

SPANS = WindowLayout((0,), (1,), (1,), "first")
WRITES = WindowLayout((), (1,), (1,), "last", null_text="no answer", target_end=(1,))
CONTEXT = "The old mill of Malmö stands in the Oderland since 1912, near a well of cold water."


def table_of(*golds: tuple[str, ...], context: str = CONTEXT) -> QaTable:
    qas = [
        {
            "id": str(index),
            "question": "?",
            "answers": [{"text": text, "answer_start": context.index(text)} for text in texts],
        }
        for index, texts in enumerate(golds)
    ]
    return read_squad(
        {"version": "v2.0", "data": [{"paragraphs": [{"context": context, "qas": qas}]}]}, "made"
    )


def test_the_shares_of_golds_inside_words_and_of_long_ones_are_told_apart(tmp_path: Path) -> None:
    table = table_of(
        ("Malmö",),
        (),  # no answer: reached
        ("Oder",),  # inside a word: the nearest tokens give "Oderland"
        ("Oder", "1912"),  # one gold is enough
        ("old mill of Malmö stands",),  # five words
        ("the Oderland since 1912", "Oder"),  # four words, and one that cannot be cut
        ("The old mill",),
        ("well",),
    )
    tokenizer = trained_tokenizer("word", table, vocab_size=100, cache_dir=tmp_path)
    found = find_ceiling(table, tokenizer, SPANS, limit=3, cache_dir=tmp_path)
    assert found == Ceiling(8, 8, 62.5, 12.5, 25.0, 3)
    assert find_ceiling(table, tokenizer, SPANS, limit=4, cache_dir=tmp_path).em_percent == 75.0
    assert find_ceiling(table, tokenizer, SPANS, limit=5, cache_dir=tmp_path) == Ceiling(
        8, 8, 87.5, 12.5, 0.0, 5
    )


def test_an_article_more_is_no_loss(tmp_path: Path) -> None:
    table = table_of(("mill",), context="Inside the-mill it is dark.")
    tokenizer = trained_tokenizer("unigram", table, vocab_size=60, cache_dir=tmp_path)
    assert find_ceiling(table, tokenizer, SPANS, limit=30, cache_dir=tmp_path).em_percent == 100.0


def test_a_generating_head_reaches_what_its_tokenizer_gives_back(tmp_path: Path) -> None:
    train = table_of(("Malmö",))
    table = table_of(("Malmö",), ("東京",), (), ("東京", "well"), context="Malmö, 東京, a well.")
    tokenizer = trained_tokenizer("unigram", train, vocab_size=120, cache_dir=tmp_path)  # knows no 東
    found = find_ceiling(table, tokenizer, WRITES, limit=30, cache_dir=tmp_path)
    assert (found.em_percent, found.not_cut_percent) == (75.0, 25.0)
    length = len(tokenizer("Malmö", add_special_tokens=False)["input_ids"]) + 1  # and the end
    counts = [
        find_ceiling(table_of(("Malmö",)), tokenizer, WRITES, limit=limit, cache_dir=tmp_path)
        for limit in (length - 1, length)
    ]
    assert [item.too_long_percent for item in counts] == [100.0, 0.0]


def test_it_is_computed_once_and_again_where_the_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(("Malmö",), ("Oder",))
    tokenizer = trained_tokenizer("word", table, vocab_size=100, cache_dir=tmp_path)
    first = find_ceiling(table, tokenizer, SPANS, limit=9, cache_dir=tmp_path)
    assert first.em_percent == 50.0
    monkeypatch.setattr(ceiling, "_find", lambda *_: pytest.fail("computed a second time"))
    assert find_ceiling(table, tokenizer, SPANS, limit=9, cache_dir=tmp_path) == first
    monkeypatch.undo()
    (path,) = (tmp_path / "ceilings").glob("*.json")
    path.write_text('{"questions": 2')
    assert find_ceiling(table, tokenizer, SPANS, limit=9, cache_dir=tmp_path) == first


def test_large_data_are_drawn_from_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = load_table("sample", split="train")
    tokenizer = trained_tokenizer("word", table, vocab_size=2000, cache_dir=tmp_path)
    whole = find_ceiling(table, tokenizer, SPANS, limit=30, cache_dir=tmp_path)
    assert whole.questions == whole.of_questions == len(table)
    monkeypatch.setattr(ceiling, "MOST_QUESTIONS", 100)
    drawn = find_ceiling(table, tokenizer, SPANS, limit=29, cache_dir=tmp_path)
    assert (drawn.questions, drawn.of_questions) == (100, len(table))
    monkeypatch.setattr(ceiling, "MOST_CHARACTERS", 2000)
    few = find_ceiling(table, tokenizer, SPANS, limit=28, cache_dir=tmp_path)
    assert 1 <= few.questions < 100
    monkeypatch.setattr(ceiling, "MOST_CHARACTERS", 1)
    assert find_ceiling(table, tokenizer, SPANS, limit=27, cache_dir=tmp_path).questions == 1


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_published_tokenizer_reaches_both_forms_of_a_letter(
    shared: Path, form: str, tmp_path: Path
) -> None:
    context, gold = (unicodedata.normalize(form, text) for text in (CONTEXT, "Malmö"))
    table = table_of((gold,), context=context)
    for name in ("bert-base-uncased-vocab.txt", "t5-tokenizer.json", "gpt-neox-20b-tokenizer.json"):
        tokenizer = load_tokenizer(str(shared / "vocab" / name))
        found = find_ceiling(table, tokenizer, SPANS, limit=30, cache_dir=tmp_path)
        assert found.em_percent == 100.0
