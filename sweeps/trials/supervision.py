"""Ends a sweep that is asked to end or cannot continue, within a bounded time, and reports silence of its trials.

Ray's loop runs in a thread. `Supervisor.wait` is the main thread meanwhile, which nothing that Ray or a trial does can
block; `Supervisor.look` is called by Ray's loop, between two of its steps, and may use the driver.
"""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from sweeps.trials.driver import Driver
from sweeps.trials.faults import SweepFault
from sweeps.trials.signals import Requests
from sweeps.trials.watchdog import last_sign

INTERRUPTED = "interrupted"
LOOK_SECONDS = 0.2
# For running trials to write checkpoints. Who sends the last two often kills after 30 seconds; a person can ask again.
CHECKPOINT_SECONDS = {signal.SIGINT: 120.0, signal.SIGTERM: 20.0, signal.SIGHUP: 20.0}
CHECKPOINT_SECONDS_WITHOUT_SIGNAL = 120.0
CLEAN_UP_SECONDS = 20.0  # for Ray to end the workers of trials
CLOSE_SECONDS = 5.0  # for an event that the driver is taking in
SIGNAL_SECONDS = 1.0  # after the loss of Ray: the same signal may have ended it that asks the sweep to end
SIGNS_SECONDS = 15.0  # between two looks for signs of life
SILENT_SECONDS = 300.0  # without any sign, after which a line says so


class Service(Protocol):
    """What `ray_service.RayService` tells of Ray."""

    def fault(self) -> str | None:
        """Return why no trial can run any more, or None."""


class Supervisor:
    """Watches over one start of a sweep."""

    def __init__(
        self, driver: Driver, service: Service, requests: Requests, *, minutes: float | None
    ) -> None:
        """Start the clock.

        Args:
            driver: of the sweep.
            service: the Ray on which it runs.
            requests: the signals that come.
            minutes: after which the sweep is to end; None: whenever it is done.
        """
        self._driver, self._service, self._requests = driver, service, requests
        self._minutes = minutes
        self._started = time.monotonic()
        self._silence = Silence(driver.note)
        self._looked = self._started

    def look(self) -> None:
        """Let the sweep end when it is asked to, and look for signs of life."""
        now = time.monotonic()
        if self._requests.first is not None:
            self._driver.end(INTERRUPTED)
        elif self._minutes is not None and now - self._started > 60 * self._minutes:
            self._driver.end(f"budget.time_minutes: {self._minutes:g} min are over")
        if now - self._looked > SIGNS_SECONDS:
            self._looked = now
            self._silence.look(self._driver, now)

    def wait(self, work: threading.Thread) -> None:
        """Wait until Ray's loop has ended, or leave it where it would not end in time.

        Raises:
            KeyboardInterrupt: the process was asked to end once more.
        """
        asked: float | None = None
        while work.is_alive():
            work.join(LOOK_SECONDS)
            if self._requests.is_repeated:
                self._close()
                raise KeyboardInterrupt
            if work.is_alive() and (why := self._service.fault()) is not None:
                self._leave(why)
                return
            if asked is None and (self._requests.first is not None or self._driver.ended_by is not None):
                asked = time.monotonic()
            if asked is not None and time.monotonic() - asked > self._patience():
                self._give_up(work)
                return

    def _patience(self) -> float:
        first = self._requests.first
        if first is None:
            return CHECKPOINT_SECONDS_WITHOUT_SIGNAL
        return CHECKPOINT_SECONDS[signal.Signals(first)]

    def _give_up(self, work: threading.Thread) -> None:
        late = sorted(trial_id for trial_id, item in self._driver.running.items() if item.is_on_worker)
        self._close()
        self._driver.note(
            f"no checkpoint within {self._patience():g} s from {', '.join(late) or 'any trial'}; resumed, these trials "
            "start from earlier ones"
        )
        work.join(CLEAN_UP_SECONDS)

    def _leave(self, why: str) -> None:
        """End without Ray, which is gone; its loop waits for an answer that does not come."""
        time.sleep(SIGNAL_SECONDS)
        self._close()
        if self._requests.first is None:
            self._driver.fail(SweepFault(f"{why}; resumed, trials start from their last checkpoints"))

    def _close(self) -> None:
        is_held = self._driver.lock.acquire(timeout=CLOSE_SECONDS)
        try:
            self._driver.is_closed = True
            if self._requests.first is not None:
                self._driver.ended_by = self._driver.ended_by or INTERRUPTED
        finally:
            if is_held:
                self._driver.lock.release()


class Silence:
    """Says once for each silence that nothing is heard of a trial, or that none could start."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._heard: dict[str, tuple[object, float]] = {}  # trial id -> its last signs, and since when
        self._told: set[str] = set()

    def look(self, driver: Driver, now: float) -> None:
        """Compare the trials' signs of life with those at the last look.

        Args:
            driver: of the sweep.
            now: of a clock that only goes forward [s].
        """
        self._heard = {name: heard for name, heard in self._heard.items() if name in driver.running}
        self._told &= self._heard.keys()
        for name, item in driver.running.items():
            signs = (
                item.starts,
                len(item.curve),
                last_sign(Path(item.task.folder)) if item.is_on_worker else None,
            )
            if self._heard.get(name, (None, 0.0))[0] != signs:
                self._heard[name] = (signs, now)
                self._told.discard(name)
        is_running = any(item.is_on_worker for item in driver.running.values())
        for name, item in driver.running.items():
            seconds = now - self._heard[name][1]
            if seconds < SILENT_SECONDS or name in self._told or (is_running and not item.is_on_worker):
                continue
            self._told.add(name)
            what = (
                "no sign of life from its worker: it may be stopped, its machine may be lost, or its data take long"
                if item.is_on_worker
                else "no worker has taken it up: nothing that is free holds it"
            )
            self._note(f"{name}: for {seconds / 60:.0f} min {what}")
