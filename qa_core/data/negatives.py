"""Unanswerable questions to train on: a share of the data's own, and synthetic ones.

A synthetic one is a real question put to a paragraph that does not hold its answer. They teach a model to say
"no answer" where the data has no unanswerable questions. Those on a random paragraph are easier than people's,
because it seldom speaks of the question's subject; another paragraph of the same article does.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pyarrow as pa

from qa_core.data.table import SCHEMA, QaTable
from qa_core.data.text import normalize_answer
from qa_core.errors import DataError
from qa_core.seeding import numpy_generator

RANDOM, SAME_ARTICLE = KINDS = ("random", "same_article")
DRAWS = 20  # paragraphs tried at random before all are looked through


def keep_unanswerable(table: QaTable, share: float, *, seed: int) -> QaTable:
    """Return the table with a random share of its unanswerable questions, rounded, and all others, in order.

    A larger share keeps what a smaller one keeps.

    Raises:
        DataError: no question is left.
    """
    unanswerable = np.flatnonzero(table.is_unanswerable)
    count = round((1.0 - share) * len(unanswerable))
    if count == 0:
        return table
    if count == len(table):
        raise DataError(
            f"{table.source}: found no answerable question; allowed with data.unanswerable_share {share:g}: "
            "at least one"
        )
    left_out = numpy_generator(seed, "unanswerable").permutation(unanswerable)[:count]
    return table.take(np.setdiff1d(np.arange(len(table)), left_out))


def add_negatives(
    table: QaTable, ratio: float, *, seed: int, same_article_share: float = 0.0
) -> tuple[QaTable, dict[str, int]]:
    """Return the table with synthetic unanswerable questions after its own, and how many there are of each kind.

    Each pairs an answerable question with another paragraph that holds none of its answers, neither as written
    (letter case aside) nor as the official scores normalise them: of kind `same_article` with a paragraph of the
    same title, of kind `random` with any paragraph of the table. A question meets a paragraph once at most. Its
    id is the original's with `-negative-1`, `-negative-2` and so on.

    Args:
        table: the training questions.
        ratio: new questions for each question of the table; above 1, questions are used again.
        seed: decides questions and paragraphs.
        same_article_share: of the new questions.

    Returns:
        A table with round(ratio * len(table)) more questions, the share of them rounded. There are fewer of a
        kind where no paragraph is left for it; no kind stands in for the other.

    Raises:
        DataError: the table has one paragraph, or no answerable question, or no titles while some are asked of
            the same article.
    """
    count = round(ratio * len(table))
    wanted = {SAME_ARTICLE: round(same_article_share * count)}
    wanted[RANDOM] = count - wanted[SAME_ARTICLE]
    if count == 0:
        return table, dict.fromkeys(KINDS, 0)
    answerable = np.flatnonzero(~table.is_unanswerable)
    if len(table.contexts) < 2 or not len(answerable):
        raise DataError(
            f"{table.source}: found {len(table.contexts)} paragraphs and {len(answerable)} answerable "
            "questions; allowed with data.negatives_ratio above 0: at least two paragraphs and one such "
            "question"
        )
    if wanted[SAME_ARTICLE] and not any(table.rows.column("title").to_pylist()):
        raise DataError(
            f"{table.source}: found no titles, so no two paragraphs are known to be of one article; allowed "
            "without them: data.negatives_same_article_share 0"
        )
    paragraphs = _Paragraphs(table)
    pairs: list[tuple[int, int]] = []
    counts = {}
    # The near ones first: a random paragraph can take the place of few of them.
    for kind in (SAME_ARTICLE, RANDOM):
        names = ("negatives",) if kind == RANDOM else ("negatives", kind)
        found = paragraphs.pairs(kind, answerable, wanted[kind], numpy_generator(seed, *names))
        counts[kind] = len(found)
        pairs += found
    return _with_pairs(table, pairs), {kind: counts[kind] for kind in KINDS}


class _Paragraphs:
    """The paragraphs of a table, ready to be searched for answers, and who has met whom."""

    def __init__(self, table: QaTable) -> None:
        texts = table.contexts.to_pylist()
        self.lowered = [text.lower() for text in texts]
        self.normalized = [normalize_answer(text) for text in texts]
        self.answers: list[list[str]] = table.rows.column("answer_texts").to_pylist()
        self.context_of: list[int] = table.context_index.tolist()
        self.title_of = _title_of_each_context(table)
        self.of_title: dict[str, list[int]] = {}
        for context, title in sorted(self.title_of.items()):
            self.of_title.setdefault(title, []).append(context)
        self.met: set[tuple[int, int]] = set()

    def pairs(
        self, kind: str, questions: np.ndarray, count: int, generator: np.random.Generator
    ) -> list[tuple[int, int]]:
        """Return up to `count` pairs of a question and a paragraph; all questions come before one comes again."""
        pairs: list[tuple[int, int]] = []
        while len(pairs) < count:
            before = len(pairs)
            for question in generator.permutation(questions).tolist():
                if len(pairs) == count:
                    break
                context = self._draw(kind, question, generator)
                if context is not None:
                    pairs.append((question, context))
                    self.met.add((question, context))
            if len(pairs) == before:
                break
        return pairs

    def _draw(self, kind: str, question: int, generator: np.random.Generator) -> int | None:
        """Return a paragraph without the question's answers, each as likely; None when there is none left."""
        if kind == SAME_ARTICLE:
            title = self.title_of[self.context_of[question]]
            return self._draw_among(self.of_title[title] if title else [], question, generator)
        for context in generator.integers(len(self.lowered), size=DRAWS).tolist():
            if self._is_free(question, context):
                return context
        return self._draw_among(range(len(self.lowered)), question, generator)

    def _draw_among(
        self, contexts: Iterable[int], question: int, generator: np.random.Generator
    ) -> int | None:
        free = [context for context in contexts if self._is_free(question, context)]
        return free[generator.integers(len(free))] if free else None

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
    return replace(table, rows=rows)


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
