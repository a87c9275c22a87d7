"""Asynchronous successive halving on all objectives of the sweep: early stopping that keeps the front of each rung.

The rule, its sources and its price are in `sweeps/schedulers/halving.py`; here are the options and Ray's view of it.
Every objective must be measured at rungs: one that is not would be dropped in silence, and with it the promise.

There is no option for a maximum: it is the sweep's `budget.examples`.

Trials pause at rungs. Ray's own way was tried with Ray 2.60 and left: Ray counts paused trials among
`max_concurrent_trials`, so that two of them stopped a sweep of two slots for good (3 of 6 trials were ever proposed);
and without that limit paused trials that are never promoted keep the sweep from ending, since Ray does not tell a
scheduler that no more trials will come. So a trial that pauses ends for Ray. Its checkpoint stays, and the driver
proposes it again when it may go on (`sweeps/trials/driver.py`).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from qa_core.errors import ConfigError, DataError
from qa_core.values import Setting, check_ranges
from sweeps.front.pareto import to_losses
from sweeps.schedulers.base import (
    FORMS,
    NO_CURVES,
    TIME_ATTRIBUTE,
    Curves,
    Eta,
    GraceExamples,
    Scheduler,
    check_report,
    geometric_rungs,
)
from sweeps.schedulers.forms import FormLosses
from sweeps.schedulers.halving import AtFloor, Beaten, Halving, HalvingSettings, Result
from sweeps.schedulers.pausing import Candidates, Situation, Verdict
from sweeps.spec.objectives import is_cost, rung_field

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from sweeps.spec.objectives import Objective

MEMORY = ("memory_mb", "memory_batch8_mb")  # what bands can be cut of; the first that is an objective counts
GAIN, GAIN_ERROR = "selection_gain_percent", "selection_gain_error_percent"  # of a report, see `Progress`
FLOOR_ERRORS = (
    2.0  # standard errors of the paired difference to the baseline, up to which a result is at the floor
)

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
    floor: Annotated[
        AtFloor,
        Setting(
            "From the second rung on, what becomes of a trial whose EM on the selection questions is not above the "
            "best trivial baseline by more than 2 standard errors of the paired difference. pause: it keeps its "
            "checkpoint and gives up its worker. off: it is compared as all others."
        ),
    ] = "pause"
    beaten: Annotated[
        Beaten,
        Setting(
            "What becomes of a trial that is beaten and not within the best 1 / eta of its rung so far. pause: it "
            "keeps its checkpoint and goes on once the rung has room for it; for searchers that propose good recipes "
            "first."
        ),
    ] = "stop"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "scheduler.options")


class ParetoAsha(Scheduler):
    """Halving by non-dominated rank; a trial on the front of its rung is never stopped."""

    name = "pareto_asha"
    Options = ParetoAshaOptions

    @classmethod
    def from_options(cls, values: Mapping[str, Any]) -> Self:
        """Check the options; YAML 1.1 reads `floor: off` as false."""
        is_off = values.get("floor") is False
        return super().from_options({**values, "floor": "off"} if is_off else values)

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

    def judge(
        self, objectives: Sequence["Objective"], max_examples: int, history: Curves = NO_CURVES
    ) -> "ParetoJudge":
        """Return what decides at rungs, which hold the history's reports.

        A history with reports that do not compare with a baseline is of an older version: its sweep goes on as it
        began, without a floor.
        """
        rungs = self.rungs(max_examples)
        reader = ReportReader(tuple((item.name, item.goal) for item in objectives), max_examples)
        judged = [
            report
            for curve in history.values()
            for report in curve
            if rungs and rungs[0] <= report.get(TIME_ATTRIBUTE, -1) < max_examples
        ]
        settings = HalvingSettings(
            rungs=rungs,
            columns=len(objectives),
            eta=self.options.eta,
            lead=reader.lead,
            memory_bins=self.options.memory_bins,
            progressive=self.options.progressive,
            beaten=self.options.beaten,
            floor=self.options.floor if all(GAIN in report for report in judged) else "off",
        )
        judge = ParetoJudge(Halving(settings), reader)
        judge.halving.replay(reader.of_curves(history))
        for curve in history.values():
            judge.note_baseline(curve[-1] if curve else {})
        return judge

    def ray_scheduler(
        self, objectives: Sequence["Objective"], max_examples: int, history: Curves = NO_CURVES
    ) -> "TrialScheduler":
        """Return a Ray scheduler whose rungs hold the history's reports; a trial that pauses ends for Ray."""
        return _ray_scheduler(self.judge(objectives, max_examples, history))


@dataclass(frozen=True)
class ReportReader:
    """Reads results from reports."""

    objectives: tuple[tuple[str, str], ...]  # name and goal
    max_examples: int

    @property
    def lead(self) -> int:
        """The column of memory, in which the largest form is found too; without one the first."""
        names = [name for name, _ in self.objectives]
        return next((names.index(name) for name in MEMORY if name in names), 0)

    def result(self, report: Mapping[str, Any]) -> Result | None:
        """Return a report's result, losses in the order of the objectives; None for the final report.

        Where the report names stored forms, each has the quality of the report and its own costs.

        Raises:
            DataError: a value is missing or not finite.
        """
        check_report(report, [name for name, _ in self.objectives])
        if report[TIME_ATTRIBUTE] >= self.max_examples:
            return None
        forms = report.get(FORMS) or ()
        values = [
            [(form if is_cost(name) else report)[rung_field(name)] for name, _ in self.objectives]
            for form in forms or [report]
        ]
        rows = [tuple(row) for row in to_losses(values, [goal for _, goal in self.objectives]).tolist()]
        largest = max(rows, key=lambda row: (row[self.lead], row))
        by_form = tuple(FormLosses(str(form["kind"]), row) for form, row in zip(forms, rows, strict=False))
        return Result(largest, is_at_floor(report), report.get("train_loss"), by_form)

    def of_curves(self, curves: Curves) -> Iterator[tuple[str, int, Result]]:
        """Yield (trial, examples seen, result) of every report before the final one."""
        for trial_id, curve in curves.items():
            for report in curve:
                result = self.result(report)
                if result is not None:
                    yield trial_id, int(report[TIME_ATTRIBUTE]), result


def is_at_floor(report: Mapping[str, Any]) -> bool:
    """Return whether a report's EM is not above the best trivial baseline, as far as its questions can tell.

    That is: the paired difference is at most 2 of its own standard errors. The error is 0 where the network answers as
    the baseline does; False where one of the two is not in the report.
    """
    gain, error = report.get(GAIN), report.get(GAIN_ERROR)
    return gain is not None and error is not None and gain <= FLOOR_ERRORS * error


class ParetoJudge:
    """Decides on reports as they come; a `Judge` of `sweeps/schedulers/pausing.py`. Pickles."""

    def __init__(self, halving: Halving, reader: ReportReader) -> None:
        self.halving, self.reader = halving, reader
        self._baseline = "the best trivial baseline"

    def verdict(self, trial_id: str, report: Mapping[str, Any]) -> Verdict:
        """Take in a report and return what becomes of its trial.

        Raises:
            DataError: a value is missing or not finite; nothing was taken in.
        """
        result = self.reader.result(report)
        if result is None:
            return Verdict.GO_ON
        self.note_baseline(report)
        return self.halving.judge(trial_id, int(report[TIME_ATTRIBUTE]), result)

    def candidates(self, situation: Situation) -> Candidates:
        """Return what becomes of the paused trials when a worker is free."""
        return self.halving.candidates(situation)

    def expendable(self, paused: Mapping[str, int]) -> list[str]:
        """Return the paused trials that can be stopped for their disk space, the worst first."""
        return self.halving.expendable(paused)

    def why(self, trial_id: str, examples_seen: int) -> str:
        """Return in a few words why a trial is paused."""
        if self.halving.is_held(trial_id, examples_seen):
            return f"at the score of {self._baseline}"
        if self.halving.is_settled(examples_seen):
            return "behind others at this rung, so far"
        return f"fewer than {self.halving.settings.eta:g} results at this rung"

    def silent_rungs(self) -> dict[int, str]:
        """Return a line for each rung where no trial is above the floor."""
        return {
            rung: f"rung {rung} tells nothing yet: {count} of {count} trials at the score of {self._baseline}"
            for rung, count in self.halving.silent()
        }

    def note_baseline(self, report: Mapping[str, Any]) -> None:
        """Remember which baseline a report compares with; it is that of the selection questions, the same in all."""
        if name := report.get("selection_baseline"):
            self._baseline = str(name).replace("_", " ")


def _ray_scheduler(judge: ParetoJudge) -> "TrialScheduler":
    """Return Ray's view of a halving. The class stands in here because Ray is only imported where it runs."""
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    class ParetoAshaScheduler(FIFOScheduler):
        _supports_buffered_results = False  # a verdict must not come after more training

        def __init__(self) -> None:
            super().__init__()
            self.judge, self.halving = judge, judge.halving
            self.verdicts: dict[str, Verdict] = {}  # the last one on each trial, by the sweep's id
            self._metric = rung_field(judge.reader.objectives[0][0])  # Ray wants one name; all are read

        def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
            return True

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            # Ray gives a trial that is taken up again another id; the sweep's own is in its configuration.
            trial_id = str((getattr(trial, "config", None) or {}).get("trial_id", trial.trial_id))
            try:
                verdict = self.judge.verdict(trial_id, result)
            except DataError as error:
                # Trials refuse such a report themselves and fail. One that did not must not end the sweep either.
                logger.error("trial %s is stopped: %s", trial_id, error)
                verdict = Verdict.STOP
            self.verdicts[trial_id] = verdict
            return TrialScheduler.CONTINUE if verdict is Verdict.GO_ON else TrialScheduler.STOP

        def debug_string(self) -> str:
            settings, seen = self.halving.settings, self.halving.seen()
            return f"pareto_asha: results at rungs {dict(zip(settings.rungs, seen, strict=True))}"

        def __reduce__(self) -> Any:
            return _ray_scheduler, (self.judge,)

    return ParetoAshaScheduler()
