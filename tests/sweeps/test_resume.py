"""A sweep whose driver is killed at any moment: nothing lost, nothing doubled, the same records up to timing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps import journal, records

KILLS = 20
TIMED = ("started_at", "finished_at", "seconds", "starts", "provenance")
TIMED_COSTS = (
    "latency_p50_ms",
    "latency_p95_ms",
    "rss_peak_bytes",
    "train_seconds",
    "train_examples_per_second",
)


def comparable(folder: Path) -> list[dict[str, Any]]:
    """Return the records by trial, without what a clock or the state of a process decides."""
    found = []
    for record in records.load(folder / records.RECORDS_FILE).records:
        values = {name: item for name, item in records.to_dict(record).items() if name not in TIMED}
        cost = values["cost"] or {}
        values["cost"] = {name: item for name, item in cost.items() if name not in TIMED_COSTS}
        values["curve"] = [
            {name: item for name, item in point.items() if name != "train_seconds"}
            for point in values["curve"]
        ]
        found.append(values)
    return sorted(found, key=lambda item: item["trial_id"])


class Sweep:
    """Runs `qa-sweep run` in a process of its own."""

    def __init__(self, folder: Path, options: list[str], cache: Path) -> None:
        self.folder, self.options = folder, options
        self.environment = {**os.environ, "QA_SWEEPS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}

    def start(self, *options: str) -> subprocess.Popen:
        begun = (self.folder / "spec.json").exists()
        own = ["--resume", str(self.folder)] if begun else ["--out", str(self.folder), *self.options]
        command = [sys.executable, "-m", "sweeps.cli", "run", *own, *options]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def finish(self, *options: str) -> str:
        process = self.start(*options)
        output, _ = process.communicate(timeout=1200)
        assert process.returncode in (0, 3), output
        return output

    def end_by(self, number: signal.Signals, *, after_lines: int, then_seconds: float) -> tuple[int, str]:
        """Send the driver a signal once the journal has so many more lines; returns its exit code and output."""
        process = self.start()
        wanted, deadline = self._lines() + after_lines, time.monotonic() + 300
        while process.poll() is None and self._lines() < wanted and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(then_seconds)
        process.send_signal(number)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def _lines(self) -> int:
        path = self.folder / journal.JOURNAL_FILE
        return path.read_bytes().count(b"\n") if path.exists() else 0


def small_config(tmp_path: Path, squad: Path) -> Path:
    values = {
        "name": "killed",
        "seed": 3,
        "objectives": [
            {"name": "em_percent", "goal": "max", "reference": 0},
            {"name": "memory_mb", "goal": "min", "reference": 32},
        ],
        "searcher": {"name": "random"},
        "scheduler": {"name": "pareto_asha", "options": {"grace_examples": 60, "eta": 2}},
        "budget": {"trials": 6, "examples": 480, "concurrent": 1},
        "recipe": {
            "model": {"vocab_size": 300, "checkpoint": "micro"},
            "data": {
                "train": str(squad),
                "evaluation": str(squad),
                "max_length": 64,
                "stride": 8,
                "max_question_length": 24,
            },
            "train": {"precision": "float32", "batch_size": 4},
            "evaluation": {"precision": "float32", "latency_runs": 2},
        },
        "space": [
            {"set": "model.family", "choice": ["bert", "lstm"]},
            {"set": "methods", "choice": ["full", "lora"]},
            {"set": "train.learning_rate", "log_uniform": [0.001, 0.01]},
            # One of these fails, and must be recorded as failed once.
            {
                "set": "methods.lora.targets",
                "choice": ["attention", "no_such_set"],
                "when": {"methods": "lora"},
            },
        ],
    }
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def check_nothing_lost_or_doubled(disturbed: Path, undisturbed: Path, trials: int) -> None:
    found = comparable(disturbed)
    assert [item["trial_id"] for item in found] == [f"t{index:04d}" for index in range(trials)]
    expected = comparable(undisturbed)
    for name in found[0]:
        for one, other in zip(found, expected, strict=True):
            assert one[name] == other[name], (one["trial_id"], name)
    past = journal.read(disturbed)
    assert all(trial.record is not None for trial in past.trials)


def test_a_killed_sweep_goes_on_and_can_be_extended(small_squad, cache_dir, tmp_path):
    options = ["--config", str(small_config(tmp_path, small_squad))]
    undisturbed = Sweep(tmp_path / "undisturbed", options, cache_dir)
    undisturbed.finish()
    disturbed = Sweep(tmp_path / "disturbed", options, cache_dir)
    code, _ = disturbed.end_by(signal.SIGKILL, after_lines=6, then_seconds=0.2)
    assert code == -signal.SIGKILL
    code, output = disturbed.end_by(signal.SIGINT, after_lines=5, then_seconds=0.2)
    assert code == 130, output
    assert f"go on with: qa-sweep run --resume {tmp_path / 'disturbed'}" in output
    output = disturbed.finish()
    assert "ended before" in output
    check_nothing_lost_or_doubled(tmp_path / "disturbed", tmp_path / "undisturbed", 6)
    assert max(item.starts for item in records.load(tmp_path / "disturbed/records.jsonl").records) > 1

    for sweep in (undisturbed, disturbed):
        sweep.finish("--trials", "+2")
    check_nothing_lost_or_doubled(tmp_path / "disturbed", tmp_path / "undisturbed", 8)
    assert json.loads((tmp_path / "disturbed/spec.json").read_text())["budget"]["trials"] == 8


@pytest.mark.slow
def test_twenty_kills_at_random_moments_of_a_sweep_like_the_quickstart(cache_dir, tmp_path):
    """About half an hour on two cores. One trial at a time: what a rung has seen then depends on no clock."""
    options = ["--config", "quickstart", "--concurrent", "1"]
    undisturbed = Sweep(tmp_path / "undisturbed", options, cache_dir)
    began = time.monotonic()
    undisturbed.finish()
    seconds = time.monotonic() - began
    disturbed = Sweep(tmp_path / "disturbed", options, cache_dir)
    rng = random.Random(0)
    for _ in range(KILLS):
        # From before Ray is up to the middle of any trial; the moments spread over the whole sweep.
        pause = 8.0 + rng.uniform(0.0, 2 * seconds / KILLS)
        code, output = disturbed.end_by(signal.SIGKILL, after_lines=0, then_seconds=pause)
        assert code == -signal.SIGKILL, f"the sweep ended before it was killed: {output}"
    disturbed.finish()
    check_nothing_lost_or_doubled(tmp_path / "disturbed", tmp_path / "undisturbed", 24)
