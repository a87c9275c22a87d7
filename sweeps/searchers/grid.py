"""Grid search: every legal combination once, ranges cut to a few points."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from qa_core.seeding import numpy_generator
from qa_core.values import Setting, check_ranges
from sweeps.searchers.base import Fingerprint, Proposal, Searcher, fingerprint
from sweeps.space.space import Assignment


@dataclass(frozen=True)
class GridOptions:
    """Options of `grid`."""

    points: Annotated[
        int, Setting("Values of each range, evenly spaced, both ends included.", "values", at_least=1)
    ] = 3
    shuffle: Annotated[
        bool,
        Setting(
            "true proposes in random order, so that a budget that ends early still covers the whole space."
        ),
    ] = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "searcher.options")


class GridSearcher(Searcher):
    """Walks the grid in the order of the spec, its last parameter fastest, or shuffled by seed."""

    name = "grid"
    Options = GridOptions

    def _begin(self) -> None:
        """Start at the first point."""
        self._remaining: Iterator[Assignment] = self._walk()
        self._done: set[Fingerprint] = set()

    def _walk(self) -> Iterator[Assignment]:
        if not self.options.shuffle:
            yield from self.space.grid(self.options.points)
            return
        points = list(self.space.grid(self.options.points))
        for index in numpy_generator(self.seed, "searcher", self.name).permutation(len(points)):
            yield points[index]

    def _next(self, identity: int) -> tuple[Assignment, Mapping[str, Any]] | None:
        refused = 0
        begun = set(map(fingerprint, self._first))  # no place of the walk
        for item in self._remaining:
            if fingerprint(item) in begun:
                continue
            if fingerprint(item) in self._done:
                refused = 0  # what was refused before a remembered point stands in that point's notes
            elif self._is_admitted(item):
                self.refused += refused
                return item, {}
            else:
                refused += 1
        self.refused += refused
        return None

    def _recall(self, proposal: Proposal) -> None:
        self._done.add(fingerprint(proposal.assignment))
