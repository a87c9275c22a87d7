"""Decoding: exact spans against a slow reference, the best window of a question, thresholds, edge cases."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from qa_core.data.layout import WindowLayout
from qa_core.data.squad import QaTable, read_squad
from qa_core.data.tokenizers import trained_tokenizer
from qa_core.data.windows import WindowLengths, WindowSet, build_windows
from qa_core.errors import DataError
from qa_core.families.base import GeneratedAnswer
from qa_core.scoring.decode import (
    NonFiniteScore,
    Prediction,
    SpanScores,
    apply_threshold,
    best_spans,
    decode_generated,
    decode_spans,
)

pytestmark = pytest.mark.numeric

BERT = WindowLayout(prefix=(2,), middle=(3,), suffix=(3,), null_at="first")
RIVER = (
    "One two three four five six seven eight nine ten eleven twelve \u201cthirteen\u201d, fourteen fifteen."
)
TOWER = "Alpha beta gamma delta."


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values)


def reference(start, end, mask, null, limit):
    """Try every pair of one window: highest sum, then earliest start, then shortest."""
    best = (-math.inf, 0, 0)
    for first in range(len(start)):
        for last in range(first, min(len(start), first + limit)):
            if mask[first] and mask[last] and null not in (first, last):
                score = float(start[first]) + float(end[last])
                if score > best[0]:
                    best = (score, first, last)
    return best


@pytest.fixture
def table() -> QaTable:
    questions = [
        {"context": RIVER, "qas": [{"id": name, "question": text, "answers": []} for name, text in asked]}
        for asked in [(("r1", "Which one?"), ("r2", "  Which two?"))]
    ]
    questions.append({"context": TOWER, "qas": [{"id": "t1", "question": "Which " * 40, "answers": []}]})
    return read_squad({"version": "v2.0", "data": [{"title": "t", "paragraphs": questions}]}, "small")


@pytest.fixture
def windows(table: QaTable, tmp_path: Path) -> WindowSet:
    """Word by word: four windows of at most eight words for r1 and r2, one for t1, whose question is cut."""
    tokenizer = trained_tokenizer("word", table, vocab_size=100, cache_dir=tmp_path)
    lengths = WindowLengths(max_length=14, stride=4, max_question_length=4)
    found = build_windows(table, tokenizer, BERT, lengths=lengths, cache_dir=tmp_path)
    assert found.question_index.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    return found


def spans(windows: WindowSet, **fields: list[float]) -> SpanScores:
    """Spans of all windows: the first context token with score 0 unless told otherwise."""
    first = [int(np.flatnonzero(windows.offsets(index)[0] >= 0)[0]) for index in range(len(windows))]
    values = {"score": [0.0] * len(windows), "start": first, "end": first, "null_score": [0.0] * len(windows)}
    return SpanScores(**{name: torch.tensor(fields.get(name, value)) for name, value in values.items()})


def place(windows: WindowSet, window: int, word: str) -> int:
    """Which token of the window is this word of RIVER."""
    return windows.offsets(window)[0].tolist().index(RIVER.index(word))


def test_the_best_pair_starts_before_it_ends_within_the_limit():
    start = rows([9.0, 0.0, 3.0, 1.0, 8.0], [9.0, 0.0, 3.0, 1.0, 0.0])
    end = rows([9.0, 8.0, 0.0, 2.0, 1.0], [9.0, 8.0, 0.0, 2.0, 4.0])
    mask = torch.ones(2, 5, dtype=torch.bool)
    null = torch.zeros(2, dtype=torch.int64)
    found = best_spans(start, end, mask, null, max_answer_tokens=3)
    assert found.score.tolist() == [9.0, 8.0]
    assert (found.start.tolist(), found.end.tolist()) == ([4, 1], [4, 1])
    assert found.null_score.tolist() == [18.0, 18.0]
    longer = best_spans(start - 5 * (start == 0), end, mask, null, max_answer_tokens=3)
    assert (longer.start.tolist(), longer.end.tolist()) == ([4, 2], [4, 4])
    shorter = best_spans(start - 5 * (start == 0), end, mask, null, max_answer_tokens=2)
    assert (shorter.start[1].item(), shorter.end[1].item()) == (2, 3)


@pytest.mark.parametrize("limit", [1, 2, 5, 30])
@pytest.mark.parametrize("null_at", ["first", "last", "middle"])
def test_spans_equal_a_search_over_all_pairs_also_with_ties(limit, null_at):
    generator = torch.Generator().manual_seed(limit)
    length, count = 17, 60
    null = {"first": 0, "last": length - 1, "middle": 6}[null_at]
    start = torch.randint(-2, 3, (count, length), generator=generator).float()
    end = torch.randint(-2, 3, (count, length), generator=generator).float()
    mask = torch.rand(count, length, generator=generator) < 0.6
    mask[:, null] = True
    nulls = torch.full((count,), null)
    masked = [values.masked_fill(~mask, torch.finfo(torch.float32).min) for values in (start, end)]
    found = best_spans(*masked, mask, nulls, max_answer_tokens=limit)
    got = list(zip(found.score.tolist(), found.start.tolist(), found.end.tolist(), strict=True))
    wanted = [reference(start[row], end[row], mask[row], null, limit) for row in range(count)]
    assert got == wanted
    assert torch.equal(found.null_score, (start + end)[:, null].double())


def test_spans_agree_with_the_twenty_best_starts_and_ends_where_those_hold_the_best():
    generator = torch.Generator().manual_seed(1)
    start, end = torch.randn(80, 90, generator=generator), torch.randn(80, 90, generator=generator)
    mask = torch.ones(80, 90, dtype=torch.bool)
    found = best_spans(start, end, mask, torch.zeros(80, dtype=torch.int64), max_answer_tokens=30)
    agreed = 0
    for row in range(80):
        starts, ends = (values[row].argsort(descending=True)[:20].tolist() for values in (start, end))
        pairs = [(i, j) for i in starts for j in ends if 0 < i <= j < i + 30]
        score, first, last = max((float(start[row, i]) + float(end[row, j]), i, j) for i, j in pairs)
        best = (found.start[row].item(), found.end[row].item())
        assert found.score[row].item() >= score
        if best[0] in starts and best[1] in ends:
            assert (first, last) == best
            agreed += 1
    assert agreed > 50


def test_the_null_position_is_part_of_no_answer():
    start, end = rows([50.0, 1.0, 2.0]), rows([50.0, 3.0, 1.0])
    found = best_spans(start, end, torch.ones(1, 3, dtype=torch.bool), torch.tensor([0]), max_answer_tokens=3)
    assert (found.score.item(), found.start.item(), found.end.item()) == (4.0, 1, 1)


def test_a_window_without_context_has_the_score_minus_infinity():
    mask = torch.tensor([[True, False, False]])
    found = best_spans(torch.ones(1, 3), torch.ones(1, 3), mask, torch.tensor([0]), max_answer_tokens=3)
    assert (found.score.item(), found.null_score.item()) == (-math.inf, 2.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_marks_its_window_unless_masked(value):
    start, end = torch.ones(3, 4), torch.ones(3, 4)
    start[1, 2] = end[2, 3] = value
    mask = torch.tensor([[True] * 4, [True] * 4, [True, True, True, False]])
    found = best_spans(start, end, mask, torch.zeros(3, dtype=torch.int64), max_answer_tokens=2)
    assert found.score.isnan().tolist() == [False, True, False]


def test_half_precision_logits_are_summed_exactly():
    start, end = rows([0.0, 256.0, 0.0]), rows([0.0, 1.0, 0.5])
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = best_spans(start.bfloat16(), end.bfloat16(), mask, torch.tensor([0]), max_answer_tokens=2)
    assert found.score.item() == 257.0


def test_the_best_window_answers_and_its_text_is_cut_from_the_paragraph(windows, table):
    start, end = spans(windows).start.tolist(), spans(windows).end.tolist()
    start[2], end[2] = place(windows, 2, "twelve"), place(windows, 2, "thirteen") + 1
    found = decode_spans(
        windows, table, spans(windows, score=[1, 2, 5, 4, 1, 1, 1, 2, 7], start=start, end=end)
    )
    assert [item.question_id for item in found] == ["r1", "r2", "t1"]
    assert found[0].text == "twelve \u201cthirteen\u201d"
    assert found[1].text == "\u201c"  # where the last window begins
    assert (found[2].text, found[2].score) == ("Alpha", 7.0)


def test_an_answer_may_end_at_the_last_token_of_the_paragraph(windows, table):
    start, end = spans(windows).start.tolist(), spans(windows).end.tolist()
    start[3] = place(windows, 3, "fifteen")
    end[3] = start[3] + 1
    found = decode_spans(
        windows, table, spans(windows, score=[0, 0, 0, 1, 0, 0, 0, 0, 0], start=start, end=end)
    )
    assert found[0].text == "fifteen."
    assert RIVER.endswith(found[0].text)


def test_equal_windows_give_the_earliest(windows, table):
    found = decode_spans(windows, table, spans(windows, score=[1, 3, 3, 2, 0, 0, 0, 0, 0]))
    assert found[0].text == "five"
    assert found[1].text == "One"


def test_null_odds_take_the_least_null_score_of_the_question(windows, table):
    found = decode_spans(
        windows,
        table,
        spans(windows, score=[1, 2, 5, 4, 1, 1, 1, 2, 7], null_score=[9, 8, 7, 3, -1, 0, 5, 5, 10]),
    )
    assert [item.null_odds for item in found] == [3 - 5, -1 - 2, 10 - 7]
    assert [item.score for item in found] == [5, 2, 7]


def test_a_question_without_any_allowed_span_has_no_answer(windows, table):
    found = decode_spans(windows, table, spans(windows, score=[0.0] * 8 + [-math.inf]))
    assert found[2] == Prediction("", math.inf, -math.inf, "t1")


@pytest.mark.parametrize("field", ["score", "null_score"])
def test_a_score_that_is_not_a_number_is_refused_with_its_question(windows, table, field):
    values = [0.0] * 5 + [math.nan] * 2 + [0.0] * 2
    with pytest.raises(NonFiniteScore, match=r"question 'r2': .* 2 of 9 windows") as raised:
        decode_spans(windows, table, spans(windows, **{field: values}))
    assert isinstance(raised.value, DataError)


def generated(*values: tuple[str, float, float]) -> list[GeneratedAnswer]:
    return [GeneratedAnswer(*value) for value in values]


def test_the_likeliest_text_of_a_question_answers_and_its_odds_are_log_probabilities(windows, table):
    answers = generated(
        ("", -0.5, -0.5),
        ("late", -3.0, -1.0),
        ("likely", -2.0, -4.0),
        ("same", -2.0, -5.0),
        ("", -0.1, -0.1),
        ("", -0.2, -0.2),
        ("", -0.3, -0.3),
        ("", -0.4, -0.4),
        ("alpha", -1.0, -0.25),
    )
    assert decode_generated(windows, table, answers) == [
        Prediction("likely", -5.0 - -2.0, -2.0, "r1"),
        Prediction("", math.inf, -math.inf, "r2"),
        Prediction("alpha", 0.75, -1.0, "t1"),
    ]


def test_a_log_probability_that_is_nan_is_refused_with_its_question(windows, table):
    answers = generated(*[("x", -1.0, -1.0)] * 8, ("x", -1.0, math.nan))
    with pytest.raises(NonFiniteScore, match="question 't1'"):
        decode_generated(windows, table, answers)


def test_the_threshold_empties_answers_whose_odds_are_above_it():
    predictions = [
        Prediction("a", 1.0, 0.0, "q1"),
        Prediction("b", 1.5, 0.0, "q2"),
        Prediction("", 0.0, 0.0, "q3"),
    ]
    assert apply_threshold(predictions, 1.0) == {"q1": "a", "q2": "", "q3": ""}
    assert apply_threshold(predictions, 0.99) == {"q1": "", "q2": "", "q3": ""}
    assert apply_threshold(predictions, None) == {"q1": "a", "q2": "b", "q3": ""}
