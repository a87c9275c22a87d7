"""No early stopping: every trial gets the whole budget, and reports a few times on the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from qa_core.values import Setting, check_ranges
from sweeps.schedulers.base import NO_CURVES, Curves, Scheduler

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from sweeps.spec.objectives import Objective


@dataclass(frozen=True)
class FifoOptions:
    """Options of `fifo`."""

    reports: Annotated[
        int, Setting("Reports before the end, evenly spaced; 0: none.", "reports", at_least=0)
    ] = 3
    at: Annotated[
        tuple[int, ...] | None,
        Setting("Windows seen at which to report instead. null: as reports says.", "windows", at_least=1),
    ] = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "scheduler.options")


class Fifo(Scheduler):
    """First in, first out."""

    name = "fifo"
    Options = FifoOptions

    def rungs(self, max_examples: int) -> tuple[int, ...]:
        """Return the named points, or those that cut the budget into `reports + 1` equal parts, rounded."""
        parts = self.options.reports + 1
        evenly = (round(max_examples * part / parts) for part in range(1, parts))
        points = set(evenly if self.options.at is None else self.options.at)
        return tuple(sorted(point for point in points if 0 < point < max_examples))

    def ray_scheduler(
        self, objectives: Sequence["Objective"], max_examples: int, history: Curves = NO_CURVES
    ) -> "TrialScheduler":
        """Return Ray's FIFO scheduler, which compares nothing and needs no history."""
        from ray.tune.schedulers import FIFOScheduler

        return FIFOScheduler()
