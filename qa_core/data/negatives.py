"""Synthetic unanswerable questions: a real question put to a paragraph that does not hold its answer.

They teach a model to say "no answer" where the data has no unanswerable questions. They are easier than those
people write, because the paragraph seldom speaks of the question's subject.
"""

import numpy as np
import pyarrow as pa

from qa_core.data.table import SCHEMA, QaTable
from qa_core.errors import DataError
from qa_core.scores import normalize_answer
from qa_core.seeding import numpy_generator

DRAWS = 20  # paragraphs tried at random before all are looked through


def add_negatives(table: QaTable, ratio: float, *, seed: int) -> QaTable:
    """Return the table with synthetic unanswerable questions after its own.

    Each pairs an answerable question with another paragraph of the table that holds none of its answers,
    neither as written (letter case aside) nor as the official scores normalise them. A question meets a
    paragraph once at most. Its id is the original's with `-negative-1`, `-negative-2` and so on.

    Args:
        table: the training questions.
        ratio: new questions for each question of the table; above 1, questions are used again.
        seed: decides questions and paragraphs.

    Returns:
        A table with round(ratio * len(table)) more questions, fewer only where no paragraph is left for a
        question.

    Raises:
        DataError: the table has one paragraph, or no answerable question.
    """
    count = round(ratio * len(table))
    if count == 0:
        return table
    answerable = np.flatnonzero(~table.is_unanswerable)
    if len(table.contexts) < 2 or not len(answerable):
        raise DataError(
            f"{table.source}: found {len(table.contexts)} paragraphs and {len(answerable)} answerable "
            "questions; allowed with data.negatives_ratio above 0: at least two paragraphs and one such "
            "question"
        )
    generator = numpy_generator(seed, "negatives")
    paragraphs = _Paragraphs(table)
    pairs: list[tuple[int, int]] = []
    while len(pairs) < count:
        before = len(pairs)
        for question in generator.permutation(answerable)[: count - before].tolist():
            context = paragraphs.draw(question, generator)
            if context is not None:
                pairs.append((question, context))
        if len(pairs) == before:
            break
    return _with_pairs(table, pairs)


class _Paragraphs:
    """The paragraphs of a table, ready to be searched for answers, and who has met whom."""

    def __init__(self, table: QaTable) -> None:
        texts = table.contexts.to_pylist()
        self.lowered = [text.lower() for text in texts]
        self.normalized = [normalize_answer(text) for text in texts]
        self.answers: list[list[str]] = table.rows.column("answer_texts").to_pylist()
        self.met: set[tuple[int, int]] = set()

    def draw(self, question: int, generator: np.random.Generator) -> int | None:
        """Return a paragraph without the question's answers, each as likely; None when there is none left."""
        for context in generator.integers(len(self.lowered), size=DRAWS).tolist():
            if self._is_free(question, context):
                break
        else:
            free = [context for context in range(len(self.lowered)) if self._is_free(question, context)]
            if not free:
                return None
            context = free[generator.integers(len(free))]
        self.met.add((question, context))
        return context

    def _is_free(self, question: int, context: int) -> bool:
        # The question's own paragraph holds its answers, so it is never free.
        if (question, context) in self.met:
            return False
        return not any(
            answer.lower() in self.lowered[context]
            or _holds(self.normalized[context], normalize_answer(answer))
            for answer in self.answers[question]
        )


def _holds(text: str, answer: str) -> bool:
    return bool(answer) and answer in text


def _with_pairs(table: QaTable, pairs: list[tuple[int, int]]) -> QaTable:
    if not pairs:
        return table
    questions = [question for question, _ in pairs]
    sources = table.rows.take(pa.array(questions))
    contexts, titles = [context for _, context in pairs], _title_of_each_context(table)
    columns = {
        "question_id": _new_ids(table.question_ids, questions),
        "title": [titles[context] for context in contexts],
        "context_index": contexts,
        "question": sources.column("question"),
        "answer_texts": [[] for _ in pairs],
        "answer_starts": [[] for _ in pairs],
    }
    rows = pa.concat_tables([table.rows, pa.table(columns, schema=SCHEMA)]).combine_chunks()
    return QaTable(rows, table.contexts, table.source, table.skipped)


def _title_of_each_context(table: QaTable) -> dict[int, str]:
    return dict(zip(table.context_index.tolist(), table.rows.column("title").to_pylist(), strict=True))


def _new_ids(taken: list[str], questions: list[int]) -> list[str]:
    used, numbers, names = set(taken), dict.fromkeys(questions, 0), []
    for question in questions:
        name = taken[question]
        while name in used:
            numbers[question] += 1
            name = f"{taken[question]}-negative-{numbers[question]}"
        used.add(name)
        names.append(name)
    return names
