"""Random search: independent draws, without repeating a recipe while there are others."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import numpy as np

from qa_core.seeding import numpy_generator
from qa_core.values import Setting
from sweeps.searchers.base import Fingerprint, Proposal, Searcher, fingerprint
from sweeps.space.known_recipes import known_recipes
from sweeps.space.space import Assignment, Space

DRAWS = 200  # before the grid is searched for what is left
WALKED = 5000  # recipes of the grid that are looked at


@dataclass(frozen=True)
class RandomOptions:
    """Options of `random`."""

    known: Annotated[
        bool, Setting("true begins with one known-good recipe of each family and product of methods.")
    ] = False


class RandomSearcher(Searcher):
    """Draws from the space; a finite space that is used up starts to repeat, with other trial seeds."""

    name = "random"
    Options = RandomOptions

    def _begin(self) -> None:
        """Start with nothing seen."""
        self._seen: set[Fingerprint] = set()
        known = known_recipes(self.space, seed=self.seed) if self.options.known else []
        self._known = [item for item in known if self._is_admitted(item)]
        self.refused = len(known) - len(self._known)

    def _next(self, identity: int) -> tuple[Assignment, Mapping[str, Any]] | None:
        assignment = next((item for item in self._known if fingerprint(item) not in self._seen), None)
        if assignment is None:
            rng = numpy_generator(self.seed, "searcher", self.name, identity)
            assignment, refused = draw(self.space, rng, is_admitted=self._is_admitted, seen=self._seen)
            self.refused += refused
        if assignment is None:
            return None
        self._seen.add(fingerprint(assignment))
        return assignment, {}

    def _recall(self, proposal: Proposal) -> None:
        self._seen.add(fingerprint(proposal.assignment))


def draw(
    space: Space,
    rng: np.random.Generator,
    *,
    is_admitted: Callable[[Assignment], bool],
    seen: Collection[Fingerprint],
) -> tuple[Assignment | None, int]:
    """Return a random recipe that is admitted, an unseen one where one is found, and how many draws were refused.

    After `DRAWS` draws, the recipe is one of the grid, whose ranges are cut to three points: of its first `WALKED`
    recipes, so that the search ends. The recipe is None when all these draws and recipes are refused.
    """
    refused, repeat = 0, None
    for _ in range(DRAWS):
        assignment = space.sample(rng)
        if not is_admitted(assignment):
            refused += 1
        elif fingerprint(assignment) in seen:
            repeat = assignment
        else:
            return assignment, refused
    admitted = [item for item in islice(space.grid(), WALKED) if is_admitted(item)]
    unseen = [item for item in admitted if fingerprint(item) not in seen]
    left = unseen or ([repeat] if repeat else admitted)
    return (left[int(rng.integers(len(left)))] if left else None), refused
