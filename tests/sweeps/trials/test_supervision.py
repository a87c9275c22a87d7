"""How a sweep ends before its time and what is said of silence, with a driver and a Ray that only look like ones."""

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.run_folder.layout import ALIVE_FILE
from sweeps.trials import supervision
from sweeps.trials.faults import SweepFault
from sweeps.trials.signals import Requests
from sweeps.trials.supervision import INTERRUPTED, SILENT_SECONDS, Silence, Supervisor
from sweeps.trials.watchdog import last_sign, watched


class FakeDriver:
    def __init__(self) -> None:
        self.running: dict[str, Any] = {}
        self.lock = threading.RLock()
        self.is_closed = False
        self.ended_by: str | None = None
        self.fault: Any = None
        self.notes: list[str] = []
        self.note = self.notes.append

    def end(self, why: str) -> None:
        self.ended_by = self.ended_by or why

    def fail(self, fault: Any) -> None:
        self.fault = fault

    def take_up(self, trial_id: str, folder: Path, *, is_on_worker: bool = True) -> Any:
        item = SimpleNamespace(
            starts=1, is_on_worker=is_on_worker, curve=[], task=SimpleNamespace(folder=str(folder))
        )
        self.running[trial_id] = item
        return item


class FakeRay:
    def __init__(self, why: str | None = None) -> None:
        self.why = why

    def fault(self) -> str | None:
        return self.why


@pytest.fixture
def endless() -> Any:
    """Return a thread that stands for a loop of Ray's that never ends."""
    released = threading.Event()
    work = threading.Thread(target=released.wait, daemon=True)
    work.start()
    yield work
    released.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(supervision, "SIGNAL_SECONDS", 0.01)
    monkeypatch.setattr(supervision, "CLEAN_UP_SECONDS", 0.05)
    monkeypatch.setattr(
        supervision, "CHECKPOINT_SECONDS", {signal.SIGINT: 0.1, signal.SIGTERM: 0.1, signal.SIGHUP: 0.1}
    )
    monkeypatch.setattr(supervision, "CHECKPOINT_SECONDS_WITHOUT_SIGNAL", 0.1)


def asked(*moments: float, number: int = signal.SIGTERM) -> Requests:
    return Requests([(number, moment) for moment in moments])


def test_a_signal_and_a_time_limit_let_trials_write_checkpoints() -> None:
    by_signal, by_clock, neither = FakeDriver(), FakeDriver(), FakeDriver()
    Supervisor(by_signal, FakeRay(), asked(0.0), minutes=None).look()
    watch = Supervisor(by_clock, FakeRay(), Requests(), minutes=0.0001)
    time.sleep(0.02)
    watch.look()
    Supervisor(neither, FakeRay(), Requests(), minutes=10).look()
    assert by_signal.ended_by == INTERRUPTED
    assert by_clock.ended_by == "budget.time_minutes: 0.0001 min are over"
    assert neither.ended_by is None


@pytest.mark.parametrize("why", ["signal", "limit of disk"])
def test_a_loop_that_does_not_end_is_left_after_the_deadline(why: str, endless: Any, tmp_path: Path) -> None:
    driver = FakeDriver()
    driver.take_up("t0003", tmp_path)
    driver.take_up("t0004", tmp_path, is_on_worker=False)
    if why != "signal":
        driver.ended_by = why
    Supervisor(driver, FakeRay(), asked(0.0) if why == "signal" else Requests(), minutes=None).wait(endless)
    assert driver.is_closed
    assert driver.ended_by == (INTERRUPTED if why == "signal" else why)
    assert driver.notes == [
        "no checkpoint within 0.1 s from t0003; resumed, these trials start from earlier ones"
    ]


def test_an_event_that_never_ends_does_not_hold_up_the_deadline(
    endless: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a record on a network file system that does not answer."""
    monkeypatch.setattr(supervision, "CLOSE_SECONDS", 0.05)
    driver = FakeDriver()
    holds = threading.Event()

    def event() -> None:
        with driver.lock:
            holds.set()
            endless.join()

    threading.Thread(target=event, daemon=True).start()
    holds.wait()
    Supervisor(driver, FakeRay(), asked(0.0), minutes=None).wait(endless)
    assert (driver.is_closed, driver.ended_by) == (True, INTERRUPTED)


def test_a_second_request_ends_at_once_and_the_echo_of_the_first_does_not(endless: Any) -> None:
    driver = FakeDriver()
    with pytest.raises(KeyboardInterrupt):
        Supervisor(driver, FakeRay(), asked(0.0, 1.5), minutes=None).wait(endless)
    assert driver.is_closed
    assert not asked(0.0, 0.3).is_repeated


def test_the_loss_of_ray_ends_the_sweep_by_its_cause_unless_the_same_signal_ended_both(endless: Any) -> None:
    lost, ended = FakeDriver(), FakeDriver()
    gone = FakeRay("Ray on this machine has ended (raylet)")
    Supervisor(lost, gone, Requests(), minutes=None).wait(endless)
    assert isinstance(lost.fault, SweepFault)
    assert str(lost.fault).startswith("Ray on this machine has ended (raylet); resumed, trials start from")
    Supervisor(ended, gone, asked(0.0), minutes=None).wait(endless)
    assert (ended.fault, ended.ended_by, ended.is_closed) == (None, INTERRUPTED, True)


def test_silence_is_told_once_and_again_only_after_a_sign(tmp_path: Path) -> None:
    driver = FakeDriver()
    silence = Silence(driver.note)
    item = driver.take_up("t0", tmp_path)
    silence.look(driver, 0.0)
    silence.look(driver, SILENT_SECONDS - 1)
    assert driver.notes == []
    for now in (SILENT_SECONDS, SILENT_SECONDS + 15):
        silence.look(driver, now)
    (note,) = driver.notes
    assert note.startswith("t0: for 5 min no sign of life from its worker")
    (tmp_path / ALIVE_FILE).touch()
    silence.look(driver, 2 * SILENT_SECONDS)
    os.utime(tmp_path / ALIVE_FILE, (1, 1))  # any change is a sign: its clock is not the driver's
    silence.look(driver, 3 * SILENT_SECONDS - 1)
    item.curve.append({})
    silence.look(driver, 4 * SILENT_SECONDS - 2)
    assert len(driver.notes) == 1
    silence.look(driver, 5 * SILENT_SECONDS)
    assert len(driver.notes) == 2


def test_trials_that_no_worker_takes_up_are_told_where_none_runs(tmp_path: Path) -> None:
    driver = FakeDriver()
    silence = Silence(driver.note)
    driver.take_up("t0", tmp_path, is_on_worker=False)
    runs = driver.take_up("t1", tmp_path)
    silence.look(driver, 0.0)
    runs.curve.append({})
    silence.look(driver, SILENT_SECONDS)
    assert driver.notes == []
    del driver.running["t1"]
    silence.look(driver, SILENT_SECONDS + 15)
    assert driver.notes == ["t0: for 5 min no worker has taken it up: nothing that is free holds it"]


@pytest.mark.parametrize("minutes", [None, 5.0])
def test_a_trial_at_work_leaves_signs_of_life(
    minutes: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qa_core import heartbeat

    monkeypatch.setattr("sweeps.trials.watchdog.SIGN_SECONDS", 0.0)
    monkeypatch.setattr("sweeps.trials.watchdog.SET_BACK_SECONDS", 0.0)
    assert last_sign(tmp_path) is None
    with watched(tmp_path, minutes):
        heartbeat.beat()
        first = last_sign(tmp_path)
        time.sleep(0.02)
        heartbeat.beat()
        second = last_sign(tmp_path)
    assert first is not None
    assert second is not None
    assert second > first
