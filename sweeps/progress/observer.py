"""Who is told what happens to a sweep: the terminal, MLflow, or a test.

The first is `sweeps/progress/console.py`, the second `sweeps/progress/mlflow_mirror.py`. The driver tells every
observer of every event, in the order in which it takes events in.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Observer(Protocol):
    """Is told of each event; what it raises ends the sweep."""

    def trial_started(self, trial_id: str, label: str) -> None:
        """A worker took the trial up; `label` says in a few words what it is."""

    def trial_reported(self, trial_id: str, progress: Mapping[str, Any]) -> None:
        """A trial reached a rung: a `Progress` as plain values."""

    def trial_paused(self, trial_id: str, examples_seen: int, why: str) -> None:
        """A trial gave up its worker at a rung and keeps its checkpoint; it may be started again."""

    def trial_ended(self, record: Mapping[str, Any]) -> None:
        """A trial has its record."""

    def front_changed(
        self, points: Sequence[Mapping[str, Any]], hypervolume: float, *, spent_examples: int
    ) -> None:
        """There is a new point, on the front or behind it.

        Args:
            points: of the front, with at least `trial_id`, `form`, `em_percent` and `memory_mb`.
            hypervolume: of the front, in the sweep's own units.
            spent_examples: training windows that all trials have consumed.
        """

    def note(self, text: str) -> None:
        """Something that belongs to no trial."""


class Console(Observer, Protocol):
    """Tells people, or a program in their place, of one sweep: the terminal, or `sweeps/progress/json_events.py`."""

    def start(
        self, name: str, trials: int, folder: Path, *, ended: int = 0, minutes: float | None = None
    ) -> None:
        """The sweep begins; `ended` of its trials have ended before, and it may take `minutes`."""

    def section(self, title: str, lines: Sequence[str]) -> None:
        """What is said before the sweep begins, such as of its data."""

    def warning(self, text: str) -> None:
        """What may make the result worse than it should be."""

    def finish(self, counts: Mapping[str, int]) -> None:
        """The sweep is over; status of the records, or paused -> number of trials."""

    def close(self) -> None:
        """Nothing more is told, for now; safe to call twice."""
