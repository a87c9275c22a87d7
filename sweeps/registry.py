"""Names of searchers and schedulers, and where they live. Adding one is one file and one line here."""

from typing import Any

from qa_core.registry import load

SEARCHERS = {
    "grid": "sweeps.searchers.grid:GridSearcher",
    "optuna": "sweeps.searchers.optuna:OptunaSearcher",
    "random": "sweeps.searchers.random:RandomSearcher",
    "sobol": "sweeps.searchers.sobol:SobolSearcher",
    "surrogate": "sweeps.searchers.surrogate:SurrogateSearcher",
}

SCHEDULERS = {
    "asha": "sweeps.schedulers.asha:Asha",
    "fifo": "sweeps.schedulers.fifo:Fifo",
    "pareto_asha": "sweeps.schedulers.pareto_asha:ParetoAsha",
}


def searcher_class(name: str) -> Any:
    """Return the searcher's class; raises ConfigError with the nearest name when there is none."""
    return load(SEARCHERS, "searcher", name)


def scheduler_class(name: str) -> Any:
    """Return the scheduler's class; raises ConfigError with the nearest name when there is none."""
    return load(SCHEDULERS, "scheduler", name)
