"""A sweep whose run folder's disk fills while trials run: a small file system, where this user may mount one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.sweeps.whole import tiny_recipes

MEGABYTES = 24
SECONDS = 300
# Runs within the name space that holds the file system: waits for a report, takes all that is free, waits for the end.
FILL = """
import os, pathlib, subprocess, sys, time
disk, log = pathlib.Path(sys.argv[1]), open(sys.argv[2], "wb")
start = (
    "import sys; from sweeps import cli; from sweeps.nodes import preflight as p; "
    "p.LEAST_FREE_BYTES = 0; sys.exit(cli.main(sys.argv[1:]))"
)
sweep = subprocess.Popen([sys.executable, "-c", start, *sys.argv[3:]], stdout=log, stderr=log)
journal = disk / "run" / "journal.jsonl"
deadline = time.monotonic() + 200
while sweep.poll() is None and time.monotonic() < deadline:
    if journal.exists() and b'"reported"' in journal.read_bytes():
        break
    time.sleep(0.05)
number = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
try:
    for size in (2**20, 2**12):
        try:
            while os.write(number, bytes(size)):
                pass
        except OSError:
            pass
    code = sweep.wait(timeout=200)
    os.unlink(disk / "filler")
    print(code, (disk / "run" / "spec.json").exists(), (disk / "run" / "journal.jsonl").stat().st_size > 0)
finally:
    sweep.kill()
"""


def in_a_small_file_system(disk: Path, *command: str) -> subprocess.CompletedProcess[str]:
    mount = 'mount -t tmpfs -o "size=$1m" tmpfs "$2" && shift 2 && exec "$@"'
    started = ["unshare", "--mount", "sh", "-c", mount, "sh", str(MEGABYTES), str(disk), *command]
    return subprocess.run(started, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.long
def test_a_disk_that_fills_while_trials_run_ends_the_sweep_with_its_cause(
    small_squad: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the worker meets it first, at a checkpoint; then its note of that, Ray's note, the journal and MLflow."""
    disk, log, config = tmp_path / "disk", tmp_path / "log", tmp_path / "full.yaml"
    disk.mkdir()
    try:
        probe = in_a_small_file_system(disk, "true")
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if probe.returncode != 0:
        pytest.skip(f"this user may mount no file system: {probe.stderr.strip()}")
    values = {
        "name": "full",
        "searcher": {"name": "random"},
        "scheduler": {"name": "fifo", "options": {"at": list(range(8, 80_000, 8))}},
        "budget": {"trials": 4, "examples": 10_000_000, "concurrent": 1},
        **tiny_recipes(small_squad, batch_size=4),
        "space": [{"set": "train.learning_rate", "log_uniform": [0.001, 0.01]}],
    }
    values["recipe"]["model"]["family"] = "bert"
    config.write_text(yaml.safe_dump(values))
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    run = ["run", "--config", str(config), "--out", str(disk / "run")]
    done = in_a_small_file_system(disk, sys.executable, "-c", FILL, str(disk), str(log), *run)
    shown = log.read_text(encoding="utf-8", errors="replace")
    assert done.stdout == "2 True True\n", (done.stderr, shown)
    assert "No space left on device" in shown.split("error: ")[-1]
    assert f"qa-sweep run --resume {disk / 'run'}" in shown
    assert "Traceback" not in shown
