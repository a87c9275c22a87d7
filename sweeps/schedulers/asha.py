"""Asynchronous successive halving on the first objective, through Ray Tune's own implementation.

Source: Li et al. 2018, arXiv 1810.05934, algorithm 2, in the stopping variant that Ray implements. It looks
at one objective alone, so in a sweep that also counts memory it stops small models that belong to the front.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from qa_core.values import check_ranges
from sweeps.schedulers.base import (
    NO_CURVES,
    TIME_ATTRIBUTE,
    Curves,
    Eta,
    GraceExamples,
    Scheduler,
    check_report,
    geometric_rungs,
)
from sweeps.spec.objectives import rung_field

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from sweeps.spec.objectives import Objective


@dataclass(frozen=True)
class AshaOptions:
    """Options of `asha`."""

    grace_examples: GraceExamples
    eta: Eta = 3.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "scheduler.options")


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
        return geometric_rungs(self.options.grace_examples, self.options.eta, max_examples)

    def ray_scheduler(
        self, objectives: Sequence["Objective"], max_examples: int, history: Curves = NO_CURVES
    ) -> "TrialScheduler":
        """Return Ray's scheduler; a report of the whole budget ends its trial without a comparison.

        Ray keeps no rungs across sessions and has no way to fill them: the history goes into its bracket directly.
        """
        from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

        if max_examples == 0:  # nothing is trained, and there is no rung; Ray's ASHA takes no such budget
            return FIFOScheduler()
        objective = objectives[0]
        scheduler = AsyncHyperBandScheduler(
            time_attr=TIME_ATTRIBUTE,
            metric=rung_field(objective.name),
            mode=objective.goal,
            max_t=max_examples,
            grace_period=self.options.grace_examples,
            reduction_factor=self.options.eta,
            brackets=1,
        )
        bracket: Any = scheduler._brackets[0]
        sign = 1.0 if objective.goal == "max" else -1.0  # Ray's: more is better
        for trial_id, curve in history.items():
            for report in curve:
                check_report(report, [objective.name])
                if report[TIME_ATTRIBUTE] < max_examples:
                    value = sign * report[rung_field(objective.name)]
                    bracket.on_result(SimpleNamespace(trial_id=trial_id), report[TIME_ATTRIBUTE], value)
        return scheduler
