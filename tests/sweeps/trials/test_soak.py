"""A thousand tiny trials in one sweep: the driver stays as small as it was, and nothing is left behind."""

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from sweeps.run_folder import records
from sweeps.run_folder.layout import RECORDS_FILE
from sweeps.trials.worker import CLEAN_START_BYTES
from tests.sweeps.whole import Sweep, tiny_recipes

TRIALS = int(os.environ.get("QA_SWEEPS_SOAK_TRIALS", "1000"))
WARM = 0.2  # share of the trials before which everything may grow: imports, caches, Ray's own buffers
MOST_BYTES_A_TRIAL = 40_000  # of the driver; the records that it keeps are part of it
MOST_WORKER_BYTES_A_TRIAL = 40_000
LOOK_SECONDS = 2.0
MARK = "QA_SWEEPS_SOAK"  # in the environment of the sweep and of all that it starts


def config(folder: Path, squad: Path) -> Path:
    values = {
        "name": "soak",
        "seed": 1,
        "searcher": {"name": "random"},
        "scheduler": {"name": "pareto_asha", "options": {"grace_examples": 16, "eta": 2}},
        "budget": {"trials": TRIALS, "examples": 32},
        **tiny_recipes(squad, batch_size=8),
        "space": [
            {"set": "model.family", "choice": ["bert", "lstm"]},
            {"set": "methods", "choice": ["full", "quantize"]},
            {"set": "train.learning_rate", "log_uniform": [0.001, 0.01]},
        ],
    }
    path = folder / "soak.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@dataclass
class Watch:
    """What was seen of the driver and its workers, one row for each look."""

    pid: int
    records: Path
    rows: list[dict[str, float]] = field(default_factory=list)

    def look(self) -> None:
        driver = psutil.Process(self.pid)
        children = driver.children(recursive=True)
        workers = []
        for child in children:
            with suppress(psutil.Error):
                if child.name().startswith("ray::Impl"):
                    workers.append(child.memory_info().rss)
        self.rows.append(
            {
                "trials": self.records.read_bytes().count(b"\n") if self.records.exists() else 0,
                "rss": driver.memory_info().rss,
                "files": driver.num_fds(),
                "threads": driver.num_threads(),
                "processes": len(children),
                "largest_worker": max(workers, default=0),
                "shared": len(list(Path("/dev/shm").iterdir())),
            }
        )

    def column(self, name: str) -> np.ndarray:
        """Return a value over the looks after the warm-up."""
        return np.array([row[name] for row in self.rows if WARM * TRIALS <= row["trials"] < TRIALS])

    def slope(self, name: str) -> float:
        """Return by how much a value grows with each trial, by least squares."""
        return float(np.polyfit(self.column("trials"), self.column(name), 1)[0])


@contextmanager
def watched(pid: int, records_file: Path) -> Iterator[Watch]:
    watch, over = Watch(pid, records_file), threading.Event()

    def run() -> None:
        while not over.wait(LOOK_SECONDS):
            with suppress(psutil.Error):
                watch.look()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def marked_processes(mark: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.append(" ".join(process.cmdline())[:100])
    return found


@pytest.mark.slow
@pytest.mark.timeout(2 * 3600)
def test_a_thousand_trials_leave_the_driver_as_it_was_and_nothing_behind(
    small_squad: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, str(tmp_path))
    temporary = Path(tempfile.mkdtemp(prefix="soak-"))  # short: Ray's sockets lie below
    monkeypatch.setenv("TMPDIR", str(temporary))
    shared_before = set(Path("/dev/shm").iterdir())
    sweep = Sweep(tmp_path / "soak", ["--config", str(config(tmp_path, small_squad))], cache_dir)
    began = time.monotonic()
    process = sweep.start()
    with watched(process.pid, sweep.folder / RECORDS_FILE) as watch:
        process.wait(timeout=2 * 3600)
    seconds = time.monotonic() - began
    assert process.returncode == 0, sweep.output()[-4000:]

    found = records.load(sweep.folder / RECORDS_FILE).records
    assert [item.trial_id for item in sorted(found, key=lambda item: item.trial_id)] == [
        f"t{index:04d}" for index in range(TRIALS)
    ]
    assert {item.status for item in found} <= {"ok", "stopped"}
    report = {
        "trials": TRIALS,
        "seconds": round(seconds),
        "looks": len(watch.column("rss")),
        "driver_bytes_a_trial": round(watch.slope("rss")),
        "driver_mb": [round(float(value) / 1e6) for value in watch.column("rss")[[0, -1]]],
        "worker_bytes_a_trial": round(watch.slope("largest_worker")),
        "worker_mb": [round(float(value) / 1e6) for value in watch.column("largest_worker")[[0, -1]]],
        **{
            name: [int(watch.column(name).min()), int(watch.column(name).max())]
            for name in ("files", "threads", "processes", "shared")
        },
        "left_over_bytes": max(item.provenance["left_over_bytes"] or 0 for item in found),
    }
    print(json.dumps(report))
    assert report["driver_bytes_a_trial"] < MOST_BYTES_A_TRIAL
    assert report["worker_bytes_a_trial"] < MOST_WORKER_BYTES_A_TRIAL
    assert report["left_over_bytes"] < CLEAN_START_BYTES
    for name in ("files", "threads", "processes", "shared"):
        assert abs(watch.slope(name)) * TRIALS < 5, name
    assert marked_processes(str(tmp_path)) == []
    assert set(Path("/dev/shm").iterdir()) <= shared_before
    # Ray keeps the logs of its last start, torch an empty cache of its compiler.
    left = [path for path in temporary.iterdir() if path.name != "ray"]
    assert [path.name for path in left if not path.name.startswith("torchinductor_")] == []
    assert [str(path) for folder in left for path in folder.rglob("*") if path.is_file()] == []
    shutil.rmtree(temporary)
