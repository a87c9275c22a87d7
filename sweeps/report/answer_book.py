"""What the answers of a sweep's models tell beyond their mean: intervals by article, and which models are tied.

Answers of a trial that ended never change, so that each file is read once and each pair is compared once, however often
the report is written. `sweeps/front/ties.py` answers the same question for one chosen model.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qa_core import files
from qa_core.data.clusters import Clusters
from qa_core.errors import DataError
from qa_core.scoring.intervals import Interval, clustered_difference, clustered_mean
from sweeps.front.points import Point
from sweeps.front.ties import answers_of
from sweeps.run_folder.model_id import ModelId


@dataclass(frozen=True)
class Answers:
    """Of one model: exact match of each question in percent, [Q], which belong together, and a hash of their ids."""

    em_percent: np.ndarray
    clusters: Clusters
    questions: str


class AnswerBook:
    """The answers of a sweep's models, read once. A file that is absent or damaged gives no answers."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._answers: dict[ModelId, Answers | None] = {}
        self._intervals: dict[ModelId, Interval] = {}
        self._differences: dict[tuple[ModelId, ModelId], Interval] = {}

    def answers(self, point: Point) -> Answers | None:
        """Return the answers of a point; None where there are none."""
        if point.id not in self._answers:
            self._answers[point.id] = self._read(answers_of(self._run_dir, point))
        return self._answers[point.id]

    def interval(self, point: Point) -> Interval | None:
        """Return exact match in percent with its interval; None without answers."""
        found = self.answers(point)
        if found is None:
            return None
        if point.id not in self._intervals:
            self._intervals[point.id] = clustered_mean(found.em_percent, found.clusters, bounds=(0.0, 100.0))
        return self._intervals[point.id]

    def tied_with(self, point: Point, points: Sequence[Point], by: str) -> Point | None:
        """Return the smallest of the points that is smaller and tied with this one; None where none is."""
        limit = point.costs.get(by)
        if limit is None:
            return None
        smaller = [other for other in points if other.costs.get(by, limit) < limit]
        for other in sorted(smaller, key=lambda item: (item.costs[by], item.id.order)):
            difference = self._difference(other, point)
            if difference is not None and difference.holds_zero:
                return other
        return None

    def _difference(self, one: Point, other: Point) -> Interval | None:
        mine, theirs = self.answers(one), self.answers(other)
        if mine is None or theirs is None or mine.questions != theirs.questions:
            return None
        pair = one.id, other.id
        if pair not in self._differences:
            found = clustered_difference(mine.em_percent, theirs.em_percent, theirs.clusters)
            self._differences[pair] = found
        return self._differences[pair]

    def _read(self, path: Path) -> Answers | None:
        from qa_core.scoring.answer_file import read_scores

        try:
            if not files.is_file(path) or files.has_link(path, self._run_dir):
                return None
            ids, scores, clusters = read_scores(path)
        except DataError:
            return None
        digest = hashlib.sha256("\0".join(ids).encode("utf-8", "surrogatepass")).hexdigest()
        return Answers(100.0 * scores[:, 0], clusters, digest)
