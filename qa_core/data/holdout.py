"""A part of the training source set aside to evaluate on, where there are no other evaluation questions."""

from dataclasses import dataclass

import numpy as np

from qa_core.data.clusters import question_clusters
from qa_core.data.overlap import plain_text
from qa_core.data.selection import draw_groups
from qa_core.data.table import QaTable
from qa_core.errors import DataError
from qa_core.seeding import numpy_generator


@dataclass(frozen=True)
class Holdout:
    """A training source in two parts that share no article and no paragraph, in the table's order, neither empty.

    `unit` is what was drawn: article, or paragraph where the source names no articles, or one.
    """

    train: QaTable
    evaluation: QaTable
    unit: str


def hold_out(table: QaTable, share: float, *, seed: int) -> Holdout:
    """Split a training source into what is trained on and what is evaluated on.

    Whole articles are drawn by seed until the evaluation part is as near to `share` of the questions as they allow.
    Articles that share a paragraph, be it in other letter case or white space, are drawn together.

    Args:
        table: the whole training source.
        share: wanted share of questions in the evaluation part, 0 < share < 1.
        seed: decides which articles.

    Raises:
        DataError: there are fewer than two articles or paragraphs that can be told apart.
    """
    clusters = question_clusters(table)
    groups = _joined(clusters.of_value, table)
    sizes = np.bincount(groups)
    if len(sizes) < 2:
        raise DataError(
            f"{table.source}: found one paragraph, or {clusters.unit}s that all share paragraphs; allowed without "
            "data.evaluation: at least two, because whole ones are held out to evaluate on"
        )
    order = numpy_generator(seed, "hold_out").permutation(len(sizes))
    held_out = np.isin(groups, draw_groups(sizes, order, wanted=share * len(table)))
    return Holdout(table.take(np.flatnonzero(~held_out)), table.take(np.flatnonzero(held_out)), clusters.unit)


def _joined(clusters: np.ndarray, table: QaTable) -> np.ndarray:
    """Return the cluster of each question, [Q], where clusters with a paragraph in common are one."""
    parent = np.arange(int(clusters.max()) + 1)

    def root(cluster: int) -> int:
        while parent[cluster] != cluster:
            parent[cluster] = parent[parent[cluster]]
            cluster = int(parent[cluster])
        return cluster

    first: dict[str, int] = {}
    texts = [plain_text(text) for text in table.contexts.to_pylist()]
    for context, cluster in dict.fromkeys(zip(table.context_index.tolist(), clusters.tolist(), strict=True)):
        other = first.setdefault(texts[context], cluster)
        parent[root(cluster)] = root(other)
    roots = np.array([root(cluster) for cluster in range(len(parent))])
    return np.unique(roots[clusters], return_inverse=True)[1]
