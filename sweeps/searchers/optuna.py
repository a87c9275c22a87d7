"""Optuna's samplers over the conditional space: multi-objective TPE by default.

Each trial's parameters are suggested in the order of the space, so that a sampler only ever sees active ones.
Optuna fixes the choices of a named parameter for a whole study; where legality narrows a choice, the narrowed
one therefore gets a name of its own. Trials are told as what they are: COMPLETE for the whole budget only,
PRUNED when a scheduler stopped them, FAIL otherwise.

Sources: TPE, Bergstra et al. 2011; its multi-objective form, Ozaki et al. 2022; NSGA-II, Deb et al. 2002.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qa_core.errors import ConfigError, unknown
from qa_core.seeding import derive_seed
from sweeps.domains import Choice, FloatRange, IntRange
from sweeps.searchers.base import Searcher
from sweeps.space import Assignment, Parameter, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import TrialState

    from sweeps.spec import Objective

SAMPLERS = ("tpe", "nsga2", "random")


@dataclass(frozen=True)
class OptunaOptions:
    """Options of `optuna`."""

    sampler: str = "tpe"
    startup_trials: int = 10  # random ones before TPE models anything
    population: int = 20  # of NSGA-II: trials in one generation

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if self.sampler not in SAMPLERS:
            raise ConfigError(f"searcher.options.sampler: {unknown('sampler', self.sampler, SAMPLERS)}")
        if self.startup_trials < 1:
            raise ConfigError(
                f"searcher.options.startup_trials: found {self.startup_trials}; allowed: 1 or more"
            )
        if self.population < 2:
            raise ConfigError(f"searcher.options.population: found {self.population}; allowed: 2 or more")


class OptunaSearcher(Searcher):
    """One Optuna study in memory, asked and told."""

    name = "optuna"
    Options = OptunaOptions

    def __init__(
        self, space: Space, objectives: Sequence["Objective"], *, seed: int, options: Mapping[str, Any]
    ) -> None:
        """Create the study; raises ConfigError for a wrong option."""
        import optuna
        from optuna.study import StudyDirection

        super().__init__(space, objectives, seed=seed, options=options)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
        self.study: Study = optuna.create_study(
            directions=[directions[objective.goal] for objective in self.objectives], sampler=self._sampler()
        )
        self._trial_numbers: dict[int, int] = {}  # of the study, by proposal

    def _sampler(self) -> "BaseSampler":
        from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

        seed = derive_seed(self.seed, "searcher", self.name) % 2**32
        if self.options.sampler == "random":
            return RandomSampler(seed=seed)
        if self.options.sampler == "nsga2":
            return NSGAIISampler(seed=seed, population_size=self.options.population)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant_liar and group count as experimental
            # Joint modelling of parameters needs groups in a conditional space, and one objective to pay off.
            joint = len(self.objectives) == 1
            return TPESampler(
                seed=seed,
                n_startup_trials=self.options.startup_trials,
                constant_liar=True,  # keep concurrent proposals apart
                multivariate=joint,
                group=joint,
            )

    def _next(self, identity: int) -> Assignment:
        trial = self.study.ask()
        self._trial_numbers[identity] = trial.number
        assignment: Assignment = {}
        for parameter, name in self._steps(assignment):
            domain = parameter.domain
            if isinstance(domain, Choice):
                value = trial.suggest_categorical(name, self.space.legal_choices(parameter, assignment))
            elif isinstance(domain, IntRange):
                value = trial.suggest_int(name, domain.low, domain.high, log=domain.log)
            else:
                value = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
            assignment[parameter.id] = value
        return assignment

    def _learn(self, identity: int, assignment: Assignment, status: str, values: list[float] | None) -> None:
        self.study.tell(self._trial_numbers.pop(identity), values, state=_state(status))

    def _recall(self, assignment: Assignment, status: str, values: list[float] | None) -> None:
        from optuna.trial import create_trial

        partial: Assignment = {}
        parameters: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        for parameter, name in self._steps(partial):
            if parameter.id not in assignment:
                raise ValueError(f"the trial to remember has no value for {parameter.id}: {assignment}")
            distributions[name] = self._distribution(parameter, partial)
            partial[parameter.id] = parameters[name] = assignment[parameter.id]
        trial = create_trial(
            state=_state(status), values=values, params=parameters, distributions=distributions
        )
        self.study.add_trial(trial)

    def _steps(self, assignment: Assignment) -> Iterator[tuple[Parameter, str]]:
        """Yield each active parameter and its name in the study; the caller adds its value in between."""
        for parameter in self.space.parameters:
            if not parameter.is_active(assignment):
                continue
            name = parameter.id
            if isinstance(parameter.domain, Choice):
                legal = self.space.legal_choices(parameter, assignment)
                if legal != parameter.domain.values:
                    name = f"{name} of {', '.join(map(str, legal))}"
            yield parameter, name

    def _distribution(self, parameter: Parameter, assignment: Assignment) -> "BaseDistribution":
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        domain = parameter.domain
        if isinstance(domain, FloatRange):
            return FloatDistribution(domain.low, domain.high, log=domain.log)
        if isinstance(domain, IntRange):
            return IntDistribution(domain.low, domain.high, log=domain.log)
        return CategoricalDistribution(self.space.legal_choices(parameter, assignment))


def _state(status: str) -> "TrialState":
    from optuna.trial import TrialState

    states = {"ok": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    return states.get(status, TrialState.FAIL)
