"""Ends what is left of an embedded Ray once its driver has ended, however that ended.

Ray's daemons run in sessions of their own (`ray_service.py`), so that a signal to the driver's process group does not
reach them. Linux ends two of them with the driver; their helpers live on for minutes, and a stopped worker for ever.
`Guardian` starts this file as a small process that holds the other end of a pipe: when the driver closes it or dies,
the guardian gives Ray's processes some seconds to end by themselves and kills those that are left.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil

GRACE_SECONDS = 3.0
LOOK_SECONDS = 0.1
END_SECONDS = 10.0  # in which the guardian has ended when the driver lets it


class Guardian:
    """Watches over the sessions of one embedded Ray. `end` must be called."""

    def __init__(self) -> None:
        # Isolated: its current folder and the environment decide nothing of what it imports.
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, session: int) -> None:
        """Add a session, by the process id of its leader."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{session}\n".encode())
        self._process.stdin.flush()

    def end(self) -> None:
        """Let the guardian end what is left, and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=END_SECONDS)


def members(sessions: set[int]) -> list[int]:
    """Return the ids of the live processes of these sessions."""
    found = []
    for number in psutil.pids():
        with suppress(OSError, psutil.Error):  # it ended meanwhile
            is_dead = psutil.Process(number).status() == psutil.STATUS_ZOMBIE
            if os.getsid(number) in sessions and not is_dead:
                found.append(number)
    return found


def main() -> None:
    """Read sessions from the standard input until it ends, and end their processes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # of a system that ends the driver too: the pipe tells
    sessions = {int(line) for line in sys.stdin}
    deadline = time.monotonic() + GRACE_SECONDS
    while members(sessions) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    while left := members(sessions):
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        if time.monotonic() > deadline + GRACE_SECONDS:  # a process that the system itself cannot end
            return
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
