"""Evenly spread random search: scrambled Sobol points, in turn for each product of family and methods.

No model and no memory of results, so it is the plain measure for searchers that learn: `random` may leave a family or a
product of methods out for long, and its draws leave gaps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qa_core.seeding import derive_seed, numpy_generator
from sweeps.searchers.base import Fingerprint, Proposal, Searcher, fingerprint
from sweeps.searchers.random import RandomSearcher, draw
from sweeps.space.domains import Choice
from sweeps.space.paths import FAMILY_PATH, METHODS_PATH, method_names
from sweeps.space.space import Assignment, Space

if TYPE_CHECKING:
    from scipy.stats.qmc import Sobol


POINTS = 64  # of a stratum that are looked at before its turn is over
POINTS_NOTE = "sobol_points"  # of each stratum that was looked at: its number and that of its next point

Stratum = tuple[str, tuple[str, ...]]  # family and methods in alphabetical order, as far as they are searched


@dataclass(frozen=True)
class SobolOptions:
    """Options of `sobol`: none."""


class SobolSearcher(Searcher):
    """Gives each product of family and methods one proposal a round, in an order that changes from round to round.

    A point whose recipe was proposed before, or is refused, is passed over. Where all products bring nothing new, the
    recipe is drawn as `random` does.

    Source: scrambled Sobol points, Owen 1998, as in `scipy.stats.qmc`.
    """

    name = "sobol"
    Options = SobolOptions

    def _begin(self) -> None:
        """Start at the first point of each product."""
        self._seen: set[Fingerprint] = set()
        self._legal: dict[Stratum, list[Mapping[str, Any]]] = {}
        for item in self.space.legal:
            self._legal.setdefault(_stratum(self.space, item), []).append(item)
        self._strata = sorted(self._legal)
        self._points = [
            _Points(len(self.space.parameters), derive_seed(self.seed, "searcher", self.name, number) % 2**32)
            for number in range(len(self._strata))
        ]

    def _next(self, identity: int) -> tuple[Assignment, Mapping[str, Any]] | None:
        turn, place = divmod(identity, len(self._strata))
        order = numpy_generator(self.seed, "searcher", self.name, "round", turn).permutation(
            len(self._strata)
        )
        looked_at: list[list[int]] = []
        assignment = None
        for number in map(int, (*order[place:], *order[:place])):
            assignment = self._new_of(number)
            looked_at.append([number, self._points[number].at])
            if assignment is not None:
                break
        else:
            rng = numpy_generator(self.seed, "searcher", RandomSearcher.name, identity)
            assignment, refused = draw(self.space, rng, is_admitted=self._is_admitted, seen=self._seen)
            self.refused += refused
        if assignment is None:
            return None
        self._seen.add(fingerprint(assignment))
        return assignment, {POINTS_NOTE: looked_at}

    def _new_of(self, number: int) -> Assignment | None:
        """Return the next recipe of a stratum that is admitted and new; None where its next points bring none."""
        for _ in range(POINTS):
            point = self._points[number].next()
            assignment = self._assignment(self._legal[self._strata[number]], point)
            if fingerprint(assignment) not in self._seen:
                if self._is_admitted(assignment):
                    return assignment
                self.refused += 1
        return None

    def _recall(self, proposal: Proposal) -> None:
        self._seen.add(fingerprint(proposal.assignment))
        for number, at in proposal.notes.get(POINTS_NOTE, ()):
            self._points[number].go_to(at)

    def _assignment(self, legal: Sequence[Mapping[str, Any]], point: Sequence[float]) -> Assignment:
        """Return the recipe at a point, one coordinate for each parameter, among those with a legal combination."""
        assignment: Assignment = {}
        for parameter, share in zip(self.space.parameters, point, strict=True):
            if not parameter.is_active(assignment):
                continue
            domain = parameter.domain
            if isinstance(domain, Choice) and parameter.id in self.space.structural:
                reachable = [item[parameter.id] for item in legal if parameter.id in item]
                domain = Choice(tuple(value for value in domain.values if value in reachable))
            value = assignment[parameter.id] = domain.at(share)
            if parameter.id in self.space.structural:
                legal = [item for item in legal if item.get(parameter.id) == value]
        return assignment


class _Points:
    """The points of one stratum, one after another; `at` is the number of the next one, from 0."""

    def __init__(self, dimensions: int, seed: int) -> None:
        self._dimensions, self._seed = dimensions, seed
        self.at = 0
        self._engine: Sobol | None = None

    def next(self) -> list[float]:
        """Return the coordinates of the next point, each from 0 to below 1."""
        from scipy.stats.qmc import Sobol

        if self._engine is None:
            self._engine = Sobol(self._dimensions, scramble=True, rng=self._seed)
            if self.at:
                self._engine.fast_forward(self.at)
        self.at += 1
        return [float(share) for share in self._engine.random(1)[0]]

    def go_to(self, at: int) -> None:
        """Let the next point be that of this number."""
        self.at, self._engine = at, None


def _stratum(space: Space, legal: Mapping[str, Any]) -> Stratum:
    paths = {parameter.id: parameter.path for parameter in space.parameters}
    values = {paths[identity]: value for identity, value in legal.items()}
    return str(values.get(FAMILY_PATH)), tuple(sorted(method_names(values.get(METHODS_PATH, "full"))))
