"""Which questions belong together: those of one article, or of one paragraph where the data name no articles.

Splits keep a cluster whole (`selection.py`), and intervals treat it as one independent piece of evidence
(`qa_core/scoring/intervals.py`).
"""

from dataclasses import dataclass

import numpy as np

from qa_core.data.table import QaTable

UNITS = ARTICLE, PARAGRAPH = ("article", "paragraph")


@dataclass(frozen=True)
class Clusters:
    """Values that belong together.

    Attributes:
        unit: what a cluster is, in the singular: "article", "paragraph", ...
        of_value: the number of the cluster of each value, [Q] integers from 0 without gaps.
    """

    unit: str
    of_value: np.ndarray

    @property
    def count(self) -> int:
        """The number of clusters."""
        return int(self.of_value.max()) + 1 if len(self.of_value) else 0

    def take(self, rows: np.ndarray) -> "Clusters":
        """Return the clusters of some of the values, numbered anew."""
        return Clusters(self.unit, np.unique(self.of_value[rows], return_inverse=True)[1])


def each_alone(count: int, unit: str) -> Clusters:
    """Return clusters of one value each, for values that are independent."""
    return Clusters(unit, np.arange(count))


def question_clusters(table: QaTable) -> Clusters:
    """Return the articles of a table's questions, or their paragraphs where there are no titles, or only one.

    Where some paragraphs have a title, each one without is an article of its own.
    """
    articles = _article_of_each_question(table)
    if articles.max() == 0:
        return Clusters(PARAGRAPH, table.context_index)
    has_titles = any(table.rows.column("title").to_pylist())
    return Clusters(ARTICLE if has_titles else PARAGRAPH, articles)


def _article_of_each_question(table: QaTable) -> np.ndarray:
    """Number the articles. A paragraph under two titles goes with the first; one without is its own."""
    numbers: dict[object, int] = {}
    article_of_context: dict[int, int] = {}
    contexts = table.context_index.tolist()
    for title, context in zip(table.rows.column("title").to_pylist(), contexts, strict=True):
        if context not in article_of_context:
            article_of_context[context] = numbers.setdefault(title or context, len(numbers))
    return np.array([article_of_context[context] for context in contexts])
