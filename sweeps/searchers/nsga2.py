"""Optuna's NSGA-II without state of its own, so that a study can be rebuilt from its trials alone.

Used by `sweeps/searchers/optuna.py`, which imports it when a sweep asks for it. Optuna crosses the parameters that
every finished trial has and draws all others anew: in a conditional space, learning rates that depend on the methods
are not inherited. Children that inherit them too were tried and were no better on made-up objectives (docs/LOG.md).

Source: Deb et al. 2002.
"""

from typing import TYPE_CHECKING, Any

from optuna.samplers import NSGAIISampler, RandomSampler

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


class StatelessNsga2(NSGAIISampler):
    """The sampler of one request. Of all that it finds out, only the trial's generation stays in the study.

    Optuna stores the generation under the name of this class, and records keep it.
    """

    def __init__(self, *, population: int, seed: int, seed_of_draws: int) -> None:
        """Seed both generators.

        Args:
            population: trials in one generation.
            seed: of selection and crossover, from 0 to 2**32 - 1.
            seed_of_draws: of the values drawn anew. Optuna seeds both alike; where each request starts them afresh,
                the choice of a parent would then decide the drawn values.
        """
        super().__init__(population_size=population, seed=seed)
        self._draws = RandomSampler(seed=seed_of_draws)
        self._parents: dict[int, list[FrozenTrial]] = {}

    def before_trial(self, study: "Study", trial: "FrozenTrial") -> None:
        """Give the trial its generation, even when all of its values are given and none is asked for."""
        super().before_trial(study, trial)
        self.get_trial_generation(study, trial)

    def get_parent_population(self, study: "Study", generation: int) -> list["FrozenTrial"]:
        """Return the parents of a generation, from all finished trials of the earlier ones; none for generation 0.

        Optuna stores them in the study when they are first asked for, so that they depend on who was finished then,
        and leaves out for ever who was not.
        """
        for earlier in range(1, generation + 1):  # from the oldest on, since each asks for the one before
            if earlier not in self._parents:
                self._parents[earlier] = self.select_parent(study, earlier)
        return self._parents.get(generation, [])

    def sample_independent(
        self, study: "Study", trial: "FrozenTrial", param_name: str, param_distribution: "BaseDistribution"
    ) -> Any:
        """Return a new value: of a mutated parameter, or of one that not every finished trial has."""
        return self._draws.sample_independent(study, trial, param_name, param_distribution)
