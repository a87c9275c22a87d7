"""Several sweeps compared with the first: hypervolumes, new points, settings that differ.

What is shown of it is in `comparison_story.py`. Only what was measured on equal terms is compared
(`sweeps/front/comparability.py`). Hypervolumes are measured from one reference, the worst of all sweeps in each
objective. The interval of a difference is that of its questions: whole articles are left out in turn, the same in both,
while the models of both fronts stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qa_core.errors import ConfigError
from qa_core.scoring.intervals import LEAST_CLUSTERS, Interval, jackknifed, means_without
from sweeps.front import comparability, pareto
from sweeps.front.points import Point, finished
from sweeps.progress.flatten import texts
from sweeps.report.answer_book import AnswerBook
from sweeps.report.asked import parameter_words
from sweeps.report.snapshot import Snapshot
from sweeps.report.story import shown_folder
from sweeps.spec.objectives import Objective, measure

EXACT_MATCH = "em_percent"
NOT_A_DIFFERENCE = ("name", "space")  # of settings: the second is compared entry by entry


@dataclass(frozen=True)
class Difference:
    """A sweep against the first.

    Attributes:
        hypervolume: its own less the first one's.
        interval: of that; None for the reason in `why_no_interval`.
        new: models of its front that no model of the first front equals or beats.
        lost: models of the first front that none of its own equals or beats.
    """

    hypervolume: float
    interval: Interval | None
    why_no_interval: str | None
    new: tuple[Point, ...]
    lost: tuple[Point, ...]


@dataclass(frozen=True)
class Comparison:
    """Sweeps with their labels and hypervolumes, and each but the first against it."""

    labels: tuple[str, ...]
    sweeps: tuple[Snapshot, ...]
    objectives: tuple[Objective, ...]  # with the common references
    hypervolumes: tuple[float, ...]
    differences: tuple[Difference, ...]
    settings: tuple[tuple[str, ...], ...]  # path and the value in each sweep, "" for none


def compare(sweeps: Sequence[Snapshot], books: Sequence[AnswerBook]) -> Comparison:
    """Compare sweeps with the first of them.

    Args:
        sweeps: at least two.
        books: their answers, in the same order.

    Raises:
        ConfigError: fewer than two, one twice, one without a finished trial, or they differ in what is measured or on
            which terms; names what differs and both values.
        DataError: a record cannot be read.
    """
    labels = _labels(sweeps)
    _refuse_what_does_not_compare(sweeps, labels)
    objectives = _common(sweeps)
    volumes = [_volume(_losses(sweep.result.front, objectives), objectives) for sweep in sweeps]
    differences = [
        _difference(sweeps[0], sweep, books[0], book, objectives=objectives)
        for sweep, book in zip(sweeps[1:], books[1:], strict=True)
    ]
    return Comparison(
        labels, tuple(sweeps), objectives, tuple(volumes), tuple(differences), _settings_that_differ(sweeps)
    )


def _labels(sweeps: Sequence[Snapshot]) -> tuple[str, ...]:
    if len({sweep.folder.resolve() for sweep in sweeps}) < max(2, len(sweeps)):
        found = ", ".join(str(sweep.folder) for sweep in sweeps)
        raise ConfigError(f"compare: found {found}; allowed: two folders of sweeps or more, each once")
    names = [sweep.folder.resolve().name for sweep in sweeps]
    is_clear = len(set(names)) == len(names)
    return tuple(names) if is_clear else tuple(shown_folder(sweep.folder) for sweep in sweeps)


def _refuse_what_does_not_compare(sweeps: Sequence[Snapshot], labels: Sequence[str]) -> None:
    terms = []
    for sweep, label in zip(sweeps, labels, strict=True):
        done = finished(sweep.records, sweep.result.objectives)
        if not done:
            raise ConfigError(f"compare: {label} has no finished trial; allowed: sweeps with at least one")
        terms.append(comparability.groups(done, sweep.result.objectives)[0].terms)
    wanted = [[(item.name, item.goal) for item in sweep.result.objectives] for sweep in sweeps]
    problems = []
    for label, own, names in zip(labels[1:], terms[1:], wanted[1:], strict=True):
        if sorted(names) != sorted(wanted[0]):
            both = [", ".join(f"{name} ({goal})" for name, goal in item) for item in (names, wanted[0])]
            problems.append(f"objectives: found {both[0]} in {label}; {both[1]} in {labels[0]}")
        problems += [
            f"{comparability.LABELS[name]}: found {own.shown(name)} in {label}; {terms[0].shown(name)} in {labels[0]}"
            for name in own.differing(terms[0])
        ]
    if problems:
        raise ConfigError(
            "compare: these sweeps were not measured on equal terms:\n  "
            + "\n  ".join(problems)
            + "\n  allowed: the same objectives, evaluation questions, budget, protocol, device and precision"
        )


def _common(sweeps: Sequence[Snapshot]) -> tuple[Objective, ...]:
    """Return the objectives of the first sweep with the worst reference of all sweeps."""
    found = []
    for item in sweeps[0].result.objectives:
        own = [
            other.worst for sweep in sweeps for other in sweep.result.objectives if other.name == item.name
        ]
        found.append(item.model_copy(update={"reference": min(own) if item.goal == "max" else max(own)}))
    return tuple(found)


def _losses(points: Sequence[Point], objectives: Sequence[Objective]) -> np.ndarray:
    values = [[point.values[item.name] for item in objectives] for point in points]
    return pareto.to_losses(values, [item.goal for item in objectives])


def _volume(losses: np.ndarray, objectives: Sequence[Objective]) -> float:
    goals = [item.goal for item in objectives]
    return pareto.hypervolume(losses, pareto.to_losses([[item.worst for item in objectives]], goals)[0])


def _difference(
    first: Snapshot,
    other: Snapshot,
    book: AnswerBook,
    others_book: AnswerBook,
    *,
    objectives: Sequence[Objective],
) -> Difference:
    before, after = first.result.front, other.result.front
    losses, others = _losses(before, objectives), _losses(after, objectives)
    estimate = _volume(others, objectives) - _volume(losses, objectives)
    found = _interval(estimate, (before, losses, book), (after, others, others_book), objectives)
    reached, kept = pareto.reached_mask(others, losses), pareto.reached_mask(losses, others)
    return Difference(
        estimate,
        found if isinstance(found, Interval) else None,
        found if isinstance(found, str) else None,
        tuple(point for point, is_reached in zip(after, reached, strict=True) if not is_reached),
        tuple(point for point, is_reached in zip(before, kept, strict=True) if not is_reached),
    )


def _interval(
    estimate: float,
    first: tuple[Sequence[Point], np.ndarray, AnswerBook],
    other: tuple[Sequence[Point], np.ndarray, AnswerBook],
    objectives: Sequence[Objective],
) -> Interval | str:
    """Return the interval of a difference of hypervolumes, or why there is none."""
    of_quality = [item.name for item in objectives if measure(item.name).section == "quality"]
    if of_quality != [EXACT_MATCH]:
        return f"an interval needs {EXACT_MATCH} as the only measure of quality"
    column = next(place for place, item in enumerate(objectives) if item.name == EXACT_MATCH)
    sides = []
    for points, losses, book in (first, other):
        answers = [book.answers(point) for point in points]
        known = [item for item in answers if item is not None]
        if len(known) < len(answers):
            return "answers of a model of a front are not there"
        sides.append((losses, known))
    questions = {item.questions for _, known in sides for item in known}
    if len(questions) > 1:
        return "the answers are not to the same questions"
    clusters = sides[0][1][0].clusters
    if clusters.count < LEAST_CLUSTERS:
        return f"{clusters.count} {clusters.unit}s are too few for an interval"
    sign = -1.0 if objectives[column].goal == "max" else 1.0
    volumes = []
    for losses, known in sides:
        em = np.array([means_without(item.em_percent, clusters) for item in known])  # [M, C]
        changed = [
            np.column_stack([losses[:, :column], sign * em[:, left_out], losses[:, column + 1 :]])
            for left_out in range(clusters.count)
        ]
        volumes.append([_volume(item, objectives) for item in changed])
    return jackknifed(estimate, np.array(volumes[1]) - np.array(volumes[0]), clusters)


def _settings_that_differ(sweeps: Sequence[Snapshot]) -> tuple[tuple[str, ...], ...]:
    each = [_settings(sweep.spec) for sweep in sweeps]
    paths = list(dict.fromkeys(path for own in each for path in own))
    rows = [(path, *(own.get(path, "") for own in each)) for path in paths]
    return tuple(row for row in rows if len(set(row[1:])) > 1)


def _settings(spec: Mapping[str, Any]) -> dict[str, str]:
    found = texts({name: value for name, value in spec.items() if name not in NOT_A_DIFFERENCE})
    for entry in spec.get("space") or ():
        words = parameter_words(entry)
        when = f" where {words['when']}" if words["when"] else ""
        found[f"space: {words['set']}{when}"] = f"{words['how']} {words['values']}".strip()
    return found
