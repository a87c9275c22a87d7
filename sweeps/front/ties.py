"""Which smaller models answer as well as the chosen one, as far as the evaluation questions tell.

Two models are tied when the interval of their paired difference in exact match holds 0; see
`qa_core/scoring/intervals.py`. A tie says that the questions cannot tell the two apart, not that they are equal.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from qa_core import files
from qa_core.scoring.answer_file import read_scores
from qa_core.scoring.intervals import Interval, clustered_difference
from sweeps.front.points import Point


@dataclass(frozen=True)
class Tie:
    """A smaller model, and its exact match minus that of the chosen one, in percent points, with both bounds."""

    point: Point
    difference: Interval


def smaller_and_tied(
    chosen: Point, points: Iterable[Point], by: str, answers_of: Callable[[Point], Path]
) -> list[Tie]:
    """Return the smaller points that are tied with the chosen one, the smallest first.

    Args:
        chosen: what is compared with.
        points: comparable with it.
        by: the cost that says what is smaller.
        answers_of: the file of a point's answers; a point whose file is absent is left out.

    Raises:
        DataError: a file of answers is damaged.
    """
    if by not in chosen.costs or not files.is_file(answers_of(chosen)):
        return []
    ids, scores, clusters = read_scores(answers_of(chosen))
    found = []
    for point in points:
        is_smaller = by in point.costs and point.costs[by] < chosen.costs[by]
        if not is_smaller or not files.is_file(answers_of(point)):
            continue
        other_ids, other, _ = read_scores(answers_of(point))
        if other_ids == ids:
            difference = clustered_difference(100.0 * other[:, 0], 100.0 * scores[:, 0], clusters)
            if difference.holds_zero:
                found.append(Tie(point, difference))
    return sorted(found, key=lambda tie: (tie.point.costs[by], tie.point.id.order))
