"""Signals that ask a sweep to end: SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed).

A handler runs between any two steps of the main thread, which may hold a lock then: so it only notes the signal, for
`ray_driver.py` to look at, and where nobody looks it raises KeyboardInterrupt, as Python's own handler does.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

ASKS_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


SAME_REQUEST_SECONDS = (
    1.0  # `timeout` and closed terminals send a signal twice, to the process and to its group
)


@dataclass
class Requests:
    """The signals that have come, in order, each with its moment."""

    came: list[tuple[int, float]] = field(default_factory=list)

    @property
    def first(self) -> int | None:
        """The first signal; None while none has come."""
        return self.came[0][0] if self.came else None

    @property
    def is_repeated(self) -> bool:
        """Whether the process was asked once more after the first time."""
        return bool(self.came) and self.came[-1][1] - self.came[0][1] > SAME_REQUEST_SECONDS


@contextmanager
def noted() -> Iterator[Requests]:
    """Only note the signals that come within the block, for somebody who looks at them all the time."""
    requests = Requests()
    with _handled_by(lambda number, frame: requests.came.append((number, time.monotonic()))):
        yield requests


@contextmanager
def raised() -> Iterator[None]:
    """Let each of the signals raise KeyboardInterrupt in the main thread within the block."""
    with _handled_by(signal.default_int_handler):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Set the handler of all of the signals within the block; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in ASKS_TO_END}
    if former[signal.SIGHUP] == signal.SIG_IGN:  # under nohup, which is there to outlive the terminal
        del former[signal.SIGHUP]
    try:
        for number in former:
            signal.signal(number, handler)
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)
