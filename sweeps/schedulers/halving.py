"""Asynchronous successive halving on several objectives: who goes on at a rung. Knows nothing of Ray.

A trial that reports at a rung is placed among all results that the rung has seen, its own included: by non-dominated
rank, within a rank by an epsilon net (both in `sweeps/schedulers/ranks.py`). Where the sweep lists stored forms, who
beats whom is decided form by form (`sweeps/schedulers/forms.py`); the net spreads over the losses of the largest form.
There are three verdicts:

- *pause*, while the rung has fewer than `eta` results: who comes first is not preferred for it.
- *pause* (or *stop*), from the second rung on, at the floor: a result that is no better than the best trivial baseline
  on the same questions says nothing yet. Without this rule memory alone would decide at such a rung, and larger models
  would be stopped for it, whatever they would have come to.
- *stop*, if it is beaten and not within the best `1 / eta` of the rung. Who is on the rung's front goes on. With
  `beaten: pause` it waits instead: where a searcher proposes good recipes first, the early results of a rung are better
  than the late ones, and the best `1 / eta` of them is too few.

A paused trial is judged again when its rung has `eta` results, or when no new or running trial can reach the rung any
more; a beaten one that waits, whenever its rung has a new result. One at the floor stays paused, with one exception
(`Halving.candidates`). Halving is that of Li et al. 2018 (arXiv 1810.05934), the order that of Schmucker et al. 2021
(arXiv 2106.12639, "MO-ASHA"); the guarantee is ours: at the end of a sweep that was let run to it, no trial that is on
its rung's front and above the floor is stopped or paused. It has a price: where everything lies on the front, nothing
is stopped.

All state is a function of the set of results, so that a sweep which is resumed and told its old results goes on as if
it had not stopped. The options and Ray's side are in `sweeps/schedulers/pareto_asha.py`, what a free worker does in
`sweeps/schedulers/pausing.py`.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sweeps.schedulers.forms import FormLosses, FormRanks
from sweeps.schedulers.pausing import Candidates, Situation, Verdict, in_order_of_proposal
from sweeps.schedulers.ranks import Rows, dominates, is_among_first, layers

STEPS_IN_AN_OCTAVE = 4  # the range of memory grows in steps of 2^(1/4): bands seldom change
ALMOST_NOTHING = 1e-300  # on the logarithmic scale of bands, for what is not positive
SOFT_RANKS = 2  # ranking: who is on the front of one rung is in the first two layers of its neighbour
FIRST_FLOOR = 1  # index of the rung from which the floor counts

AtFloor = Literal["pause", "stop", "off"]
Beaten = Literal["stop", "pause"]


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
        floor: what becomes of a trial at the floor.
        beaten: what becomes of a trial that is beaten and not within the best `1 / eta` so far.
    """

    rungs: tuple[int, ...]
    columns: int
    eta: float
    lead: int = 0
    memory_bins: int = 1
    progressive: bool = False
    floor: AtFloor = "pause"
    beaten: Beaten = "stop"


class Result(NamedTuple):
    """What a trial came to at a rung.

    Attributes:
        losses: less is better, in the order of the columns.
        is_at_floor: it is not better than the best trivial baseline; False also where that is not known.
        train_loss: the mean since the rung before; None: nothing was trained, or it is not known.
        forms: the stored forms within the memory budget, by which trainings are compared; (): by `losses`, as where the
            sweep lists no forms. With forms, `losses` are those of the largest one.
    """

    losses: tuple[float, ...]
    is_at_floor: bool = False
    train_loss: float | None = None
    forms: tuple[FormLosses, ...] = ()


class Rung:
    """The results of one rung, one for each trial."""

    def __init__(self, settings: HalvingSettings) -> None:
        self._settings = settings
        self.results: dict[str, Result] = {}  # by trial
        self._now: tuple[Rows, NDArray[np.int64]] = np.empty((0, 0)), np.empty(0, dtype=np.int64)
        self._ranked: dict[int, FormRanks] = {}  # by band
        self._bands_ranked = np.empty(0, dtype=np.int64)  # [results in there], the band of each
        self._places = np.empty(0, dtype=np.int64)  # the same, its index within its band

    def add(self, trial_id: str, result: Result) -> None:
        """Take in a trial's result; the first one stays when a trial reports twice."""
        self.results.setdefault(trial_id, result)

    @property
    def is_settled(self) -> bool:
        """True when there are enough results to judge one by."""
        return len(self.results) >= self._settings.eta

    @property
    def is_by_forms(self) -> bool:
        """True when trainings are compared by their stored forms; where some report names none, by their own losses."""
        return all(result.forms for result in self.results.values())

    def goes_on(self, trial_id: str, *, front_only: bool = False) -> bool:
        """Return whether the trial, whose result is here, is on the front or within the best `1 / eta` of its band."""
        rows, bands = self._placed()
        index = list(self.results).index(trial_id)
        if self.is_by_forms:
            return self._goes_on_by_forms(index, rows, bands, front_only=front_only)
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
        trials = list(self.results)
        if not trials:
            return {}
        rows, bands = self._placed()
        if self.is_by_forms:
            found = self._ranks_by_forms(bands).tolist()
            return {trial: rank for trial, rank in zip(trials, found, strict=True) if rank < depth}
        members = [np.flatnonzero(bands == band) for band in np.unique(bands)]
        return {
            trials[index]: rank
            for band in members
            for rank, layer in enumerate(islice(layers(rows[band]), depth))
            for index in band[layer]
        }

    def _goes_on_by_forms(
        self, index: int, rows: Rows, bands: NDArray[np.int64], *, front_only: bool
    ) -> bool:
        ranks = self._ranks_by_forms(bands)
        rank = ranks[index]
        if rank == 0 or front_only:
            return bool(rank == 0)
        is_in_band = bands == bands[index]
        before = int((is_in_band & (ranks < rank)).sum())
        room = math.floor(int(is_in_band.sum()) / self._settings.eta) - before
        layer = rows[is_in_band & (ranks == rank)]
        return len(layer) <= room or is_among_first(layer, rows[index], spans=_spans(rows), room=room)

    def _ranks_by_forms(self, bands: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return [results], the rank of each within its band.

        They are kept from one decision to the next, and made anew where the bands have moved. New results are taken in
        in the order of their losses: hardly any is then beaten by a later one, which would move many.
        """
        known = len(self._places)
        if not np.array_equal(bands[:known], self._bands_ranked):
            self._ranked, known = {}, 0
        results = list(self.results.values())
        self._places = np.concatenate([self._places[:known], np.empty(len(results) - known, dtype=np.int64)])
        for index in sorted(range(known, len(results)), key=lambda index: results[index].losses):
            ranks = self._ranked.setdefault(int(bands[index]), FormRanks(self._settings.columns))
            self._places[index] = ranks.add(results[index].forms)
        self._bands_ranked = bands
        found = np.empty(len(results), dtype=np.int64)
        for band, ranks in self._ranked.items():
            found[bands == band] = ranks.ranks[self._places[bands == band]]
        return found

    def _placed(self) -> tuple[Rows, NDArray[np.int64]]:
        """Return [results, losses] and [results], the band of each; found once for as many results as there are."""
        if len(self._now[0]) != len(self.results):
            rows = self._rows()
            self._now = rows, self._bands(rows)
        return self._now

    def _rows(self) -> Rows:
        """Return [results, losses] in the order they came, the lead column first."""
        rows = np.array([result.losses for result in self.results.values()])
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

    def judge(self, trial_id: str, budget: int, result: Result) -> Verdict:
        """Take in a trial's report and return what becomes of it.

        A report counts at the highest rung within its budget; before the first rung, and at a rung where the trial
        was judged before (it was restarted from a checkpoint), it goes on.

        Raises:
            ValueError: the losses are too few, too many or not finite; nothing was taken in.
        """
        index = self._index(budget)
        self._check(result)
        if index is None or trial_id in self._rungs[index].results:
            return Verdict.GO_ON
        self._rungs[index].add(trial_id, result)
        if self.is_held(trial_id, budget):
            return Verdict.STOP if self.settings.floor == "stop" else Verdict.PAUSE
        if not self._rungs[index].is_settled:
            return Verdict.PAUSE
        if self._goes_on(index, trial_id):
            return Verdict.GO_ON
        return Verdict.PAUSE if self.settings.beaten == "pause" else Verdict.STOP

    def replay(self, reports: Iterable[tuple[str, int, Result]]) -> None:
        """Take in (trial, budget, result) of an earlier session without judging, in whatever order they come.

        Raises:
            ValueError: as `judge`.
        """
        for trial_id, budget, result in sorted(
            reports, key=lambda item: (*item[:2], item[2].losses, item[2].forms)
        ):
            self._check(result)
            index = self._index(budget)
            if index is not None:
                self._rungs[index].add(trial_id, result)

    def is_held(self, trial_id: str, budget: int) -> bool:
        """Return whether the floor keeps a trial, whose report with this budget is here, from going on."""
        index = self._index(budget)
        if index is None or index < FIRST_FLOOR or self.settings.floor == "off":
            return False
        result = self._rungs[index].results.get(trial_id)
        return result is not None and result.is_at_floor

    def is_settled(self, budget: int) -> bool:
        """Return whether the rung of a report with this budget has enough results to judge by."""
        index = self._index(budget)
        return index is not None and self._rungs[index].is_settled

    def candidates(self, situation: Situation) -> Candidates:
        """Return which paused trials may go on, the highest rung first, and which are to stop.

        A rung can still be reached while new trials come, one below it runs, or one below it waits to be judged or to
        go on. The last resort is the trial at the floor with the lowest training loss, of equal ones the one that was
        proposed first: memory, which is known of all, says nothing of what a network has learnt.
        """
        promotions: list[tuple[int, str]] = []
        beaten: list[str] = []
        held: list[tuple[float, tuple[int, str], str]] = []
        coming = [seen for trial_id, seen in situation.going.items() if trial_id not in situation.too_dear]
        below = [-1 if (index := self._index(seen)) is None else index for seen in coming]
        is_reachable = situation.may_start
        for place, trials in sorted(self._by_rung(situation.paused).items()):
            can_be_reached = is_reachable or any(index < place for index in below)
            for trial_id in sorted(trials, key=in_order_of_proposal):
                if self.is_held(trial_id, situation.paused[trial_id]):
                    loss = self._rungs[place].results[trial_id].train_loss
                    held.append(
                        (math.inf if loss is None else loss, in_order_of_proposal(trial_id), trial_id)
                    )
                elif place >= 0 and can_be_reached and not self._rungs[place].is_settled:
                    is_reachable |= trial_id not in situation.too_dear  # the rungs above
                elif place < 0 or self._goes_on(place, trial_id):
                    if trial_id not in situation.too_dear:
                        promotions.append((place, trial_id))
                        is_reachable = True
                elif self.settings.beaten == "stop" or not can_be_reached:
                    beaten.append(trial_id)
        promotions.sort(key=lambda item: (-item[0], in_order_of_proposal(item[1])))
        return Candidates(
            tuple(trial_id for _, trial_id in promotions), tuple(beaten), min(held)[2] if held else None
        )

    def expendable(self, paused: Mapping[str, int]) -> list[str]:
        """Return the paused trials that are at the floor or beaten, the worst first.

        Those at the floor come first, the highest training loss in front; then the lowest rung. Who is on the front of
        its rung and above the floor is not among them.
        """
        found: list[tuple[tuple[Any, ...], str]] = []
        for place, trials in self._by_rung(paused).items():
            for trial_id in trials:
                result = self._rungs[place].results.get(trial_id) if place >= 0 else None
                length, name = in_order_of_proposal(trial_id)
                last_first = (-length, *(-ord(letter) for letter in name))
                if self.is_held(trial_id, paused[trial_id]) and result is not None:
                    loss = math.inf if result.train_loss is None else result.train_loss
                    found.append(((0, -loss, 0, *last_first), trial_id))
                elif result is not None and not self._rungs[place].goes_on(trial_id, front_only=True):
                    found.append(((1, 0.0, place, *last_first), trial_id))
        return [trial_id for _, trial_id in sorted(found)]

    def silent(self) -> list[tuple[int, int]]:
        """Return (rung, results) of the rungs with enough results to judge by, all of them at the floor."""
        return [
            (budget, len(rung.results))
            for budget, rung in zip(self.settings.rungs, self._rungs, strict=True)
            if rung.is_settled and all(result.is_at_floor for result in rung.results.values())
        ]

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
        results = [
            {trial: result._asdict() for trial, result in rung.results.items()} for rung in self._rungs
        ]
        return {"settings": {**asdict(self.settings), "rungs": list(self.settings.rungs)}, "results": results}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the halving that `state` described."""
        settings = HalvingSettings(**{**state["settings"], "rungs": tuple(state["settings"]["rungs"])})
        halving = cls(settings)
        halving.replay(
            (trial, budget, _result(result))
            for budget, results in zip(settings.rungs, state["results"], strict=True)
            for trial, result in results.items()
        )
        return halving

    def seen(self) -> list[int]:
        """Return how many results each rung has."""
        return [len(rung.results) for rung in self._rungs]

    def _goes_on(self, index: int, trial_id: str) -> bool:
        return self._rungs[index].goes_on(trial_id, front_only=index >= self.ceiling())

    def _by_rung(self, paused: Mapping[str, int]) -> dict[int, list[str]]:
        """Return the paused trials by the index of their rung; -1: before the first, or without a result there."""
        found: dict[int, list[str]] = {}
        for trial_id, seen in paused.items():
            index = self._index(seen)
            is_there = index is not None and trial_id in self._rungs[index].results
            found.setdefault(index if is_there and index is not None else -1, []).append(trial_id)
        return found

    def _index(self, budget: int) -> int | None:
        index = bisect_right(self.settings.rungs, budget) - 1
        return None if index < 0 else index

    def _check(self, result: Result) -> None:
        for losses in (result.losses, *(form.losses for form in result.forms)):
            if len(losses) != self.settings.columns or not all(map(math.isfinite, losses)):
                raise ValueError(f"losses: found {losses!r}; allowed: {self.settings.columns} finite numbers")

    def _agrees(self, index: int) -> bool:
        lower, upper = self._rungs[index - 1], self._rungs[index]
        sizes = (len(lower.results), len(upper.results))
        if self._agreements.get(index, ((-1, -1), False))[0] != sizes:
            self._agreements[index] = (sizes, _fronts_agree(lower, upper))
        return self._agreements[index][1]


def _result(values: Mapping[str, Any]) -> Result:
    """Return a result from its JSON form."""
    forms = tuple(FormLosses(kind, tuple(losses)) for kind, losses in values.get("forms", ()))
    return Result(**{**values, "losses": tuple(values["losses"]), "forms": forms})


def _fronts_agree(lower: Rung, upper: Rung) -> bool:
    ranks = (lower.ranks(SOFT_RANKS), upper.ranks(SOFT_RANKS))
    return all(
        trial in there
        for here, there, other in ((*ranks, upper), (*ranks[::-1], lower))
        for trial, rank in here.items()
        if rank == 0 and trial in other.results
    )


def _spans(rows: Rows) -> Rows:
    """Return [losses]: the length of each column's range, 1 where it is 0 and infinity where it is too long."""
    with np.errstate(over="ignore"):
        spans = np.ptp(rows, axis=0)
    return np.where(spans > 0, spans, 1.0)
