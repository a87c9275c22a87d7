"""NSGA-II for a conditional space: Optuna's, with children that inherit conditional parameters too.

Optuna's own crosses the parameters that every finished trial has and draws all others anew in each trial: where
learning rates and ranks depend on the methods, these never evolve. Here a child takes each parameter from one of its
parents that has it. Selection, elitism and the operators' defaults are Optuna's (uniform crossover; a mutated
parameter is drawn anew).

It also leaves nothing behind in the study but the generation of each trial. Optuna's own stores the parents of a
generation when the first child is born, so that they depend on who was finished at that moment.

Source: Deb et al. 2002. Used by `searchers/optuna.py`, which imports it when a sweep asks for it.
"""

from typing import TYPE_CHECKING, Any

from optuna.samplers import NSGAIISampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from qa_core.seeding import numpy_generator

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

CROSSOVER_SHARE = 0.9  # of the children; the others have one parent


class ConditionalNsga2(NSGAIISampler):
    """The sampler of one trial."""

    def __init__(self, *, population: int, seed: int) -> None:
        """Seed what is drawn for this trial.

        Args:
            population: trials in one generation.
            seed: from 0 to 2**32 - 1.
        """
        super().__init__(population_size=population, seed=seed)
        self._breeding = numpy_generator(seed, "breeding")  # apart from the draws of what mutates
        self._parents: dict[int, list[FrozenTrial]] = {}

    def before_trial(self, study: "Study", trial: "FrozenTrial") -> None:
        """Give the trial its generation, even when all of its values are given and none is asked for."""
        super().before_trial(study, trial)
        self.get_trial_generation(study, trial)

    def get_parent_population(self, study: "Study", generation: int) -> list["FrozenTrial"]:
        """Return the parents of a generation, from the finished trials alone; none for the first generation."""
        for earlier in range(1, generation + 1):  # from the oldest on, since each asks for the one before
            if earlier not in self._parents:
                self._parents[earlier] = self.select_parent(study, earlier)
        return self._parents.get(generation, [])

    def infer_relative_search_space(
        self, study: "Study", trial: "FrozenTrial"
    ) -> dict[str, "BaseDistribution"]:
        """Return every parameter that a finished trial has and that can take several values."""
        space: dict[str, BaseDistribution] = {}
        for finished in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            space.update(finished.distributions)
        return {name: space[name] for name in sorted(space) if not space[name].single()}

    def sample_relative(
        self, study: "Study", trial: "FrozenTrial", search_space: dict[str, "BaseDistribution"]
    ) -> dict[str, Any]:
        """Return a child's values: of all parameters of its parents but those that mutate, active or not."""
        candidates = self.get_parent_population(study, self.get_trial_generation(study, trial))
        if not candidates:
            return {}
        rng = self._breeding
        parents = [self._tournament(study, candidates)]
        others = [item for item in candidates if item.number != parents[0].number]
        if others and rng.random() < CROSSOVER_SHARE:
            parents.append(self._tournament(study, others))
        mutating = 1 / max(1, sum(name in search_space for name in parents[0].params))
        child = {}
        for name in search_space:
            values = [parent.params[name] for parent in parents if name in parent.params]
            if values and rng.random() >= mutating:
                child[name] = values[int(rng.integers(len(values)))]
        return child

    def _tournament(self, study: "Study", candidates: list["FrozenTrial"]) -> "FrozenTrial":
        first, second = (candidates[int(self._breeding.integers(len(candidates)))] for _ in range(2))
        return first if _dominates(study, first, second) else second


def _dominates(study: "Study", one: "FrozenTrial", other: "FrozenTrial") -> bool:
    signs = [-1 if item == StudyDirection.MAXIMIZE else 1 for item in study.directions]
    gaps = [sign * (a - b) for sign, a, b in zip(signs, one.values, other.values, strict=True)]
    return max(gaps) <= 0 and min(gaps) < 0
