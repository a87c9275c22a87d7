"""Probes: small sets of questions that each test one ability, asked in several ways and scored like all others.

The passages are invented and written for this project (`data/probe_items.json`): eight categories in three
groups, at least 20 passages each. Every passage has a question, a paraphrase of it, and an unanswerable twin
about something that the passage does not tell; variants in case and punctuation are made here. The answers come
from the decoder of the benchmark (`evaluate.py`); how a wrong one is wrong is named by `failures.py`.

What the golds mean. Mostly they are alternatives of different length for one answer. In `two_part` every gold is
one of the two parts, and either counts as an exact match, because no single span of the passage is a whole
answer: read its EM as "found a part", and the outcome `all_parts` as "gave both". In `causal` the golds are the
clauses, on either side of the contrast, from which a reader would put the explanation together: read its F1 as
"found the cause", for nobody wrote down the one right explanation.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import median
from typing import Any

import numpy as np

from qa_core.data.clusters import PARAGRAPH, each_alone
from qa_core.data.table import QaTable, TableBuilder
from qa_core.data.text import normalize_answer
from qa_core.schema import Answer
from qa_core.scoring.decode import Prediction, final_text
from qa_core.scoring.evaluate import score_intervals, scores_by_question
from qa_core.scoring.failures import OUTCOMES, outcome
from qa_core.scoring.intervals import Interval

FORMAT = 1
SOURCE = "probes"


@dataclass(frozen=True)
class Category:
    """What a set of probes tests; `needs_all`: its golds are parts, not alternatives."""

    group: str
    tests: str
    needs_all: bool = False


CATEGORIES: Mapping[str, Category] = {
    "defined_term": Category("foundational", "a term defined inside a clause, a list beside the keyword"),
    "which_of_two": Category("foundational", "which of two is the most ..., both named"),
    "pronoun_chain": Category("foundational", "a place behind pronouns, a date or time near them"),
    "informal_when": Category("temporal and numeric", "when, short and lower-case, other times near"),
    "stated_goal": Category(
        "temporal and numeric", "the exact span of a goal or attribute, another one near"
    ),
    "constrained_number": Category("temporal and numeric", "a number under several conditions, others near"),
    "two_part": Category("advanced", "two parts that stand apart", needs_all=True),
    "causal": Category("advanced", "why A is more than B although both share C, over two sentences"),
}
TWIN, ANSWERABLE, ALL = "twin", "answerable", "all"
# Of the question; one that equals an earlier variant is left out, so that no question is asked twice.
VARIANTS = ("original", "paraphrase", "lower_no_mark", "upper", "formal", "many_marks", TWIN)


@dataclass(frozen=True)
class ProbeItem:
    """One passage with its questions. `distractors` are wrong answers that the passage offers."""

    item_id: str
    category: str
    context: str
    question: str
    paraphrase: str
    twin: str  # has no answer in the passage
    answers: tuple[Answer, ...]
    distractors: tuple[str, ...]

    def questions(self) -> dict[str, str]:
        """Return the question's variants by name, in the order of `VARIANTS`, each text once."""
        bare = self.question.rstrip("?")
        asked = {
            "original": self.question,
            "paraphrase": self.paraphrase,
            "lower_no_mark": bare.lower(),
            "upper": self.question.upper(),
            "formal": f"{bare[0].upper()}{bare[1:]}?",
            "many_marks": f"{bare}???",
            TWIN: self.twin,
        }
        kept: dict[str, str] = {}
        for variant, text in asked.items():
            if text not in kept.values():
                kept[variant] = text
        return kept


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """The probes as a table of questions, and for each of its rows the item and the variant asked."""

    table: QaTable
    items: tuple[ProbeItem, ...]  # [rows]
    variants: tuple[str, ...]  # [rows]


@dataclass(frozen=True)
class ProbeAnswer:
    """One answer under the threshold, and what became of it."""

    question_id: str
    question: str
    text: str
    outcome: str
    is_distractor: bool
    null_odds: float | None  # None: no answer was offered, whatever the threshold


@dataclass(frozen=True)
class ProbeRow:
    """Scores of one category under one variant.

    The variant `answerable` takes the mean of an item over all variants but the twin; the category `all` takes
    every item. The intervals are over items, that is over passages, not over questions.
    """

    category: str
    group: str
    variant: str
    items: int
    questions: int
    em_percent: Interval
    f1_percent: Interval
    outcomes: Mapping[str, int]  # of the questions, every name of `OUTCOMES`
    distractors: int  # answers that are one of the item's distractors
    median_null_odds: float | None  # over the questions where an answer was offered; None: nowhere


@dataclass(frozen=True)
class ProbeReport:
    """All rows, category by category, and all answers in the table's order."""

    data_hash: str
    null_threshold: float | None
    rows: tuple[ProbeRow, ...]
    answers: tuple[ProbeAnswer, ...]

    def row(self, category: str, variant: str) -> ProbeRow:
        """Return one row; raises KeyError where the category has no such variant."""
        for row in self.rows:
            if (row.category, row.variant) == (category, variant):
                return row
        raise KeyError((category, variant))


def load_items() -> tuple[ProbeItem, ...]:
    """Return the packaged probes, in the order of the file."""
    document = json.loads((files("qa_core") / "data" / "probe_items.json").read_text(encoding="utf-8"))
    assert document["format"] == FORMAT, document["format"]
    return tuple(map(_item, document["items"]))


def probe_set(items: Sequence[ProbeItem]) -> ProbeSet:
    """Ask every variant of every item, as a table.

    Raises:
        DataError: a gold answer does not stand where the item says, an id occurs twice, or a text is blank.
    """
    builder = TableBuilder(SOURCE)
    asked: list[tuple[ProbeItem, str]] = []
    for item in items:
        builder.fields.text(f"{item.item_id}.context", item.context)
        for variant, question in item.questions().items():
            golds = () if variant == TWIN else item.answers
            values = {
                "id": f"{item.item_id}/{variant}",
                "question": question,
                "answers": [{"text": gold.text, "answer_start": gold.start} for gold in golds],
                "is_impossible": variant == TWIN,
            }
            builder.add_question(
                item.item_id, values, context=item.context, title=item.category, empty_is_unanswerable=False
            )
            asked.append((item, variant))
    asked_items, variants = zip(*asked, strict=True) if asked else ((), ())
    return ProbeSet(builder.build(), asked_items, variants)


def report(probes: ProbeSet, predictions: Sequence[Prediction], threshold: float | None) -> ProbeReport:
    """Score the answers to the probes, by category and variant.

    Args:
        probes: what was asked.
        predictions: one for each question of its table, in its order.
        threshold: on the null odds, as the model ships it; None lets all answers stand.
    """
    answers = _answers(probes, predictions, threshold)
    scores = scores_by_question(predictions, probes.table, threshold)  # [Q, 2]
    categories = np.array([item.category for item in probes.items])
    variants = np.array(probes.variants)
    rows = []
    for category in (*CATEGORIES, ALL):
        of_category = np.ones(len(answers), bool) if category == ALL else categories == category
        for variant in (*VARIANTS, ANSWERABLE):
            of_variant = variants != TWIN if variant == ANSWERABLE else variants == variant
            chosen = np.flatnonzero(of_category & of_variant)
            if len(chosen):
                by_item = _means_by_item(scores[chosen], [probes.items[row].item_id for row in chosen])
                rows.append(_row(category, variant, by_item, [answers[row] for row in chosen]))
    return ProbeReport(probes.table.data_hash, threshold, tuple(rows), tuple(answers))


def _item(values: Mapping[str, Any]) -> ProbeItem:
    return ProbeItem(
        item_id=values["id"],
        category=values["category"],
        context=values["context"],
        question=values["question"],
        paraphrase=values["paraphrase"],
        twin=values["twin"],
        answers=tuple(Answer(answer["text"], answer["answer_start"]) for answer in values["answers"]),
        distractors=tuple(values["distractors"]),
    )


def _answers(
    probes: ProbeSet, predictions: Sequence[Prediction], threshold: float | None
) -> list[ProbeAnswer]:
    answers = []
    for item, example, prediction in zip(probes.items, probes.table.examples(), predictions, strict=True):
        text = final_text(prediction, threshold)
        needs_all = CATEGORIES[item.category].needs_all
        answers.append(
            ProbeAnswer(
                question_id=example.question_id,
                question=example.question,
                text=text,
                outcome=outcome(example, text, needs_all=needs_all),
                is_distractor=normalize_answer(text) in map(normalize_answer, item.distractors),
                null_odds=prediction.null_odds if math.isfinite(prediction.null_odds) else None,
            )
        )
    return answers


def _means_by_item(scores: np.ndarray, item_ids: Sequence[str]) -> np.ndarray:
    """Return the mean scores of each item, [items, 2], in order of first use, from those of its questions, [Q, 2]."""
    number = {item_id: index for index, item_id in enumerate(dict.fromkeys(item_ids))}
    place = np.array([number[item_id] for item_id in item_ids])
    totals = np.zeros((len(number), scores.shape[1]))
    np.add.at(totals, place, scores)
    return totals / np.bincount(place)[:, None]


def _row(category: str, variant: str, scores: np.ndarray, answers: Sequence[ProbeAnswer]) -> ProbeRow:
    counts = Counter(answer.outcome for answer in answers)
    odds = [answer.null_odds for answer in answers if answer.null_odds is not None]
    return ProbeRow(
        category=category,
        group=ALL if category == ALL else CATEGORIES[category].group,
        variant=variant,
        items=len(scores),
        questions=len(answers),
        **score_intervals(scores, each_alone(len(scores), PARAGRAPH)),
        outcomes={name: counts[name] for name in OUTCOMES},
        distractors=sum(answer.is_distractor for answer in answers),
        median_null_odds=median(odds) if odds else None,
    )
