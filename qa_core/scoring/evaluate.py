"""Let a model answer a table of questions, tune its no-answer threshold, and score it.

Evaluation draws no random number from training's generators and leaves the model's mode as it was. Decoding
is in `decode.py`, the scoring rules in `scores.py`. Memory and time are measured in `qa_core/memory/protocol.py`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from qa_core import heartbeat
from qa_core.config import EvaluationConfig
from qa_core.data.batches import collate, plan_inference_batches
from qa_core.data.clusters import Clusters, each_alone, question_clusters
from qa_core.data.table import QaTable
from qa_core.data.windows import WindowSet
from qa_core.families.base import Batch, Family, GeneratedAnswer
from qa_core.hardware import autocast_dtype
from qa_core.schema import Quality
from qa_core.scoring.baselines import BASELINES
from qa_core.scoring.decode import (
    Prediction,
    Ranked,
    SpanScores,
    best_spans,
    decode_generated,
    decode_spans,
    final_text,
    rank_generated,
    rank_spans,
    top_spans,
)
from qa_core.scoring.intervals import (
    LEAST_CLUSTERS,
    Interval,
    clustered_difference,
    clustered_mean,
    standard_error,
)
from qa_core.scoring.scores import question_scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SCORE_NAMES = ("em_percent", "f1_percent")  # the columns of `scores_by_question`, in percent


def predict(
    model: nn.Module,
    family: Family,
    windows: WindowSet,
    table: QaTable,
    *,
    tokenizer: "PreTrainedTokenizerFast",
    settings: EvaluationConfig,
    device: torch.device,
    on_batch: Callable[[int], None] | None = None,
) -> list[Prediction]:
    """Answer every question of a table, in its order, before any threshold.

    Args:
        model: on `device`; its mode is restored afterwards.
        family: whose head says whether spans are chosen or text is generated.
        windows: all windows of the table.
        table: the questions.
        tokenizer: the one that made the windows.
        settings: batch size in tokens, answer lengths, precision.
        device: where batches go.
        on_batch: called after each batch with the number of its windows.

    Raises:
        NonFiniteScore: the model's scores are NaN or infinite; names the question.
    """
    pass_ = _Pass(model, family, windows, tokenizer, settings, device, on_batch)
    if family.head == "generate":
        return decode_generated(windows, table, pass_.written())
    return decode_spans(windows, table, pass_.spans(best_spans))


def rank(
    model: nn.Module,
    family: Family,
    windows: WindowSet,
    table: QaTable,
    *,
    tokenizer: "PreTrainedTokenizerFast",
    settings: EvaluationConfig,
    device: torch.device,
    count: int,
    on_batch: Callable[[int], None] | None = None,
) -> list[Ranked]:
    """Return the best `count` answers to every question with their places; arguments and errors as for `predict`.

    The first of each is what `predict` answers.
    """
    pass_ = _Pass(model, family, windows, tokenizer, settings, device, on_batch)
    if family.head == "generate":
        return rank_generated(windows, table, pass_.written(), count=count)
    return rank_spans(windows, table, pass_.spans(partial(top_spans, count=count)), count=count)


def tune_threshold(predictions: Sequence[Prediction], table: QaTable) -> float | None:
    """Return the threshold on `null_odds` that gives the best exact match, the lowest among equals.

    The walk of the official v2.0 script (from "no answer" everywhere, letting answers stand by rising odds),
    with equal odds taken together, so that applying the threshold gives exactly the score that it was chosen
    for.

    Returns:
        None when every question has an answer: then all answers stand.
    """
    if not table.has_unanswerable:
        return None
    golds = _golds(table)
    pairs = zip(predictions, golds, strict=True)
    gains = np.array(
        [question_scores(texts, item.text)[0] - question_scores(texts, "")[0] for item, texts in pairs]
    )
    odds = np.array([item.null_odds for item in predictions])
    is_offered = np.isfinite(odds)  # elsewhere the model gave no answer, whatever the threshold
    gains, odds = gains[is_offered], odds[is_offered]
    if not len(odds):
        return 0.0
    values, tie_of_each = np.unique(odds, return_inverse=True)  # rising
    totals = np.cumsum(np.bincount(tie_of_each, weights=gains))  # over "no answer" everywhere, [values]
    best = int(np.argmax(totals))
    return float(values[best]) if totals[best] > 0 else math.nextafter(float(values[0]), -math.inf)


def scores_by_question(
    predictions: Sequence[Prediction], table: QaTable, threshold: float | None
) -> np.ndarray:
    """Return (exact match, F1) of each question, [Q, 2] float64 from 0 to 1, by the v2.0 rules."""
    pairs = zip(predictions, _golds(table), strict=True)
    return np.array(
        [question_scores(golds, final_text(item, threshold)) for item, golds in pairs], dtype=np.float64
    )


def selection_scores(
    predictions: Sequence[Prediction], table: QaTable, threshold: float | None
) -> tuple[float, float]:
    """Return (EM, F1) in percent: what a rung reports."""
    return mean_scores(scores_by_question(predictions, table, threshold))


def mean_scores(scores: np.ndarray) -> tuple[float, float]:
    """Return (EM, F1) in percent of scores by question, [Q, 2] from 0 to 1."""
    exact, f1 = scores.mean(axis=0).tolist()
    return 100.0 * exact, 100.0 * f1


@dataclass(frozen=True)
class Floor:
    """The best trivial baseline on a table of questions: what a network must beat to have learnt anything.

    Attributes:
        baseline: its name in `baselines.py`; of equal ones the first there.
        exact: its exact match on each question, [Q] 0 or 1.
        clusters: what a paired difference takes as independent: articles (or paragraphs) where there are at least
            `LEAST_CLUSTERS` of them, else single questions.
    """

    baseline: str
    exact: np.ndarray
    clusters: Clusters

    @classmethod
    def of(cls, table: QaTable) -> "Floor":
        """Score the baselines on the table and keep the one with the best exact match."""
        exact = {name: scores[:, 0] for name, scores in _baselines_by_question(table).items()}
        best = max(exact, key=lambda name: float(exact[name].mean()))
        clusters = question_clusters(table)
        enough = clusters.count >= LEAST_CLUSTERS
        return cls(best, exact[best], clusters if enough else each_alone(len(table), "question"))

    def gain(self, scores: np.ndarray) -> dict[str, Any]:
        """Return the fields of `Progress` that compare scores by question, [Q, 2] from 0 to 1, with the baseline."""
        difference = 100.0 * (scores[:, 0] - self.exact)
        return {
            "selection_baseline": self.baseline,
            "selection_baseline_em_percent": 100.0 * float(self.exact.mean()),
            "selection_gain_percent": float(difference.mean()),
            "selection_gain_error_percent": standard_error(difference, self.clusters),
            "selection_gain_unit": self.clusters.unit,
        }


def quality(predictions: Sequence[Prediction], table: QaTable, threshold: float | None) -> Quality:
    """Score predictions by the official rules, beside the baselines of `baselines.py`.

    Args:
        predictions: one for each question of the table, in its order.
        table: the questions.
        threshold: as `tune_threshold` returns it.
    """
    scores = 100.0 * scores_by_question(predictions, table, threshold)  # [Q, 2]
    has_answer = ~table.is_unanswerable  # [Q]
    em_percent, f1_percent = scores.mean(axis=0).tolist()
    has_ans_em, has_ans_f1 = _means(scores[has_answer])
    no_ans_em, no_ans_f1 = _means(scores[~has_answer])
    return Quality(
        em_percent=em_percent,
        f1_percent=f1_percent,
        questions=len(table),
        has_ans_em_percent=has_ans_em,
        has_ans_f1_percent=has_ans_f1,
        has_ans_questions=int(has_answer.sum()),
        no_ans_em_percent=no_ans_em,
        no_ans_f1_percent=no_ans_f1,
        no_ans_questions=int((~has_answer).sum()),
        null_threshold=threshold,
        **baseline_scores(table),
    )


def baseline_scores(table: QaTable) -> dict[str, float]:
    """Return the fields of `Quality` that hold the EM and F1 of `baselines.py`, in percent, by name."""
    fields = {}
    for baseline, scores in _baselines_by_question(table).items():
        for name, value in zip(SCORE_NAMES, mean_scores(scores), strict=True):
            fields[f"baseline_{baseline}_{name}"] = value
    return fields


def score_intervals(scores: np.ndarray, clusters: Clusters) -> dict[str, Interval]:
    """Return the intervals of EM and F1 in percent, by name.

    Args:
        scores: [Q, 2] from 0 to 1, as `scores_by_question` gives them.
        clusters: the questions that belong together, as `data.clusters.question_clusters` finds them.
    """
    return {
        name: clustered_mean(100.0 * scores[:, column], clusters, bounds=(0.0, 100.0))
        for column, name in enumerate(SCORE_NAMES)
    }


def score_differences(first: np.ndarray, second: np.ndarray, clusters: Clusters) -> dict[str, Interval]:
    """Return the paired intervals of first minus second, EM and F1 in percent, by name.

    Args:
        first, second: [Q, 2] from 0 to 1, of the same questions in the same order.
        clusters: the questions that belong together.
    """
    return {
        name: clustered_difference(100.0 * first[:, column], 100.0 * second[:, column], clusters)
        for column, name in enumerate(SCORE_NAMES)
    }


def index_accuracy(
    model: nn.Module,
    family: Family,
    windows: WindowSet,
    *,
    pad_id: int,
    settings: EvaluationConfig,
    device: torch.device,
) -> tuple[float, float]:
    """Return how often start and end are named right, each on its own, and how often place 0 is right; in percent.

    Not exact match and never to be compared with it: the mean of two accuracies of two separate choices, over places
    in the context, where place 0 is the first word and stands for "no answer" too. The study of four BiLSTM models
    called this exact match; naming place 0 always, which reads nothing, gets the second number on the same questions.
    A question counts once, with its first window, as in the study each had one; an answer further on is place 0.

    Args:
        windows: all windows of the questions.
        pad_id: token id of padding.
    """
    firsts = np.flatnonzero(np.diff(windows.question_index, prepend=-1))
    batches = plan_inference_batches(windows.lengths[firsts], settings.batch_tokens)
    right, zero = 0, 0
    forked = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=forked), _evaluation_mode(model), _inference(settings, device):
        for batch in (_to_device(collate(windows, firsts[some], pad_id), device) for some in batches):
            gold = [_places(batch, batch[name]) for name in ("start_positions", "end_positions")]
            named = [_places(batch, logits.argmax(dim=1)) for logits in family.span_logits(model, batch)]
            right += sum(int((one == other).sum()) for one, other in zip(named, gold, strict=True))
            zero += sum(int((one == 0).sum()) for one in gold)
    return 100.0 * right / (2 * len(firsts)), 100.0 * zero / (2 * len(firsts))


def _places(batch: Batch, positions: torch.Tensor) -> torch.Tensor:
    """Return the context place [B] of window positions [B]; 0 for the null position."""
    nulls = batch["null_positions"]
    is_context = batch["span_mask"].scatter(1, nulls[:, None], False)
    places = positions - is_context.int().argmax(dim=1)
    return places.masked_fill(positions == nulls, 0)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode and each back into its own mode afterwards."""
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in was_training:
            module.training = True


@contextmanager
def _inference(settings: EvaluationConfig, device: torch.device) -> Iterator[None]:
    dtype = autocast_dtype(settings.precision, device)
    autocast = torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
    with torch.inference_mode(), autocast:
        yield


def _to_device(batch: Batch, device: torch.device) -> Batch:
    heartbeat.beat()  # once for each batch, as training does
    return {name: tensor.to(device) for name, tensor in batch.items()}


@dataclass(frozen=True)
class _Pass:
    """One pass of a model over all windows, in batches by length. What it returns is in the windows' order."""

    model: nn.Module
    family: Family
    windows: WindowSet
    tokenizer: "PreTrainedTokenizerFast"
    settings: EvaluationConfig
    device: torch.device
    on_batch: Callable[[int], None] | None

    def written(self) -> list[GeneratedAnswer]:
        """Return the text that the model writes for each window."""
        answers: list[GeneratedAnswer] = []
        limit = self.settings.max_new_tokens
        with self._mode():
            for batch in self._batches():
                answers += self.family.generate(self.model, batch, self.tokenizer, max_new_tokens=limit)
        return [answers[place] for place in np.argsort(self._order)]

    def spans(self, choose: Callable[..., SpanScores]) -> SpanScores:
        """Return what `choose`, of the kind of `best_spans`, finds in each window."""
        parts = []
        limit = self.settings.max_answer_tokens
        with self._mode():
            for batch in self._batches():
                start_logits, end_logits = self.family.span_logits(self.model, batch)  # [B, L]
                masks = batch["span_mask"], batch["null_positions"]
                parts.append(choose(start_logits, end_logits, *masks, max_answer_tokens=limit))
        return _in_window_order(parts, self._order)

    @cached_property
    def _plan(self) -> list[np.ndarray]:
        return plan_inference_batches(self.windows.lengths, self.settings.batch_tokens)

    @property
    def _order(self) -> np.ndarray:
        """Windows in the order in which they are answered."""
        return np.concatenate(self._plan)

    @contextmanager
    def _mode(self) -> Iterator[None]:
        forked = [self.device] if self.device.type == "cuda" else []
        inference = _inference(self.settings, self.device)
        with torch.random.fork_rng(devices=forked), _evaluation_mode(self.model), inference:
            yield

    def _batches(self) -> Iterator[Batch]:
        for windows in self._plan:
            yield _to_device(collate(self.windows, windows, self.tokenizer.pad_token_id), self.device)
            if self.on_batch is not None:
                self.on_batch(len(windows))


def _in_window_order(parts: list[SpanScores], order: np.ndarray) -> SpanScores:
    """Join the batches' spans and sort them by window; one transfer from the device for each field."""
    places = torch.from_numpy(np.argsort(order))

    def join(field: str) -> torch.Tensor:
        return torch.cat([getattr(part, field) for part in parts]).cpu()[places]

    return SpanScores(join("score"), join("start"), join("end"), join("null_score"))


def _baselines_by_question(table: QaTable) -> dict[str, np.ndarray]:
    """Return the scores of each baseline, [Q, 2] from 0 to 1, by name."""
    found = {}
    contexts, golds = table.contexts.to_pylist(), _golds(table)
    for baseline, answer_to in BASELINES.items():
        answers = [answer_to(context) for context in contexts]
        pairs = zip(golds, table.context_index.tolist(), strict=True)
        scores = [question_scores(texts, answers[context]) for texts, context in pairs]
        found[baseline] = np.array(scores, dtype=np.float64)
    return found


def _golds(table: QaTable) -> list[list[str]]:
    return table.rows.column("answer_texts").to_pylist()


def _means(scores: np.ndarray) -> tuple[float | None, float | None]:
    if not len(scores):
        return None, None
    exact, f1 = scores.mean(axis=0).tolist()
    return exact, f1
