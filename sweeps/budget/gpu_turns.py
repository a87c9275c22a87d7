"""Trials that share a GPU take turns: any number train at a time, and one measures alone.

The locks are files in a folder of the machine, one folder for each device. The kernel releases a lock when its process
dies.

    device.lock      shared: this trial computes; exclusive: it measures
    turnstile.lock   exclusive: this trial measures or waits to; every trial passes it before it takes device.lock

A trial releases its shared lock before it measures; otherwise two such trials would wait for each other. A trial that
trains checks the turnstile after each step. If another trial holds it, the first releases its lock and waits. A trial
that waits for another trial for a different reason must not hold its lock: `resting` (`qa_core/run.py`, around a
teacher's training).

Tensors of the other trials stay in memory while one measures. They take room but no time, and the CUDA allocator counts
the peak of each process separately.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from qa_core import heartbeat
from qa_core.errors import StorageError
from qa_core.turns import Turns

DEVICE_LOCK, TURNSTILE_LOCK = "device.lock", "turnstile.lock"
LOOK_SECONDS = 0.02


class DeviceTurns(Turns):
    """The turns of one trial on a shared device. Keeps two files open; not for use by several threads.

    Args:
        folder: of the device, on this machine; made if it is not there.
        settle: waits until the device has finished the work of this process.
        unbound: context manager around a measurement that lifts the limits on this process.

    Raises:
        StorageError: the folder cannot be written to, or is not this user's own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settle: Callable[[], None] = lambda: None,
        unbound: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._settle, self._unbound = settle, unbound
        try:
            _make_private(folder)
            self._device, self._turnstile = _Lock(folder / DEVICE_LOCK), _Lock(folder / TURNSTILE_LOCK)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be written: {error}") from error

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the device together with other trials that compute."""
        self._join()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Release the device inside the block."""
        self._leave()
        try:
            yield
        finally:
            self._join()

    def between_steps(self) -> None:
        """Release the device and wait if another trial wants to measure."""
        if self._turnstile.is_free_to_share():
            return
        self._leave()
        self._join()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Hold the device alone."""
        self._leave()
        self._turnstile.take_alone()
        try:
            self._device.take_alone()
            with self._unbound():
                yield
        finally:
            self._settle()
            self._device.let_go()
            self._device.take_shared()  # at once: nobody measures while this process holds the turnstile
            self._turnstile.let_go()

    def close(self) -> None:
        """Release both locks and close the files."""
        self._device.close()
        self._turnstile.close()

    def _join(self) -> None:
        self._turnstile.take_shared()
        self._device.take_shared()
        self._turnstile.let_go()

    def _leave(self) -> None:
        self._settle()
        self._device.let_go()


class _Lock:
    """A file that processes lock, and that the kernel unlocks when they end."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def take_shared(self) -> None:
        self._wait_for(fcntl.LOCK_SH)

    def take_alone(self) -> None:
        self._wait_for(fcntl.LOCK_EX)

    def let_go(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def is_free_to_share(self) -> bool:
        is_free = self._takes(fcntl.LOCK_SH)
        if is_free:
            self.let_go()
        return is_free

    def _wait_for(self, kind: int) -> None:
        """Poll, and beat meanwhile: a trial that waits is alive, and the holder has a watchdog of its own."""
        while not self._takes(kind):
            heartbeat.beat()
            time.sleep(LOOK_SECONDS)

    def _takes(self, kind: int) -> bool:
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._file)


def _make_private(folder: Path) -> None:
    """Make the folder, below one of this user's own: the machine's temporary folder is everybody's."""
    for part in (folder.parent, folder):
        part.mkdir(mode=0o700, exist_ok=True)
        if part.is_symlink() or part.stat().st_uid != os.getuid():
            raise StorageError(f"{part}: belongs to another user; allowed: a folder of one's own")
