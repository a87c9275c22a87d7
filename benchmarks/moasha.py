"""Syne Tune's MOASHA as one of our schedulers, so that it can be replayed beside them.

The class itself decides, through its public `suggest`, `on_trial_add` and `on_trial_result`. What it suggests are the
draws of our random searcher, so that it is compared on the same proposals. All objectives are given to it as losses,
because it has one direction for all of them. Needs the extra `bench`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import numpy as np

from qa_core.errors import MissingDependency
from sweeps.front.pareto import to_losses
from sweeps.replay.curves import CurveTable
from sweeps.schedulers.asha import AshaOptions
from sweeps.schedulers.base import NO_CURVES, TIME_ATTRIBUTE, Curves, Scheduler, geometric_rungs
from sweeps.searchers.base import Proposal
from sweeps.searchers.random import RandomSearcher
from sweeps.space.space import Space
from sweeps.spec.objectives import Objective, rung_field


def is_installed() -> bool:
    """Tell whether Syne Tune is there."""
    return find_spec("syne_tune") is not None


class SuggestingSearcher(RandomSearcher):
    """The random searcher, asked by MOASHA: its config space holds one entry, which draws from here."""

    moasha: Any = None  # set by `make_moasha`

    def sample(self) -> Proposal | None:
        """Draw, as an entry of a Syne Tune config space does."""
        return super().propose()

    def propose(self) -> Proposal | None:
        """Return what MOASHA suggests."""
        return self.moasha.suggest().config["recipe"]


class Moasha(Scheduler):
    """MOASHA with one bracket, its budget counted in `examples_seen`."""

    name = "syne_tune_moasha"
    Options = AshaOptions

    def __init__(self, options: AshaOptions, moasha: Any) -> None:
        super().__init__(options)
        self.moasha = moasha

    def rungs(self, max_examples: int) -> tuple[int, ...]:
        """Return its milestones below the budget, rounded up to whole examples."""
        return geometric_rungs(self.options.grace_examples, self.options.eta, max_examples)

    def ray_scheduler(
        self, objectives: Sequence[Objective], max_examples: int, history: Curves = NO_CURVES
    ) -> Any:
        """Return MOASHA behind the methods of a Ray scheduler; it knows no history."""
        return _AsRay(self.moasha, objectives)


@dataclass
class _AsRay:
    moasha: Any
    objectives: Sequence[Objective]
    STOP = "STOP"

    def __post_init__(self) -> None:
        self.trials: dict[str, Any] = {}

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        from syne_tune.backend.trial_status import Trial

        self.trials[trial.trial_id] = Trial(len(self.trials), {}, datetime.now(UTC))
        self.moasha.on_trial_add(self.trials[trial.trial_id])

    def on_trial_result(self, controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        values = [[result[rung_field(objective.name)] for objective in self.objectives]]
        losses = to_losses(values, [objective.goal for objective in self.objectives])[0].tolist()
        named = {objective.name: loss for objective, loss in zip(self.objectives, losses, strict=True)}
        report = {TIME_ATTRIBUTE: result[TIME_ATTRIBUTE], **named}
        decision = self.moasha.on_trial_result(self.trials[trial.trial_id], report)
        if decision == self.STOP:  # as Syne Tune's own loop does, at the end of the budget too
            self.moasha.on_trial_remove(self.trials[trial.trial_id])
        return str(decision)

    def on_trial_complete(self, controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        """Nothing: MOASHA stops every trial itself, the finished ones at their last report."""


def make_moasha(
    table: CurveTable, space: Space, *, seed: int, options: AshaOptions, is_ranked: bool
) -> tuple[SuggestingSearcher, Moasha]:
    """Return the searcher and the scheduler of one replay.

    Args:
        is_ranked: give it the rank of each result as its priority. As it comes (0.16), the priority of the i-th result
            is the i-th entry of the sorted order, which is another result's index, so that it decides on something
            else than the new result.

    Raises:
        MissingDependency: Syne Tune is not installed.
    """
    if not is_installed():
        raise MissingDependency("syne-tune is not installed; pip install 'qa-sweeps[bench]'")
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

    searcher = SuggestingSearcher(space, table.spec.objectives, seed=seed, options={})
    moasha = MOASHA(
        config_space={"recipe": searcher},
        metrics=[objective.name for objective in table.spec.objectives],
        time_attr=TIME_ATTRIBUTE,
        multiobjective_priority=ranked_priority() if is_ranked else None,
        max_t=table.spec.budget.examples,
        grace_period=options.grace_examples,
        reduction_factor=options.eta,
        random_seed=seed,
    )
    searcher.moasha = moasha
    return searcher, Moasha(options, moasha)


def ranked_priority() -> Any:
    """Return Syne Tune's non-dominated order turned into one rank for each result."""
    from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import NonDominatedPriority

    class RankedPriority(NonDominatedPriority):
        def priority_unsafe(self, objectives: np.ndarray) -> np.ndarray:
            return np.argsort(super().priority_unsafe(objectives))

    return RankedPriority()
