"""`replay`: what a recorded sweep would have cost with another scheduler, searcher or number of workers."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from qa_core import files
from qa_core.errors import ConfigError
from sweeps import registry
from sweeps.replay.curve_files import read_table, write_table
from sweeps.replay.curves import CurveTable
from sweeps.run_folder.layout import RunFolder
from sweeps.schedulers.base import make_scheduler
from sweeps.space.first import assignment_of

if TYPE_CHECKING:
    from sweeps.replay.simulate import ReplayOutcome
    from sweeps.space.space import Assignment, Space

REACH = (0.90, 0.95, 0.99)  # of the table's hypervolume


@dataclass(frozen=True)
class Choices:
    """What is replayed; None: as the sweep had it, with one worker where it does not say."""

    scheduler: str | None = None
    scheduler_options: Sequence[str] = field(default_factory=tuple)
    searcher: str | None = None
    searcher_options: Sequence[str] = field(default_factory=tuple)
    workers: int | None = None
    seeds: int = 20


def show(source: Path, choices: Choices, *, save: Path | None) -> int:
    """Replay a run's folder or a table, and print what it took to get near the full hypervolume.

    Raises:
        ConfigError: a name or an option is wrong, or does not fit the sweep.
        DataError: the source cannot be read.
        StorageError: the table cannot be written.
    """
    for name, value in (("workers", choices.workers), ("seeds", choices.seeds)):
        if value is not None and value < 1:
            raise ConfigError(f"--{name}: found {value}; allowed: 1 or more")
    table = load_table(source)
    choices = replace(choices, workers=choices.workers or table.spec.budget.concurrent or 1)
    left_out = ", ".join(f"{count} {reason}" for reason, count in table.left_out.items())
    print(f"{source}: {len(table.curves)} full curves; left out: {left_out or 'none'}")
    if table.left_out.get("stopped"):
        print(
            "note: stopped trials have no full curve, and those that were not are no fair sample; record with fifo"
        )
    if save is not None:
        write_table(table, save)
        print(f"written: {save}")
    if table.hypervolume == 0.0:
        raise ConfigError(
            f"{source}: nothing to reach; no curve is better than the sweep's reference point in every objective"
        )
    _note_unseen_rungs(table, choices)
    _print(table, choices, _replays(table, choices))
    return 0


def _note_unseen_rungs(table: CurveTable, choices: Choices) -> None:
    """Say where the table has no report for a rung: trials pass it without a verdict."""
    from sweeps.replay.simulate import unseen_rungs

    rungs = make_scheduler(*_scheduler(table, choices)).rungs(table.spec.budget.examples)
    if unseen := unseen_rungs(table, rungs):
        print(
            f"note: {unseen} of {len(table.curves) * len(rungs)} rungs have no report before the next one and are "
            "passed without a verdict; record with a report at each rung"
        )


def load_table(source: Path) -> CurveTable:
    """Return the curves of a run's folder, or of a Parquet file."""
    if files.is_folder(source):
        return CurveTable.from_run(RunFolder(source).records, RunFolder(source).spec)
    return read_table(source)


def parse_options(given: Sequence[str], flag: str) -> dict[str, Any]:
    """Return options given as "key=value", the value read as YAML; raises ConfigError for anything else."""
    options = {}
    for item in given:
        key, separator, text = item.partition("=")
        if not key or not separator:
            raise ConfigError(f"{flag}: found {item!r}; allowed: key=value")
        try:
            options[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{flag}: {key}: found {text!r}, which is not a YAML value") from error
    return options


def _replays(table: CurveTable, choices: Choices) -> "list[ReplayOutcome]":
    from sweeps.replay.simulate import recorded_forecast, recorded_space, replay

    scheduler_name, scheduler_options = _scheduler(table, choices)
    searcher_name, searcher_options = _searcher(table, choices)
    scheduler = make_scheduler(scheduler_name, scheduler_options)
    kind, space = registry.searcher_class(searcher_name), recorded_space(table)
    forecast = recorded_forecast(table)
    outcomes = []
    for seed in range(choices.seeds):
        searcher = kind(space, table.spec.objectives, seed=seed, options=searcher_options, forecast=forecast)
        if choices.searcher in (None, table.spec.searcher.name):  # as the sweep had it
            searcher.begin_with(_first(table, space))
        outcomes.append(replay(table, searcher, scheduler, workers=choices.workers or 1))
    return outcomes


def _first(table: CurveTable, space: "Space") -> "list[Assignment]":
    """Return the sweep's first recipes, without those of whose combination nothing was recorded."""
    found = []
    for item in table.spec.searcher.first:
        with suppress(ConfigError):
            found.append(assignment_of(space, item))
    return found


def _scheduler(table: CurveTable, choices: Choices) -> tuple[str, Mapping[str, Any]]:
    given, spec = parse_options(choices.scheduler_options, "--option"), table.spec.scheduler
    if choices.scheduler in (None, spec.name):
        return spec.name, {**spec.options, **given}
    return str(choices.scheduler), given


def _searcher(table: CurveTable, choices: Choices) -> tuple[str, Mapping[str, Any]]:
    given, spec = parse_options(choices.searcher_options, "--searcher-option"), table.spec.searcher
    if choices.searcher in (None, spec.name):
        return spec.name, {**spec.options, **given}
    return str(choices.searcher), given


def _print(table: CurveTable, choices: Choices, outcomes: "Sequence[ReplayOutcome]") -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    searcher, scheduler = _searcher(table, choices)[0], _scheduler(table, choices)[0]
    shown = Table(
        title=f"{searcher} + {scheduler}, {choices.workers} workers; median (least to most) of {len(outcomes)} seeds"
    )
    shown.add_column("")
    shown.add_column("", justify="right")
    for share in REACH:
        # A sum of as many areas as there were points: the last digits differ from the table's own volume.
        wanted = share * table.hypervolume * (1 - 1e-12)
        spent = [outcome.examples_to_reach(wanted) for outcome in outcomes]
        shares = [np.inf if one is None else one / max(1, table.total_examples) for one in spent]
        shown.add_row(f"budget share to reach {share:.0%} of the hypervolume", _spread(shares, percent=True))
    wanted = REACH[-1] * table.hypervolume * (1 - 1e-12)
    busy = [outcome.worker_seconds_to_reach(wanted) for outcome in outcomes]
    shares = [np.inf if one is None else one / max(1e-9, table.total_seconds) for one in busy]
    shown.add_row(f"share of worker time to reach {REACH[-1]:.0%}", _spread(shares, percent=True))
    last = [outcome.trace[-1].hypervolume / table.hypervolume for outcome in outcomes]
    shown.add_row("hypervolume at the end", _spread(last, percent=True))
    total = [outcome.examples / max(1, table.total_examples) for outcome in outcomes]
    shown.add_row("budget share at the end", _spread(total, percent=True))
    hours = [outcome.trace[-1].seconds / 3600 for outcome in outcomes]
    shown.add_row("simulated hours", _spread(hours, percent=False))
    for name, status in (
        ("finished", "ok"),
        ("stopped", "stopped"),
        ("paused at the end", "paused"),
        ("proposals without an answer", "failed"),
    ):
        counts = [float(outcome.counts.get(status, 0)) for outcome in outcomes]
        shown.add_row(name, _spread(counts, percent=False))
    Console().print(shown)


def _spread(values: Sequence[float], *, percent: bool) -> str:
    """Return "median (least to most)"; of an even number, the median is the greater of the middle two."""
    ordered = sorted(values)
    texts = []
    for value in (ordered[len(ordered) // 2], ordered[0], ordered[-1]):
        if value == float("inf"):
            texts.append("never")
        else:
            texts.append(f"{100 * value:.1f} %" if percent else f"{value:.4g}")
    return texts[0] if len(set(texts)) == 1 else f"{texts[0]} ({texts[1]} to {texts[2]})"
