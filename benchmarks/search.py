"""What a sweep must spend to find the front: searchers and schedulers, replayed on tables of curves.

    python -m benchmarks.search [--table FILE ...] [--synthetic NAME ...] [--seeds 20] [--out JSON]

For each table and method: the share of the full grid's budget (every recipe trained to its end, in examples) at which
the finished trials dominate 90, 95 and 99 % of the volume that all recipes dominate together; and the share of that
volume at 5 to 50 % of the budget. Each cell is the median over seeds with the 10 and 90 % quantiles; a share that a
seed never reaches counts as infinite and is shown as "never". A replay ends when it has started as many trials as the
table has recipes.

All rows with a scheduler have the same rungs (`--first-rung`, eta 3) and workers. Rows with the random searcher see the
same proposals at equal seed, those of Syne Tune too, and are compared in pairs. On tables of more than SLOW_ABOVE
recipes the rows of Optuna and Syne Tune are left out.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import moasha
from benchmarks.synthetic import SCALES, SyntheticOptions, synthetic_table
from sweeps import provenance, registry
from sweeps.curve_files import read_table
from sweeps.curves import CurveTable
from sweeps.recorded import RecordedSpace
from sweeps.replay import ReplayOutcome, recorded_space, replay
from sweeps.schedulers.asha import AshaOptions
from sweeps.schedulers.base import Scheduler
from sweeps.searchers.base import Searcher

ETA = 3.0
REACH = (0.90, 0.95, 0.99)  # of the full hypervolume
SPEND = (0.05, 0.10, 0.15, 0.25, 0.50)  # of the full grid's budget
QUANTILES = (0.1, 0.5, 0.9)
OURS = "random + pareto_asha"
PAIRED_AT = 0.15  # of the budget
TABLES_FOLDER = Path(__file__).parent / "tables"
SYNTHETIC: Mapping[str, SyntheticOptions] = {
    "curves seldom cross": replace(SCALES["hundreds"], crossing=0.03),
    "curves cross early": replace(SCALES["hundreds"], crossing=0.1),
    "curves cross late": replace(SCALES["hundreds"], crossing=0.3),
    "more recipes": replace(SCALES["thousand"], crossing=0.1),
}
SLOW_ABOVE = 600  # recipes: there, Optuna and Syne Tune take minutes a replay and are left out

Pair = tuple[Searcher, Scheduler]
Maker = Callable[[CurveTable, RecordedSpace, int], Pair]  # table, space, seed -> what to replay


@dataclass(frozen=True)
class Run:
    """One replay, in shares; None: never reached."""

    reached: tuple[float | None, ...]  # budget share, for each of REACH
    volumes: tuple[float, ...]  # volume share, for each of SPEND
    stopped: int
    finished: int
    distinct: int  # recipes that were tried
    spent: float  # budget share at the end


def main(
    table: Annotated[
        list[Path] | None, typer.Option(help="Parquet file; repeat for several. Default: benchmarks/tables")
    ] = None,
    synthetic: Annotated[
        list[str] | None, typer.Option(help=f"one of {', '.join(SYNTHETIC)}, or none; default: all")
    ] = None,
    seeds: Annotated[int, typer.Option(help="replays of each method")] = 20,
    workers: Annotated[int, typer.Option(help="trials at a time")] = 8,
    first_rung: Annotated[
        list[int] | None, typer.Option(help="the budget's share 1 / N where the first rung lies")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/search.json"),
) -> None:
    """Replay, print the tables and write the JSON file."""
    if not moasha.is_installed():
        typer.echo("Syne Tune is not installed; its rows are left out (pip install 'qa-sweeps[bench]')")
    results = {}
    for name, curves in chosen_tables(table, synthetic).items():
        results[name] = measure(curves, seeds=seeds, workers=workers, parts=first_rung or [27, 9])
        print_results(name, curves, results[name])
        print_pairs(results[name])
    about = {"seeds": seeds, "workers": workers, "eta": ETA, "reach": REACH, "spend": SPEND}
    written = {
        "results": {
            name: {row: [asdict(run) for run in runs] for row, runs in rows.items()}
            for name, rows in results.items()
        },
        "setting": about,
        "provenance": provenance.collect(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(written, indent=1))
    typer.echo(f"written to {out}")


def chosen_tables(files: Sequence[Path] | None, synthetic: Sequence[str] | None) -> dict[str, CurveTable]:
    """Return the tables to replay by name: recorded ones first."""
    found = sorted(TABLES_FOLDER.glob("*.parquet")) if files is None else files
    tables = {path.stem: read_table(path) for path in found}
    for name in list(SYNTHETIC) if synthetic is None else synthetic:
        if name not in SYNTHETIC:
            if name != "none":
                raise typer.BadParameter(
                    f"--synthetic: found {name!r}; allowed: {', '.join(SYNTHETIC)}, none"
                )
            continue
        tables[name] = synthetic_table(SYNTHETIC[name])
    return tables


def measure(table: CurveTable, *, seeds: int, workers: int, parts: Sequence[int]) -> dict[str, list[Run]]:
    """Replay every method on a table; returns its runs, one for each seed."""
    space = recorded_space(table)
    results: dict[str, list[Run]] = {}
    for name, make in methods(table, parts).items():
        started = time.perf_counter()
        outcomes = []
        for seed in range(seeds):
            searcher, scheduler = make(table, space, seed)
            outcomes.append(replay(table, searcher, scheduler, workers=workers))
        results[name] = [summary(table, outcome) for outcome in outcomes]
        typer.echo(f"{name}: {(time.perf_counter() - started) / seeds:.1f} s a replay")
    return results


def methods(table: CurveTable, parts: Sequence[int]) -> dict[str, Maker]:
    """Return what is compared, by name."""
    fifo: dict[str, Any] = {"reports": 0}
    has_slow = len(table.curves) <= SLOW_ABOVE
    rows = {
        "full grid, shuffled": registered("grid", {"shuffle": True}, "fifo", fifo),
        "random": registered("random", {}, "fifo", fifo),
    }
    if has_slow:
        rows["Optuna NSGA-II"] = registered("optuna", {"sampler": "nsga2"}, "fifo", fifo)
        rows["Optuna TPE"] = registered("optuna", {}, "fifo", fifo)
    for part in parts:
        grace = {"grace_examples": -(-table.spec.budget.examples // part), "eta": ETA}
        rungs = f", 1/{part}"
        rows[f"random + Ray's ASHA on EM{rungs}"] = registered("random", {}, "asha", grace)
        if has_slow and moasha.is_installed():
            rows[f"random + Syne Tune's MOASHA{rungs}"] = syne_tune(grace, is_ranked=False)
            rows[f"random + MOASHA, ranks repaired{rungs}"] = syne_tune(grace, is_ranked=True)
        rows[f"{OURS}{rungs}"] = registered("random", {}, "pareto_asha", grace)
        for bins in (4, 12):
            options = {**grace, "memory_bins": bins}
            rows[f"{OURS}, {bins} bins{rungs}"] = registered("random", {}, "pareto_asha", options)
        if has_slow:
            rows[f"Optuna TPE + pareto_asha{rungs}"] = registered("optuna", {}, "pareto_asha", grace)
    return rows


def registered(
    searcher: str, options: Mapping[str, Any], scheduler: str, scheduler_options: Mapping[str, Any]
) -> Maker:
    """Return the maker of a searcher and a scheduler by their registered names."""

    def make(table: CurveTable, space: RecordedSpace, seed: int) -> Pair:
        kind = registry.searcher_class(searcher)
        made = kind(space, table.spec.objectives, seed=seed, options=options)
        return made, registry.make_scheduler(scheduler, scheduler_options)

    return make


def syne_tune(options: Mapping[str, Any], *, is_ranked: bool) -> Maker:
    """Return the maker of Syne Tune's MOASHA."""

    def make(table: CurveTable, space: RecordedSpace, seed: int) -> Pair:
        return moasha.make_moasha(
            table, space, seed=seed, options=AshaOptions(**options), is_ranked=is_ranked
        )

    return make


def summary(table: CurveTable, outcome: ReplayOutcome) -> Run:
    """Return a replay in shares of the table's volume and budget."""
    spent = [outcome.examples_to_reach(share * table.hypervolume * (1 - 1e-12)) for share in REACH]
    total = table.total_examples
    return Run(
        reached=tuple(None if examples is None else examples / total for examples in spent),
        volumes=tuple(outcome.hypervolume_at(share * total) / table.hypervolume for share in SPEND),
        stopped=outcome.counts.get("stopped", 0),
        finished=outcome.counts.get("ok", 0),
        distinct=len({trial.curve for trial in outcome.trials}),
        spent=outcome.examples / total,
    )


def interval(values: Sequence[float | None]) -> tuple[float, ...]:
    """Return the quantiles of QUANTILES; None counts as infinite, and each is one of the values."""
    numbers = [np.inf if value is None else value for value in values]
    return tuple(float(np.quantile(numbers, at, method="inverted_cdf")) for at in QUANTILES)


def print_results(name: str, table: CurveTable, rows: Mapping[str, Sequence[Run]]) -> None:
    """Print one row for each method, all in percent."""
    title = f"{name}: {len(table.curves)} recipes; in percent, median (10-90 %)"
    shown = Table(title=title)
    shown.add_column("method", no_wrap=True)
    for share in REACH:
        shown.add_column(f"budget to {share:.0%} HV", justify="right")
    for share in SPEND:
        shown.add_column(f"HV at {share:.0%}", justify="right")
    for header in ("finished", "stopped", "spent"):
        shown.add_column(header, justify="right")
    for row, runs in rows.items():
        cells = [cell([run.reached[index] for run in runs]) for index in range(len(REACH))]
        cells += [cell([run.volumes[index] for run in runs]) for index in range(len(SPEND))]
        counts = [f"{np.median([getattr(run, key) for run in runs]):.0f}" for key in ("finished", "stopped")]
        shown.add_row(row, *cells, *counts, cell([run.spent for run in runs]))
    Console(width=230).print(shown)


def cell(values: Sequence[float | None]) -> str:
    """Return "median (low-high)" in percent."""
    low, middle, high = ("never" if np.isinf(value) else f"{100 * value:.1f}" for value in interval(values))
    return middle if low == middle == high else f"{middle} ({low}-{high})"


def print_pairs(rows: Mapping[str, Sequence[Run]]) -> None:
    """Print, for rows on the same proposals, what ours gains in volume at equal budget and how often."""
    at = SPEND.index(PAIRED_AT)
    shown = Table(
        title=f"HV at {PAIRED_AT:.0%} of the budget, ours minus theirs, same seed; percent of the full HV"
    )
    for header in ("ours", "theirs", "median (10-90 %)", "better", "worse"):
        shown.add_column(header)
    for ours, mine in rows.items():
        base, _, part = ours.rpartition(", ")
        if base != OURS:
            continue
        for theirs, others in rows.items():
            if (
                theirs != ours
                and theirs.startswith("random")
                and theirs.rpartition(", ")[2] in (part, theirs)
            ):
                gains = [a.volumes[at] - b.volumes[at] for a, b in zip(mine, others, strict=True)]
                wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
                shown.add_row(ours, theirs, cell(gains), str(wins), str(losses))
    Console(width=230).print(shown)


if __name__ == "__main__":
    typer.run(main)
