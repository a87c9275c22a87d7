"""Signs of life of a trial, for the watchdog that ends a trial that hangs: `sweeps/trials/watchdog.py`.

Long work calls `beat` regularly: for each micro-batch of training, each batch of inference, each poll of a lock that
another trial holds. Without a listener this costs nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from filelock import FileLock, Timeout

LOCK_LOOK_SECONDS = 5.0

_listener: Callable[[], None] | None = None


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
