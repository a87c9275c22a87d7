"""Names of searchers and schedulers, and where they live. Adding one is one file and one line here."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from qa_core.errors import ConfigError, unknown

if TYPE_CHECKING:
    from sweeps.schedulers.base import Scheduler
    from sweeps.searchers.base import Searcher
    from sweeps.space.space import Assignment, Space
    from sweeps.spec.load import SweepSpec

SEARCHERS = {
    "grid": "sweeps.searchers.grid:GridSearcher",
    "optuna": "sweeps.searchers.optuna:OptunaSearcher",
    "random": "sweeps.searchers.random:RandomSearcher",
}

SCHEDULERS = {
    "asha": "sweeps.schedulers.asha:Asha",
    "fifo": "sweeps.schedulers.fifo:Fifo",
    "pareto_asha": "sweeps.schedulers.pareto_asha:ParetoAsha",
}


def searcher_class(name: str) -> type["Searcher"]:
    """Return the searcher's class; raises ConfigError with the nearest name when there is none."""
    return _load(SEARCHERS, "searcher", name)


def scheduler_class(name: str) -> type["Scheduler"]:
    """Return the scheduler's class; raises ConfigError with the nearest name when there is none."""
    return _load(SCHEDULERS, "scheduler", name)


def make_searcher(
    spec: "SweepSpec", space: "Space", admits: "Callable[[Assignment], bool] | None" = None
) -> "Searcher":
    """Build the searcher of a sweep, seeded by it; raises ConfigError for an unknown name or option.

    A recipe for which `admits` is False is never proposed.
    """
    kind = searcher_class(spec.searcher.name)
    return kind(space, spec.objectives, seed=spec.seed, options=spec.searcher.options, admits=admits)


def make_scheduler(name: str, options: Mapping[str, Any]) -> "Scheduler":
    """Build a scheduler; raises ConfigError for an unknown name or option."""
    return scheduler_class(name).from_options(options)


def _load(table: Mapping[str, str], kind: str, name: str) -> Any:
    if name not in table:
        raise ConfigError(unknown(kind, name, table))
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
