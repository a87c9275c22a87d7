"""What a sweep costs beside the training: the same recipes through the whole machinery and in a bare loop.

    python -m benchmarks.overhead

For trials of about 1, 10 and 60 seconds, the recipes are run by `qa_core.run` one after the other in this process, then
by a sweep of its own with one trial at a time (embedded Ray, MLflow in SQLite, random search, `fifo`). Both have read
the data and compiled everything once before. Reported for each length:

    bare            seconds for one trial in the loop
    swept           seconds from the first start to the last record, divided by the trials
    overhead        their difference, in seconds and as a share of the swept time
    before, after   seconds of the sweep before the first trial starts (Ray, a worker with torch) and after the last
    driver          processor seconds of the driver process for one trial
    Ray             seconds between a record and the next trial's start, the largest part of the overhead as a rule
    records, MLflow, searcher   seconds that the driver spends in these, for one trial

The sweep's worker is a fresh process, so its first trial pays what the loop paid before it was timed; the overhead is
therefore also given without the first trial.
"""

import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sweeps.nodes.ray_environment import RayTarget
from sweeps.schedulers.base import make_scheduler
from sweeps.searchers.base import make_searcher

LENGTHS = {1.0: 20, 10.0: 6, 60.0: 2}  # seconds of a trial -> trials
PARTS = {
    "records": ("sweeps.run_folder.records.append", "sweeps.run_folder.journal.Journal._write"),
    "MLflow": ("sweeps.progress.mlflow_mirror.Tracker._guard",),
    "searcher": ("sweeps.searchers.base.Searcher.propose", "sweeps.searchers.base.Searcher.tell"),
    "front": ("sweeps.trials.driver.Driver._renew_front",),
}


def main(
    length: Annotated[list[float] | None, typer.Option(help="seconds of a trial; repeat for several")] = None,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/overhead.json"),
) -> None:
    """Measure, print the table and write the JSON file."""
    RayTarget().set_environment()
    from qa_core.hardware import choose_device, describe_device

    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        second = seconds_of_examples(Path(scratch), cache)
        for seconds in length or LENGTHS:
            examples, trials = second(seconds), LENGTHS.get(seconds, 3)
            results[seconds] = measure(Path(scratch), cache, examples=examples, trials=trials)
            typer.echo(f"trials of {seconds:g} s: {results[seconds]}")
    result = {
        "seconds": {str(name): values for name, values in results.items()},
        "device": describe_device(choose_device("cpu")),
        "versions": {name: version(name) for name in ("ray", "mlflow", "torch", "qa-sweeps")},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2))
    print_table(results)
    typer.echo(f"written to {out}")


def spec_of(examples: int, trials: int) -> Any:
    """Return a sweep of small BERT readers on the built-in corpus."""
    from sweeps.spec.sections import SweepSpec

    return SweepSpec.model_validate(
        {
            "name": "overhead",
            "objectives": [
                {"name": "em_percent", "goal": "max", "reference": 0},
                {"name": "memory_mb", "goal": "min", "reference": 32},
            ],
            "searcher": {"name": "random"},
            "scheduler": {"name": "fifo", "options": {"reports": 3}},
            "budget": {"trials": trials, "examples": examples, "concurrent": 1},
            "recipe": {
                "model": {"family": "bert", "checkpoint": "micro", "vocab_size": 1500},
                "data": {
                    "train": "sample",
                    "max_length": 128,
                    "stride": 32,
                    "max_question_length": 32,
                    "selection_questions": 20,
                    "evaluation_questions": 20,
                },
                "train": {"precision": "float32", "batch_size": 8},
                "evaluation": {"precision": "float32", "latency_runs": 2},
            },
            "space": [{"set": "train.learning_rate", "log_uniform": [1e-3, 4e-3]}],
        }
    )


def seconds_of_examples(scratch: Path, cache: Path) -> Callable[[float], int]:
    """Return which budget takes so many seconds, from two runs of the bare loop; they also warm this process."""
    few, many = 64, 1600
    bare_seconds(scratch, cache, spec_of(few, 1))
    low, high = (bare_seconds(scratch, cache, spec_of(examples, 1)) for examples in (few, many))
    return lambda seconds: max(8, round(few + (seconds - low) * (many - few) / (high - low)))


def bare_seconds(scratch: Path, cache: Path, spec: Any) -> float:
    """Return the seconds for one trial when the sweep's recipes are run one after the other in this process."""
    import torch

    from qa_core.run import run
    from qa_core.seeding import derive_seed
    from sweeps.space.compile import compile_space

    torch.set_num_threads(1)
    space = compile_space(spec)
    searcher = make_searcher(spec, space)
    rungs = make_scheduler(spec.scheduler.name, spec.scheduler.options).rungs(spec.budget.examples)
    started = time.perf_counter()
    for index in range(spec.budget.trials):
        proposal = searcher.propose()
        assert proposal is not None
        seed = derive_seed(spec.seed, f"t{index:04d}") % 2**31
        recipe = space.to_run_config(proposal.assignment, seed=seed, rungs=rungs)
        run(recipe, lambda progress: None, folder=scratch / "bare" / str(index), cache_dir=cache)
    seconds = (time.perf_counter() - started) / spec.budget.trials
    shutil.rmtree(scratch / "bare")
    return seconds


class Watch:
    """Stands in for the console and notes when trials start and end."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []

    def trial_started(self, trial_id: str, label: str) -> None:
        self.starts.append(time.perf_counter())

    def trial_ended(self, record: Any) -> None:
        assert record["status"] == "ok", record["reason"]
        self.ends.append(time.perf_counter())

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: None


def measure(scratch: Path, cache: Path, *, examples: int, trials: int) -> dict[str, float]:
    """Return the figures of the table for trials of so many examples."""
    import os

    from sweeps.progress.mlflow_mirror import Tracker
    from sweeps.trials.ray_driver import run_sweep

    os.environ["QA_SWEEPS_CACHE"] = str(cache)
    spec = spec_of(examples, trials)
    bare = bare_seconds(scratch, cache, spec)
    folder = scratch / "swept"
    tracker = Tracker.start(spec.as_dict(), run_folder=folder, tracking_uri=None, experiment="overhead")
    watch, spent = Watch(), defaultdict[str, float](float)
    began, processor = time.perf_counter(), time.process_time()
    with timed(spent):
        run_sweep(spec, folder=folder, target=RayTarget(), console=watch, tracker=tracker)
    whole, processor = time.perf_counter() - began, time.process_time() - processor
    tracker.finish("finished")
    shutil.rmtree(folder)
    swept = (watch.ends[-1] - watch.starts[0]) / trials
    warm = (watch.ends[-1] - watch.ends[0]) / max(1, trials - 1)
    gaps = [start - end for start, end in zip(watch.starts[1:], watch.ends, strict=False)]
    return {
        "trials": trials,
        "examples": examples,
        "bare_seconds": bare,
        "swept_seconds": swept,
        "warm_seconds": warm,
        "overhead_seconds": swept - bare,
        "warm_overhead_seconds": warm - bare,
        "before_seconds": watch.starts[0] - began,
        "after_seconds": began + whole - watch.ends[-1],
        "driver_processor_seconds": processor / trials,
        "Ray_seconds": sum(gaps) / max(1, len(gaps)),
        **{f"{name}_seconds": spent[name] / trials for name in PARTS},
    }


@contextmanager
def timed(spent: dict[str, float]) -> Iterator[None]:
    """Add up the seconds that the driver spends in the functions of `PARTS` meanwhile."""
    from pkgutil import resolve_name

    undo = []
    for name, paths in PARTS.items():
        for path in paths:
            owner_path, _, attribute = path.rpartition(".")
            owner = resolve_name(owner_path)
            original = getattr(owner, attribute)
            setattr(owner, attribute, _timed(original, name, spent))
            undo.append((owner, attribute, original))
    try:
        yield
    finally:
        for owner, attribute, original in undo:
            setattr(owner, attribute, original)


def _timed(original: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*arguments, **named)
        finally:
            spent[name] += time.perf_counter() - started

    return call


def print_table(results: dict[float, dict[str, float]]) -> None:
    """Print one column for each length."""
    table = Table(title="seconds for one trial", show_header=True)
    table.add_column("")
    for seconds, values in results.items():
        table.add_column(f"{seconds:g} s, {values['trials']} trials", justify="right")
    names = [name for name in next(iter(results.values())) if name.endswith("_seconds")]
    for name in names:
        table.add_row(
            name.removesuffix("_seconds").replace("_", " "),
            *(f"{values[name]:.3f}" for values in results.values()),
        )
    shares = (
        f"{100 * values['warm_overhead_seconds'] / values['warm_seconds']:.1f} %"
        for values in results.values()
    )
    table.add_row("warm overhead, share", *shares)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
