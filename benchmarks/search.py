"""What a sweep must spend to find the front: searchers and schedulers, replayed on tables of curves.

    python -m benchmarks.search [--table FILE ...] [--synthetic NAME ...] [--seeds 100] [--workers 8] [--out JSON]

For each table and method, in Markdown:

- the share of the full grid's budget (every training run to its end, once, in examples) at which the finished trials
  dominate 90, 95, 99 and 99.9 % of the volume that all recipes dominate together. A seed that never gets there counts
  as infinite ("never"), and how many do is said.
- at 15 and 25 % of that budget: the share of the volume, how many points of the grid's front were found, and the EM
  points lost at equal memory: the largest shortfall, over the points of the grid's front, of the best finished trial
  that needs no more memory (the additive epsilon indicator of Zitzler et al. 2003, in EM alone). Where none finished,
  the reference stands in, which no trial is needed for.

A last column of the first table says the same of worker seconds, to 99 %: of all workers, scoring of stored forms
included, as a share of what the grid takes.

In a table with stored forms (`forms` of its sweep) a point is a form of a finished training. Rows "+ forms" train each
recipe once for all of its forms; the others train each form for itself (`benchmarks/one_form_each.py`). The grid, and
so the denominator, is the same for both: each training once.

Rows "no floor" differ from ours in that option alone. Where a table does not say how far a report is above the best
trivial baseline, and has the built-in questions, `with_floor` adds an estimate: the difference to that baseline on the
selection questions, and the least standard error that such a difference can have. Of other questions the baseline is
not known, and nothing is at the floor.

Each cell is the median over seeds with the 10 and 90 % quantiles. Volume counts above the references that
`reference: auto` gives: the best trivial baseline of the evaluation questions, and 1.1 times the largest memory. A
replay ends when it has started as many trials as the table has recipes, or, with `--trainings N`, when its trials have
consumed the examples of N whole trainings; a third table then says what is there at that end. The oracle
(`benchmarks/oracle.py`) is no search but the bound: it trains, whole and one after another, the recipes that dominate
the most. With stored forms it takes one training after the other, always the one that adds the most.

All rows with a scheduler have the same rungs (`--first-rung`, eta 3) and workers. Rows with the random searcher see the
same proposals at equal seed, those of Syne Tune too, and are compared in pairs; so are the other searchers with
`random` under pareto_asha, at PAIRED_AT of the budget and at the end. A searcher is told the memory of a recipe before
it starts, as a live sweep forecasts it, and of EM what was reported. `--others` adds the rows of Optuna, Syne Tune and
bins of memory; on tables of more than SLOW_ABOVE recipes those of `surrogate`, Optuna and Syne Tune are left out.

Which tables there are is in `benchmarks/search_tables.py`, which rows in `search_rows.py`, what is measured of a replay
in `search_runs.py`, and what is printed in `search_markdown.py`.
"""

import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import moasha
from benchmarks.one_form_each import one_form_each
from benchmarks.search_markdown import markdown, paired_markdown
from benchmarks.search_rows import ETA, WITH_FORMS, Setting, has_forms, methods
from benchmarks.search_runs import REACH, SPEND, Run, oracle_run, summary
from benchmarks.search_tables import SYNTHETIC, chosen_tables
from sweeps.commands.replay import parse_options
from sweeps.replay.simulate import recorded_space, replay
from sweeps.run_folder import provenance

ORACLE = "oracle"


def main(
    table: Annotated[
        list[Path] | None,
        typer.Option(help="Parquet file, or none; repeat for several. Default: those of benchmarks/tables"),
    ] = None,
    synthetic: Annotated[
        list[str] | None, typer.Option(help=f"one of {', '.join(SYNTHETIC)}, or none; default: all")
    ] = None,
    seeds: Annotated[int, typer.Option(help="replays of each method")] = 100,
    first_seed: Annotated[
        int, typer.Option(help="of them; what was chosen on some seeds is to be judged on others")
    ] = 0,
    workers: Annotated[int, typer.Option(help="trials at a time")] = 8,
    first_rung: Annotated[
        list[int] | None, typer.Option(help="the budget's share 1 / N where the first rung lies")
    ] = None,
    others: Annotated[bool, typer.Option(help="rows of Optuna, Syne Tune and bins of memory too")] = False,
    option: Annotated[
        list[str] | None, typer.Option(help="key=value, for pareto_asha; repeat for several")
    ] = None,
    trainings: Annotated[
        float | None,
        typer.Option(help="whole trainings whose examples a replay may consume; default: no limit"),
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(help="of the tables, as it is named there; repeat for several. Default: all"),
    ] = None,
    processes: Annotated[int, typer.Option(help="replays at a time")] = 1,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/search.json"),
) -> None:
    """Replay, print the tables in Markdown and write the JSON file."""
    if others and not moasha.is_installed():
        typer.echo("Syne Tune is not installed; its rows are left out (pip install 'qa-sweeps[bench]')")
    results, references = {}, {}
    for name, curves in chosen_tables(table, synthetic).items():
        options = parse_options(option or (), "--option")
        parts, only = tuple(first_rung or (27, 9)), tuple(row or ())
        setting = Setting(curves, workers, parts, others, options, trainings, only)
        results[name] = measure(setting, seeds=range(first_seed, first_seed + seeds), processes=processes)
        references[name] = {objective.name: objective.worst for objective in curves.spec.objectives}
        for line in (*markdown(name, setting, results[name]), *paired_markdown(results[name])):
            typer.echo(line)
    about = {
        "seeds": seeds,
        "first_seed": first_seed,
        "workers": workers,
        "eta": ETA,
        "reach": REACH,
        "spend": SPEND,
    }
    written = {
        "results": {
            name: {row: [asdict(run) for run in runs] for row, runs in rows.items()}
            for name, rows in results.items()
        },
        "setting": {**about, "references": references},
        "provenance": provenance.collect(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(written, indent=1))
    typer.echo(f"written to {out}")


def measure(setting: Setting, *, seeds: range, processes: int) -> dict[str, list[Run]]:
    """Replay every method on a table; returns its runs, one for each seed, the same for any number of processes."""
    started = time.perf_counter()
    rows = list(methods(setting))
    jobs = [(row, seed) for row in rows for seed in seeds]
    if processes == 1:
        replayer = Replayer(setting)
        runs = [replayer.run(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(
            processes, get_context("spawn"), initializer=_set_up, initargs=(setting,)
        ) as pool:
            runs = list(pool.map(_run, jobs, chunksize=max(1, len(seeds) // 10)))
    typer.echo(f"{(time.perf_counter() - started) / max(1, len(jobs)):.2f} s a replay", err=True)
    found = {row: runs[place * len(seeds) : (place + 1) * len(seeds)] for place, row in enumerate(rows)}
    return {ORACLE: [oracle_run(setting.table)], **found}


class Replayer:
    """Replays the methods of a setting by name and seed."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        base = setting.table
        self.tables = {True: base, False: one_form_each(base) if has_forms(base) else base}
        self.spaces = {with_forms: recorded_space(table) for with_forms, table in self.tables.items()}
        self.makers = methods(setting)

    def run(self, row: str, seed: int) -> Run:
        """Replay one method with one seed."""
        table = self.tables[WITH_FORMS in row]
        searcher, scheduler = self.makers[row](table, self.spaces[WITH_FORMS in row], seed)
        workers, examples = self.setting.workers, self.setting.examples
        outcome = replay(table, searcher, scheduler, workers=workers, examples=examples)
        return summary(table, outcome, grid=self.setting.table)


_replayers: list[Replayer] = []  # of this process: the table is sent to it once


def _set_up(setting: Setting) -> None:
    _replayers[:] = [Replayer(setting)]


def _run(job: tuple[str, int]) -> Run:
    return _replayers[0].run(*job)


if __name__ == "__main__":
    typer.run(main)
