"""What a sweep may spend, before it runs: groups of recipes, hours of training, machine hours and money.

Arithmetic alone. What one recipe needs is predicted by `sweeps/budget/memory.py` and timed by
`qa_core/calibration.py`; the table is printed by `sweeps/commands/plan.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qa_core.config import RunConfig
from sweeps.front.points import FULL_FINE_TUNING
from sweeps.space.space import Assignment, Space

DRAWS_OF_A_COMBINATION = 3
DRAWS_FOR_SHARES = 1000


@dataclass(frozen=True)
class Cell:
    """Recipes that share family, methods and checkpoint: one row of the plan."""

    family: str  # with its head, where the recipe names one
    methods: str  # joined by "+"; "full" for none
    checkpoint: str

    @classmethod
    def of(cls, config: RunConfig) -> "Cell":
        """Return the cell of a recipe."""
        family = " ".join(filter(None, (config.model.family, config.model.head)))
        return cls(family, "+".join(config.methods) or FULL_FINE_TUNING, config.model.checkpoint)


@dataclass(frozen=True)
class Hours:
    """What a sweep spends on this machine, with this number of trials at a time."""

    at_most: float  # every trial trains to the full budget
    at_least: float | None  # halving stops all that it can; None: the scheduler stops nothing
    concurrent: int


def cells_of(space: Space, rng: np.random.Generator) -> dict[Cell, list[RunConfig]]:
    """Return a few recipes of each legal combination, by cell; only combinations that are legal are drawn."""
    cells: dict[Cell, list[RunConfig]] = {}
    for combination in space.legal:
        for _ in range(DRAWS_OF_A_COMBINATION):
            config = space.to_run_config(_drawn(space, combination, rng), seed=0)
            cells.setdefault(Cell.of(config), []).append(config)
    return cells


def cell_shares(space: Space, rng: np.random.Generator) -> dict[Cell, float]:
    """Return how large a share of the recipes drawn from the space falls into each cell; they sum to 1."""
    drawn = [Cell.of(space.to_run_config(space.sample(rng), seed=0)) for _ in range(DRAWS_FOR_SHARES)]
    return {cell: drawn.count(cell) / len(drawn) for cell in dict.fromkeys(drawn)}


def halving_share(rungs: Sequence[int], eta: float, max_examples: int) -> float:
    """Return the share of the whole budget that is spent when one of eta trials continues at each rung, 0 to 1.

    The sum of (r_{k+1} - r_k) / eta^k over the stretches between rungs r_k, from 0 to the full budget R, over R.
    """
    ends = [0, *rungs, max_examples]
    stretches = [later - earlier for earlier, later in pairwise(ends)]
    return sum(length / eta**done for done, length in enumerate(stretches)) / max_examples


def sweep_hours(
    trial_hours: Mapping[Cell, float],
    shares: Mapping[Cell, float],
    *,
    trials: int,
    concurrent: int,
    least_share: float | None,
    time_minutes: float | None,
    most_share: float = 1.0,
) -> Hours:
    """Return the hours of a whole sweep.

    Args:
        trial_hours: of one trial to the full budget, for each cell that was timed.
        shares: of the trials, by cell; cells that were not timed count as the mean of those that were.
        least_share: from `halving_share`; None for a scheduler that stops nothing.
        time_minutes: the sweep's own limit, or None.
        most_share: of the examples of all trials to their ends, what the sweep may spend, 0 to 1.
    """
    timed = {cell: share for cell, share in shares.items() if cell in trial_hours}
    mean = sum(share * trial_hours[cell] for cell, share in timed.items()) / sum(timed.values())
    whole = trials * mean / concurrent
    limit = np.inf if time_minutes is None else time_minutes / 60
    at_least = None if least_share is None else float(min(whole * min(least_share, most_share), limit))
    return Hours(float(min(whole * most_share, limit)), at_least, concurrent)


def span(values: Iterable[float | None]) -> tuple[float, float] | None:
    """Return the smallest and the largest of the values that there are; None where there is none."""
    found = [value for value in values if value is not None]
    return (min(found), max(found)) if found else None


def _drawn(space: Space, combination: Mapping[str, object], rng: np.random.Generator) -> Assignment:
    assignment: Assignment = {}
    for parameter in space.parameters:
        if parameter.is_active(assignment):
            given = parameter.id in combination
            assignment[parameter.id] = combination[parameter.id] if given else parameter.domain.sample(rng)
    return assignment
