"""One trial inside a Ray worker: from a task to reports, a result, or a recorded failure.

The driver hands over a task of plain values; the worker reports at each rung and once at the end. Workers are reused,
so that torch is imported once; each trial starts with a look at what the last one left behind.
"""

import gc
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.config import RunConfig, form_of
from qa_core.errors import Paused, StorageError
from qa_core.schema import Progress, as_json
from qa_core.values import from_dict
from sweeps.budget.gpu_cap import on_share
from sweeps.nodes import preflight
from sweeps.nodes.ray_environment import NODE_DIGITS
from sweeps.progress.status import told_in
from sweeps.run_folder.layout import TrialFolder
from sweeps.run_folder.masking import masked_values
from sweeps.schedulers.base import check_report
from sweeps.spec.objectives import are_settled_by_form
from sweeps.trials.task import PAUSED, TrialTask, from_values, packed, read_final
from sweeps.trials.watchdog import watched

LOCK_SECONDS = 120  # a worker of a killed driver lives on for a few seconds
PAUSE_LOOK_SECONDS = 1.0
CLEAN_START_BYTES = 1_000_000  # tensors of a former trial above this are reported as left over

_has_run_before = False  # in this process


def run_trial(task_values: dict[str, Any]) -> None:
    """Run one trial and report to Ray Tune; the entry point that `tuner` registers.

    Every report holds `examples_seen` and each objective's value so far; the last one holds `final` and the result.
    An exception is written to the trial's folder with its traceback and raised again, so that Ray sees it too. A trial
    that had ended before, without its driver hearing of it, only sends its final report again.
    """
    from ray import tune

    task = from_values(task_values)
    folder = Path(task.folder)
    node = _node()
    if task.sweep_folder is not None:
        preflight.admit(Path(task.sweep_folder), node, address=_address())

    def report(progress: Progress) -> None:
        if progress.examples_seen > task.reported_examples:
            values = as_json(progress)
            check_report(values, task.objectives)
            tune.report({**values, "final": False, "node": node, "gpus": used_gpus()})

    with _held(folder):
        try:
            final = read_final(folder)
            if final is None:
                if not task.forms:  # of a run that was killed between its artifact and its final report
                    files.remove_folder(TrialFolder(folder).artifact, inside=folder)
                with watched(folder, task.hang_minutes), told_in(TrialFolder(folder)):
                    final = {**execute(task, report), "node": node, "gpus": used_gpus()}
                check_report(final, task.objectives)
                _write(TrialFolder(folder).final, final)
        except Paused as pause:
            _write(TrialFolder(folder).outcome, {"status": PAUSED, "reason": str(pause), "traceback": None})
            raise  # Ray refuses a trial that returns without a report
        except Exception as error:
            outcome = {
                "status": status_of(error),
                "reason": _reason(error),
                "traceback": traceback.format_exc(),
                "node": node,
                "gpus": used_gpus(),
            }
            _write(TrialFolder(folder).outcome, outcome)
            raise
    tune.report(packed(final))


def used_gpus() -> list[str]:
    """Return the names of the GPUs that this process sees; none before it computes on one: a look takes memory."""
    import torch

    if not torch.cuda.is_initialized():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _node() -> str | None:
    """Return which node of the cluster this is: a number that Ray draws at each start of a node, not a host's name."""
    import ray

    return ray.get_runtime_context().get_node_id()[:NODE_DIGITS] if ray.is_initialized() else None


def _address() -> str | None:
    """Return where this node is reached, for a message that names it."""
    import ray

    return ray.util.get_node_ip_address() if ray.is_initialized() else None


def execute(task: TrialTask, report: Any) -> dict[str, Any]:
    """Run the recipe of a task in this process and return its final report; Ray is not involved."""
    import torch

    from qa_core.run import run

    global _has_run_before
    left_over = leftover_tensor_bytes()
    if _has_run_before and gc.get_freeze_count() == 0 and left_over < CLEAN_START_BYTES:
        gc.freeze()  # the objects of all that a trial imports, hundreds of thousands: later looks leave them out
    _has_run_before = True
    torch.set_num_threads(task.threads)
    recipe = from_dict(RunConfig, task.recipe)
    with on_share(task.gpu_share, recipe.device) as turns, turns.working():
        result = run(
            recipe,
            report,
            folder=Path(task.folder),
            cache_dir=Path(task.cache_dir),
            max_memory_mb=task.max_memory_mb,
            is_to_pause=_pause_watch(task.pause_file),
            turns=turns,
            forms=[form_of(recipe, form["label"], form["settings"]) for form in task.forms],
            reports_forms=task.reports_forms,
            skips_as_good=not task.makes_all_forms and are_settled_by_form(task.objectives),
        )
    for form in result.forms:
        if form.status == "failed":
            place = TrialFolder(Path(task.folder)).form(form.label)
            files.make_folder(place.path)
            _write(place.outcome, as_json(form))
    last = result.curve[-1]
    return {
        **as_json(last),
        "memory_mb": result.cost.memory_mb,
        "memory_batch8_mb": result.cost.memory_batch8_mb,
        "inference_peak_bytes": result.cost.inference_peak_bytes,
        "weights_bytes": result.cost.weights_bytes,
        "artifact_bytes": result.cost.artifact_bytes,
        "final": True,
        "left_over_bytes": left_over,
        "result": as_json(result),
    }


def _pause_watch(pause_file: str | None) -> Callable[[], bool]:
    """Return a look at the file, which may lie on slow storage, once a second at most."""
    looked = time.monotonic()

    def is_to_pause() -> bool:
        nonlocal looked
        if pause_file is None or time.monotonic() - looked < PAUSE_LOOK_SECONDS:
            return False
        looked = time.monotonic()
        return Path(pause_file).exists()

    return is_to_pause


def leftover_tensor_bytes() -> int:
    """Return the bytes of tensors of earlier trials that are alive in this process: 0 in a clean worker."""
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
    from qa_core.errors import OverMemoryBudget
    from qa_core.hardware import is_out_of_memory

    if isinstance(error, OverMemoryBudget):
        return "stopped"
    return "oom" if is_out_of_memory(error) else "failed"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the trial's folder against the worker of a killed driver, which may not have ended yet."""
    if folder.is_symlink() or folder.parent.is_symlink():
        raise StorageError(f"{folder}: found a link; allowed: a folder of the sweep's own")
    files.make_folder(folder)
    busy = StorageError(f"{folder}: another worker has held it for more than {LOCK_SECONDS} s")
    with files.locked(TrialFolder(folder).lock, seconds=LOCK_SECONDS, busy=busy):
        yield


def _write(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON, secrets masked, that appears whole or not at all."""
    files.write_json(path, masked_values(values))
