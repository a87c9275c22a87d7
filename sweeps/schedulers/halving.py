"""Asynchronous successive halving on several objectives: who goes on at a rung. Knows nothing of Ray.

A trial that reports at a rung is placed among all results that the rung has seen, its own included: by non-dominated
rank, within a rank by an epsilon net (both in `sweeps/schedulers/ranks.py`). It goes on when it is within the best
`1 / eta` of them, and always when it is on their front. Halving is that of Li et al. 2018 (arXiv 1810.05934) in its
stopping form, the order that of Schmucker et al. 2021 (arXiv 2106.12639, "MO-ASHA"); the guarantee for the front is
ours. It has a price: where everything lies on the front, nothing is stopped. And it is one of this rung's front, not of
the sweep's: at a rung where nobody has learnt anything yet, results differ in memory alone, and trials of larger models
are stopped for it, whatever they would have come to.

All state is a function of the set of results, so that a sweep which is resumed and told its old results goes on as if
it had not stopped. A verdict is one on the results until then: who comes early is compared with few, and the first to
come always goes on. The Ray side is `sweeps/schedulers/pareto_asha.py`.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sweeps.schedulers.ranks import Rows, dominates, is_among_first, layers

STEPS_IN_AN_OCTAVE = 4  # the range of memory grows in steps of 2^(1/4): bands seldom change
ALMOST_NOTHING = 1e-300  # on the logarithmic scale of bands, for what is not positive
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
        self.losses: dict[str, tuple[float, ...]] = {}  # by trial, columns in the order that they were given

    def add(self, trial_id: str, losses: Sequence[float]) -> None:
        """Take in a trial's result; the first one stays when a trial reports twice."""
        self.losses.setdefault(trial_id, tuple(losses))

    def goes_on(self, trial_id: str, *, front_only: bool = False) -> bool:
        """Return whether the trial, whose result is here, is on the front or within the best `1 / eta` of its band."""
        rows = self._rows()
        index = list(self.losses).index(trial_id)
        bands = self._bands(rows)
        own, band = rows[index], rows[bands == bands[index]]
        room = math.floor(len(band) / self._settings.eta)
        better = int(dominates(-own, -band).sum())
        if better == 0:
            return True
        if front_only or better >= room:
            return False
        for layer in layers(band):
            members = band[layer]
            if (members == own).all(axis=1).any():
                return len(layer) <= room or is_among_first(members, own, spans=_spans(rows), room=room)
            room -= len(layer)
            if room <= 0:
                return False
        raise AssertionError("every result lies in a layer")

    def ranks(self, depth: int) -> dict[str, int]:
        """Return the ranks below `depth`, by trial: each within its band."""
        trials = list(self.losses)
        if not trials:
            return {}
        rows = self._rows()
        bands = self._bands(rows)
        members = [np.flatnonzero(bands == band) for band in np.unique(bands)]
        return {
            trials[index]: rank
            for band in members
            for rank, layer in enumerate(islice(layers(rows[band]), depth))
            for index in band[layer]
        }

    def _rows(self) -> Rows:
        """Return [results, losses] in the order they came, the lead column first."""
        rows = np.array(list(self.losses.values()))
        lead = self._settings.lead
        return np.concatenate([rows[:, [lead]], rows[:, :lead], rows[:, lead + 1 :]], axis=1)

    def _bands(self, rows: Rows) -> NDArray[np.int64]:
        """Return [results]: which of the equal parts of the range, on the logarithmic scale, holds the lead column."""
        bins = self._settings.memory_bins
        steps = STEPS_IN_AN_OCTAVE * np.log2(np.maximum(rows[:, 0], ALMOST_NOTHING))
        low = np.floor(steps.min())
        width = max(np.ceil(steps.max()) - low, 1.0)
        return np.minimum(((steps - low) / width * bins).astype(np.int64), bins - 1)


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
    ranks = (lower.ranks(SOFT_RANKS), upper.ranks(SOFT_RANKS))
    return all(
        trial in there
        for here, there, other in ((*ranks, upper), (*ranks[::-1], lower))
        for trial, rank in here.items()
        if rank == 0 and trial in other.losses
    )


def _spans(rows: Rows) -> Rows:
    """Return [losses]: the length of each column's range, 1 where it is 0 and infinity where it is too long."""
    with np.errstate(over="ignore"):
        spans = np.ptp(rows, axis=0)
    return np.where(spans > 0, spans, 1.0)
