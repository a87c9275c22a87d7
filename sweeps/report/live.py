"""Keeps `report.html` in a sweep's folder up to date while the sweep runs, without slowing it.

An event only raises a flag. A thread of its own writes the page, at most every `LEAST_SECONDS`, and rests at least
`REST` times as long as the last page took of the processor, so that it never takes more than a twentieth of one core.
A page that cannot be written is told once and ends no sweep: records and tables are all there.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeps.report.answer_book import AnswerBook
from sweeps.report.page import write_page
from sweeps.report.snapshot import Snapshot
from sweeps.report.story import story
from sweeps.run_folder.layout import RunFolder

LEAST_SECONDS = 5.0  # between two pages
REST = 19.0  # times the processor time of the last page
CLOSING_SECONDS = 60.0  # to wait for a page that is being written when the sweep ends


class LiveReport:
    """An observer of a sweep (`sweeps/progress/observer.py`) that writes its report.

    Args:
        folder: of the sweep.
        notify: told once in words when the report cannot be written.
    """

    def __init__(self, folder: Path, notify: Callable[[str], None]) -> None:
        self.path = RunFolder(folder).report
        self._notify, self._has_failed = notify, False
        self._book = AnswerBook(folder)
        self._changed, self._closing = threading.Event(), threading.Event()

    @contextmanager
    def kept(self, look: Callable[[bool], Snapshot]) -> Iterator[None]:
        """Keep the report up to date during the block, and write it once more when that ends, whatever it raises.

        Args:
            look: returns the sweep as it is, from whether it is over; called in the thread that writes, and at the end
                in this one.
        """
        thread = threading.Thread(target=self._run, args=(look,), name="report", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closing.set()
            self._changed.set()
            thread.join(CLOSING_SECONDS)
            if not thread.is_alive():
                self._write(look, is_over=True)

    def trial_started(self, trial_id: str, label: str) -> None:
        """Have the page written anew soon."""
        self._changed.set()

    def trial_reported(self, trial_id: str, progress: Mapping[str, Any]) -> None:
        """Have the page written anew soon."""
        self._changed.set()

    def trial_paused(self, trial_id: str, examples_seen: int, why: str) -> None:
        """Have the page written anew soon."""
        self._changed.set()

    def trial_ended(self, record: Mapping[str, Any]) -> None:
        """Have the page written anew soon."""
        self._changed.set()

    def front_changed(
        self, points: Sequence[Mapping[str, Any]], hypervolume: float, *, spent_examples: int
    ) -> None:
        """Have the page written anew soon."""
        self._changed.set()

    def note(self, text: str) -> None:
        """Show nothing of it."""

    def _run(self, look: Callable[[bool], Snapshot]) -> None:
        while True:
            self._changed.wait()
            if self._closing.is_set():
                return
            self._changed.clear()
            begun = time.thread_time()
            self._write(look, is_over=False)
            self._closing.wait(max(LEAST_SECONDS, REST * (time.thread_time() - begun)))

    def _write(self, look: Callable[[bool], Snapshot], *, is_over: bool) -> None:
        try:
            write_page(story(look(is_over), self._book), self.path)
        except Exception as error:  # of whatever kind: the sweep does not depend on its report
            if not self._has_failed:
                self._has_failed = True
                self._notify(f"{self.path.name} is not up to date: {type(error).__name__}: {error}")
