"""Which questions a trial trains on and which it is compared on: subsets and the selection split, by seed.

Rungs score on the selection split, cut from the training articles, so that the evaluation set stays unseen.
"""

import numpy as np

from qa_core.data.clusters import question_clusters
from qa_core.data.table import QaTable
from qa_core.errors import DataError
from qa_core.seeding import numpy_generator


def select_questions(table: QaTable, count: int | None, *, seed: int) -> QaTable:
    """Return `count` questions drawn by seed, in the table's order; all of them for None or a larger count.

    With one seed a smaller draw is part of every larger one.
    """
    if count is None or count >= len(table):
        return table
    chosen = numpy_generator(seed, "select_questions").permutation(len(table))[:count]
    return table.take(np.sort(chosen))


def split_selection(
    table: QaTable, share: float, *, seed: int, max_questions: int | None = None
) -> tuple[QaTable, QaTable]:
    """Split a training table into a train part and a selection part that share no article.

    Whole articles are drawn by seed until the selection part is as near to `share` of the questions as they
    allow. Paragraphs take the place of articles where there are no titles, or only one.

    Args:
        table: the training questions.
        share: wanted share of questions in the selection part, 0 < share < 1.
        seed: decides which articles.
        max_questions: the selection part is cut to this many questions by seed; None keeps all. Questions cut
            off do not return to the train part, for their articles are those of the selection part.

    Returns:
        (train, selection), both in the table's order, neither empty.

    Raises:
        DataError: all questions stand on one paragraph.
    """
    groups = question_clusters(table).of_value
    sizes = np.bincount(groups)
    if len(sizes) < 2:
        raise DataError(
            f"{table.source}: found one paragraph; allowed: at least two, because whole paragraphs are "
            "held out for the selection split"
        )
    order = numpy_generator(seed, "split_selection").permutation(len(sizes))
    held_out = np.isin(groups, draw_groups(sizes, order, wanted=share * len(table)))
    selection = table.take(np.flatnonzero(held_out))
    return table.take(np.flatnonzero(~held_out)), select_questions(selection, max_questions, seed=seed)


def split_confirm(table: QaTable, share: float, *, seed: int) -> tuple[QaTable, QaTable]:
    """Split an evaluation table into the part that chooses the front and the part that confirms it.

    The two share no article (no paragraph where there are no titles).

    Args:
        table: the evaluation questions.
        share: wanted share of questions in the confirming part, 0 < share < 1.
        seed: decides which articles.

    Returns:
        (choosing, confirming), both in the table's order, neither empty.

    Raises:
        DataError: all questions stand on one paragraph.
    """
    clusters = question_clusters(table)
    sizes = np.bincount(clusters.of_value)
    if len(sizes) < 2:
        raise DataError(
            f"{table.source}: found one paragraph; allowed with evaluation.confirm_share: at least two, because whole "
            "paragraphs are set aside"
        )
    order = numpy_generator(seed, "split_confirm").permutation(len(sizes))
    set_aside = np.isin(clusters.of_value, draw_groups(sizes, order, wanted=share * len(table)))
    return table.take(np.flatnonzero(~set_aside)), table.take(np.flatnonzero(set_aside))


def draw_groups(sizes: np.ndarray, order: np.ndarray, *, wanted: float) -> list[int]:
    """Take groups in order while each brings the total nearer to `wanted`; at least one, never all."""
    drawn: list[int] = []
    total = 0
    for group in order.tolist():
        is_nearer = abs(total + sizes[group] - wanted) < abs(total - wanted)
        if is_nearer and len(drawn) < len(sizes) - 1:
            drawn.append(group)
            total += int(sizes[group])
    return drawn or [int(order[np.argmin(sizes[order])])]
