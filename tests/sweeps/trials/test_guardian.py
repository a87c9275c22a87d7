"""What a guardian ends: every process of its sessions, stopped ones too, and no other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sweeps.trials.guardian import Guardian

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
HELPER = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
)


def is_there(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ignores(number: int, name: signal.Signals) -> bool:
    status = Path(f"/proc/{number}/status").read_text()
    (mask,) = [line for line in status.splitlines() if line.startswith("SigIgn:")]
    return bool(int(mask.split()[1], 16) >> (name - 1) & 1)


def test_a_guardian_ends_its_sessions_with_all_their_processes_and_nothing_else() -> None:
    guardian = Guardian()
    daemon = subprocess.Popen([sys.executable, "-c", HELPER + "time.sleep(600)"], start_new_session=True)
    other = subprocess.Popen(SLEEPS, start_new_session=True)
    try:
        guardian.watch(daemon.pid)
        deadline = time.monotonic() + 30
        while not (children := psutil.Process(daemon.pid).children()) and time.monotonic() < deadline:
            time.sleep(0.05)
        (helper,) = children
        helper.suspend()
        daemon.kill()  # its helper lives on, as Ray's agents do
        daemon.wait()
        assert is_there(helper.pid)
        guardian.end()
        assert not is_there(helper.pid)
        assert is_there(other.pid)
    finally:
        for process in (daemon, other):
            process.kill()
            process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="what a process ignores is read from /proc")
def test_a_guardian_acts_when_its_driver_is_killed_and_not_by_the_signals_that_its_driver_gets() -> None:
    code = (
        "import os, subprocess, sys, time; from sweeps.trials.guardian import Guardian\n"
        "guardian = Guardian()\n"
        f"daemon = subprocess.Popen({SLEEPS!r}, start_new_session=True)\n"
        "guardian.watch(daemon.pid)\n"
        "print(daemon.pid, guardian._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    daemon, guardian = map(int, driver.stdout.readline().split())
    try:
        deadline = time.monotonic() + 30
        while not ignores(guardian, signal.SIGTERM) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(guardian, signal.SIGTERM)
        time.sleep(0.3)
        assert is_there(daemon)
        assert is_there(guardian)
        driver.kill()
        driver.wait()
        deadline = time.monotonic() + 10
        while (is_there(daemon) or is_there(guardian)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_there(daemon)
        assert not is_there(guardian)
    finally:
        if is_there(daemon):
            os.kill(daemon, signal.SIGKILL)
        driver.stdout.close()
