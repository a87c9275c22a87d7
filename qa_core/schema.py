"""The records that cross module boundaries: what is read, reported and measured.

Frozen dataclasses with plain values, so that each converts to JSON with `as_json`. Shapes of tensors are documented
where tensors are made (`qa_core/data/batches.py`, `qa_core/families/base.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One gold answer: `context[start:start + len(text)] == text`, offsets in characters."""

    text: str
    start: int


@dataclass(frozen=True)
class Example:
    """One question on one paragraph. No answers means: unanswerable."""

    question_id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    title: str = ""

    @property
    def is_impossible(self) -> bool:
        """True when the paragraph does not answer the question."""
        return not self.answers


@dataclass(frozen=True)
class FormAtRung:
    """A stored form that is within the memory budget, as it is planned before training; see `form_kinds.py`."""

    label: str | None  # as `Form.label`; None: the recipe itself, in a sweep whose forms do not apply to it
    kind: str
    memory_mb: float
    memory_batch8_mb: float
    inference_peak_bytes: int
    weights_bytes: int
    artifact_bytes: int


@dataclass(frozen=True)
class Progress:
    """What a trial reports at a rung. Every objective of the sweep is present, always."""

    examples_seen: int
    budget_examples: int
    train_loss: float | None  # None: nothing was trained since the last report
    selection_em_percent: float
    selection_f1_percent: float
    memory_mb: float
    memory_batch8_mb: float
    inference_peak_bytes: int
    weights_bytes: int
    artifact_bytes: int
    train_seconds: float
    # The best trivial baseline on the same selection questions, and the paired difference in EM to it. None: a report
    # of an older version, or the one of the whole budget, which no scheduler judges.
    selection_baseline: str | None = None  # its name in `qa_core/scoring/baselines.py`
    selection_baseline_em_percent: float | None = None
    selection_gain_percent: float | None = None  # own EM minus the baseline's
    selection_gain_error_percent: float | None = None  # its standard error; None also for a single question
    selection_gain_unit: str | None = (
        None  # what the error takes as independent: article, paragraph or question
    )
    # `FormAtRung` of each stored form within the memory budget, as plain values. None: the sweep lists no forms, or the
    # report is of the whole budget or of an older version.
    forms: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Quality:
    """Official scores on the evaluation set, in percent. The NoAns fields are None where no such question exists.

    The baselines are those of `qa_core/scoring/baselines.py`, scored on the same questions. Records of older versions
    lack some of them.
    """

    em_percent: float
    f1_percent: float
    questions: int
    has_ans_em_percent: float | None
    has_ans_f1_percent: float | None
    has_ans_questions: int
    no_ans_em_percent: float | None
    no_ans_f1_percent: float | None
    no_ans_questions: int
    null_threshold: float | None
    baseline_no_answer_em_percent: float
    baseline_no_answer_f1_percent: float
    baseline_first_span_em_percent: float
    baseline_first_span_f1_percent: float
    baseline_question_blind_em_percent: float
    baseline_question_blind_f1_percent: float
    # No exact match: the measure of the study of BiLSTM models, and what always naming place 0 gets. See
    # `evaluate.index_accuracy`; None for every model that is not one of that study's.
    index_accuracy_percent: float | None = None
    index_accuracy_constant_0_percent: float | None = None


@dataclass(frozen=True)
class CrossDomainScore:
    """Quality on a set of another domain, under the no-answer threshold of the recipe's own selection split."""

    data_hash: str
    quality: Quality


@dataclass(frozen=True)
class Cost:
    """Memory and time of one recipe, measured on the artifact that was written and loaded back.

    The words are those of the project's glossary: `inference_peak_bytes` is weights plus peak activation memory over
    the fixed protocol with one window, `inference_peak_batch8_bytes` with eight; `memory_mb` and `memory_batch8_mb` are
    those numbers divided by 10**6. Records of protocol version 1, which do not name it, hold the peak of eight windows
    as `inference_peak_bytes` and lack the others.
    """

    artifact_bytes: int  # of the whole folder that ships
    predicted_artifact_bytes: int | None
    weights_bytes: int
    inference_peak_bytes: int
    inference_peak_batch8_bytes: int
    predicted_inference_peak_bytes: int | None
    predicted_inference_peak_batch8_bytes: int | None
    form_inference_peak_bytes: int
    form_inference_peak_batch8_bytes: int
    train_peak_bytes: int | None  # None: the recipe trains nothing
    rss_peak_bytes: int
    parameters: int
    trainable_parameters: int
    train_seconds: float
    train_examples_per_second: float
    latency_p50_ms: float
    latency_p95_ms: float
    device: str
    precision: str
    threads: int
    protocol_version: int  # of `qa_core/memory/protocol.py`
    compute_path: str | None = (
        None  # which of several implementations the network runs on; None: there is one
    )
    # Scores at rungs, the making of the deployed form included; no part of `train_seconds`. None: of an older version.
    rung_seconds: float | None = None
    micro_batch_parts: int = 1  # more than 1: the device was full, and micro-batches were cut into so many

    @property
    def memory_mb(self) -> float:
        """The front's default memory axis, in units of 10**6 bytes."""
        return self.inference_peak_bytes / 1e6

    @property
    def memory_batch8_mb(self) -> float:
        """The same with eight windows at a time."""
        return self.inference_peak_batch8_bytes / 1e6


@dataclass(frozen=True)
class TwinDifference:
    """How far the exact match of a stored form lies from its twin's, which was trained once with it, in percent points.

    The twin is the network as the recipe itself stores it. Both answered the same questions; the interval leaves out
    one article after the other, see `qa_core/scoring/intervals.py`. It holds 0 where the two are tied.
    """

    em_difference_percent: float  # form minus twin, on the evaluation questions
    low: float | None  # None: there are too few articles for an interval
    high: float | None
    confidence: float  # a share
    unit: str  # what varied: article, paragraph
    clusters: int  # how many of them
    selection_em_difference_percent: float  # on the selection split, which decides what is skipped


@dataclass(frozen=True)
class FormResult:
    """What one stored form of a trained network came to. None: it was not made, for the reason in `reason`."""

    label: str
    settings: Mapping[str, Any]  # as `Form.settings`
    status: str  # ok, skipped, failed
    reason: str | None = None  # None only for ok
    quality: Quality | None = None
    cost: Cost | None = None
    against_twin: TwinDifference | None = None  # None for the twin
    artifact: str | None = None
    traceback: str | None = None  # of a failure


@dataclass(frozen=True)
class RunResult:
    """All that one finished trial leaves: recipe, curve, quality, cost, where it ran and on what."""

    config: Mapping[str, Any]
    quality: Quality
    cost: Cost
    curve: tuple[Progress, ...]
    artifact: str
    data: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())
    cross_domain: Mapping[str, CrossDomainScore] = field(
        default_factory=dict
    )  # by source, as the recipe names it
    # method -> the recipe that was trained before this one for it: key, recipe, quality, cost, see prerequisites.py
    prerequisites: Mapping[str, Any] = field(default_factory=dict)
    forms: tuple[FormResult, ...] = ()  # those that were asked for, smallest first; all else is of the twin


def as_json(value: Any) -> Any:
    """Turn a record of this module into dicts, lists and scalars that `json.dumps` accepts."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_json(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value
