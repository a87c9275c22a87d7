"""Windows to answers: the best span of each window, the best answer of each question, the threshold.

Exact: every allowed pair of start and end counts, not only the top twenty of each. The models run in
`evaluate.py`; how answers are scored is in `qa_core/scoring/scores.py`. Dimensions: W windows, L tokens, Q questions.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qa_core.data.characters import bare, bare_bounds
from qa_core.data.table import QaTable
from qa_core.data.windows import WindowSet
from qa_core.errors import DataError
from qa_core.families.base import GeneratedAnswer


class NonFiniteScore(DataError):
    """A model gave NaN or infinity where an answer was to be weighed."""


@dataclass(frozen=True)
class SpanScores:
    """The best span of each window, [W] each.

    `score` and `null_score` are sums of a start and an end logit, float64; NaN marks a window with a logit
    that is not finite. `start` and `end` are tokens of the window, inclusive, int64. A window without context
    tokens has the score minus infinity.
    """

    score: Tensor
    start: Tensor
    end: Tensor
    null_score: Tensor


@dataclass(frozen=True)
class Prediction:
    """The best answer to one question, before any threshold.

    `null_odds` is the least no-answer score over the question's windows minus `score`: the larger, the
    likelier that there is no answer. Both are in nats; where the model offered no answer at all, `text` is
    "", `null_odds` plus infinity and `score` minus infinity.
    """

    text: str
    null_odds: float
    score: float
    question_id: str


@dataclass(frozen=True)
class Candidate:
    """One answer that a model offers.

    Attributes:
        text: without white space and format characters at its ends; it may be empty.
        score: start plus end logit, or the log-probability of a written answer; in nats.
        start, end: characters of the paragraph, `context[start:end] == text`; None where the answer was written.
        window: of the question's windows, the first of which is 0.
    """

    text: str
    score: float
    start: int | None
    end: int | None
    window: int


@dataclass(frozen=True)
class Ranked:
    """The best answers to one question, before any threshold: candidates that differ, by falling score.

    `null_score` is the least no-answer score over the question's `windows` windows, in nats. A model may offer no
    candidate.
    """

    question_id: str
    candidates: tuple[Candidate, ...]
    null_score: float
    windows: int

    def answer(self, threshold: float | None) -> Candidate | None:
        """Return the answer that stands under a threshold on the null odds (see `Prediction`); None: no answer."""
        if not self.candidates or not self.candidates[0].text:
            return None
        best = self.candidates[0]
        is_null = threshold is not None and self.null_score - best.score > threshold
        return None if is_null else best


def best_spans(
    start_logits: Tensor,
    end_logits: Tensor,
    span_mask: Tensor,
    null_positions: Tensor,
    *,
    max_answer_tokens: int,
) -> SpanScores:
    """Find each window's best span of at most `max_answer_tokens` tokens, and its no-answer score.

    Args:
        start_logits, end_logits: [W, L], any floating dtype.
        span_mask: [W, L] bool, True on context tokens and the null position.
        null_positions: [W] int64; that token stands for "no answer" and is part of no span.
        max_answer_tokens: at least 1.

    Returns:
        Among equal scores the span that starts first, and of those the shortest.
    """
    null_index = null_positions[:, None]
    start, end = start_logits.double(), end_logits.double()  # exact sums: equal scores are true ties
    is_finite = (start.isfinite() & end.isfinite()) | ~span_mask  # [W, L]
    null_score = (start + end).gather(1, null_index).squeeze(1)  # [W]
    is_context = span_mask.scatter(1, null_index, False)
    start = start.masked_fill(~is_context, -math.inf)
    end = end.masked_fill(~is_context, -math.inf)

    best_end = _largest_ahead(end, max_answer_tokens)  # [W, L] of the ends that each start may have
    score, first = (start + best_end).max(dim=1)
    widths = torch.arange(max_answer_tokens, device=end.device).clamp(max=start.shape[1] - 1)
    ends = (first[:, None] + widths).clamp(max=start.shape[1] - 1)  # [W, max_answer_tokens]
    return SpanScores(
        score=score.masked_fill(~is_finite.all(1), math.nan),
        start=first,
        end=first + end.gather(1, ends).argmax(dim=1),  # of equal ends the nearest
        null_score=null_score,
    )


def _largest_ahead(values: Tensor, width: int) -> Tensor:
    """Return the largest of each row's values [W, L] at each place and the `width - 1` after it, [W, L].

    Runs of twice the length are made of two of them, and the last of two that overlap: a maximum counts none twice.
    """
    length = values.shape[1]
    width = min(width, length)
    largest, covered = values.clone(), 1
    while covered < width:
        step = min(covered, width - covered)
        ahead = largest[:, step:]
        largest = torch.cat(
            [torch.maximum(largest[:, : length - step], ahead), largest[:, length - step :]], 1
        )
        covered += step
    return largest


def top_spans(
    start_logits: Tensor,
    end_logits: Tensor,
    span_mask: Tensor,
    null_positions: Tensor,
    *,
    max_answer_tokens: int,
    count: int,
) -> SpanScores:
    """Return the best spans of each window: `SpanScores` of [W, K], K = `count`, by falling score.

    The arguments are those of `best_spans`, and so is the order of equal scores. Where a window has fewer spans, the
    scores behind them are minus infinity. `null_score` is [W].
    """
    best = best_spans(
        start_logits, end_logits, span_mask, null_positions, max_answer_tokens=max_answer_tokens
    )
    if count == 1:
        return SpanScores(best.score[:, None], best.start[:, None], best.end[:, None], best.null_score)
    is_context = span_mask.scatter(1, null_positions[:, None], False)
    start = start_logits.double().masked_fill(~is_context, -math.inf)  # [W, L]
    end = end_logits.double().masked_fill(~is_context, -math.inf)
    length = start.shape[1]
    widths = min(max_answer_tokens, length)
    ends = torch.nn.functional.pad(end, (0, widths - 1), value=-math.inf).unfold(
        1, length, 1
    )  # [W, widths, L]
    sums = (start[:, None] + ends).transpose(1, 2).flatten(1)  # [W, L * widths], by start, then by width
    sums = torch.nn.functional.pad(sums, (0, max(0, count - sums.shape[1])), value=-math.inf)
    score, place = sums.sort(dim=1, descending=True, stable=True)
    score, place = score[:, :count], place[:, :count]
    place = place.masked_fill(score == -math.inf, 0)
    first = place // widths
    is_bad = best.score.isnan()[:, None]
    return SpanScores(score.masked_fill(is_bad, math.nan), first, first + place % widths, best.null_score)


def rank_spans(windows: WindowSet, table: QaTable, spans: SpanScores, *, count: int) -> list[Ranked]:
    """Return the best answers to each question of the table, in its order; the first is that of `decode_spans`.

    A span that several windows hold counts once, with its best score and the earliest window of those.

    Args:
        windows: all windows of the table.
        table: the questions.
        spans: of all windows, in their order, as `top_spans` returns them with this `count`.
        count: how many candidates a question has at most.

    Raises:
        NonFiniteScore: a logit is NaN or infinite; names the question.
    """
    questions = windows.question_index  # [W]
    score, null_score = spans.score.numpy(), spans.null_score.numpy()
    _refuse_nan(score[:, 0] + null_score, questions, table)
    places = windows.token_starts[:-1, None]
    char_starts = windows.char_starts[places + spans.start.numpy()]  # [W, K]
    char_ends = windows.char_ends[places + spans.end.numpy()]
    contexts, names = table.contexts.to_pylist(), table.question_ids
    found = []
    for question, (first, last) in enumerate(_window_ranges(questions, len(table))):
        context = contexts[table.context_index[question]]
        of_question = score[first:last].ravel()
        candidates: dict[tuple[int, int], Candidate] = {}
        for place in np.argsort(-of_question, kind="stable").tolist():
            if len(candidates) == count or of_question[place] == -math.inf:
                break
            window, column = divmod(place, score.shape[1])
            begin, end = int(char_starts[first + window, column]), int(char_ends[first + window, column])
            start, stop = bare_bounds(context[begin:end])
            bounds = (begin + start, begin + stop)
            candidate = Candidate(context[slice(*bounds)], float(of_question[place]), *bounds, window)
            candidates.setdefault(bounds, candidate)
        least = float(null_score[first:last].min())
        found.append(Ranked(names[question], tuple(candidates.values()), least, last - first))
    return found


def rank_generated(
    windows: WindowSet, table: QaTable, answers: Sequence[GeneratedAnswer], *, count: int
) -> list[Ranked]:
    """Return the best written answers to each question of the table; the first is that of `decode_generated`.

    Each window gives one answer, so that there are no more candidates than windows. Equal texts count once.

    Raises:
        NonFiniteScore: a log-probability is NaN; names the question.
    """
    questions = windows.question_index
    scores = np.array([answer.log_probability for answer in answers], dtype=np.float64)  # [W]
    nulls = np.array([answer.null_log_probability for answer in answers], dtype=np.float64)
    _refuse_nan(np.where(np.isnan(scores) | np.isnan(nulls), np.nan, 0.0), questions, table)
    texts = [bare(answer.text) for answer in answers]
    scores[[not text for text in texts]] = -math.inf
    names = table.question_ids
    found = []
    for question, (first, last) in enumerate(_window_ranges(questions, len(table))):
        candidates: dict[str, Candidate] = {}
        for window in np.argsort(-scores[first:last], kind="stable").tolist():
            text, score = texts[first + window], float(scores[first + window])
            if text and score > -math.inf and len(candidates) < count:
                candidates.setdefault(text, Candidate(text, score, None, None, window))
        least = float(nulls[first:last].min())
        found.append(Ranked(names[question], tuple(candidates.values()), least, last - first))
    return found


def decode_spans(windows: WindowSet, table: QaTable, spans: SpanScores) -> list[Prediction]:
    """Return one prediction for each question of the table, in its order.

    The best span over the question's windows, the earliest window among equals; its text is cut from the
    paragraph by character offsets, without white space and format characters at its ends.

    Args:
        windows: all windows of the table.
        table: the questions.
        spans: of all windows, in their order.

    Raises:
        NonFiniteScore: a logit is NaN or infinite; names the question.
    """
    questions = windows.question_index  # [W]
    score, null_score = spans.score.numpy(), spans.null_score.numpy()
    _refuse_nan(score + null_score, questions, table)
    order = np.lexsort((np.arange(len(windows)), -score, questions))
    firsts = _first_of_each(questions[order], len(table))
    chosen = order[firsts]  # [Q] the best window of each question
    null_scores = np.minimum.reduceat(null_score[order], firsts)  # [Q]
    char_starts = windows.char_starts[windows.token_starts[chosen] + spans.start.numpy()[chosen]]
    char_ends = windows.char_ends[windows.token_starts[chosen] + spans.end.numpy()[chosen]]
    contexts = table.contexts.to_pylist()
    rows = zip(
        table.context_index.tolist(),
        char_starts.tolist(),
        char_ends.tolist(),
        null_scores.tolist(),
        score[chosen].tolist(),
        table.question_ids,
        strict=True,
    )
    return [
        _prediction(bare(contexts[context][first:last]), null, best, question_id)
        for context, first, last, null, best, question_id in rows
    ]


def decode_generated(
    windows: WindowSet, table: QaTable, answers: Sequence[GeneratedAnswer]
) -> list[Prediction]:
    """Return one prediction for each question of the table, in its order, from generated text.

    The non-empty answer with the highest log-probability over the question's windows, the earliest window
    among equals, without white space and format characters at its ends.

    Args:
        windows: all windows of the table.
        table: the questions.
        answers: of all windows, in their order.

    Raises:
        NonFiniteScore: a log-probability is NaN; names the question.
    """
    questions = windows.question_index
    scores = np.array([answer.log_probability for answer in answers], dtype=np.float64)  # [W]
    null_scores = np.array([answer.null_log_probability for answer in answers], dtype=np.float64)
    is_nan = np.isnan(scores) | np.isnan(null_scores)
    _refuse_nan(np.where(is_nan, np.nan, 0.0), questions, table)
    texts = [bare(answer.text) for answer in answers]
    scores[[not text for text in texts]] = -math.inf
    order = np.lexsort((np.arange(len(windows)), -scores, questions))
    firsts = _first_of_each(questions[order], len(table))
    null_minima = np.minimum.reduceat(null_scores[order], firsts)
    rows = zip(order[firsts].tolist(), null_minima.tolist(), table.question_ids, strict=True)
    return [_prediction(texts[window], null, scores[window], name) for window, null, name in rows]


def apply_threshold(predictions: Iterable[Prediction], threshold: float | None) -> dict[str, str]:
    """Return question id -> answer, "" where `null_odds` is above the threshold; None: all stand."""
    return {prediction.question_id: final_text(prediction, threshold) for prediction in predictions}


def final_text(prediction: Prediction, threshold: float | None) -> str:
    """Return the answer under a threshold; see `apply_threshold`."""
    return "" if threshold is not None and prediction.null_odds > threshold else prediction.text


def _prediction(text: str, null_score: float, score: float, question_id: str) -> Prediction:
    if score == -math.inf:
        return Prediction("", math.inf, -math.inf, question_id)
    return Prediction(text, null_score - score, float(score), question_id)


def _first_of_each(sorted_questions: np.ndarray, count: int) -> np.ndarray:
    """Return where each question begins among its table's windows, [Q]; each must have one."""
    firsts = np.flatnonzero(np.diff(sorted_questions, prepend=-1))
    assert len(firsts) == count, "every question of the table has windows, and no other has"
    return firsts


def _window_ranges(questions: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Return the first window of each question and the one after its last; they stand together, in order."""
    firsts = _first_of_each(questions, count).tolist()
    return list(zip(firsts, [*firsts[1:], len(questions)], strict=True))


def _refuse_nan(scores: np.ndarray, questions: np.ndarray, table: QaTable) -> None:
    bad = np.flatnonzero(np.isnan(scores))
    if len(bad):
        question_id = table.question_ids[int(questions[bad[0]])]
        raise NonFiniteScore(
            f"question {question_id!r}: the model's scores are not finite there and in {len(bad)} of "
            f"{len(scores)} windows in all; allowed: finite numbers"
        )
