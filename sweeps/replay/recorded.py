"""A space restricted to what was recorded, and which recorded recipe answers a proposal.

A searcher draws from ranges what was never trained. Its proposal is answered by the recorded recipe that is nearest
to it: of the same structural combination always (everything that decides legality or that a condition names: family,
checkpoint, methods, ...), with the fewest other choices that differ, and then the least Euclidean distance of the
numbers. A range counts on its own scale, linear or logarithmic, from 0 to 1; a choice between numbers counts by
position, also from 0 to 1. So what was recorded exactly answers for itself, the first time. Each recorded recipe is
given out once as long as its combination has others. After that a proposal of the very same recipe is answered with it
again, as a sweep would train it again; any other one of the combination goes without an answer.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qa_core.errors import DataError
from sweeps.replay.curves import Curve
from sweeps.searchers.base import fingerprint
from sweeps.space.domains import Choice, Domain, IntRange
from sweeps.space.space import Assignment, Parameter, Space

Key = tuple[tuple[str, str], ...]


class RecordedSpace(Space):
    """The combinations of a space of which something was recorded; remembers what `Space` works out at each call."""

    def __init__(self, space: Space, assignments: Sequence[Mapping[str, Any]]) -> None:
        """Keep the legal combinations that occur among the assignments."""
        combinations = {structure(space, assignment) for assignment in assignments}
        super().__init__(
            space.parameters,
            recipe=space.recipe,
            budget_examples=space.budget_examples,
            legal=[item for item in space.legal if fingerprint(item) in combinations],
            structural=space.structural,
            dropped=space.dropped,
        )
        self._recorded = {fingerprint(assignment) for assignment in assignments}
        self._grid: list[Assignment] | None = None
        self._choices: dict[tuple[str, Key], tuple[Any, ...]] = {}

    def legal_choices(self, parameter: Parameter, assignment: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what `Space.legal_choices` returns."""
        if parameter.id not in self.structural:
            return super().legal_choices(parameter, assignment)
        key = (parameter.id, structure(self, assignment))
        if key not in self._choices:
            self._choices[key] = super().legal_choices(parameter, assignment)
        return self._choices[key]

    def grid(self, points: int = 3) -> Iterator[Assignment]:
        """Yield what `Space.grid` yields; of a finite space, what was recorded of it."""
        if not self.is_finite:
            yield from super().grid(points)
            return
        if self._grid is None:
            self._grid = [item for item in super().grid() if fingerprint(item) in self._recorded]
        yield from map(dict, self._grid)


@dataclass
class _Group:
    """The recorded recipes of one structural combination."""

    indices: list[int]  # of the curves
    words: np.ndarray  # [recipes, choices] positions within the choices that are not between numbers
    numbers: np.ndarray  # [recipes, numbers] from 0 to 1
    is_free: np.ndarray  # [recipes]


class Recipes:
    """Answers proposals with recorded recipes, each of them once while there are others."""

    def __init__(self, space: Space, curves: Sequence[Curve]) -> None:
        """Sort the curves by structural combination; see `check_assignment` for what is expected of them."""
        self._space = space
        self._groups: dict[Key, _Group] = {}
        self._exact = {fingerprint(curve.assignment): index for index, curve in enumerate(curves)}
        members: dict[Key, list[int]] = defaultdict(list)
        for index, curve in enumerate(curves):
            members[structure(space, curve.assignment)].append(index)
        for key, indices in members.items():
            placed = [self._place(curves[index].assignment) for index in indices]
            words, numbers = (np.array([item[part] for item in placed], dtype=float) for part in (0, 1))
            self._groups[key] = _Group(indices, words, numbers, np.ones(len(indices), dtype=bool))

    def take(self, assignment: Mapping[str, Any]) -> int | None:
        """Return the index of the curve that answers a proposal; None when there is no answer."""
        group = self._groups.get(structure(self._space, assignment))
        if group is None or not group.is_free.any():
            return self._exact.get(fingerprint(assignment))
        nearest = self._order(group, assignment, ~group.is_free)[0]
        group.is_free[nearest] = False
        return group.indices[nearest]

    def nearest(self, assignment: Mapping[str, Any]) -> int | None:
        """Return the index of the nearest curve of the combination, given out or not; None when it has none."""
        group = self._groups.get(structure(self._space, assignment))
        return None if group is None else group.indices[self._order(group, assignment)[0]]

    def _order(self, group: _Group, assignment: Mapping[str, Any], *first: np.ndarray) -> np.ndarray:
        words, numbers = self._place(assignment)
        differing = (group.words != words).sum(axis=1)
        distance = ((group.numbers - numbers) ** 2).sum(axis=1)
        return np.lexsort((distance, differing, *first))

    def _place(self, assignment: Mapping[str, Any]) -> tuple[list[float], list[float]]:
        words: list[float] = []
        numbers: list[float] = []
        for parameter in self._space.parameters:
            if parameter.id in assignment and parameter.id not in self._space.structural:
                position = _position(parameter.domain, assignment[parameter.id])
                (words if _is_words(parameter.domain) else numbers).append(position)
        return words, numbers


def structure(space: Space, assignment: Mapping[str, Any]) -> Key:
    """Return a hashable stand-in for the part of an assignment that legality depends on."""
    return fingerprint({name: assignment[name] for name in space.structural if name in assignment})


def check_assignment(space: Space, assignment: Mapping[str, Any], combinations: Collection[Key]) -> None:
    """Check that an assignment is one of the space.

    Args:
        combinations: `structure` of each of the space's legal combinations.

    Raises:
        DataError: an active parameter has no value, another one has, a value is not in its domain, or the combination
            is not legal.
    """
    active: Assignment = {}
    for parameter in space.parameters:
        if parameter.is_active(active):
            if parameter.id not in assignment:
                raise DataError(
                    f"assignment: {parameter.id}: found nothing; allowed: a value, it applies here"
                )
            active[parameter.id] = assignment[parameter.id]
            _check_value(parameter, assignment[parameter.id])
    for name in assignment:
        if name not in active:
            raise DataError(f"assignment: {name}: found a value; allowed: none, it does not apply here")
    if structure(space, assignment) not in combinations:
        raise DataError(
            f"assignment: found {dict(assignment)}; allowed: a legal combination of the sweep's space"
        )


def _check_value(parameter: Parameter, value: Any) -> None:
    domain = parameter.domain
    if isinstance(domain, Choice):
        allowed = ", ".join(map(repr, domain.values))
        is_valid = any(type(value) is type(item) and value == item for item in domain.values)
    else:
        allowed = (
            f"{'whole ' if isinstance(domain, IntRange) else ''}numbers from {domain.low} to {domain.high}"
        )
        kinds = (int,) if isinstance(domain, IntRange) else (int, float)
        is_valid = type(value) in kinds and domain.low <= value <= domain.high
    if not is_valid:
        raise DataError(f"assignment: {parameter.id}: found {value!r}; allowed: {allowed}")


def _is_words(domain: Domain) -> bool:
    return isinstance(domain, Choice) and not all(type(value) in (int, float) for value in domain.values)


def _position(domain: Domain, value: Any) -> float:
    if isinstance(domain, Choice):
        index = next(
            index for index, item in enumerate(domain.values) if type(item) is type(value) and item == value
        )
        return float(index) if _is_words(domain) else index / max(1, len(domain.values) - 1)
    low, high, at = float(domain.low), float(domain.high), float(value)
    if domain.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low)
