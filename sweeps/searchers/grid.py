"""Grid search: every legal combination once, ranges cut to a few points."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qa_core.errors import ConfigError
from qa_core.seeding import numpy_generator
from sweeps.searchers.base import Searcher, fingerprint
from sweeps.space import Assignment, Space

if TYPE_CHECKING:
    from sweeps.spec import Objective


@dataclass(frozen=True)
class GridOptions:
    """Options of `grid`."""

    points: int = 3  # of each range, evenly spaced, both ends included
    shuffle: bool = False  # a shuffled grid that the budget cuts short still covers the whole space

    def __post_init__(self) -> None:
        """Check the range."""
        if self.points < 1:
            raise ConfigError(f"searcher.options.points: found {self.points}; allowed: 1 or more")


class GridSearcher(Searcher):
    """Walks the grid in the order of the spec, its last parameter fastest, or shuffled by seed."""

    name = "grid"
    Options = GridOptions

    def __init__(
        self, space: Space, objectives: Sequence["Objective"], *, seed: int, options: Mapping[str, Any]
    ) -> None:
        """Start at the first point."""
        super().__init__(space, objectives, seed=seed, options=options)
        self._remaining: Iterator[Assignment] = self._walk()
        self._done: set[tuple[tuple[str, str], ...]] = set()

    def _walk(self) -> Iterator[Assignment]:
        if not self.options.shuffle:
            yield from self.space.grid(self.options.points)
            return
        points = list(self.space.grid(self.options.points))
        for index in numpy_generator(self.seed, "searcher", self.name).permutation(len(points)):
            yield points[index]

    def _next(self, identity: int) -> Assignment | None:
        return next((item for item in self._remaining if fingerprint(item) not in self._done), None)

    def _recall(self, assignment: Assignment, status: str, values: list[float] | None) -> None:
        self._done.add(fingerprint(assignment))
