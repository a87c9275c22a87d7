"""The rows of `benchmarks/search.py`: which searchers and schedulers are compared on a table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import typer

from benchmarks import moasha
from sweeps import registry
from sweeps.replay.curves import CurveTable
from sweeps.replay.recorded import RecordedSpace
from sweeps.replay.simulate import recorded_forecast
from sweeps.schedulers.asha import AshaOptions
from sweeps.schedulers.base import Scheduler, make_scheduler
from sweeps.searchers.base import Searcher

ETA = 3.0
OURS = "random + pareto_asha"
SEARCHERS = ("sobol", "surrogate")  # compared with `random` under the same scheduler
WITH_FORMS = " + forms"  # in the name of a row
WITHOUT_FLOOR = ", no floor"  # in the name of a row
# Recipes; above, what models the recipes and Syne Tune take minutes a replay and are left out.
SLOW_ABOVE = 600
Pair = tuple[Searcher, Scheduler]
Maker = Callable[[CurveTable, RecordedSpace, int], Pair]  # table, space, seed -> what to replay


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
