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
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import moasha, oracle
from benchmarks.one_form_each import one_form_each
from benchmarks.synthetic import SCALES, SyntheticOptions, synthetic_table
from qa_core.config import DataConfig
from qa_core.data.selection import select_questions, split_selection
from qa_core.data.sources import BUILT_IN
from qa_core.errors import DataError
from sweeps import registry
from sweeps.commands.replay import parse_options
from sweeps.front import pareto
from sweeps.replay.curve_files import read_table
from sweeps.replay.curves import Curve, CurveTable
from sweeps.replay.recorded import RecordedSpace
from sweeps.replay.simulate import ReplayOutcome, recorded_forecast, recorded_space, replay
from sweeps.run_folder import provenance
from sweeps.schedulers.asha import AshaOptions
from sweeps.schedulers.base import Scheduler, make_scheduler
from sweeps.schedulers.pareto_asha import GAIN, GAIN_ERROR
from sweeps.searchers.base import Searcher
from sweeps.spec.sections import SweepSpec

ETA = 3.0
REACH = (0.90, 0.95, 0.99, 0.999)  # of the full hypervolume
BUSY_AT = REACH.index(0.99)  # of which worker seconds are shown
SPEND = (0.15, 0.25)  # of the full grid's budget
QUANTILES = (0.1, 0.5, 0.9)
MARGIN = 1.1  # of the largest memory: the reference
OURS = "random + pareto_asha"
SEARCHERS = ("sobol", "surrogate")  # compared with `random` under the same scheduler
ORACLE = "oracle"
WITH_FORMS = " + forms"  # in the name of a row
PAIRED_AT = 0.15  # of the budget
NONE = "none"  # of tables
WITHOUT_FLOOR = ", no floor"  # in the name of a row
TABLES_FOLDER = Path(__file__).parent / "tables"
SYNTHETIC: Mapping[str, SyntheticOptions] = {
    "curves seldom cross": replace(SCALES["hundreds"], crossing=0.03),
    "curves cross early": replace(SCALES["hundreds"], crossing=0.1),
    "curves cross late": replace(SCALES["hundreds"], crossing=0.3),
    "more recipes": replace(SCALES["thousand"], crossing=0.1),
    "forms, curves cross early": replace(SCALES["hundreds"], crossing=0.1, forms=True),
    "forms, curves cross late": replace(SCALES["hundreds"], crossing=0.3, forms=True),
}
SLOW_ABOVE = (
    600  # recipes: there, what models the recipes and Syne Tune take minutes a replay and are left out
)

Pair = tuple[Searcher, Scheduler]
Maker = Callable[[CurveTable, RecordedSpace, int], Pair]  # table, space, seed -> what to replay


@dataclass(frozen=True)
class Standing:
    """What a search has after a share of the budget."""

    volume: float  # share of the full hypervolume
    front_points: int  # of the grid's front that were found
    em_lost: float  # EM points, see the top of the file


@dataclass(frozen=True)
class Run:
    """One replay, in shares; None: never reached."""

    reached: tuple[float | None, ...]  # budget share, for each of REACH
    standings: tuple[Standing, ...]  # for each of SPEND
    stopped: int
    finished: int
    spent: float  # budget share at the end
    paused: int = 0
    end: Standing | None = None  # None: as at the last of SPEND, or later
    busy: tuple[float | None, ...] = ()  # share of the grid's worker seconds, for each of REACH


@dataclass(frozen=True)
class Setting:
    """What is replayed how."""

    table: CurveTable
    workers: int
    parts: tuple[int, ...]
    others: bool
    options: Mapping[str, Any] = field(default_factory=dict)  # of pareto_asha
    trainings: float | None = None  # that a replay may consume
    rows: tuple[str, ...] = ()  # the only ones that are replayed; (): all

    @property
    def examples(self) -> int | None:
        """Examples that a replay may consume; None: no limit."""
        return None if self.trainings is None else int(self.trainings * self.table.spec.budget.examples)


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


def chosen_tables(files: Sequence[Path] | None, synthetic: Sequence[str] | None) -> dict[str, CurveTable]:
    """Return the tables to replay by name, with references for the volume: recorded ones first."""
    found = sorted(TABLES_FOLDER.glob("*.parquet")) if files is None else files
    tables = {path.stem: read_table(path) for path in found if str(path) != NONE}
    for name in list(SYNTHETIC) if synthetic is None else synthetic:
        if name not in SYNTHETIC:
            if name != NONE:
                raise typer.BadParameter(
                    f"--synthetic: found {name!r}; allowed: {', '.join(SYNTHETIC)}, none"
                )
            continue
        tables[name] = synthetic_table(SYNTHETIC[name])
    return {name: with_floor(with_references(table)) for name, table in tables.items()}


def with_floor(table: CurveTable) -> CurveTable:
    """Return the table with each report's difference to the best trivial baseline of the built-in selection questions.

    The standard error of the paired difference is not recorded. Its least value is that of a network that answers as
    the baseline does but for the questions that it gains: 100 sqrt(p / n) points for a gain of p of n questions. Two of
    them are the whole difference at p = 4 / n: 2 points of 200 questions.
    """
    data = table.spec.as_dict()["recipe"].get("data", {})
    if data.get("train") not in BUILT_IN or any(curve.extras for curve in table.curves):
        return table
    questions, baseline = _selection_baseline(DataConfig(**data))

    def extras(curve: Curve) -> dict[str, tuple[float | None, ...]]:
        gains = [value - baseline for value in curve.rung_values["em_percent"]]
        errors = [100.0 * math.sqrt(max(gain, 0.0) / 100.0 / questions) for gain in gains]
        return {GAIN: tuple(gains), GAIN_ERROR: tuple(errors)}

    return replace(table, curves=tuple(replace(curve, extras=extras(curve)) for curve in table.curves))


def _selection_baseline(data: DataConfig) -> tuple[int, float]:
    """Return how many selection questions there are, and the best trivial EM on them in percent."""
    from qa_core.data.squad import load_table
    from qa_core.scoring.evaluate import Floor

    questions = load_table(data.train, split="train")
    chosen = select_questions(questions, data.train_questions, seed=data.split_seed)
    _, selection = split_selection(
        chosen, data.selection_share, seed=data.split_seed, max_questions=data.selection_questions
    )
    return len(selection), 100.0 * float(Floor.of(selection).exact.mean())


def with_references(table: CurveTable) -> CurveTable:
    """Return the table with the references that `auto` gives a sweep of its recipes.

    A table of other questions than the built-in ones keeps its own for EM, which is 0: in SQuAD v1.1 every question has
    an answer, so that answering nothing scores 0, and a synthetic curve starts at 0.

    Raises:
        DataError: the built-in questions are not those that the table was recorded on.
    """
    values = table.spec.as_dict()
    data = values["recipe"].get("data", {})
    source = data.get("evaluation", data.get("train"))
    for objective in values["objectives"]:
        if objective["goal"] == "min":
            name = objective["name"]
            objective["reference"] = MARGIN * max(
                values[name] for curve in table.curves for values in (curve.final, *curve.finals)
            )
        elif source in BUILT_IN:
            data_hash = table.provenance["evaluation_hash"]
            objective["reference"] = _best_baseline(objective["name"], source, data_hash)
    return replace(table, spec=SweepSpec.model_validate(values))


def _best_baseline(name: str, source: str, data_hash: str) -> float:
    from qa_core.data.squad import load_table
    from qa_core.scoring.evaluate import baseline_scores

    questions = load_table(source, split="dev")
    if questions.data_hash != data_hash:
        raise DataError(f"{source}: found data {questions.data_hash}; the table was recorded on {data_hash}")
    scores = baseline_scores(questions)
    return max(value for field, value in scores.items() if field.endswith(name))


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


def has_forms(table: CurveTable) -> bool:
    """Tell whether the points of a table are stored forms."""
    return any(curve.forms for curve in table.curves)


def methods(setting: Setting) -> dict[str, Maker]:
    """Return what is compared, by name; rows with stored forms after all others.

    Raises:
        BadParameter: a row that is wanted is not among them.
    """
    rows = _methods(setting)
    if has_forms(setting.table):
        shared = _methods(replace(setting, others=False))
        rows |= {_with_forms(row): maker for row, maker in shared.items()}
    if unknown := [row for row in setting.rows if row not in rows]:
        raise typer.BadParameter(f"--row: found {unknown[0]!r}; allowed: {'; '.join(rows)}")
    return {row: maker for row, maker in rows.items() if row in setting.rows} if setting.rows else rows


def _with_forms(row: str) -> str:
    """Return the name of a row with forms: before the rungs, which stand last."""
    base, comma, part = row.rpartition(", 1/")
    return f"{base}{WITH_FORMS}{comma}{part}" if comma else f"{row}{WITH_FORMS}"


def _methods(setting: Setting) -> dict[str, Maker]:
    table, others = setting.table, setting.others
    fifo: dict[str, Any] = {"reports": 0}
    is_small = len(table.curves) <= SLOW_ABOVE
    has_slow = others and is_small
    rows = {
        "full grid, shuffled": registered("grid", {"shuffle": True}, "fifo", fifo),
        "random": registered("random", {}, "fifo", fifo),
    }
    if has_slow:
        rows["Optuna NSGA-II"] = registered("optuna", {"sampler": "nsga2"}, "fifo", fifo)
        rows["Optuna TPE"] = registered("optuna", {}, "fifo", fifo)
    for part in setting.parts:
        grace = {"grace_examples": -(-table.spec.budget.examples // part), "eta": ETA}
        rungs = f", 1/{part}"
        rows[f"random + Ray's ASHA on EM{rungs}"] = registered("random", {}, "asha", grace)
        if has_slow and moasha.is_installed():
            rows[f"random + Syne Tune's MOASHA{rungs}"] = syne_tune(grace, is_ranked=False)
            rows[f"random + MOASHA, ranks repaired{rungs}"] = syne_tune(grace, is_ranked=True)
        without = {**grace, **setting.options, "floor": "off"}
        rows[f"{OURS}{WITHOUT_FLOOR}{rungs}"] = registered("random", {}, "pareto_asha", without)
        rows[f"{OURS}{rungs}"] = registered("random", {}, "pareto_asha", {**grace, **setting.options})
        for searcher in SEARCHERS if is_small else SEARCHERS[:1]:
            options = {**grace, **setting.options}
            rows[f"{searcher} + pareto_asha{rungs}"] = registered(searcher, {}, "pareto_asha", options)
        for bins in (4, 12) if others else ():
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
        forecast = recorded_forecast(table)
        made = kind(space, table.spec.objectives, seed=seed, options=options, forecast=forecast)
        return made, make_scheduler(scheduler, scheduler_options)

    return make


def syne_tune(options: Mapping[str, Any], *, is_ranked: bool) -> Maker:
    """Return the maker of Syne Tune's MOASHA."""

    def make(table: CurveTable, space: RecordedSpace, seed: int) -> Pair:
        return moasha.make_moasha(
            table, space, seed=seed, options=AshaOptions(**options), is_ranked=is_ranked
        )

    return make


def summary(table: CurveTable, outcome: ReplayOutcome, *, grid: CurveTable | None = None) -> Run:
    """Return a replay in shares of the volume and budget of the grid; None: the table's own."""
    grid = table if grid is None else grid
    # A sum of as many areas as there were points: the last digits differ from the table's own volume.
    wanted = [share * grid.hypervolume * (1 - 1e-12) for share in REACH]
    spent = [outcome.examples_to_reach(volume) for volume in wanted]
    busy = [outcome.worker_seconds_to_reach(volume) for volume in wanted]
    total, seconds = grid.total_examples, grid.total_seconds

    def at(examples: float) -> Standing:
        return standing(table, outcome.finished_at(examples), grid=grid)

    return Run(
        reached=tuple(None if examples is None else examples / total for examples in spent),
        standings=tuple(at(share * total) for share in SPEND),
        stopped=outcome.counts.get("stopped", 0),
        finished=outcome.counts.get("ok", 0),
        spent=outcome.examples / total,
        paused=outcome.counts.get("paused", 0),
        end=at(math.inf),
        busy=tuple(None if one is None else one / seconds for one in busy),
    )


def oracle_run(table: CurveTable) -> Run:
    """Return what the oracle needs: whole recipes, one after another, the best subset of each number."""
    subsets = oracle.best_subsets(table)
    budget, total = table.spec.budget.examples, table.total_examples
    volumes = [pareto.hypervolume(table.losses_of(subset), table.reference) for subset in subsets]
    seconds = [sum(table.curves[index].seconds for index in subset) for subset in subsets]
    counts = [
        next(
            number
            for number, volume in enumerate(volumes)
            if volume >= share * table.hypervolume * (1 - 1e-12)
        )
        for share in REACH
    ]
    afforded = [min(len(subsets) - 1, int(share * total / budget)) for share in SPEND]
    return Run(
        reached=tuple(number * budget / total for number in counts),
        standings=tuple(standing(table, subsets[number]) for number in afforded),
        stopped=0,
        finished=len(subsets) - 1,
        spent=(len(subsets) - 1) * budget / total,
        busy=tuple(seconds[number] / table.total_seconds for number in counts),
    )


def standing(table: CurveTable, finished: Sequence[int], *, grid: CurveTable | None = None) -> Standing:
    """Return what a search has when these curves have finished, against what the grid holds; None: the table."""
    losses, table = table.losses_of(finished), table if grid is None else grid
    corner = np.array(table.reference)
    front = grid_front(table)
    found = {tuple(point) for point in losses.tolist()}
    return Standing(
        volume=pareto.hypervolume(losses, corner) / table.hypervolume,
        front_points=sum(tuple(point) in found for point in front.tolist()),
        em_lost=_em_lost(table, front, losses),
    )


def grid_front(table: CurveTable) -> np.ndarray:
    """Return the distinct losses on the front of all points that are better than the reference in every objective."""
    counted = table.losses[(table.losses < np.array(table.reference)).all(axis=1)]
    return np.unique(counted[pareto.front_mask(counted)], axis=0)


def _em_lost(table: CurveTable, front: np.ndarray, losses: np.ndarray) -> float:
    """Return the largest shortfall in EM against the front at equal memory or less."""
    names = [objective.name for objective in table.spec.objectives]
    em, memory = names.index("em_percent"), names.index("memory_mb")
    reference = table.reference[em]
    lost = [
        min([reference, *losses[losses[:, memory] <= point[memory], em].tolist()]) - point[em]
        for point in front
    ]
    return max(0.0, *map(float, lost))


def interval(values: Sequence[float | None]) -> tuple[float, ...]:
    """Return the quantiles of QUANTILES; None counts as infinite, and each is one of the values."""
    numbers = [np.inf if value is None else value for value in values]
    return tuple(float(np.quantile(numbers, at, method="inverted_cdf")) for at in QUANTILES)


def cell(values: Sequence[float | None], *, scale: float = 100.0, digits: int = 1) -> str:
    """Return "median (low-high)", in percent unless another scale is given; what a seed never reached is "never"."""
    low, middle, high = (
        "never" if np.isinf(value) else f"{scale * value:.{digits}f}" for value in interval(values)
    )
    return middle if low == middle == high else f"{middle} ({low}-{high})"


def reach_cell(values: Sequence[float | None]) -> str:
    """Return the cell of a share of the volume, and how many of the seeds get there where not all do."""
    reached = sum(value is not None for value in values)
    return cell(values) if reached == len(values) else f"{cell(values)}; {reached} of {len(values)}"


def markdown(name: str, setting: Setting, rows: Mapping[str, Sequence[Run]]) -> list[str]:
    """Return two tables: budget to reach a volume, and what is there at a budget."""
    table = setting.table
    references = ", ".join(f"{item.name} {item.worst:.4g}" for item in table.spec.objectives)
    lines = ["", f"### {name}", ""]
    lines += [
        f"{_size(table)}, front of {len(grid_front(table))} points, reference {references}, "
        f"{setting.workers} workers, {max(map(len, rows.values()))} seeds.",
        "",
    ]
    budget_to = [f"budget % to {100 * share:g} % HV" for share in REACH]
    first = {
        row: [
            *(reach_cell([run.reached[index] for run in runs]) for index in range(len(REACH))),
            reach_cell([run.busy[BUSY_AT] for run in runs]),
        ]
        for row, runs in rows.items()
    }
    at = [
        title.format(f"{100 * share:g} %")
        for share in SPEND
        for title in ("HV % at {}", "front points at {}", "EM lost at {}")
    ]
    second = {row: [*_standing_cells(runs), *_counts(runs)] for row, runs in rows.items()}
    lines += _table(["method", *budget_to, f"worker seconds % to {100 * REACH[BUSY_AT]:g} % HV"], first)
    lines += ["", *_table(["method", *at, "finished", "stopped"], second)]
    if setting.trainings is not None:
        headings = ["method", "mean HV %", "HV %", "mean front points", "finished", "stopped", "paused"]
        third = {row: _end_cells(runs) for row, runs in rows.items() if all(run.end for run in runs)}
        lines += ["", f"At the end, {setting.trainings:g} trainings' worth:", "", *_table(headings, third)]
    return lines


def _size(table: CurveTable) -> str:
    trainings = f"{len(table.curves)} {'trainings' if has_forms(table) else 'recipes'}"
    return f"{trainings}, {len(table.losses)} stored forms" if has_forms(table) else trainings


def _end_cells(runs: Sequence[Run]) -> list[str]:
    ends = [run.end for run in runs if run.end is not None]
    volumes = [end.volume for end in ends]
    return [
        f"{100 * np.mean(volumes):.1f}",
        cell(volumes),
        f"{np.mean([end.front_points for end in ends]):.2f}",
        *(f"{np.mean([getattr(run, key) for run in runs]):.1f}" for key in ("finished", "stopped", "paused")),
    ]


def _standing_cells(runs: Sequence[Run]) -> list[str]:
    cells = []
    for index in range(len(SPEND)):
        found = [run.standings[index] for run in runs]
        cells.append(cell([item.volume for item in found]))
        cells.append(cell([item.front_points for item in found], scale=1.0, digits=0))
        cells.append(cell([item.em_lost for item in found], scale=1.0))
    return cells


def _counts(runs: Sequence[Run]) -> list[str]:
    return [f"{np.median([getattr(run, key) for run in runs]):.0f}" for key in ("finished", "stopped")]


def paired_markdown(rows: Mapping[str, Sequence[Run]]) -> list[str]:
    """Return what rows gain in volume over others with the same seeds, and how often.

    Ours over those on the same proposals, at equal budget; other searchers over ours, at equal budget and at the end.
    """
    at = SPEND.index(PAIRED_AT)
    pairs = {}
    for ours, mine in rows.items():
        base, _, part = ours.rpartition(", ")
        if base not in (OURS, f"{OURS}{WITH_FORMS}"):
            continue
        for theirs, others in rows.items():
            is_like = theirs.startswith("random") and theirs.rpartition(", ")[2] in (part, theirs)
            is_like &= (WITH_FORMS in theirs) == (WITH_FORMS in ours)  # else the proposals are others
            if theirs != ours and is_like:
                pairs[f"{ours}, minus {theirs}"] = _gains(mine, others, lambda run: run.standings[at].volume)
        for name in (*(f"{searcher} + pareto_asha" for searcher in SEARCHERS), f"{OURS}{WITHOUT_FLOOR}"):
            theirs = f"{name}{base.removeprefix(OURS)}, {part}"
            found = rows.get(theirs)
            if found is None:
                continue
            if name.startswith(SEARCHERS):
                pairs[f"{theirs}, minus {ours}"] = _gains(found, mine, lambda run: run.standings[at].volume)
            pairs[f"{theirs}, minus {ours}; at the end"] = _gains(
                found, mine, lambda run: run.end.volume if run.end else 0.0
            )
    title = f"same seed, HV % at {PAIRED_AT:.0%} of the budget"
    headings = [title, "difference", "mean", "seeds better", "seeds worse"]
    return ["", *_table(headings, pairs), ""] if pairs else []


def _gains(some: Sequence[Run], others: Sequence[Run], volume: Callable[[Run], float]) -> list[str]:
    gains = [volume(a) - volume(b) for a, b in zip(some, others, strict=True)]
    wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return [cell(gains), mean_cell(gains), str(wins), str(losses)]


def mean_cell(gains: Sequence[float]) -> str:
    """Return "mean (low to high)" in percent: the 95 % interval of the mean over seeds, resampled 2,000 times."""
    rng = np.random.default_rng(0)
    means = rng.choice(gains, (2000, len(gains))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{100 * np.mean(gains):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _table(headings: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *([row, *cells] for row, cells in rows.items())]
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    typer.run(main)
