"""Search with a model of the recipes: it learns from every report, those of stopped and running trials too.

At each proposal a Gaussian process (`sweeps/searchers/gaussian_process.py`) is fitted to each objective that is not
known beforehand, over the recipe (`sweeps/searchers/encoding.py`), the examples seen on a logarithm, and whether the
value is of a report or of the finished artifact. One function is drawn from it (Thompson 1933) at a few hundred random
recipes and at those that may still finish. What is known of a recipe before it starts, such as its memory, is taken as
it is (`Forecast`). Proposed is the recipe that would add the most volume to the front of the finished trials and of
what is drawn for the open ones. A training that is stored in several forms is all of these points at once; that a form
answers a little worse than its twin is left out, for finished trials as well. A new trial of any recipe costs the same
examples to its first rung, so there is no price to divide by.

The greatest expected improvement instead of a draw proposes alike recipes to workers that ask at the same time, and
stays where it is.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from qa_core.seeding import numpy_generator
from qa_core.values import Setting, check_ranges
from sweeps.front import pareto
from sweeps.front.volume import improvements
from sweeps.searchers.base import Fingerprint, Proposal, Searcher, fingerprint
from sweeps.searchers.encoding import Encoding
from sweeps.searchers.gaussian_process import GaussianProcess
from sweeps.searchers.random import RandomSearcher, draw
from sweeps.space.space import Assignment
from sweeps.spec.objectives import PREDICTED

CANDIDATES = 256  # recipes that are looked at for one proposal
FITTED = 400  # values that the model knows: see `_kept`
SCALED = 128  # of these, from which its scales are fitted
OPEN = 64  # trials that may still finish, the latest
APART = 0.1  # distance from the end between the values of two rungs: a factor 1.4 in examples
RUNG_SPAN = 27.0  # the budget over the examples at which a report counts as far as another value of a setting

Array = NDArray[np.float64]
Row = tuple[float, int, bool, float]  # distance from the end, trial, whether final, value
Known = list[list[float]]  # [forms, objectives] of a recipe before it starts; NaN where nothing is known


@dataclass(frozen=True)
class SurrogateOptions:
    """Options of `surrogate`."""

    startup_trials: Annotated[
        int, Setting("Trials with a report or a result before the model proposes.", "trials", at_least=2)
    ] = 4
    random_every: Annotated[
        int,
        Setting("Each so many-th proposal is random, whatever the model says.", "proposals", at_least=2),
    ] = 5

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "searcher.options")


class SurrogateSearcher(Searcher):
    """Proposes what a draw of the model would add to the front.

    Random proposals are those of `random` with the same seed. Where the model sees no gain the proposal is random too.
    """

    name = "surrogate"
    Options = SurrogateOptions

    def _begin(self) -> None:
        """Start with nothing seen."""
        self._encoding = Encoding(self.space)
        self._seen: set[Fingerprint] = set()
        self._recipes: dict[int, Assignment] = {}
        self._places: dict[int, Array] = {}
        self._combinations: dict[int, Fingerprint] = {}
        self._stored: dict[int, Known] = {}
        self._reports: dict[int, dict[int, list[float | None]]] = defaultdict(dict)
        self._finals: dict[int, list[float]] = {}
        self._failed: set[int] = set()

    def _next(self, identity: int) -> tuple[Assignment, Mapping[str, Any]] | None:
        assignment = None
        if identity % self.options.random_every and self._knows_enough():
            assignment = self._modelled(numpy_generator(self.seed, "searcher", self.name, identity))
        if assignment is None:
            rng = numpy_generator(self.seed, "searcher", RandomSearcher.name, identity)
            assignment, refused = draw(self.space, rng, is_admitted=self._is_admitted, seen=self._seen)
            self.refused += refused
        if assignment is None:
            return None
        self._keep(identity, assignment)
        return assignment, {}

    def _recall(self, proposal: Proposal) -> None:
        self._keep(proposal.id, proposal.assignment)

    def _observe(self, identity: int, examples: int, values: list[float | None]) -> None:
        self._reports[identity][examples] = values

    def _learn(self, identity: int, assignment: Assignment, status: str, values: list[float] | None) -> None:
        if values is not None:
            self._finals[identity] = values
        elif status != "stopped":
            self._failed.add(identity)

    def _keep(self, identity: int, assignment: Mapping[str, Any]) -> None:
        self._seen.add(fingerprint(assignment))
        self._recipes[identity] = dict(assignment)
        self._places[identity] = self._encoding.place(assignment)
        self._combinations[identity] = self._combination(assignment)

    def _knows_enough(self) -> bool:
        return len(self._reports.keys() | self._finals.keys()) >= self.options.startup_trials

    def _modelled(self, rng: np.random.Generator) -> Assignment | None:
        """Return the admitted recipe that would add the most; None where nothing would, or nothing can be said."""
        candidates = self._candidates(rng)
        running = sorted(self._open)[-OPEN:]
        forms = [*map(self._forms, candidates), *map(self._forms_of, running)]
        places = [*map(self._encoding.place, candidates), *(self._places[identity] for identity in running)]
        values = self._drawn(forms, places, rng) if candidates else None
        if values is None:
            return None
        losses = self._losses(values)  # [recipes, forms, objectives]
        there = [losses[len(candidates) :].reshape(-1, len(self.objectives))]
        front = np.vstack([*there, *map(self._losses, self._finished())])
        worst = self._losses(np.array([[objective.worst for objective in self.objectives]]))[0]
        gains = improvements(losses[: len(candidates)], front, worst.tolist())
        gains *= self._chances(candidates)
        for index in np.argsort(-gains, kind="stable"):
            if gains[index] <= 0:
                break
            if self._is_admitted(candidates[index]):
                return candidates[index]
            self.refused += 1
        return None

    def _candidates(self, rng: np.random.Generator) -> list[Assignment]:
        """Return new recipes, each once."""
        found: dict[Fingerprint, Assignment] = {}
        for _ in range(CANDIDATES):
            assignment = self.space.sample(rng)
            found.setdefault(fingerprint(assignment), assignment)
        return [item for key, item in found.items() if key not in self._seen]

    def _chances(self, candidates: Sequence[Assignment]) -> Array:
        """Return [candidates] the share of trials of a candidate's combination that do not fail, one more on each side.

        A trial that fails adds nothing and leaves no value from which the model could learn to avoid it.
        """
        tried: dict[Fingerprint, int] = defaultdict(int)
        failed: dict[Fingerprint, int] = defaultdict(int)
        for identity, combination in self._combinations.items():
            tried[combination] += 1
            failed[combination] += identity in self._failed
        keys = [self._combination(item) for item in candidates]
        return np.array([1.0 - failed[key] / (tried[key] + 1) for key in keys])

    def _combination(self, recipe: Mapping[str, Any]) -> Fingerprint:
        return fingerprint({name: recipe[name] for name in self.space.structural if name in recipe})

    def _drawn(
        self, forms: Sequence[Known], places: Sequence[Array], rng: np.random.Generator
    ) -> Array | None:
        """Return [recipes, forms, objectives] values: what is known, else drawn; None where one was never seen."""
        most = max(map(len, forms))
        # Where a recipe has fewer forms than another one, its first stands for those that are missing.
        known = np.array([[*found, *found[:1] * (most - len(found))] for found in forms])
        at = np.array([_point(place, 0.0, is_final=True) for place in places])
        for column, objective in enumerate(self.objectives):
            is_open = np.isnan(known[:, :, column])
            if not is_open.any():
                continue
            model = self._model(column)
            if model is None:
                return None
            is_fixed = objective.name in PREDICTED and self.forecast is not None
            found = model.posterior(at)[0] if is_fixed else model.draw(at, rng)
            found = np.minimum(found, 100.0) if objective.measured_unit == "%" else found
            known[:, :, column] = np.where(is_open, found[:, None], known[:, :, column])
        return known

    def _forms(self, recipe: Assignment) -> Known:
        """Return what is known before a start of each form that a training is stored in; NaN where nothing is."""
        forms = [{}] if self.forecast is None else self.forecast(recipe)
        return [[values.get(objective.name, np.nan) for objective in self.objectives] for values in forms]

    def _forms_of(self, identity: int) -> Known:
        """Return the same of a proposal, found out once."""
        if identity not in self._stored:
            self._stored[identity] = self._forms(self._recipes[identity])
        return self._stored[identity]

    def _finished(self) -> Iterator[Array]:
        """Yield [forms, objectives] of each finished trial; of several forms, each is taken to answer as the twin."""
        for identity in sorted(self._finals):
            final = np.array(self._finals[identity])
            forms = np.array(self._forms_of(identity))
            yield final[None] if len(forms) == 1 else np.where(np.isnan(forms), final, forms)

    def _losses(self, values: Array) -> Array:
        """Return values [..., objectives] as losses."""
        goals = [objective.goal for objective in self.objectives]
        return pareto.to_losses(values.reshape(-1, len(goals)), goals).reshape(values.shape)

    def _model(self, column: int) -> GaussianProcess | None:
        """Return the model of an objective; None while it has no value."""
        rows: list[Row] = []
        for identity, reports in self._reports.items():
            for examples, values in reports.items():
                if (value := values[column]) is not None:
                    rows.append((self._distance(examples), identity, False, value))
        rows += [(0.0, identity, True, values[column]) for identity, values in self._finals.items()]
        if not rows:
            return None
        rows = _kept(rows)
        points = np.array([_point(self._places[trial], away, is_final=end) for away, trial, end, _ in rows])
        groups = np.concatenate([self._encoding.groups, len(self._encoding.paths) + np.arange(2)])
        return GaussianProcess.fit(points, groups, np.array([row[3] for row in rows]), most=SCALED)

    def _distance(self, examples: int) -> float:
        """Return how far a report is from the end of the budget; nothing where nothing is trained."""
        return float(np.log(self.space.budget_examples / examples) / np.log(RUNG_SPAN)) if examples else 0.0


def _kept(rows: Sequence[Row]) -> list[Row]:
    """Return at most `FITTED` values in order: those nearest to the end first, and of the last that fit an even choice.

    Even over the trials: where the first ones stayed and the latest were left out, the model would go on proposing what
    it has proposed, and never learn how that came out. A batch more or less makes no value nearer: values are of
    one rung unless `APART` or more lies between them.
    """
    rungs: list[list[Row]] = []
    for row in sorted(rows):
        if not rungs or row[0] - rungs[-1][-1][0] >= APART:
            rungs.append([])
        rungs[-1].append(row)
    kept: list[Row] = []
    for rung in rungs:
        group, room = sorted(rung, key=lambda row: row[1:]), FITTED - len(kept)
        if len(group) > room:
            group = [group[place] for place in np.linspace(0, len(group) - 1, room).round().astype(int)]
        kept += group
    return sorted(kept)


def _point(place: Array, away: float, *, is_final: bool) -> Array:
    return np.array([*place, away, float(is_final)])
