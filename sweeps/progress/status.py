"""What stays in view while a sweep runs: how far each trial is, how long the sweep may still take, the front in rows.

Nothing is written here but the file that a worker leaves for it: `progress.json` in the folder of its trial, about
every two seconds. `console.py` and `json_events.py` show what is found.
"""

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from qa_core import files, heartbeat
from qa_core.errors import QaError
from sweeps.progress.recipe_words import recipe_words
from sweeps.run_folder.layout import TrialFolder

WRITE_SECONDS = 2.0  # between two writes of a trial, which may go to slow storage
RATE_SECONDS = 30.0  # over which examples per second are counted


@dataclass(frozen=True)
class Training:
    """How far a trial is.

    Attributes:
        examples_seen: training windows consumed; of a teacher, while that is trained for the trial.
        budget_examples: those that it will consume.
        loss: mean since the last rung; None before the first look at it.
        examples_per_second: over the last half minute, scoring at rungs included; None where there is no such time yet.
    """

    examples_seen: int
    budget_examples: int
    loss: float | None
    examples_per_second: float | None

    @property
    def seconds_left(self) -> float | None:
        """Of training, at this rate; None where none is known."""
        if not self.examples_per_second:
            return None
        return max(0, self.budget_examples - self.examples_seen) / self.examples_per_second


@contextmanager
def told_in(folder: TrialFolder) -> Iterator[None]:
    """Write how far the training in this block is into the trial's folder; the file is gone afterwards."""
    marks: deque[tuple[float, int]] = deque()
    written_at = float("-inf")

    def on_steps(examples_seen: int, budget_examples: int, loss: float | None) -> None:
        nonlocal written_at
        now = time.monotonic()
        if marks and examples_seen < marks[-1][1]:  # a teacher's training is over
            marks.clear()
        marks.append((now, examples_seen))
        while len(marks) > 2 and now - marks[0][0] > RATE_SECONDS:
            marks.popleft()
        if now - written_at < WRITE_SECONDS and examples_seen < budget_examples:
            return
        written_at = now
        since, before = marks[0]
        seconds = now - since
        rate = (examples_seen - before) / seconds if seconds > 0 and examples_seen > before else None
        training = Training(examples_seen, budget_examples, loss, rate)
        with suppress(QaError):  # it is only shown
            files.write_json(folder.progress, asdict(training))

    try:
        with heartbeat.steps_told_to(on_steps):
            yield
    finally:
        with suppress(OSError):
            folder.progress.unlink(missing_ok=True)


def read_training(folder: TrialFolder) -> Training | None:
    """Return what the trial's worker told last; None where it has told nothing, or what cannot be read."""
    try:
        values = json.loads(folder.progress.read_bytes())
        return Training(
            int(values["examples_seen"]),
            int(values["budget_examples"]),
            None if values["loss"] is None else float(values["loss"]),
            None if values["examples_per_second"] is None else float(values["examples_per_second"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


class SweepClock:
    """Counts the trials that ended and estimates how long the others take, from those that ended in this start."""

    def __init__(self, *, trials: int, ended: int = 0, minutes: float | None = None) -> None:
        self.trials, self.ended = trials, ended
        self._minutes = minutes
        self._seconds: list[float] = []

    @property
    def knows_trials(self) -> bool:
        """Whether a trial has ended, so that `seconds_left` is an estimate and not the rest of the time limit."""
        return bool(self._seconds)

    def trial_ended(self, seconds: Any) -> None:
        """Count a trial, with the seconds that it took; None where they are not known."""
        self.ended += 1
        if seconds is not None:
            self._seconds.append(float(seconds))

    def seconds_left(self, running: Sequence[Training | None], started: float) -> float | None:
        """Return an estimate: the mean of ended trials for each that is left, shared by as many as run now.

        Args:
            running: how far the running trials are.
            started: when this start of the sweep began, by `time.monotonic`.

        Returns:
            Seconds, at most the rest of the sweep's time limit. Before a trial has ended, that rest; None without a
            limit.
        """
        limit = None if self._minutes is None else max(0.0, 60 * self._minutes - (time.monotonic() - started))
        if not self._seconds:
            return limit
        mean = sum(self._seconds) / len(self._seconds)
        not_begun = max(0, self.trials - self.ended - len(running))
        known = [item.seconds_left if item is not None else None for item in running]
        left = sum(mean if seconds is None else seconds for seconds in known) + not_begun * mean
        left /= max(1, len(running))
        return left if limit is None else min(left, limit)


def megabytes(value: float) -> str:
    """Return a memory in few characters: one decimal, and three digits below 1, where small models differ."""
    return f"{value:#.3g}" if 0 < value < 1 else f"{value:.1f}"


@dataclass(frozen=True)
class FrontRow:
    """A model of the front in one line."""

    em_percent: float
    memory_mb: float
    name: str
    recipe: str

    def line(self, width: int) -> str:
        """Return score, memory, name and recipe; names are `width` characters wide."""
        return f"{self.em_percent:>11.1f}{megabytes(self.memory_mb):>8}  {self.name:<{width}}  {self.recipe}"


def front_lines(rows: Sequence[FrontRow], most: int) -> list[str]:
    """Return the rows under a heading; of more than `most` the ends, which say most of a front."""
    if not rows:
        return []
    half = most // 2
    shown = [*rows] if len(rows) <= most else [*rows[:half], *rows[-half:]]
    width = max(len(row.name) for row in (*shown, FrontRow(0.0, 0.0, "trial", "")))
    lines = [row.line(width) for row in shown]
    if len(shown) < len(rows):
        lines.insert(half, f"{'':>11}{len(rows) - len(shown)} more")
    return [f"front{'EM %':>6}{'MB':>8}  {'trial':<{width}}  recipe", *lines]


def front_rows(points: Sequence[Mapping[str, Any]]) -> list[FrontRow]:
    """Return the rows of a front, at rising memory; none where its points have no score or no memory."""
    shown = [point for point in points if point.get("on_front", True)]
    if not all(point.get("em_percent") is not None and point.get("memory_mb") is not None for point in shown):
        return []
    rows = [
        FrontRow(
            point["em_percent"],
            point["memory_mb"],
            " ".join(filter(None, (point.get("trial_id"), point.get("form")))),
            recipe_words(
                {path: value for path, value in point.items() if "." in path and value is not None},
                family=str(point.get("family", "")),
                methods=str(point.get("methods", "")),
                checkpoint=str(point.get("checkpoint", "")),
            ),
        )
        for point in shown
    ]
    return sorted(rows, key=lambda row: row.memory_mb)
