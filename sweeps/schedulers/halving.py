"""Asynchronous successive halving on several objectives: who goes on at a rung. Knows nothing of Ray.

A trial that reports at a rung is placed among all results that the rung has seen, its own included: by non-dominated
rank (`sweeps/schedulers/layers.py`), within a rank by an epsilon net (`sweeps/schedulers/nets.py`). It goes on when it
is within the best `1 / eta` of them, and always when it is on their front. Halving is that of Li et al. 2018 (arXiv
1810.05934) in its stopping form, the order that of Schmucker et al. 2021 (arXiv 2106.12639, "MO-ASHA"); the guarantee
for the front is ours. It has a price: where everything lies on the front, nothing is stopped. And it is one of this
rung's front, not of the sweep's: at a rung where nobody has learnt anything yet, results differ in memory alone, and
trials of larger models are stopped for it, whatever they would have come to.

All state is a function of the set of results, so that a sweep which is resumed and told its old results goes on as if
it had not stopped. A verdict is one on the results until then: who comes early is compared with few, and the first to
come always goes on. The Ray side is `sweeps/schedulers/pareto_asha.py`.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from sweeps.schedulers.layers import Layers, Point
from sweeps.schedulers.nets import is_among_first

STEPS_IN_AN_OCTAVE = 4  # the range of memory grows in steps of 2^(1/4): bands seldom have to be made anew
SOFT_RANKS = 2  # ranking: who is on the front of one rung is in the first two layers of its neighbour


@dataclass(frozen=True)
class HalvingSettings:
    """How trials are judged.

    Attributes:
        rungs: rising budgets.
        columns: losses of a result, less is better.
        eta: about the best `1 / eta` of a rung go on.
        lead: the column where the epsilon net begins, at its least value; `memory_bins` cuts this column.
        memory_bins: trials are compared within bands of the lead column, each spanning the same ratio.
        progressive: see `Halving.ceiling`.
    """

    rungs: tuple[int, ...]
    columns: int
    eta: float
    lead: int = 0
    memory_bins: int = 1
    progressive: bool = False


class Rung:
    """The results of one rung, one for each trial."""

    def __init__(self, settings: HalvingSettings) -> None:
        self._settings = settings
        self.losses: dict[str, Point] = {}  # by trial, columns in the order that they were given
        self._points: dict[str, Point] = {}  # lead column first, two columns at least
        self._trials: dict[Point, list[str]] = {}
        self._lows: Point = ()
        self._highs: Point = ()
        self._range: tuple[int, int] = (0, 0)
        self._bands: dict[int, Layers] = {}

    def add(self, trial_id: str, losses: Sequence[float]) -> None:
        """Take in a trial's result; the first one stays when a trial reports twice."""
        if trial_id in self.losses:
            return
        lead = self._settings.lead
        point = (losses[lead], *losses[:lead], *losses[lead + 1 :])
        point = point if len(point) > 1 else (*point, 0.0)
        self.losses[trial_id] = tuple(losses)
        self._points[trial_id] = point
        self._trials.setdefault(point, []).append(trial_id)
        self._lows = tuple(map(min, self._lows or point, point))
        self._highs = tuple(map(max, self._highs or point, point))
        if self._settings.memory_bins > 1 and self._grown_range() != self._range:
            self._range = self._grown_range()
            self._bands = {}
            for item in self._points.values():
                self._insert(item)
        else:
            self._insert(point)

    def goes_on(self, trial_id: str, *, front_only: bool = False) -> bool:
        """Return whether the trial, whose result is here, is on the front or within the best `1 / eta`."""
        point = self._points[trial_id]
        layers = self._bands[self._band(point)]
        rank = layers.rank(point)
        if rank == 0:
            return True
        if front_only or rank > layers.cut:
            return False
        if rank < layers.cut:
            return True
        spans = tuple(high - low or 1.0 for low, high in zip(self._lows, self._highs, strict=True))
        return is_among_first(layers[rank], point, spans=spans, room=layers.room)

    def rank(self, trial_id: str) -> int:
        """Return the rank of a trial's result within its band."""
        point = self._points[trial_id]
        return self._bands[self._band(point)].rank(point)

    def front(self) -> list[str]:
        """Return the trials on the front of their band."""
        fronts = (layers[0].points() for layers in self._bands.values())
        return [trial for front in fronts for point in front for trial in self._trials[point]]

    def _insert(self, point: Point) -> None:
        band = self._band(point)
        if band not in self._bands:
            self._bands[band] = Layers(len(point), self._settings.eta)
        self._bands[band].insert(point)

    def _band(self, point: Point) -> int:
        """Return which of the equal parts of the range, on the logarithmic scale, holds the lead column."""
        bins = self._settings.memory_bins
        if bins == 1:
            return 0
        low, high = self._range
        return min(bins - 1, int((_steps(point[0]) - low) / (high - low) * bins))

    def _grown_range(self) -> tuple[int, int]:
        low, high = math.floor(_steps(self._lows[0])), math.ceil(_steps(self._highs[0]))
        return low, max(high, low + 1)


class Halving:
    """All rungs of a sweep. Pickles; `state` and `from_state` go through JSON."""

    def __init__(self, settings: HalvingSettings) -> None:
        self.settings = settings
        self._rungs = [Rung(settings) for _ in settings.rungs]
        self._agreements: dict[int, tuple[tuple[int, int], bool]] = {}

    def judge(self, trial_id: str, budget: int, losses: Sequence[float]) -> bool:
        """Take in a trial's report and return whether it goes on.

        A report counts at the highest rung within its budget; before the first rung, and at a rung where the trial
        was judged before (it was restarted from a checkpoint), it goes on.

        Raises:
            ValueError: the losses are too few, too many or not finite; nothing was taken in.
        """
        index = self._index(budget)
        self._check(losses)
        if index is None or trial_id in self._rungs[index].losses:
            return True
        self._rungs[index].add(trial_id, losses)
        return self._rungs[index].goes_on(trial_id, front_only=index >= self.ceiling())

    def replay(self, reports: Iterable[tuple[str, int, Sequence[float]]]) -> None:
        """Take in (trial, budget, losses) of an earlier session without judging, in whatever order they come.

        Raises:
            ValueError: as `judge`.
        """
        for trial_id, budget, losses in sorted((trial, seen, tuple(found)) for trial, seen, found in reports):
            self._check(losses)
            index = self._index(budget)
            if index is not None:
                self._rungs[index].add(trial_id, losses)

    def ceiling(self) -> int:
        """Return the index of the first rung where only the front goes on; the number of rungs for none.

        With `progressive`, trials beyond the front are sent on only as long as longer training still changes who
        is good (Bohdal et al. 2023, arXiv 2207.06940, "PASHA"): the ceiling is the first rung, from the second on,
        that agrees with the rung below it. Two rungs agree when each trial on the front of one, if the other has
        seen it, is there in the first two layers. In PASHA the ceiling ends training; here those on its front go
        on to the whole budget, because nothing else can be a point of the sweep's front. It looks at all members
        of both fronts when either rung has a new result.
        """
        if not self.settings.progressive:
            return len(self._rungs)
        return next((index for index in range(1, len(self._rungs)) if self._agrees(index)), len(self._rungs))

    def state(self) -> dict[str, Any]:
        """Return settings and results as JSON values."""
        results = [{trial: list(losses) for trial, losses in rung.losses.items()} for rung in self._rungs]
        return {"settings": {**asdict(self.settings), "rungs": list(self.settings.rungs)}, "results": results}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the halving that `state` described."""
        settings = HalvingSettings(**{**state["settings"], "rungs": tuple(state["settings"]["rungs"])})
        halving = cls(settings)
        halving.replay(
            (trial, budget, losses)
            for budget, results in zip(settings.rungs, state["results"], strict=True)
            for trial, losses in results.items()
        )
        return halving

    def seen(self) -> list[int]:
        """Return how many results each rung has."""
        return [len(rung.losses) for rung in self._rungs]

    def _index(self, budget: int) -> int | None:
        index = bisect_right(self.settings.rungs, budget) - 1
        return None if index < 0 else index

    def _check(self, losses: Sequence[float]) -> None:
        if len(losses) != self.settings.columns or not all(map(math.isfinite, losses)):
            raise ValueError(f"losses: found {losses!r}; allowed: {self.settings.columns} finite numbers")

    def _agrees(self, index: int) -> bool:
        lower, upper = self._rungs[index - 1], self._rungs[index]
        sizes = (len(lower.losses), len(upper.losses))
        if self._agreements.get(index, ((-1, -1), False))[0] != sizes:
            self._agreements[index] = (sizes, _fronts_agree(lower, upper))
        return self._agreements[index][1]


def _fronts_agree(lower: Rung, upper: Rung) -> bool:
    return all(
        other.rank(trial) < SOFT_RANKS
        for rung, other in ((upper, lower), (lower, upper))
        for trial in rung.front()
        if trial in other.losses
    )


def _steps(value: float) -> float:
    """Return the logarithm in which bands are counted; what is not positive counts as almost nothing."""
    return STEPS_IN_AN_OCTAVE * math.log2(max(value, 1e-300))
