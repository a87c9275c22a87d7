"""Trainings compared at a rung by the stored forms that each would leave: the relation, and ranks under it.

A beats B if every form of B has a form of A of the same kind that is nowhere worse, and one of them is somewhere
better. Kinds are those of `qa_core/form_kinds.py`. A form's losses are the quality of its training at the rung, which
all of its forms share, and its own costs, known before training. So no training is beaten by forms of another kind,
whose loss of quality is not known at a rung, nor for its smallest form alone. A kind that only A has makes A no better:
what it will answer is not known either.

A training may have several forms of one kind, such as packed and dense ones. Of these only those count that no other
one of them reaches; with the others "somewhere better" would hold of a training and itself. So the relation is a strict
partial order: what beats B beats all that B beats.

Who goes on at a rung is in `sweeps/schedulers/halving.py`.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeps.front.pareto import front_mask

FIRST_ROOM = 64  # results that arrays are made for
PAIRS_AT_ONCE = 4096  # of results: more is slower in the caches


class FormLosses(NamedTuple):
    """A stored form at a rung: its kind, and its losses in the order of the objectives, less is better."""

    kind: str
    losses: tuple[float, ...]


class FormRanks:
    """The ranks of results with forms: the number of non-dominated layers before each, kept up to date.

    A rank depends on the set of results and not on the order in which they came. A new result takes the rank after the
    last of those that beat it; it pushes down by one each result of its own rank that it beats, those push in the next
    rank, and so on (as in Li et al. 2017, "Efficient nondomination level update method for steady-state evolutionary
    multiobjective optimization", IEEE Transactions on Cybernetics 47(9)). Whom one of a layer beats, one of each layer
    before it beats too; so the rank is found by halving the layers (as in Zhang et al. 2015, "An efficient approach to
    nondominated sorting for evolutionary multiobjective optimization", IEEE Transactions on Evolutionary Computation
    19(2)), and a decision costs a pass over a few layers and one over those that may move. Results that come in the
    order of their losses move nobody.

    Losses stand in an array [losses, kinds, slots, results]: a slot for each form of a kind that counts, infinity where
    there is none. Less or equal then holds of what is not there. Columns of results are contiguous.
    """

    def __init__(self, columns: int) -> None:
        self._kinds: dict[str, int] = {}
        self._losses = np.empty((columns, 0, 1, FIRST_ROOM))
        self._ranks = np.empty(FIRST_ROOM, dtype=np.int64)
        self._layers: list[NDArray[np.int64]] = []  # the results of each rank
        self._count = 0

    @property
    def ranks(self) -> NDArray[np.int64]:
        """[results] in the order they came."""
        return self._ranks[: self._count]

    def add(self, forms: Sequence[FormLosses]) -> int:
        """Take in a result, of one form at least; returns its index."""
        index = self._place(forms)
        self._count += 1
        rank = bisect_left(self._layers, True, key=lambda layer: not self._has_better(layer, index))
        moved = np.array([index])
        while len(moved):
            self._ranks[moved] = rank
            if rank == len(self._layers):
                self._layers.append(moved)
                break
            layer = self._layers[rank]
            is_pushed = self._is_beaten(layer, moved)
            self._layers[rank] = np.concatenate([layer[~is_pushed], moved])
            moved = layer[is_pushed]
            rank += 1
        return index

    def _has_better(self, layer: NDArray[np.int64], index: int) -> bool:
        """Return whether one of the layer beats the result."""
        return bool(_beats(self._losses[..., layer, None], self._losses[..., None, index : index + 1]).any())

    def _is_beaten(self, layer: NDArray[np.int64], moved: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return [layer], whether one of the moved results beats it."""
        found = np.zeros(len(layer), dtype=bool)
        step = max(1, PAIRS_AT_ONCE // len(layer))
        for start in range(0, len(moved), step):
            some = self._losses[..., moved[start : start + step], None]
            left = np.flatnonzero(~found)
            found[left] |= _beats(some, self._losses[..., None, layer[left]]).any(axis=0)
        return found

    def _place(self, forms: Sequence[FormLosses]) -> int:
        """Write a result into the arrays, which grow where it does not fit; returns its index."""
        by_kind = {kind: _least([item.losses for item in forms if item.kind == kind]) for kind, _ in forms}
        for kind in by_kind:
            self._kinds.setdefault(kind, len(self._kinds))
        columns, kinds, slots, room = self._losses.shape
        wanted = (
            columns,
            len(self._kinds),
            max(slots, *map(len, by_kind.values())),
            room if self._count < room else 2 * room,
        )
        if wanted != self._losses.shape:
            grown = np.full(wanted, np.inf)
            grown[:, :kinds, :slots, : self._count] = self._losses[..., : self._count]
            self._losses = grown
            self._ranks = np.resize(self._ranks, wanted[-1])
        self._losses[..., self._count] = np.inf
        for kind, rows in by_kind.items():
            self._losses[:, self._kinds[kind], : len(rows), self._count] = rows.T
        return self._count


def _least(losses: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return [forms, losses], each once, of the forms of one kind that no other one reaches."""
    rows = np.array(sorted(set(map(tuple, losses))), dtype=np.float64)
    return rows if len(rows) == 1 else rows[front_mask(rows)]


def _beats(better: NDArray[np.float64], worse: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return [n, m], whether the one beats the other.

    Args:
        better: [losses, kinds, slots, n, 1].
        worse: [losses, kinds, slots, 1, m].
    """
    every, some = np.logical_and.reduce, np.logical_or.reduce
    found: NDArray[np.bool_]
    if better.shape[2] == 1:  # a slot for each kind: nothing to choose
        found = every(better <= worse, axis=(0, 1, 2))
        one, other = np.nonzero(found)
        ours, theirs = better[..., one, 0], worse[..., 0, other]
        found[one, other] = some((ours < theirs) & np.isfinite(theirs), axis=(0, 1, 2))
        return found
    ours, theirs = better[:, :, :, None], worse[:, :, None]  # each slot with each
    reaches = every(ours <= theirs, axis=0)  # [kinds, slots of the one, slots of the other, n, m]
    exceeds = reaches & some(ours < theirs, axis=0) & every(np.isfinite(theirs), axis=0)
    found = every(some(reaches, axis=1), axis=(0, 1)) & some(exceeds, axis=(0, 1, 2))
    return found
