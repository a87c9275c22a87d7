"""What a scheduler is: where trials must report, and which Ray scheduler decides there.

It does not run trials (`sweeps/trials/ray_driver.py`) nor propose them (`sweeps/searchers/`). Ray is imported inside
`ray_scheduler` only, so that a spec can be checked without it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, cast

from qa_core.errors import ConfigError, DataError
from qa_core.values import Setting, from_dict
from sweeps.registry import scheduler_class
from sweeps.spec.objectives import is_cost, measure, rung_field

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from sweeps.schedulers.pausing import Judge
    from sweeps.spec.objectives import Objective

MOST_RUNGS = 1000  # at each, every trial reports and is scored
TIME_ATTRIBUTE = "examples_seen"  # in every report; the final one carries the whole budget

FORMS = "forms"  # in a report of a sweep that lists some: `FormAtRung` of `qa_core/schema.py`

Curves = Mapping[str, Sequence[Mapping[str, Any]]]  # trial id -> its reports, as in a record's `curve`
NO_CURVES: Curves = MappingProxyType({})

# Options that the halving schedulers share.
GraceExamples = Annotated[
    int, Setting("The first rung: no trial is stopped before it.", "windows", at_least=1)
]
Eta = Annotated[
    float, Setting("Rungs lie a factor of eta apart; about the best 1 / eta of a rung continue.", above=1)
]


class Scheduler(ABC):
    """One scheduler with checked options."""

    name: ClassVar[str]
    Options: ClassVar[type]

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def from_options(cls, values: Mapping[str, Any]) -> Self:
        """Check the options and build the scheduler; raises ConfigError with the path of a wrong one."""
        return cls(from_dict(cls.Options, values, path="scheduler.options"))

    def check(self, objectives: Sequence["Objective"], max_examples: int) -> None:
        """Check the options against the sweep; raises ConfigError when they do not fit together."""
        self.rungs(max_examples)

    @abstractmethod
    def rungs(self, max_examples: int) -> tuple[int, ...]:
        """Return the `examples_seen`, rising and below `max_examples`, at which every trial must report.

        Raises:
            ConfigError: the options do not fit the budget.
        """

    def judge(
        self, objectives: Sequence["Objective"], max_examples: int, history: Curves = NO_CURVES
    ) -> "Judge | None":
        """Return what decides on reports and pauses trials; None where Ray's own scheduler decides and pauses none.

        Args:
            history: as for `ray_scheduler`.
        """
        return None

    @abstractmethod
    def ray_scheduler(
        self, objectives: Sequence["Objective"], max_examples: int, history: Curves = NO_CURVES
    ) -> "TrialScheduler":
        """Return the Ray scheduler that decides on the reports, a fresh one at each call.

        Args:
            history: reports of trials that ended in an earlier session of the sweep, which Ray does not keep. The
                scheduler starts as if it had seen them; their order decides nothing. Ids are the sweep's, which the
                ids that Ray gives to new trials never equal.

        Raises:
            DataError: a report of the history cannot be compared.
        """


def make_scheduler(name: str, options: Mapping[str, Any]) -> Scheduler:
    """Build a scheduler; raises ConfigError for an unknown name or option."""
    kind: type[Scheduler] = scheduler_class(name)
    return kind.from_options(options)


def geometric_rungs(grace_examples: int, eta: float, max_examples: int) -> tuple[int, ...]:
    """Return grace * eta^k below the budget, rounded up to whole examples; none where nothing is trained.

    Raises:
        ConfigError: the first rung does not lie below the budget, or there are too many.
    """
    if max_examples == 0:
        return ()
    if grace_examples >= max_examples:
        raise ConfigError(
            f"scheduler.options.grace_examples: found {grace_examples}; allowed: below "
            f"budget.examples = {max_examples}"
        )
    count = math.log(max_examples / max(1, grace_examples)) / math.log1p(eta - 1)
    if count > MOST_RUNGS:
        raise ConfigError(
            f"scheduler.options.eta: found {eta!r}, which makes about {count:.3g} rungs; allowed: at most {MOST_RUNGS} "
            f"for grace_examples {grace_examples} and budget.examples {max_examples}"
        )
    rungs = []
    milestone = float(grace_examples)
    while milestone < max_examples:
        rungs.append(math.ceil(milestone))
        milestone = grace_examples * eta ** len(rungs)
    return tuple(rung for rung in sorted(set(rungs)) if rung < max_examples)


def check_report(report: Mapping[str, Any], objectives: Iterable[str]) -> None:
    """Refuse a report that a scheduler cannot compare; call it inside the trial, before the report is sent.

    Raised there, the error fails that trial alone. Without it, Ray's ASHA takes NaN for "not worse" and
    lets the trial run on, skips a missing value, and raises inside the driver on None.

    Args:
        report: what the trial is about to send.
        objectives: their names; those that are only measured at the end are not looked for.

    Raises:
        DataError: `examples_seen` or an objective's value at rungs is missing, None or not finite, of the report or of
            a stored form that it names.
    """
    objectives = [name for name in objectives if measure(name).rung_field]
    _check_numbers(report, [TIME_ATTRIBUTE, *map(rung_field, objectives)], "")
    costs = [rung_field(name) for name in objectives if is_cost(name)]
    for number, form in enumerate(report.get(FORMS) or ()):
        if not isinstance(form, Mapping) or not isinstance(form.get("kind"), str):
            raise DataError(
                f"the trial's report: {FORMS}[{number}]: found {form!r}; allowed: one with its kind"
            )
        _check_numbers(form, costs, f"{FORMS}[{number}].")


def _check_numbers(values: Mapping[str, Any], names: Iterable[str], place: str) -> None:
    for name in names:
        value = values.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(cast(float, value)):
            found = repr(value) if name in values else "nothing"
            raise DataError(f"the trial's report: {place}{name}: found {found}; allowed: a finite number")
