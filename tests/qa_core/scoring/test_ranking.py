"""The best answers to a question: exact against a slow reference, first as predicted, with places in the paragraph."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qa_core import registry
from qa_core.config import EvaluationConfig, ModelConfig
from qa_core.data.squad import QaTable, load_table, read_squad
from qa_core.data.tokenizers import prepare_tokenizer
from qa_core.data.windows import WindowLengths, WindowSet, build_windows
from qa_core.families.base import GeneratedAnswer
from qa_core.scoring.decode import NonFiniteScore, best_spans, rank_generated, top_spans
from qa_core.scoring.evaluate import predict, rank

pytestmark = pytest.mark.numeric
CPU = torch.device("cpu")
FLOAT32 = EvaluationConfig(precision="float32", batch_tokens=400)


def reference(start: Any, end: Any, mask: Any, null: int, limit: int) -> list[tuple[float, int, int]]:
    """Return every allowed pair of one window: highest sum, then earliest start, then shortest."""
    pairs = [
        (-(float(start[first]) + float(end[last])), first, last)
        for first in range(len(start))
        for last in range(first, min(len(start), first + limit))
        if mask[first] and mask[last] and null not in (first, last)
    ]
    return [(-score, first, last) for score, first, last in sorted(pairs)]


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_the_best_spans_are_those_of_trying_every_pair(limit: int) -> None:
    generator = torch.Generator().manual_seed(limit)
    # Halves in a small range: many true ties.
    start, end = (torch.randint(-4, 5, (6, 11), generator=generator) / 2 for _ in range(2))
    mask = torch.rand((6, 11), generator=generator) < 0.6
    nulls = torch.arange(6)
    mask[torch.arange(6), nulls] = True
    found = top_spans(start, end, mask, nulls, max_answer_tokens=limit, count=7)
    best = best_spans(start, end, mask, nulls, max_answer_tokens=limit)
    assert torch.equal(found.null_score, best.null_score)
    for window in range(6):
        expected = reference(start[window], end[window], mask[window], int(nulls[window]), limit)[:7]
        scores = found.score[window].tolist()
        places = list(zip(scores, found.start[window].tolist(), found.end[window].tolist(), strict=True))
        assert places[: len(expected)] == expected
        assert all(score == -math.inf for score in scores[len(expected) :])


def test_a_logit_that_is_not_finite_marks_the_whole_window() -> None:
    start = torch.zeros(2, 4)
    start[1, 2] = math.nan
    mask, nulls = torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, dtype=torch.int64)
    found = top_spans(start, torch.zeros(2, 4), mask, nulls, max_answer_tokens=2, count=3)
    assert found.score[0].isfinite().all()
    assert found.score[1].isnan().all()


@pytest.fixture(scope="module")
def table() -> QaTable:
    """Questions on paragraphs of which one needs several windows and one has signs that are no part of answers."""
    long = " ".join(f"Word{number} stands \u201chere\u201d," for number in range(60))
    contexts = [long, "\ufeffAlpha  beta\u200b gamma. ", long + " End."]
    paragraphs = [
        {
            "context": context,
            "qas": [{"id": f"q{place}-{n}", "question": f"Which {n}?", "answers": []} for n in (1, 2)],
        }
        for place, context in enumerate(contexts)
    ]
    return read_squad({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}, "small")


@pytest.fixture(scope="module")
def reader(table: QaTable, cache_dir: Path) -> tuple[Any, Any, Any, WindowSet]:
    family = registry.family_class("bert")(ModelConfig("bert", "micro", vocab_size=300))
    tokenizer = prepare_tokenizer(family, load_table("sample", split="dev"), cache_dir)
    torch.manual_seed(0)
    model = family.build(tokenizer)
    lengths = WindowLengths(max_length=64, stride=16, max_question_length=20)
    windows = build_windows(table, tokenizer, family.layout(tokenizer), lengths=lengths, cache_dir=cache_dir)
    assert len(windows) > 2 * len(table)
    return family, model, tokenizer, windows


def ranked(reader: Any, table: QaTable, count: int, settings: EvaluationConfig = FLOAT32) -> Any:
    family, model, tokenizer, windows = reader
    return rank(
        model, family, windows, table, tokenizer=tokenizer, settings=settings, device=CPU, count=count
    )


@pytest.mark.parametrize("count", [1, 8])
def test_the_first_is_what_is_predicted_and_offsets_cut_the_text_out(
    count: int, reader: Any, table: QaTable
) -> None:
    family, model, tokenizer, windows = reader
    expected = predict(model, family, windows, table, tokenizer=tokenizer, settings=FLOAT32, device=CPU)
    found = ranked(reader, table, count)
    assert [item.question_id for item in found] == table.question_ids
    for item, prediction, example in zip(found, expected, table.examples(), strict=True):
        first = item.candidates[0]
        assert (first.text, first.score) == (prediction.text, prediction.score)
        assert item.null_score - first.score == prediction.null_odds
        for threshold in (None, prediction.null_odds, math.nextafter(prediction.null_odds, -math.inf)):
            answer = item.answer(threshold)
            assert (answer is None) == (threshold is not None and threshold < prediction.null_odds)
        for candidate in item.candidates:
            assert example.context[candidate.start : candidate.end] == candidate.text
            assert candidate.text == candidate.text.strip("\ufeff\u200b ")
            assert 0 <= candidate.window < item.windows


def test_the_best_fall_in_score_and_no_span_comes_twice(reader: Any, table: QaTable) -> None:
    found = ranked(reader, table, 8)
    for item in found:
        scores = [candidate.score for candidate in item.candidates]
        assert len(scores) == 8
        assert scores == sorted(scores, reverse=True)
        assert len({(candidate.start, candidate.end) for candidate in item.candidates}) == 8
    assert any(candidate.window > 0 for item in found for candidate in item.candidates)


def test_batches_change_no_answer(reader: Any, table: QaTable) -> None:
    def read(tokens: int) -> Any:
        return ranked(reader, table, 3, EvaluationConfig(precision="float32", batch_tokens=tokens))

    alone, together = read(1), read(100_000)
    places = [
        [(item.start, item.end, item.window) for one in found for item in one.candidates]
        for found in (alone, together)
    ]
    assert places[0] == places[1]
    scores = [[item.score for one in found for item in one.candidates] for found in (alone, together)]
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-4)  # float32 sums in another order


def test_progress_counts_every_window_once(reader: Any, table: QaTable) -> None:
    family, model, tokenizer, windows = reader
    counts: list[int] = []
    options = {"tokenizer": tokenizer, "settings": FLOAT32, "device": CPU, "on_batch": counts.append}
    rank(model, family, windows, table, count=1, **options)
    assert sum(counts) == len(windows)
    assert len(counts) > 1


def test_written_answers_have_no_place_and_equal_texts_count_once(reader: Any, table: QaTable) -> None:
    windows = reader[3]
    answers = [GeneratedAnswer(" same ", -float(n), -9.0 + n) for n in range(len(windows))]
    first = int((windows.question_index == 0).sum())
    answers[1] = GeneratedAnswer("other", -0.5, 3.0)
    answers[2] = GeneratedAnswer("", 0.0, 3.0)
    found = rank_generated(windows, table, answers, count=4)
    assert first > 3
    texts = [(item.text, item.score, item.start, item.end, item.window) for item in found[0].candidates]
    assert texts == [("same", 0.0, None, None, 0), ("other", -0.5, None, None, 1)]
    assert (found[0].null_score, found[0].windows) == (-9.0, first)
    silent = rank_generated(windows, table, [GeneratedAnswer("", 0.0, 0.0)] * len(windows), count=4)
    assert silent[0].candidates == ()
    assert silent[0].answer(None) is None


def test_a_score_that_is_no_number_names_the_question(reader: Any, table: QaTable) -> None:
    answers = [GeneratedAnswer("a", math.nan, 0.0)] * len(reader[3])
    with pytest.raises(NonFiniteScore, match="q0-1"):
        rank_generated(reader[3], table, answers, count=2)
