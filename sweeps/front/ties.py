"""Which smaller models answer as well as the chosen one, as far as the evaluation questions tell.

Two models are tied when the interval of their paired difference in exact match holds 0; see
`qa_core/scoring/intervals.py`. A tie says that the questions cannot tell the two apart, not that they are equal.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from qa_core import files
from qa_core.form_folder import ANSWERS_FILE
from qa_core.scoring.answer_file import read_scores
from qa_core.scoring.intervals import Interval, clustered_difference
from sweeps.front.points import Point
from sweeps.run_folder.layout import RunFolder


@dataclass(frozen=True)
class Tie:
    """A smaller model, and its exact match minus that of the chosen one, in percent points, with both bounds."""

    point: Point
    difference: Interval


@dataclass(frozen=True)
class Ties:
    """The smaller models that are tied with a chosen one, the smallest first, and those that could not be compared."""

    tied: tuple[Tie, ...]
    not_judged: tuple[Point, ...]


def smaller_and_tied(
    chosen: Point, points: Iterable[Point], by: str, answers_of: Callable[[Point], Path]
) -> Ties:
    """Compare the smaller points with the chosen one.

    Args:
        chosen: what is compared with.
        points: comparable with it.
        by: the cost that says what is smaller; a point without it is left out.
        answers_of: the file of a point's answers. Where it is absent, or there are too few articles for an interval,
            nothing is judged.

    Raises:
        DataError: a file of answers is damaged.
    """
    limit = chosen.costs.get(by, -math.inf)
    smaller = [point for point in points if point.costs.get(by, math.inf) < limit]
    smaller.sort(key=lambda point: (point.costs[by], point.id.order))
    differences = [paired_difference(point, chosen, answers_of) for point in smaller]
    compared = list(zip(smaller, differences, strict=True))
    return Ties(
        tuple(Tie(point, found) for point, found in compared if found is not None and found.holds_zero),
        tuple(point for point, found in compared if found is None or found.holds_zero is None),
    )


def answers_of(run_dir: Path, point: Point) -> Path:
    """Return the file of a point's answers; those of the network as trained are its trial's own."""
    trial = RunFolder(run_dir).trial(point.trial_id)
    is_own = point.form is not None and bool(point.form_settings)
    return trial.form(str(point.form)).answers if is_own else trial.path / ANSWERS_FILE


def paired_difference(point: Point, chosen: Point, answers_of: Callable[[Point], Path]) -> Interval | None:
    """Return a point's exact match minus the chosen one's, in percent points.

    None where the answers of one are absent, or are to other questions.

    Raises:
        DataError: a file of answers is damaged.
    """
    if not (files.is_file(answers_of(point)) and files.is_file(answers_of(chosen))):
        return None
    ids, scores, clusters = read_scores(answers_of(chosen))
    other_ids, other, _ = read_scores(answers_of(point))
    if other_ids != ids:
        return None
    return clustered_difference(100.0 * other[:, 0], 100.0 * scores[:, 0], clusters)
