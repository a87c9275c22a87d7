"""How much of an evaluation set a model has seen in training: texts that are the same but for their form."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qa_core.data.table import QaTable


@dataclass(frozen=True)
class Overlap:
    """Paragraphs and questions of one table that occur in another, and how many it has."""

    paragraphs: int
    of_paragraphs: int
    questions: int
    of_questions: int


def overlap(table: QaTable, other: QaTable) -> Overlap:
    """Count the paragraphs and the question texts of a table that stand in the other too.

    Texts are compared in Unicode's form NFKC, without regard to letter case and white space.
    """
    contexts, questions = table.contexts.to_pylist(), table.rows.column("question").to_pylist()
    return Overlap(
        paragraphs=_shared(contexts, other.contexts.to_pylist()),
        of_paragraphs=len(contexts),
        questions=_shared(questions, other.rows.column("question").to_pylist()),
        of_questions=len(questions),
    )


def repeated(table: QaTable, other: QaTable) -> int:
    """Return how many questions of a table stand in the other with one of their answers, or with none as there.

    The same words asked of other paragraphs, such as "Who built it?", give nothing away; with the answer they do.
    """
    known = set(_with_answers(other))
    questions = zip(table.rows.column("question").to_pylist(), _golds(table), strict=True)
    return sum(any((plain_text(text), gold) in known for gold in golds) for text, golds in questions)


def _with_answers(table: QaTable) -> Iterator[tuple[str, str]]:
    for text, golds in zip(table.rows.column("question").to_pylist(), _golds(table), strict=True):
        yield from ((plain_text(text), gold) for gold in golds)


def _golds(table: QaTable) -> Iterator[set[str]]:
    for texts in table.rows.column("answer_texts").to_pylist():
        yield set(map(plain_text, texts)) or {""}


def _shared(texts: Iterable[str], others: Iterable[str]) -> int:
    known = set(map(plain_text, others))
    return sum(plain_text(text) in known for text in texts)


def plain_text(text: str) -> str:
    """Return a text in Unicode's form NFKC, without letter case and with single spaces."""
    composed = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(composed.casefold().split())
