"""One trial inside a Ray worker: from a task to reports, a result, or a recorded failure.

The driver hands over a task of plain values; the worker reports at each rung and once at the end. Workers are reused,
so that torch is imported once; each trial starts with a look at what the last one left behind.
"""

import gc
import json
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qa_core.config import RunConfig, from_dict
from qa_core.schema import Progress, as_json
from sweeps.schedulers.base import check_report

OUTCOME_FILE = "outcome.json"  # in the trial's folder: why it ended without a result
CLEAN_START_BYTES = 1_000_000  # tensors of a former trial above this are reported as left over


@dataclass(frozen=True)
class TrialTask:
    """What the driver sends to a worker, as plain values."""

    trial_id: str
    recipe: Mapping[str, Any]
    folder: str
    cache_dir: str
    threads: int
    objectives: tuple[str, ...] = ()
    max_memory_mb: float | None = None


def run_trial(task_values: dict[str, Any]) -> None:
    """Run one trial and report to Ray Tune; the entry point that `tuner` registers.

    Every report holds `examples_seen` and each objective's value so far; the last one holds `final` and the result.
    An exception is written to the trial's folder with its traceback and raised again, so that Ray sees it too.
    """
    from ray import tune

    task = TrialTask(**task_values)
    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=True)

    def report(progress: Progress) -> None:
        values = as_json(progress)
        check_report(values, task.objectives)
        tune.report({**values, "final": False})

    try:
        final = execute(task, report)
        check_report(final, task.objectives)
    except Exception as error:
        outcome = {"status": status_of(error), "reason": _reason(error), "traceback": traceback.format_exc()}
        _write_outcome(folder, outcome)
        raise
    tune.report(final)


def execute(task: TrialTask, report: Any) -> dict[str, Any]:
    """Run the recipe of a task in this process and return its final report; Ray is not involved."""
    import torch

    from qa_core.run import run

    left_over = leftover_tensor_bytes()
    torch.set_num_threads(task.threads)
    result = run(
        from_dict(RunConfig, task.recipe),
        report,
        folder=Path(task.folder),
        cache_dir=Path(task.cache_dir),
        max_memory_mb=task.max_memory_mb,
    )
    last = result.curve[-1]
    return {
        **as_json(last),
        "memory_mb": result.cost.memory_mb,
        "final": True,
        "left_over_bytes": left_over,
        "result": as_json(result),
    }


def leftover_tensor_bytes() -> int:
    """Return the bytes of tensors that are alive in this process before a trial starts: 0 in a clean worker."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    storages: dict[int, int] = {}
    for item in gc.get_objects():
        if type(item) in (torch.Tensor, torch.nn.Parameter) and item.device.type != "meta":
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def status_of(error: Exception) -> str:
    """Return the status a trial ends with for an exception: stopped (over the memory budget), oom or failed."""
    import torch

    from qa_core.errors import OverMemoryBudget

    if isinstance(error, OverMemoryBudget):
        return "stopped"
    says_so = any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))
    return "oom" if says_so or isinstance(error, MemoryError | torch.OutOfMemoryError) else "failed"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _write_outcome(folder: Path, outcome: dict[str, Any]) -> None:
    temporary = folder / f".{OUTCOME_FILE}.tmp"
    temporary.write_text(json.dumps(outcome))
    temporary.replace(folder / OUTCOME_FILE)


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """Return why a trial ended without a result, or None when it left no such note."""
    path = folder / OUTCOME_FILE
    return json.loads(path.read_text()) if path.exists() else None


def as_values(task: TrialTask) -> dict[str, Any]:
    """Return the task as the plain values that travel to the worker."""
    return asdict(task)
