"""Asynchronous successive halving on the first objective, through Ray Tune's own implementation.

Source: Li et al. 2018, arXiv 1810.05934, algorithm 2, in the stopping variant that Ray implements. It looks
at one objective alone, so in a sweep that also counts memory it stops small models that belong to the front.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qa_core.errors import ConfigError
from sweeps.objectives import rung_field
from sweeps.schedulers.base import TIME_ATTRIBUTE, Scheduler

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from sweeps.spec import Objective


@dataclass(frozen=True)
class AshaOptions:
    """Options of `asha`."""

    grace_examples: int  # the first rung: no trial is stopped before it
    eta: float = 3.0  # rungs lie a factor of eta apart; about the best 1 / eta of a rung go on

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, valid, allowed in (
            ("grace_examples", self.grace_examples >= 1, "1 or more"),
            ("eta", self.eta > 1, "a number above 1"),
        ):
            if not valid:
                raise ConfigError(
                    f"scheduler.options.{name}: found {getattr(self, name)!r}; allowed: {allowed}"
                )


class Asha(Scheduler):
    """Ray's AsyncHyperBandScheduler with one bracket, its budget counted in `examples_seen`."""

    name = "asha"
    Options = AshaOptions

    def check(self, objectives: Sequence["Objective"], max_examples: int) -> None:
        """Check that the first objective is seen at rungs and that the first rung lies within the budget."""
        rung_field(objectives[0].name)
        self.rungs(max_examples)

    def rungs(self, max_examples: int) -> tuple[int, ...]:
        """Return Ray's milestones below the budget, rounded up to whole examples.

        Ray decides on the first report at or above a milestone grace * eta^k, so one at its ceiling is exact.
        """
        if self.options.grace_examples >= max_examples:
            raise ConfigError(
                f"scheduler.options.grace_examples: found {self.options.grace_examples}; allowed: below "
                f"budget.examples = {max_examples}"
            )
        rungs = []
        milestone = float(self.options.grace_examples)
        while milestone < max_examples:
            rungs.append(math.ceil(milestone))
            milestone = self.options.grace_examples * self.options.eta ** len(rungs)
        return tuple(rung for rung in sorted(set(rungs)) if rung < max_examples)

    def ray_scheduler(self, objectives: Sequence["Objective"], max_examples: int) -> "TrialScheduler":
        """Return Ray's scheduler; a report of the whole budget ends its trial without a comparison."""
        from ray.tune.schedulers import AsyncHyperBandScheduler

        return AsyncHyperBandScheduler(
            time_attr=TIME_ATTRIBUTE,
            metric=rung_field(objectives[0].name),
            mode=objectives[0].goal,
            max_t=max_examples,
            grace_period=self.options.grace_examples,
            reduction_factor=self.options.eta,
            brackets=1,
        )
