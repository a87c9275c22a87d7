"""A worker that is silent for too long ends, whatever holds it, and leaves where it stood; one at work does not."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from qa_core.errors import StorageError
from sweeps.run_folder.layout import HANG_FILE
from sweeps.trials import watchdog
from sweeps.trials.watchdog import forget_hang, read_hang, watched


def _run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run the lines in a process that is watched for 0.6 seconds of silence."""
    script = folder / "qa_core" / "hanging.py"  # a file of ours, to whom looks at the stacks
    script.parent.mkdir(exist_ok=True)
    lines = f"""
        import ctypes, time
        from pathlib import Path
        from qa_core import heartbeat
        from sweeps.trials.watchdog import watched

        def forward():
            {body}

        with watched(Path({str(folder)!r}), 0.01):
            forward()
        print("went on")
    """
    script.write_text(textwrap.dedent(lines))
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)


# The second one keeps the interpreter's lock: no thread of Python runs beside it.
@pytest.mark.parametrize("body", ["time.sleep(40)", "ctypes.PyDLL(None).usleep(40_000_000)"])
def test_a_silent_process_ends_and_says_where_it_stood(tmp_path: Path, body: str) -> None:
    done = _run(tmp_path, body)
    assert (done.returncode, done.stdout) == (1, "")
    hang = read_hang(tmp_path)
    assert hang is not None
    assert hang.place == "hanging.py:8, in forward"
    assert hang.stacks.startswith("Timeout")


def test_a_process_that_gives_signs_of_life_goes_on(tmp_path: Path) -> None:
    done = _run(tmp_path, "[(time.sleep(0.1), heartbeat.beat()) for _ in range(15)]")
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
    assert read_hang(tmp_path) is None
    assert not (tmp_path / HANG_FILE).exists()


def test_the_watch_ends_with_its_block(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from sweeps.trials.watchdog import watched
try:
    with watched(Path({str(tmp_path)!r}), 0.01):
        raise KeyError
except KeyError:
    time.sleep(1.5)
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
    assert read_hang(tmp_path) is None


def test_without_a_limit_nothing_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("the watch was set")

    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback_later", refuse)
    with watched(tmp_path, None):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_worker_left_is_not_taken_for_a_hang_of_this_one(tmp_path: Path) -> None:
    (tmp_path / HANG_FILE).write_text("Timeout (0:30:00)!\n  garbage without a place\n")
    hang = read_hang(tmp_path)
    assert hang is not None
    assert hang.place == "an unknown place"
    with watched(tmp_path, 60):
        assert read_hang(tmp_path) is None
    (tmp_path / HANG_FILE).write_text("x")
    forget_hang(tmp_path)
    forget_hang(tmp_path)
    assert read_hang(tmp_path) is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"away/hang\.txt: cannot be written"),
        watched(tmp_path / "away", 1),
    ):
        pass
