"""Trials that do what no recipe can ask for, in place of `trial.run_trial`; Ray's workers import this module."""

import time
from pathlib import Path
from typing import Any

from sweeps.trials import worker
from sweeps.trials.task import TrialTask, from_values

STARTS = "starts"  # beside the trial's folder: a byte for each start


def hangs_at_its_second_start(task_values: dict[str, Any]) -> None:
    """Run the trial; in its second start, it does nothing more after its first report."""
    mark = Path(from_values(task_values).folder + STARTS)
    with mark.open("ab") as file:
        file.write(b".")
    is_second, execute = mark.stat().st_size == 2, worker.execute

    def with_hang(task: TrialTask, report: Any) -> dict[str, Any]:
        def report_then_hang(progress: Any) -> None:
            report(progress)
            if is_second:
                time.sleep(600)

        return execute(task, report_then_hang)

    worker.execute = with_hang
    try:
        worker.run_trial(task_values)
    finally:
        worker.execute = execute
