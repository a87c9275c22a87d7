"""Optuna's samplers over the conditional space: multi-objective TPE by default.

Each trial's parameters are suggested in the order of the space, so that a sampler only ever sees active ones.
Optuna fixes the choices of a named parameter for a whole study; where legality narrows a choice, the narrowed
one therefore gets a name of its own.

Trials are told as what they are: COMPLETE for the whole budget only, PRUNED when a scheduler stopped them, FAIL
otherwise. A recipe that is refused before it runs is PRUNED with a violated constraint: it has no values, so COMPLETE
would be made up, and Optuna's samplers never look at FAIL. TPE counts it among the bad ones. NSGA-II breeds from
COMPLETE trials only, which are all feasible: there, a refused child is just not born.

Left to themselves, samplers propose the recipes they like again and again, and in a finite space a sweep would train
little else. A recipe that was proposed before is therefore asked for anew; such requests are FAIL in the study, where
no sampler looks.

Rebuilding: each request has a sampler of its own, seeded by the proposal's id and the attempt. What Optuna writes down
while a trial is requested depends on who was finished at that moment and cannot be rebuilt later: the generation
that NSGA-II gives it, and the values that TPE drew for parameters not yet asked for, which keep concurrent proposals
apart. These attributes go into the notes, and so do the refused recipes, which are trials of the study as well.

Sources: TPE, Bergstra et al. 2011; its multi-objective form, Ozaki et al. 2022; NSGA-II, Deb et al. 2002.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from qa_core.seeding import derive_seed, numpy_generator
from qa_core.values import Setting, check_ranges
from sweeps.searchers.base import Fingerprint, Proposal, Searcher, fingerprint
from sweeps.searchers.random import draw
from sweeps.space.domains import Choice, FloatRange, IntRange
from sweeps.space.known_recipes import known_recipes
from sweeps.space.space import Assignment, Parameter

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState


SAMPLERS = ("tpe", "nsga2", "random")
# TPE takes a tenth of the trials for good ones, refused ones last. With at most 8 refused for each that ran, a refused
# one never gets there while all that ran end well.
ATTEMPTS = 8
ATTRIBUTES_NOTE, REFUSED_RECIPES_NOTE = "optuna_attributes", "refused_recipes"
VIOLATED = {"admitted": 1.0}  # above 0 is a violation


@dataclass(frozen=True)
class OptunaOptions:
    """Options of `optuna`."""

    sampler: Annotated[str, Setting("Optuna's sampler.", allowed=SAMPLERS)] = "tpe"
    startup_trials: Annotated[
        int, Setting("Random trials before TPE models anything.", "trials", at_least=1)
    ] = 10
    population: Annotated[int, Setting("Trials in one generation of NSGA-II.", "trials", at_least=2)] = 20
    known: Annotated[
        bool, Setting("true begins with one known-good recipe of each family and product of methods.")
    ] = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "searcher.options")


class OptunaSearcher(Searcher):
    """One Optuna study in memory, asked and told.

    A request that brings a recipe that is refused or was proposed before is made again up to `ATTEMPTS` times, then the
    recipe is drawn as `random` does, which repeats one only in a finite space that is used up. Nothing is left to
    propose when its draws and its grid hold no recipe that is admitted.
    """

    name = "optuna"
    Options = OptunaOptions

    def _begin(self) -> None:
        """Create the study."""
        import optuna
        from optuna.study import StudyDirection

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
        self.study: Study = optuna.create_study(
            directions=[directions[objective.goal] for objective in self.objectives]
        )
        self._trial_numbers: dict[int, int] = {}  # of the study, by proposal
        self._seen: set[Fingerprint] = set()
        self._refused_trials = 0  # of the study
        known = known_recipes(self.space, seed=self.seed) if self.options.known else []
        self._known = [item for item in known if self._is_admitted(item)]
        self.refused = len(known) - len(self._known)

    def _next(self, identity: int) -> tuple[Assignment, Mapping[str, Any]] | None:
        # Before the study is asked: what it learnt on the way to nothing would stand in no proposal's notes.
        rng = numpy_generator(self.seed, "searcher", self.name, identity)
        spare, draws = draw(self.space, rng, is_admitted=self._is_admitted, seen=self._seen)
        if spare is None:
            self.refused += draws
            return None
        known = next((item for item in self._known if fingerprint(item) not in self._seen), None)
        asked, refused = self._ask(identity) if known is None else (None, [])
        assignment = next(item for item in (asked, known, spare) if item is not None)
        self.refused += len(refused)
        if asked is None:
            return assignment, self._given(identity, assignment, refused)
        return assignment, self._noted(identity, assignment, refused)

    def _given(
        self, identity: int, assignment: Assignment, refused: Sequence[Assignment] = ()
    ) -> Mapping[str, Any]:
        """Enter a recipe that no sampler suggested, as if one had; returns its notes."""
        self._enter(assignment)
        self.study.sampler = self._sampler(identity, ATTEMPTS)
        self.study.sampler.before_trial(self.study, self._latest())
        return self._noted(identity, assignment, refused)

    def _noted(
        self, identity: int, assignment: Assignment, refused: Sequence[Assignment]
    ) -> Mapping[str, Any]:
        """Return what must be known of the study's latest trial to rebuild it."""
        self._proposed(identity, assignment)
        notes = {ATTRIBUTES_NOTE: dict(self._latest().system_attrs), REFUSED_RECIPES_NOTE: list(refused)}
        return {key: value for key, value in notes.items() if value}

    def _ask(self, identity: int) -> tuple[Assignment | None, list[Assignment]]:
        """Return the sampler's first new recipe that is admitted, None if it took too long, and the refused ones."""
        refused: list[Assignment] = []
        for attempt in range(ATTEMPTS):
            self.study.sampler = self._sampler(identity, attempt)
            trial = self.study.ask()
            assignment = self._suggest(trial)
            if fingerprint(assignment) in self._seen:
                self.study.tell(trial, state=_state("failed"))
                continue
            if self._is_admitted(assignment):
                return assignment, refused
            for key, value in VIOLATED.items():
                trial.set_constraint(key, value)
            self.study.tell(trial, state=_state("stopped"))
            self._refused_trials += 1
            refused.append(assignment)
        return None, refused

    def _sampler(self, identity: int, attempt: int) -> "BaseSampler":
        """Return the sampler of one request: none before it has touched its generator."""
        from optuna.samplers import RandomSampler, TPESampler

        from sweeps.searchers.nsga2 import StatelessNsga2

        names = ("searcher", self.name, identity, attempt)
        seed = derive_seed(self.seed, *names) % 2**32
        if self.options.sampler == "random":
            return RandomSampler(seed=seed)
        if self.options.sampler == "nsga2":
            draws = derive_seed(self.seed, *names, "draws") % 2**32
            return StatelessNsga2(population=self.options.population, seed=seed, seed_of_draws=draws)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # group counts as experimental
            # Joint modelling of parameters needs groups in a conditional space, and one objective to pay off.
            joint = len(self.objectives) == 1
            return TPESampler(
                seed=seed,
                # First, known and refused recipes are trials of the study, but not random ones.
                n_startup_trials=self.options.startup_trials
                + len(self._first)
                + len(self._known)
                + self._refused_trials,
                constant_liar=True,  # keep concurrent proposals apart
                multivariate=joint,
                group=joint,
            )

    def _suggest(self, trial: "Trial") -> Assignment:
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
        self.study.tell(self._trial_numbers[identity], values, state=_state(status))

    def _recall(self, proposal: Proposal) -> None:
        for assignment in proposal.notes.get(REFUSED_RECIPES_NOTE, ()):
            self._enter(assignment, state=_state("stopped"), constraints=VIOLATED)
            self._refused_trials += 1
        self._enter(proposal.assignment, system_attrs=dict(proposal.notes.get(ATTRIBUTES_NOTE, {})))
        self._proposed(proposal.id, proposal.assignment)

    def _proposed(self, identity: int, assignment: Assignment) -> None:
        self._trial_numbers[identity] = self._latest().number
        self._seen.add(fingerprint(assignment))

    def _latest(self) -> "FrozenTrial":
        return self.study.get_trials(deepcopy=False)[-1]

    def _enter(self, assignment: Assignment, **details: Any) -> None:
        """Add a recipe that no sampler suggested to the study, as a trial that runs unless a state is given."""
        from optuna.trial import TrialState, create_trial

        partial: Assignment = {}
        parameters: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        for parameter, name in self._steps(partial):
            if parameter.id not in assignment:
                raise ValueError(f"the trial to remember has no value for {parameter.id}: {assignment}")
            distributions[name] = self._distribution(parameter, partial)
            partial[parameter.id] = parameters[name] = assignment[parameter.id]
        details = {"state": TrialState.RUNNING, **details}
        self.study.add_trial(create_trial(params=parameters, distributions=distributions, **details))

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
