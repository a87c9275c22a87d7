"""Signs of life of a trial, for the watchdog that ends a trial that hangs: `sweeps/trials/watchdog.py`.

Long work calls `beat` regularly: for each micro-batch of training, each batch of inference, each poll of a lock that
another trial holds. Training also calls `steps`, for what is shown of it: `sweeps/progress/status.py`. Without a
listener this costs nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from filelock import FileLock, Timeout

LOCK_LOOK_SECONDS = 5.0

Steps = Callable[[int, int, float | None], None]

_listener: Callable[[], None] | None = None
_step_listener: Steps | None = None


def steps(examples_seen: int, budget_examples: int, loss: float | None) -> None:
    """Tell the listener, if there is one, how far a training is.

    Args:
        examples_seen, budget_examples: training windows, consumed and to consume in all.
        loss: mean since the last rung; None where it has not been looked at.
    """
    if _step_listener is not None:
        _step_listener(examples_seen, budget_examples, loss)


@contextmanager
def steps_told_to(listener: Steps) -> Iterator[None]:
    """Let `steps` call the listener within the block; one at a time in a process."""
    global _step_listener
    former, _step_listener = _step_listener, listener
    try:
        yield
    finally:
        _step_listener = former


def beat() -> None:
    """Tell the listener, if there is one, that this process is at work."""
    if _listener is not None:
        _listener()


@contextmanager
def heard_by(listener: Callable[[], None]) -> Iterator[None]:
    """Let `beat` call the listener within the block; one at a time in a process."""
    global _listener
    former, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = former


def acquire(lock: FileLock) -> AbstractContextManager[FileLock]:
    """Wait for a lock as long as it takes, and beat meanwhile: its holder has a watchdog of its own.

    Returns a context manager that releases it.
    """
    while True:
        try:
            return lock.acquire(timeout=LOCK_LOOK_SECONDS)
        except Timeout:
            beat()
