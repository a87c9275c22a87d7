"""Asynchronous successive halving on all objectives of the sweep: early stopping that keeps the front of each rung.

The rule, its sources and its price are in `sweeps/schedulers/halving.py`; here are the options and Ray's view of it.
Every objective must be measured at rungs: one that is not would be dropped in silence, and with it the promise.

There is no option for a maximum: it is the sweep's `budget.examples`.

This is the stopping form. Pausing trials at rungs and promoting them later was tried with Ray 2.60 on function trials
that keep their own checkpoint folder: Ray does start a paused trial again, in a reused worker, and it went on where
it was. But Ray counts paused trials among `max_concurrent_trials`, so that two of them stopped a sweep of two slots
for good (3 of 6 trials were ever proposed); and without that limit paused trials that are never promoted keep the
sweep from ending (it ran into its time limit), since Ray does not tell a scheduler that no more trials will come.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from qa_core.errors import ConfigError, DataError
from qa_core.values import Setting, check_ranges
from sweeps.front.pareto import to_losses
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
from sweeps.schedulers.halving import Halving, HalvingSettings
from sweeps.spec.objectives import rung_field

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from sweeps.spec.objectives import Objective

MEMORY = ("memory_mb", "memory_batch8_mb")  # what bands can be cut of; the first that is an objective counts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParetoAshaOptions:
    """Options of `pareto_asha`."""

    grace_examples: GraceExamples
    eta: Eta = 3.0
    memory_bins: Annotated[
        int,
        Setting(
            "Trials are compared within this many bands of memory, evenly cut on its logarithm.",
            "bands",
            at_least=1,
        ),
    ] = 1
    progressive: Annotated[
        bool, Setting("true: from the rung where longer training changes nothing, only the front continues.")
    ] = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "scheduler.options")


class ParetoAsha(Scheduler):
    """Halving by non-dominated rank; a trial on the front of its rung is never stopped."""

    name = "pareto_asha"
    Options = ParetoAshaOptions

    def check(self, objectives: Sequence["Objective"], max_examples: int) -> None:
        """Check that every objective is seen at rungs and that the options fit objectives and budget."""
        for objective in objectives:
            rung_field(objective.name)
        rungs = self.rungs(max_examples)
        minimised = {objective.name for objective in objectives if objective.goal == "min"}
        if self.options.memory_bins > 1 and not minimised.intersection(MEMORY):
            raise ConfigError(
                f"scheduler.options.memory_bins: found {self.options.memory_bins}; allowed: 1, unless "
                f"{' or '.join(MEMORY)} is an objective with goal min"
            )
        if self.options.progressive and len(rungs) < 2:
            raise ConfigError(
                f"scheduler.options.progressive: found True; allowed: False, unless two rungs or more lie below "
                f"budget.examples = {max_examples} (found {', '.join(map(str, rungs))})"
            )

    def rungs(self, max_examples: int) -> tuple[int, ...]:
        """Return grace * eta^k below the budget, rounded up to whole examples."""
        return geometric_rungs(self.options.grace_examples, self.options.eta, max_examples)

    def ray_scheduler(
        self, objectives: Sequence["Objective"], max_examples: int, history: Curves = NO_CURVES
    ) -> "TrialScheduler":
        """Return a Ray scheduler whose rungs hold the history's reports."""
        names = [objective.name for objective in objectives]
        settings = HalvingSettings(
            rungs=self.rungs(max_examples),
            columns=len(objectives),
            eta=self.options.eta,
            lead=next((names.index(name) for name in MEMORY if name in names), 0),
            memory_bins=self.options.memory_bins,
            progressive=self.options.progressive,
        )
        halving = Halving(settings)
        reader = ReportReader(tuple((item.name, item.goal) for item in objectives), max_examples)
        halving.replay(reader.of_curves(history))
        return _ray_scheduler(halving, reader)


@dataclass(frozen=True)
class ReportReader:
    """Reads losses from reports."""

    objectives: tuple[tuple[str, str], ...]  # name and goal
    max_examples: int

    def losses(self, report: Mapping[str, Any]) -> tuple[float, ...] | None:
        """Return a report's losses in the order of the objectives; None for the final report.

        Raises:
            DataError: a value is missing or not finite.
        """
        check_report(report, [name for name, _ in self.objectives])
        if report[TIME_ATTRIBUTE] >= self.max_examples:
            return None
        values = [report[rung_field(name)] for name, _ in self.objectives]
        return tuple(to_losses([values], [goal for _, goal in self.objectives])[0].tolist())

    def of_curves(self, curves: Curves) -> Iterator[tuple[str, int, tuple[float, ...]]]:
        """Yield (trial, examples seen, losses) of every report before the final one."""
        for trial_id, curve in curves.items():
            for report in curve:
                losses = self.losses(report)
                if losses is not None:
                    yield trial_id, int(report[TIME_ATTRIBUTE]), losses


def _ray_scheduler(halving: Halving, reader: ReportReader) -> "TrialScheduler":
    """Return Ray's view of a halving. The class stands in here because Ray is only imported where it runs."""
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    class ParetoAshaScheduler(FIFOScheduler):
        _supports_buffered_results = False  # a verdict must not come after more training

        def __init__(self) -> None:
            super().__init__()
            self.halving = halving
            self._metric = rung_field(reader.objectives[0][0])  # Ray wants one name; all are read

        def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
            return True

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            try:
                losses = reader.losses(result)
            except DataError as error:
                # Trials refuse such a report themselves and fail. One that did not must not end the sweep either.
                logger.error("trial %s is stopped: %s", trial.trial_id, error)
                return TrialScheduler.STOP
            if losses is None:
                return TrialScheduler.CONTINUE
            goes_on = self.halving.judge(trial.trial_id, int(result[TIME_ATTRIBUTE]), losses)
            return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

        def debug_string(self) -> str:
            return f"pareto_asha: results at rungs {dict(zip(halving.settings.rungs, halving.seen(), strict=True))}"

        def __reduce__(self) -> Any:
            return _ray_scheduler, (self.halving, reader)

    return ParetoAshaScheduler()
