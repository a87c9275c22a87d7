"""Real sweeps that are asked to end, by each signal, or that lose their workers, their Ray or their terminal."""

import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml

from sweeps.run_folder.layout import JOURNAL_FILE
from tests.sweeps.whole import tiny_recipes

PATIENCE_SECONDS = 240.0  # for a start of Ray and a first report on a busy machine
START = (
    "import sys; import sweeps.trials.supervision as watch; from sweeps.cli import main; "
    "watch.CHECKPOINT_SECONDS = dict.fromkeys(watch.CHECKPOINT_SECONDS, {patience}); watch.CLEAN_UP_SECONDS = 3.0; "
    "sys.exit(main(sys.argv[1:]))"
)


class LongSweep:
    """A sweep in a process of its own whose trial does not end."""

    def __init__(self, folder: Path, squad: Path, cache: Path) -> None:
        self.folder, self.log = folder, folder.with_suffix(".log")
        values = {
            "name": "long",
            "searcher": {"name": "random"},
            "scheduler": {"name": "fifo", "options": {"at": [8]}},
            "budget": {"trials": 4, "examples": 10_000_000, "concurrent": 1},
            **tiny_recipes(squad, batch_size=4),
            "space": [{"set": "train.learning_rate", "log_uniform": [0.001, 0.01]}],
        }
        values["recipe"]["model"]["family"] = "bert"
        config = folder.with_suffix(".yaml")
        config.write_text(yaml.safe_dump(values))
        self.arguments = ["run", "--config", str(config), "--out", str(folder)]
        self.environment = {**os.environ, "QA_SWEEPS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        self.seen: dict[int, psutil.Process] = {}

    @contextmanager
    def running(self, *, patience: float = 60.0, terminal: int | None = None) -> Iterator[psutil.Popen]:
        """Start it in a session of its own, wait for a report, and leave nothing of it behind."""
        command = [sys.executable, "-c", START.format(patience=patience), *self.arguments]
        with self.log.open("wb") as log:
            output = log if terminal is None else terminal
            process = psutil.Popen(
                command, env=self.environment, stdout=output, stderr=log, start_new_session=True
            )
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while process.poll() is None and not self.has_reported() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert self.has_reported(), self.output()
            self.seen = {item.pid: item for item in process.children(recursive=True)}
            yield process
        finally:
            for item in [process, *self.left()]:
                with suppress(psutil.Error):
                    item.kill()
            process.wait()

    def has_reported(self) -> bool:
        path = self.folder / JOURNAL_FILE
        return path.exists() and b'"reported"' in path.read_bytes()

    def worker(self) -> psutil.Process:
        (found,) = [item for item in self.seen.values() if "ImplicitFunc" in item.name()]
        return found

    def daemon(self, name: str) -> psutil.Process:
        (found,) = [item for item in self.seen.values() if item.name() == name]
        return found

    def left(self) -> list[psutil.Process]:
        """Return the processes of its Ray that are still there."""
        return [item for item in self.seen.values() if is_there(item)]

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def check_ended_well(self, process: psutil.Popen, *, within: float) -> None:
        process.wait(timeout=within)
        shown = self.output()
        assert process.returncode == 130, shown
        assert "the sweep ended early: interrupted" in shown
        assert f"qa-sweep run --resume {shlex.quote(str(self.folder))}" in shown
        assert "Front: 0 of" in shown
        assert self.left() == []


def is_there(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def sweep(small_squad: Path, cache_dir: Path, tmp_path: Path) -> LongSweep:
    return LongSweep(tmp_path / "a run", small_squad, cache_dir)


@pytest.mark.long
def test_a_signal_to_the_process_group_lets_trials_write_checkpoints(sweep: LongSweep) -> None:
    """As Slurm, systemd and `timeout` send it, twice in a moment; nothing of Ray is in the driver's session."""
    with sweep.running() as process:
        assert {os.getsid(item) for item in sweep.seen}.isdisjoint({os.getsid(process.pid)})
        os.killpg(process.pid, signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        sweep.check_ended_well(process, within=60)
        shown = sweep.output()
        assert "interrupted; running trials write checkpoints" in shown
        assert "no checkpoint within" not in shown
        outcome = (sweep.folder / "trials/t0000/outcome.json").read_text()
        assert "paused after" in outcome
        assert statuses_in_mlflow(sweep.folder) == {"long": "KILLED", "t0000": "KILLED"}


def statuses_in_mlflow(folder: Path) -> dict[str, str]:
    import sqlite3

    with sqlite3.connect(folder.parent / "mlflow.db") as base:
        return dict(base.execute("select name, status from runs").fetchall())


@pytest.mark.long
def test_after_kill_9_of_the_driver_nothing_of_ray_is_left_within_ten_seconds(sweep: LongSweep) -> None:
    """Not even a worker that was stopped, which cannot see that its daemon is gone."""
    with sweep.running() as process:
        assert len(sweep.seen) >= 6
        sweep.worker().suspend()
        process.kill()
        process.wait()
        killed = time.monotonic()
        while sweep.left() and time.monotonic() < killed + 10:
            time.sleep(0.1)
        assert sweep.left() == []


@pytest.mark.slow  # test_supervision.py holds the deadline, and the test above that a stopped worker is ended
def test_a_stopped_worker_holds_up_the_end_for_no_longer_than_the_deadline(sweep: LongSweep) -> None:
    with sweep.running(patience=2.0) as process:
        sweep.worker().suspend()
        process.send_signal(signal.SIGINT)
        sweep.check_ended_well(process, within=60)
        assert "no checkpoint within 2 s from t0000; resumed, these trials start from" in sweep.output()


@pytest.mark.parametrize("daemon", ["raylet", pytest.param("gcs_server", marks=pytest.mark.slow)])
@pytest.mark.long
def test_the_loss_of_ray_on_this_machine_ends_the_sweep(daemon: str, sweep: LongSweep) -> None:
    with sweep.running() as process:
        sweep.daemon(daemon).kill()
        process.wait(timeout=60)
        shown = sweep.output()
        assert process.returncode == 2, shown
        assert "error: Ray on this machine has ended (" in shown
        assert f"qa-sweep run --resume {shlex.quote(str(sweep.folder))}" in shown
        assert sweep.left() == []
        assert statuses_in_mlflow(sweep.folder)["long"] == "FAILED"


@pytest.mark.slow
def test_a_terminal_that_stalls_does_not_hold_up_the_sweep(sweep: LongSweep) -> None:
    """Its reader takes the start, then nothing for long enough to fill what the system buffers."""
    master, terminal = pty.openpty()
    may_read = threading.Event()
    may_read.set()
    shown = bytearray()

    def read() -> None:
        with suppress(OSError):
            while data := os.read(master, 1000):
                shown.extend(data)
                may_read.wait()

    threading.Thread(target=read, daemon=True).start()
    with sweep.running(terminal=terminal) as process:
        os.close(terminal)
        may_read.clear()
        time.sleep(5.0)  # ten refreshes of the bar
        process.send_signal(signal.SIGINT)
        outcome = sweep.folder / "trials/t0000/outcome.json"
        deadline = time.monotonic() + 60
        while not outcome.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert outcome.exists()  # the trial was told, although nobody reads
        may_read.set()
        process.wait(timeout=60)
        assert process.returncode == 130, sweep.output()
    assert b"qa-sweep run --resume" in shown
    os.close(master)


@pytest.mark.long
def test_a_terminal_that_is_closed_ends_the_sweep_with_checkpoints(sweep: LongSweep) -> None:
    """The system then sends SIGHUP, and whatever is printed fails."""
    master, terminal = pty.openpty()
    with sweep.running(terminal=terminal) as process:
        os.close(terminal)
        os.close(master)
        process.send_signal(signal.SIGHUP)
        process.wait(timeout=60)
        assert process.returncode == 130, sweep.output()
        assert "paused after" in (sweep.folder / "trials/t0000/outcome.json").read_text()
        assert sweep.left() == []
        assert statuses_in_mlflow(sweep.folder)["long"] == "KILLED"


def test_nohup_is_respected(tmp_path: Path) -> None:
    code = (
        "import os, signal; from sweeps.trials import signals\n"
        "with signals.noted() as requests:\n"
        "    os.kill(os.getpid(), signal.SIGHUP); os.kill(os.getpid(), signal.SIGTERM)\n"
        "print(requests.first == signal.SIGTERM, requests.is_repeated)"
    )
    command = ["nohup", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "True False\n"
