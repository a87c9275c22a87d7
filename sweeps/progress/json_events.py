"""A sweep for programs: one JSON object for each event, one in each line, on the standard output.

Each object has `event` and `time` (seconds since 1970). Its other fields are in the docstrings here and in
`docs/events.md`.
"""

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from sweeps.progress.console import may_be_lost
from sweeps.progress.status import SweepClock, read_training
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.masking import masked_values

STATUS_SECONDS = 10.0  # between two `progress` events
ENDED = ("trial_id", "status", "reason", "objectives", "examples_seen", "seconds")  # of a record


class JsonEvents:
    """Writes each event of one sweep; `close` (or `finish`) ends what it tells by itself.

    Args:
        output: where to write; None for the standard output.
        seconds: between two `progress` events.
    """

    def __init__(self, output: TextIO | None = None, *, seconds: float = STATUS_SECONDS) -> None:
        self._output = output or sys.stdout
        self._seconds = seconds
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._folder = Path()
        self._clock = SweepClock(trials=0)
        self._started = time.monotonic()
        self._running: dict[str, None] = {}

    def start(
        self, name: str, trials: int, folder: Path, *, ended: int = 0, minutes: float | None = None
    ) -> None:
        """Write `sweep_started`: name, trials, folder, ended (trials of an earlier start)."""
        self._folder, self._started = folder, time.monotonic()
        self._clock = SweepClock(trials=trials, ended=ended, minutes=minutes)
        self._write("sweep_started", name=name, trials=trials, folder=str(folder), ended=ended)
        threading.Thread(target=self._tell_progress, name="events", daemon=True).start()

    def section(self, title: str, lines: Sequence[str]) -> None:
        """Write `section`: title, lines; none where there is no line."""
        if lines:
            self._write("section", title=title, lines=list(lines))

    def warning(self, text: str) -> None:
        """Write `warning`: text."""
        self._write("warning", text=text)

    def note(self, text: str) -> None:
        """Write `note`: text."""
        self._write("note", text=text)

    def trial_started(self, trial_id: str, label: str) -> None:
        """Write `trial_started`: trial_id, recipe (in words)."""
        self._running[trial_id] = None
        self._write("trial_started", trial_id=trial_id, recipe=label)

    def trial_reported(self, trial_id: str, progress: Mapping[str, Any]) -> None:
        """Write `rung`: trial_id and all that a trial reports, such as examples_seen and selection_em_percent."""
        self._write("rung", trial_id=trial_id, **progress)

    def trial_paused(self, trial_id: str, examples_seen: int, why: str) -> None:
        """Write `trial_paused`: trial_id, examples_seen, reason."""
        self._running.pop(trial_id, None)
        self._write("trial_paused", trial_id=trial_id, examples_seen=examples_seen, reason=why)

    def trial_ended(self, record: Mapping[str, Any]) -> None:
        """Write `trial_ended`: trial_id, status, reason, objectives, examples_seen, seconds, forms."""
        self._running.pop(str(record["trial_id"]), None)
        self._clock.trial_ended(record.get("seconds"))
        forms = [
            {name: form.get(name) for name in ("label", "status", "reason", "objectives")}
            for form in record.get("forms") or ()
        ]
        self._write("trial_ended", **{name: record.get(name) for name in ENDED}, forms=forms)

    def front_changed(
        self, points: Sequence[Mapping[str, Any]], hypervolume: float, *, spent_examples: int = 0
    ) -> None:
        """Write `front`: points (as rows of front.csv), hypervolume, spent_examples."""
        shown = [
            {name: value for name, value in point.items() if value is not None}
            for point in points
            if point.get("on_front", True)
        ]
        self._write("front", points=shown, hypervolume=hypervolume, spent_examples=spent_examples)

    def finish(self, counts: Mapping[str, int]) -> None:
        """Write `sweep_ended`: counts (status -> trials), seconds, folder."""
        self.close()
        seconds = time.monotonic() - self._started
        self._write("sweep_ended", counts=dict(counts), seconds=seconds, folder=str(self._folder))

    def result(
        self, ended_by: str | None, *, unfinished: int, paused: Mapping[str, int], files: Sequence[Path]
    ) -> None:
        """Write `result`: ended_by (null: the budget is spent), unfinished, paused (trial -> examples), files."""
        self._write(
            "result",
            ended_by=ended_by,
            unfinished=unfinished,
            paused=dict(paused),
            files=list(map(str, files)),
        )

    def close(self) -> None:
        """Write no more `progress` events."""
        self._over.set()

    def _tell_progress(self) -> None:
        """Write `progress` now and then: trials (each with how far it is), ended, seconds_left (of the sweep)."""
        while not self._over.wait(self._seconds):
            told = {name: read_training(RunFolder(self._folder).trial(name)) for name in list(self._running)}
            self._write(
                "progress",
                trials={name: None if item is None else asdict(item) for name, item in told.items()},
                ended=self._clock.ended,
                seconds_left=self._clock.seconds_left(list(told.values()), self._started),
            )

    def _write(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, "time": time.time(), **masked_values(values)}, ensure_ascii=False)
        with self._lock, may_be_lost(self._output):
            print(line, file=self._output, flush=True)
