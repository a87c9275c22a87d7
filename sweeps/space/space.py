"""The search space: which recipes a sweep can propose.

A `Space` holds parameters in order, some conditional on earlier ones, and the legal combinations of everything that
decides legality (family, head, checkpoint, methods). Searchers sample it; trials turn an assignment into a recipe.
It is made from a spec, and combinations are walked and checked, in `compile.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from qa_core.config import RunConfig
from qa_core.errors import ConfigError, unknown
from qa_core.values import from_dict
from sweeps.progress.recipe_words import recipe_words
from sweeps.space.domains import Choice, Domain
from sweeps.space.paths import FAMILY_PATH, METHODS_PATH, method_names

PLAIN_IN_LABELS = (FAMILY_PATH, METHODS_PATH, "model.checkpoint")

Assignment = dict[str, Any]


@dataclass(frozen=True)
class Condition:
    """Holds when the setting at `path`, searched under one of `ids`, has one of the values.

    For `methods`, a value holds when all of its methods are in the chosen product: "lora" in "lora+quantize"; with
    `exactly`, when they are the chosen product, in any order.
    """

    path: str
    ids: tuple[str, ...]
    values: tuple[Any, ...]
    exactly: bool = False

    def holds(self, assignment: Mapping[str, Any]) -> bool:
        """Tell whether it holds; False when the setting is not active."""
        return any(identity in assignment and self.matches(assignment[identity]) for identity in self.ids)

    def matches(self, found: Any) -> bool:
        """Tell whether a value of the setting satisfies it."""
        if self.path != METHODS_PATH:
            return any(type(found) is type(value) and found == value for value in self.values)
        chosen = set(method_names(found))
        wanted = [set(method_names(value)) for value in self.values]
        return any(names == chosen if self.exactly or not names else names <= chosen for names in wanted)


@dataclass(frozen=True)
class Parameter:
    """One searched setting. `id` is its path, numbered where several entries search the same path."""

    id: str
    path: str
    domain: Domain
    conditions: tuple[Condition, ...] = ()

    def is_active(self, assignment: Mapping[str, Any]) -> bool:
        """Tell whether it applies, given the earlier parameters."""
        return all(condition.holds(assignment) for condition in self.conditions)


@dataclass(frozen=True)
class Dropped:
    """Combinations that are never proposed: the values they share, by parameter id, and why."""

    assignment: Mapping[str, Any]
    reason: str


class Space:
    """All legal recipes of a sweep. Built by `compile_space`."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        *,
        recipe: Mapping[str, Any],
        budget_examples: int,
        legal: Sequence[Mapping[str, Any]],
        structural: Sequence[str],
        dropped: Sequence[Dropped] = (),
    ) -> None:
        self.parameters = tuple(parameters)
        self.recipe = recipe
        self.budget_examples = budget_examples
        self.legal = tuple(legal)  # assignments of the structural parameters
        self.structural = tuple(structural)  # ids of the parameters that legality depends on
        self.dropped = tuple(dropped)

    def __contains__(self, identity: str) -> bool:
        return any(parameter.id == identity for parameter in self.parameters)

    def legal_choices(self, parameter: Parameter, assignment: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the choices of an active parameter from which a legal recipe can still be reached.

        Args:
            parameter: one with a `Choice` domain.
            assignment: values of the active earlier parameters.
        """
        assert isinstance(parameter.domain, Choice)
        if parameter.id not in self.structural:
            return parameter.domain.values
        earlier = self.structural[: self.structural.index(parameter.id)]
        given = [(identity, assignment[identity]) for identity in earlier if identity in assignment]
        reachable = [
            item[parameter.id]
            for item in self.legal
            if parameter.id in item and all(item.get(identity) == value for identity, value in given)
        ]
        return tuple(value for value in parameter.domain.values if value in reachable)

    def sample(self, rng: np.random.Generator) -> Assignment:
        """Return a random legal assignment of the active parameters, in order."""
        assignment: Assignment = {}
        for parameter in self.parameters:
            if parameter.is_active(assignment):
                domain = parameter.domain
                if isinstance(domain, Choice):
                    domain = Choice(self.legal_choices(parameter, assignment))
                assignment[parameter.id] = domain.sample(rng)
        return assignment

    def grid(self, points: int = 3) -> Iterator[Assignment]:
        """Yield every legal assignment, ranges cut to `points` values; the last parameter varies fastest."""
        yield from self._extend({}, 0, points)

    @property
    def is_finite(self) -> bool:
        """True when every parameter is a choice."""
        return all(isinstance(parameter.domain, Choice) for parameter in self.parameters)

    def label(self, assignment: Mapping[str, Any]) -> str:
        """Return an assignment in a few words, for progress lines: "bert lora tiny lr=0.003 rank=8"."""
        paths = {parameter.id: parameter.path for parameter in self.parameters}
        values = {paths[identity]: value for identity, value in assignment.items()}
        family, methods, checkpoint = (str(values.pop(path, "")) for path in PLAIN_IN_LABELS)
        return recipe_words(values, family=family, methods=methods, checkpoint=checkpoint)

    def to_run_config(
        self, assignment: Mapping[str, Any], *, seed: int, rungs: Sequence[int] = ()
    ) -> RunConfig:
        """Return the recipe of an assignment.

        Args:
            assignment: values of its active parameters, by id.
            seed: of the trial.
            rungs: `examples_seen` at which the trial reports.

        Raises:
            ConfigError: an id is not in the space, or a value is refused.
        """
        values = recipe_values(self.recipe, self.parameters, assignment)
        train = {**values.get("train", {}), "budget_examples": self.budget_examples, "rungs": list(rungs)}
        return from_dict(RunConfig, {**values, "train": train, "seed": seed})

    def _extend(self, assignment: Assignment, index: int, points: int) -> Iterator[Assignment]:
        if index == len(self.parameters):
            yield dict(assignment)
            return
        parameter = self.parameters[index]
        if not parameter.is_active(assignment):
            yield from self._extend(assignment, index + 1, points)
            return
        domain = parameter.domain
        if isinstance(domain, Choice):
            domain = Choice(self.legal_choices(parameter, assignment))
        for value in domain.grid(points):
            yield from self._extend({**assignment, parameter.id: value}, index + 1, points)


def recipe_values(
    recipe: Mapping[str, Any], parameters: Sequence[Parameter], assignment: Mapping[str, Any]
) -> dict[str, Any]:
    """Return nested `RunConfig` values: the shared recipe with the assignment laid over it.

    Where the space searches `methods`, the recipe's own `methods` are the options of those that are chosen.
    """
    paths = {parameter.id: parameter.path for parameter in parameters}
    values = deepcopy(dict(recipe))
    shared = values.get(METHODS_PATH) or {}
    chosen: Sequence[str] = tuple(shared)
    for identity, value in assignment.items():
        if identity not in paths:
            raise ConfigError(unknown("parameter of the space", identity, paths))
        if paths[identity] == METHODS_PATH:
            chosen = method_names(value)
    values[METHODS_PATH] = {name: dict(shared.get(name) or {}) for name in chosen}
    for identity, value in assignment.items():
        *sections, setting = paths[identity].split(".")
        if sections or setting != METHODS_PATH:
            target = values
            for section in sections:
                target = target.setdefault(section, {})
            target[setting] = value
    return values
