"""Turns on a device, by real processes on a folder that stands for one: who measures is alone, the dead hold nobody.

Processes write a line for each step and around each measurement into one file, opened for appending: its order is what
happened.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qa_core import heartbeat
from qa_core.errors import StorageError
from sweeps.budget.gpu_turns import DeviceTurns

STEP_SECONDS = 0.01
PATIENCE_SECONDS = 60.0
PROJECT = Path(__file__).resolve().parents[3]

BEGINNING = f"""
import os, sys, time
from pathlib import Path
from sweeps.budget.gpu_turns import DeviceTurns

me, turns = sys.argv[1], DeviceTurns(Path(sys.argv[2]) / "device")
log = os.open(Path(sys.argv[2]) / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def say(word):
    os.write(log, f"{{me}} {{word}}\\n".encode())

def step():
    say("begins")
    time.sleep({STEP_SECONDS})
    say("ends")
    turns.between_steps()
"""
TRAINS = (
    BEGINNING
    + """
with turns.working():
    while True:
        step()
"""
)
MEASURES = (
    BEGINNING
    + """
with turns.working():
    for _ in range(int(sys.argv[3])):
        if "without steps" not in sys.argv:
            step()
        with turns.measuring():
            say("measures")
            time.sleep(float(sys.argv[4]))
            say("measured")
    say("done")
"""
)
HANGS = (
    BEGINNING
    + """
with turns.working():
    say("hangs")
    time.sleep(1000)
"""
)
RESTS = (
    BEGINNING
    + """
with turns.working():
    with turns.resting():
        say("rests")
        time.sleep(1000)
"""
)


class Stage:
    """Starts processes and reads what they wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen] = []

    def start(self, name: str, source: str, *arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-c", source, name, str(self.folder), *map(str, arguments)]
        self.processes.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(PROJECT)}))
        return self.processes[-1]

    def lines(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def wait_for(self, line: str, *, times: int = 1) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while self.lines().count(line) < times:
            assert time.monotonic() < end, (line, self.lines()[-20:])
            time.sleep(0.02)

    def kill(self, process: subprocess.Popen) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def stage(tmp_path: Path):
    stage = Stage(tmp_path)
    yield stage
    for process in stage.processes:
        if process.poll() is None:
            stage.kill(process)


def _overlaps(lines: list[str]) -> list[str]:
    """Return what happened while somebody else measured, or when a measurement began in the middle of a step."""
    found, computing, measuring = [], set(), None
    for line in lines:
        name, word = line.split()
        if measuring is not None and name != measuring:
            found.append(f"{line} while {measuring} measures")
        if word == "begins":
            computing.add(name)
        elif word == "ends":
            computing.discard(name)
        elif word == "measures":
            found += [f"{other} computes while {name} measures" for other in computing]
            measuring = name
        elif word == "measured":
            measuring = None
    return found


def test_while_one_measures_nobody_makes_a_step(stage):
    for name in ("a", "b"):
        stage.start(name, TRAINS)
        stage.wait_for(f"{name} ends", times=3)
    stage.start("m", MEASURES, 3, 0.3)
    stage.wait_for("m done")
    seen = len(stage.lines())
    stage.wait_for("a ends", times=stage.lines().count("a ends") + 3)
    stage.wait_for("b ends", times=stage.lines().count("b ends") + 3)
    assert _overlaps(stage.lines()) == []
    assert seen > 20


def test_two_that_measure_wait_for_each_other_and_both_come_to_it(stage):
    first, second = (stage.start(name, MEASURES, 100, 0.01, "without steps") for name in ("m", "n"))
    stage.start("a", TRAINS)
    stage.wait_for("m done")
    stage.wait_for("n done")
    assert (first.wait(), second.wait()) == (0, 0)
    assert _overlaps(stage.lines()) == []


def test_one_that_is_killed_while_it_measures_holds_nobody_up(stage):
    stage.start("a", TRAINS)
    stage.wait_for("a ends", times=2)
    dying = stage.start("m", MEASURES, 1, 1000)
    stage.wait_for("m measures")
    stood_at = stage.lines().count("a begins")
    time.sleep(20 * STEP_SECONDS)
    assert stage.lines().count("a begins") == stood_at
    stage.kill(dying)
    stage.wait_for("a begins", times=stood_at + 3)
    stage.start("n", MEASURES, 1, 0.01)
    stage.wait_for("n done")


def test_one_that_is_killed_while_others_wait_for_it_holds_nobody_up(stage):
    hanging = stage.start("h", HANGS)
    stage.wait_for("h hangs")
    stage.start("m", MEASURES, 1, 0.01)
    stage.wait_for("m ends")
    time.sleep(20 * STEP_SECONDS)
    assert "m measures" not in stage.lines()
    stage.kill(hanging)
    stage.wait_for("m done")


def test_one_that_waits_for_another_trial_keeps_nobody_from_measuring(stage):
    stage.start("r", RESTS)
    stage.wait_for("r rests")
    stage.start("m", MEASURES, 1, 0.01)
    stage.wait_for("m done")


def test_the_device_is_settled_before_it_is_given_away_and_before_it_is_taken_back(tmp_path):
    told = []
    turns = DeviceTurns(tmp_path / "device", settle=lambda: told.append("settled"))
    with turns.working():
        with turns.measuring():
            told.append("measures")
        turns.between_steps()
    assert told == ["settled", "measures", "settled", "settled"]
    turns.close()


def test_a_fault_in_a_measurement_leaves_the_device_to_others(tmp_path):
    turns, others = DeviceTurns(tmp_path / "device"), DeviceTurns(tmp_path / "device")
    with pytest.raises(ValueError, match="broken"), turns.working(), turns.measuring():
        raise ValueError("broken")
    with others.working(), others.measuring():
        pass
    turns.close()
    others.close()


def test_a_folder_of_somebody_else_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(StorageError, match="belongs to another user"):
        DeviceTurns(tmp_path / "device")


def test_a_wait_for_the_device_is_a_sign_of_life(tmp_path):
    turns, others = DeviceTurns(tmp_path / "device"), DeviceTurns(tmp_path / "device")
    beats = []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            others.close()  # as its process does when it ends

    others._device.take_shared()
    with turns.working(), heartbeat.heard_by(beat), turns.measuring():
        pass
    assert len(beats) == 3
    turns.close()
