"""Answers in many languages and scripts, with every kind of tokenizer: nothing at their ends is lost.

A gold answer goes the whole way: its tokens become labels, a model that is always right names them, and what is cut
from the paragraph is compared with it.
"""

import json
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from qa_core.data.characters import bare, bare_bounds, bare_offsets
from qa_core.data.encoding import encode_table
from qa_core.data.layout import WindowLayout
from qa_core.data.squad import QaTable, read_squad
from qa_core.data.tokenizers import load_tokenizer, trained_tokenizer
from qa_core.data.windows import WindowLengths, build_windows
from qa_core.families.base import GeneratedAnswer
from qa_core.scoring.decode import SpanScores, decode_generated, decode_spans

LAYOUT = WindowLayout((0,), (1,), (1,), "first")
TRAINED = ("wordpiece", "unigram", "bytes", "word")
VOCABULARIES = ("bert-base-uncased-vocab.txt", "t5-tokenizer.json", "gpt-neox-20b-tokenizer.json")

GERMAN = "Die Brücke über den Fluß wurde in Malmö gebaut, sagte Jörg Müßig (Café Zoë)."
GERMAN_GOLDS = ("Malmö", "Brücke", "Jörg Müßig", "Café Zoë", "den Fluß")
# language: a paragraph, and answers that stand between spaces or marks of punctuation
PASSAGES = {
    "German": (GERMAN, GERMAN_GOLDS),
    "German, decomposed": tuple(
        unicodedata.normalize("NFD", text) if isinstance(text, str) else text
        for text in (GERMAN, tuple(unicodedata.normalize("NFD", gold) for gold in GERMAN_GOLDS))
    ),
    "Hindi": (
        "यह पुल गंगा नदी पर बना है और इसकी लंबाई पाँच किमी है। इसे रवि शर्मा ने बनाया, कहते हैं संत (हरि)।",
        ("गंगा नदी", "पाँच किमी", "रवि शर्मा", "हरि", "संत"),
    ),
    "Thai": (
        "สะพานนี้อยู่ที่ กรุงเทพฯ สร้างโดย นายสมชาย ใจดี เมื่อปี 2490 (ไม่มีผู้ใดรู้)",
        ("กรุงเทพฯ", "นายสมชาย ใจดี", "2490", "ไม่มีผู้ใดรู้"),
    ),
    "Arabic": (
        "بُنِيَ الجِسْرُ في مَدِينَةِ حَلَبَ، وَقَالَ أَحْمَدُ إِنَّهُ قَدِيمٌ جِدًّا.",
        ("مَدِينَةِ حَلَبَ", "أَحْمَدُ", "قَدِيمٌ جِدًّا"),
    ),
    "Korean": ("그 다리는 부산 북쪽에 있고 김민수 씨가 지었다.", ("부산", "김민수", "북쪽에")),
    "Korean, decomposed": tuple(
        unicodedata.normalize("NFD", text) if isinstance(text, str) else text
        for text in (
            "그 다리는 부산 북쪽에 있고 김민수 씨가 지었다.",
            tuple(unicodedata.normalize("NFD", gold) for gold in ("부산", "김민수", "북쪽에")),
        )
    ),
    "Chinese": (
        "这座桥在 葛\U000e0100城 北边。建造者： 王小明 ，建于 1947年 。",
        ("葛\U000e0100城", "王小明", "1947年"),
    ),
    "Russian": (
        "Мост построил Пётр Ильи\u0301ч Зайцев в 1912 году около Йошкар-Олы́, сказал его сын.",
        ("Пётр Ильи\u0301ч Зайцев", "1912 году", "Йошкар-Олы́"),
    ),
    "emoji": (
        "Ina sent 👩\u200d🚀 and then ❤\ufe0f to Bo 👍🏽 from "
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f on Monday.",
        (
            "👩\u200d🚀",
            "❤\ufe0f",
            "👍🏽",
            "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
            "Bo 👍🏽",
        ),
    ),
    "Malayalam, joiners": ("അവന്\u200d ഇന്നലെ വന്നു, രാമന്\u200d പറഞ്ഞു.", ("അവന്\u200d", "രാമന്\u200d")),
    "Persian, joiners": ("او در خانه\u200cای می\u200cماند که قدیمی است.", ("خانه\u200cای", "می\u200cماند")),
}
# What no choice of offsets can mend: the vocabulary has one unknown token for a whole run of characters.
MERGED = {
    ("t5-tokenizer.json", "Arabic"): {"مَدِينَةِ حَلَبَ"},
}


def passage_table(language: str) -> QaTable:
    context, golds = PASSAGES[language]
    qas = [
        {
            "id": str(index),
            "question": "?",
            "answers": [{"text": gold, "answer_start": context.index(gold)}],
        }
        for index, gold in enumerate(golds)
    ]
    return read_squad({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]}, language)


def answers_of_a_perfect_model(
    table: QaTable, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> dict[str, str]:
    windows = build_windows(
        table, tokenizer, LAYOUT, lengths=WindowLengths(2000, 10, 50), cache_dir=folder / "perfect"
    )
    zeros = torch.zeros(len(windows), dtype=torch.float64)
    starts, ends = (
        torch.from_numpy(places.astype(np.int64))
        for places in (windows.start_positions, windows.end_positions)
    )
    return {
        item.question_id: item.text
        for item in decode_spans(windows, table, SpanScores(zeros, starts, ends, zeros))
    }


def check_passage(language: str, tokenizer: PreTrainedTokenizerFast, name: str, folder: Path) -> None:
    table = passage_table(language)
    merged = MERGED.get((name, language), set())
    found = answers_of_a_perfect_model(table, tokenizer, folder)
    context, golds = PASSAGES[language]
    assert len(found) == len(golds) >= 2
    for index, gold in enumerate(golds):
        answer = found[str(index)]
        assert answer in context
        if gold in merged:
            assert gold in answer != gold
        else:
            assert answer == gold
        json.dumps(answer, ensure_ascii=False).encode()  # half a character could not be written


@pytest.mark.parametrize("language", PASSAGES)
@pytest.mark.parametrize("kind", TRAINED)
def test_trained_tokenizers_give_back_every_answer(kind: str, language: str, tmp_path: Path) -> None:
    tokenizer = trained_tokenizer(kind, passage_table(language), vocab_size=400, cache_dir=tmp_path)
    check_passage(language, tokenizer, kind, tmp_path)


@pytest.mark.parametrize("language", PASSAGES)
@pytest.mark.parametrize("name", VOCABULARIES)
def test_published_tokenizers_give_back_every_answer(
    shared: Path, name: str, language: str, tmp_path: Path
) -> None:
    check_passage(language, published(shared / "vocab" / name), name, tmp_path)


published = cache(lambda path: load_tokenizer(str(path)))  # a second to read; nobody changes it


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\ufeff\u200e Malmo\u0308 \u200b", "Malmo\u0308"),
        ("खा\u200c", "खा"),  # a joiner behind a vowel joins nothing
        ("ന്\u200d ", "ന്\u200d"),  # behind a virama it makes another letter
        ("می\u200cماند\u200c", "می\u200cماند"),
        ("\u0600١٢", "\u0600١٢"),  # a sign that is seen, although Unicode calls it a format character
        ("🏴\U000e0067\U000e007f\u200d", "🏴\U000e0067\U000e007f"),
        ("\u200b\u2060 \u00ad", ""),
        ("  \t", ""),
        ("", ""),
    ],
)
def test_only_white_space_and_what_nobody_sees_is_trimmed(text: str, kept: str) -> None:
    assert bare(text) == kept
    start, end = bare_bounds(text)
    assert text[start:end] == kept


def test_a_mark_goes_to_the_token_before_it_only_where_no_token_owns_it() -> None:
    text = "ma\u0308\u0301 o\u0308n \u0308e\u200d\u0301"
    tokens = [(0, 2), (4, 6), (6, 7), (7, 9), (9, 11), (11, 11)]
    found = bare_offsets(text, np.array(tokens, np.int32))
    # "ma" takes two marks; "o" and its mark have tokens of their own; "n" ends before a space; "e" takes a mark behind
    # a joiner, and an empty token between them moves there.
    assert found.tolist() == [[0, 4], [5, 6], [6, 7], [7, 8], [9, 13], [13, 13]]
    assert text[found[0, 0] : found[0, 1]] == "ma\u0308\u0301"


@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize("language", PASSAGES)
def test_offsets_rise_and_leave_no_mark_behind(kind: str, language: str, tmp_path: Path) -> None:
    table = passage_table(language)
    tokenizer = trained_tokenizer(kind, table, vocab_size=400, cache_dir=tmp_path)
    encoded = encode_table(table, tokenizer, LAYOUT, max_question_length=9)
    context = PASSAGES[language][0]
    covered: set[int] = set()
    for start, end in zip(encoded.char_starts.tolist(), encoded.char_ends.tolist(), strict=True):
        covered |= set(range(start, end))
        piece = context[start:end]
        assert bare(piece) == piece or piece[0] in "\u200c\u200d"  # a joiner's own token, behind a virama
    assert (np.diff(encoded.char_starts) >= 0).all()
    assert (np.diff(encoded.char_ends) >= 0).all()
    marks = {place for place, character in enumerate(context) if unicodedata.category(character)[0] == "M"}
    assert marks <= covered


def test_a_written_answer_is_trimmed_too_and_one_of_nothing_seen_is_no_answer(tmp_path: Path) -> None:
    table = passage_table("Persian, joiners")
    tokenizer = trained_tokenizer("bytes", table, vocab_size=300, cache_dir=tmp_path)
    windows = build_windows(table, tokenizer, LAYOUT, lengths=WindowLengths(2000, 10, 50), cache_dir=tmp_path)
    written = [GeneratedAnswer(text, -1.0, -2.0) for text in ("\u200fخانه\u200c ", "\u200b")]
    assert [item.text for item in decode_generated(windows, table, written)] == ["خانه", ""]
