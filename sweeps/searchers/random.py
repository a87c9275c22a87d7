"""Random search: independent draws, without repeating a recipe while there are others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qa_core.seeding import numpy_generator
from sweeps.searchers.base import Searcher, fingerprint
from sweeps.space import Assignment, Space

if TYPE_CHECKING:
    from sweeps.spec import Objective

DRAWS = 200  # before a finite space is searched for what is left


@dataclass(frozen=True)
class RandomOptions:
    """`random` has no options."""


class RandomSearcher(Searcher):
    """Draws from the space; a finite space that is used up starts to repeat, with other trial seeds."""

    name = "random"
    Options = RandomOptions

    def __init__(
        self, space: Space, objectives: Sequence["Objective"], *, seed: int, options: Mapping[str, Any]
    ) -> None:
        """Start with the generator of this seed."""
        super().__init__(space, objectives, seed=seed, options=options)
        self._rng = numpy_generator(seed, "searcher", self.name)
        self._seen: set[tuple[tuple[str, str], ...]] = set()

    def _next(self, identity: int) -> Assignment:
        assignment = self.space.sample(self._rng)
        for _ in range(DRAWS):
            if fingerprint(assignment) not in self._seen:
                break
            assignment = self.space.sample(self._rng)
        else:
            assignment = self._unseen() or assignment
        self._seen.add(fingerprint(assignment))
        return assignment

    def _unseen(self) -> Assignment | None:
        if not self.space.is_finite:
            return None
        left = [item for item in self.space.grid() if fingerprint(item) not in self._seen]
        return left[int(self._rng.integers(len(left)))] if left else None

    def _recall(self, assignment: Assignment, status: str, values: list[float] | None) -> None:
        self._seen.add(fingerprint(assignment))
