"""Sweeps in processes of their own, and what must be equal of two of them whatever was killed meanwhile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.run_folder import journal, records
from sweeps.run_folder.layout import JOURNAL_FILE, RECORDS_FILE

TIMED = ("started_at", "finished_at", "seconds", "starts", "provenance")
TIMED_COSTS = (
    "latency_p50_ms",
    "latency_p95_ms",
    "rss_peak_bytes",
    "train_seconds",
    "rung_seconds",
    "train_examples_per_second",
)


def tiny_recipes(squad: Path, *, batch_size: int) -> dict[str, Any]:
    """Return objectives and recipe of a sweep whose trials take a second: for all families with a preset `micro`."""
    return {
        "objectives": [
            {"name": "em_percent", "goal": "max", "reference": 0},
            {"name": "memory_mb", "goal": "min", "reference": 32},
        ],
        "recipe": {
            "model": {"vocab_size": 300, "checkpoint": "micro"},
            "data": {
                "train": str(squad),
                "evaluation": str(_other_towers(squad)),
                "max_length": 64,
                "stride": 8,
                "max_question_length": 24,
            },
            "train": {"precision": "float32", "batch_size": batch_size},
            "evaluation": {"precision": "float32", "latency_runs": 2},
        },
    }


def _other_towers(squad: Path) -> Path:
    """Return a file of the same questions about other places, which no model is trained on."""
    path = squad.with_name(f"evaluation-{squad.name}")
    if not path.exists():
        path.write_text(squad.read_text().replace("Tower", "Abbey"))  # as long: answers stay where they start
    return path


def comparable(folder: Path) -> list[dict[str, Any]]:
    """Return the records by trial, without what a clock or the state of a process decides.

    A trial that is left paused has no record, and stands with its curve.
    """
    found = [
        {"trial_id": trial.trial_id, "status": "paused", "curve": _timeless(trial.curve)}
        for trial in journal.read(folder).trials
        if trial.is_paused and trial.record is None
    ]
    for record in records.load(folder / RECORDS_FILE).records:
        values = {name: item for name, item in records.to_dict(record).items() if name not in TIMED}
        values["cost"] = _untimed(values["cost"])
        values["forms"] = [{**form, "cost": _untimed(form["cost"])} for form in values["forms"]]
        values["curve"] = _timeless(values["curve"])
        found.append(values)
    return sorted(found, key=lambda item: item["trial_id"])


def _untimed(cost: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: item for name, item in (cost or {}).items() if name not in TIMED_COSTS}


def _timeless(curve: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: item for name, item in point.items() if name != "train_seconds"} for point in curve]


class Sweep:
    """Runs `qa-sweep run` in a process of its own."""

    def __init__(self, folder: Path, options: list[str], cache: Path) -> None:
        self.folder, self.options = folder, options
        self._log = folder.with_suffix(".log")
        self.environment = {**os.environ, "QA_SWEEPS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        begun = (self.folder / "spec.json").exists()
        own = ["--resume", str(self.folder)] if begun else ["--out", str(self.folder), *self.options]
        command = [sys.executable, "-m", "sweeps.cli", "run", *own, *options]
        with self._log.open("wb") as log:  # not a pipe, which would stop a sweep that nobody listens to
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)

    def output(self) -> str:
        """Return what the last start has printed."""
        return self._log.read_text(encoding="utf-8")

    def finish(self, *options: str) -> str:
        process = self.start(*options)
        process.wait(timeout=1200)
        assert process.returncode in (0, 3), self.output()
        return self.output()

    def end_by(self, number: signal.Signals, *, after_lines: int, then_seconds: float) -> tuple[int, str]:
        """Send the driver a signal once the journal has so many more lines; returns its exit code and output."""
        process = self.start()
        wanted, deadline = self._lines() + after_lines, time.monotonic() + 300
        while process.poll() is None and self._lines() < wanted and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(then_seconds)
        process.send_signal(number)
        process.wait(timeout=600)
        return process.returncode, self.output()

    def _lines(self) -> int:
        path = self.folder / JOURNAL_FILE
        return path.read_bytes().count(b"\n") if path.exists() else 0


def check_nothing_lost_or_doubled(disturbed: Path, undisturbed: Path, trials: int) -> None:
    found = comparable(disturbed)
    assert [item["trial_id"] for item in found] == [f"t{index:04d}" for index in range(trials)]
    expected = comparable(undisturbed)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys(), (one["trial_id"], one["status"], other["status"])
        for name in one:
            assert one[name] == other[name], (one["trial_id"], name)
    past = journal.read(disturbed)
    assert all(trial.record is not None or trial.is_paused for trial in past.trials)


def check_equal_as_far_as_both_went(disturbed: Path, undisturbed: Path, trials: int) -> None:
    """Of sweeps whose verdicts depend on who reports first: each trial is there once, and its reports are the same."""
    for folder in (disturbed, undisturbed):
        ended = [record.trial_id for record in records.load(folder / RECORDS_FILE).records]
        assert len(set(ended)) == len(ended)
        past = journal.read(folder)
        assert [trial.trial_id for trial in past.trials] == [f"t{index:04d}" for index in range(trials)]
        assert all(trial.record is not None or trial.is_paused for trial in past.trials)
    found = {item["trial_id"]: item for item in comparable(disturbed)}
    expected = {item["trial_id"]: item for item in comparable(undisturbed)}
    compared = 0
    for trial_id, one in found.items():
        other = expected[trial_id]
        if one["status"] == other["status"] == "ok":
            assert one == other, trial_id
        both = min(len(one["curve"]), len(other["curve"]))
        assert one["curve"][:both] == other["curve"][:both], trial_id
        compared += both
    assert compared >= trials  # every trial has a first rung
