"""The checks of a whole sweep, from what costs least up, and what they found: how `validate`, `plan` and `run` begin.

Space, forecasts and answers of earlier calls are made once here, and used until the sweep ends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qa_core.data.cache import default_cache_dir
from sweeps.budget import references
from sweeps.budget.earlier_answers import EarlierAnswers
from sweeps.budget.memory import MemoryForecast
from sweeps.budget.references import Reference
from sweeps.checks import readiness
from sweeps.checks.data import DataReport, report_of
from sweeps.space.compile import compile_space
from sweeps.space.space import Space

if TYPE_CHECKING:
    from sweeps.spec.sections import SweepSpec


@dataclass(frozen=True)
class Checked:
    """A sweep that may start.

    Attributes:
        spec: as it was given.
        space: of the spec.
        earlier: answers of earlier calls; whoever asked for more writes them.
        forecast: of the spec, with these answers.
        report: of its data.
    """

    spec: "SweepSpec"
    space: Space
    earlier: EarlierAnswers
    forecast: MemoryForecast
    report: DataReport

    def references(self) -> dict[str, Reference]:
        """Return what `auto` stands for in its objectives, and keep what was worked out for the next call."""
        found = references.find(self.spec, self.space, self.forecast, earlier=self.earlier)
        self.earlier.write()
        return found


def check(
    spec: "SweepSpec", *, is_cluster: bool = False, before_work: Callable[[], None] = lambda: None
) -> Checked:
    """Check the space, whether its recipes can run, and the data.

    Args:
        is_cluster: trials run on other machines; see `readiness.check`.
        before_work: called once, before the first answer that no earlier call knows is worked out.

    Raises:
        ConfigError, DataError, StorageError: name the setting or file, what was found and what is allowed.
    """
    space = compile_space(spec)
    cache_dir = default_cache_dir()
    earlier = EarlierAnswers(cache_dir, before_work=before_work)
    forecast = MemoryForecast.of(spec, earlier)
    with earlier.kept_if_refused():
        readiness.check(spec, space, forecast, is_cluster=is_cluster)
    report = report_of(spec, space, cache_dir=cache_dir, earlier=earlier)
    return Checked(spec, space, earlier, forecast, report)
