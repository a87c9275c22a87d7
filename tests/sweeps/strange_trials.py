"""Trials that do what no recipe can ask for, in place of `trial.run_trial`; Ray's workers import this module."""

import time
from pathlib import Path
from typing import Any

from sweeps.trials import worker
from sweeps.trials.task import TrialTask, from_values

HUNG = "has_hung"  # beside the trial's folder


def hangs_once(task_values: dict[str, Any]) -> None:
    """Run the trial; the first time, it does nothing more after its first report."""
    mark = Path(from_values(task_values).folder + HUNG)
    execute = worker.execute

    def with_hang(task: TrialTask, report: Any) -> dict[str, Any]:
        def report_then_hang(progress: Any) -> None:
            report(progress)
            if not mark.exists():
                mark.touch()
                time.sleep(600)

        return execute(task, report_then_hang)

    worker.execute = with_hang
    try:
        worker.run_trial(task_values)
    finally:
        worker.execute = execute
