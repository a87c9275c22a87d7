"""What is measured of a replay, and of the oracle: shares of the grid's volume and budget, and what is lost in EM."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import oracle
from sweeps.front import pareto
from sweeps.replay.curves import CurveTable
from sweeps.replay.simulate import ReplayOutcome

REACH = (0.90, 0.95, 0.99, 0.999)  # of the full hypervolume
SPEND = (0.15, 0.25)  # of the full grid's budget


@dataclass(frozen=True)
class Standing:
    """What a search has after a share of the budget."""

    volume: float  # share of the full hypervolume
    front_points: int  # of the grid's front that were found
    em_lost: float  # EM points lost at equal memory: see `benchmarks/search.py`


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
