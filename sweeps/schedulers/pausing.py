"""What a scheduler says of a trial at a rung, and what a worker does that is free. Pure: values in, values out.

A trial that pauses gives up its worker and keeps its checkpoint. `next_step` is the one place where it is decided
whether a free worker takes up a paused trial, a new one, or none; a live sweep (`sweeps/trials/driver.py`) and a replay
(`sweeps/replay/simulate.py`) both ask it. Who may go on is said by the scheduler (`Judge.candidates`), in its order.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol


class Verdict(StrEnum):
    """Of a scheduler on a trial that reported at a rung."""

    GO_ON = "go on"
    PAUSE = "pause"  # leave the worker and keep the checkpoint
    STOP = "stop"


@dataclass(frozen=True)
class Situation:
    """The trials of a sweep that have not ended, and whether more will come.

    Attributes:
        paused: trial -> examples seen.
        going: trials that run or are about to -> examples seen at their last report.
        may_start: a new trial may still be proposed.
        has_finished: some trial has been trained to its end.
        too_dear: trials, paused or cut short, whose examples to their next rung the sweep may not spend: they do not go
            on for now, and no rung waits for them.
    """

    paused: Mapping[str, int] = field(default_factory=dict)
    going: Mapping[str, int] = field(default_factory=dict)
    may_start: bool = False
    has_finished: bool = False
    too_dear: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Candidates:
    """What a scheduler says of the paused trials.

    Attributes:
        promotions: those that may go on, the one to take up first in front.
        beaten: those that are to stop.
        last_resort: the one that goes on where nothing else is left to do and no trial has been trained to its end.
    """

    promotions: tuple[str, ...] = ()
    beaten: tuple[str, ...] = ()
    last_resort: str | None = None


class Judge(Protocol):
    """The part of a scheduler that decides on reports and knows nothing of Ray."""

    def verdict(self, trial_id: str, report: Mapping[str, Any]) -> Verdict:
        """Take in a report and return what becomes of its trial."""

    def candidates(self, situation: Situation) -> Candidates:
        """Return what becomes of the paused trials when a worker is free; changes nothing."""

    def expendable(self, paused: Mapping[str, int]) -> list[str]:
        """Return the paused trials that can be stopped for their disk space, the worst first."""

    def why(self, trial_id: str, examples_seen: int) -> str:
        """Return in a few words why a trial is paused."""

    def silent_rungs(self) -> Mapping[int, str]:
        """Return a line for each rung where no trial has learnt anything yet."""


class Action(StrEnum):
    """What a free worker does."""

    RESUME = "resume"  # a trial that was cut short
    PROMOTE = "promote"  # a paused one
    START = "start"  # a new one
    WAIT = "wait"  # nothing, until a running trial reports or ends
    END = "end"  # nothing any more


@dataclass(frozen=True)
class Step:
    """What a free worker does, and with which trial."""

    action: Action
    trial_id: str | None = None


def next_step(
    situation: Situation,
    candidates: Candidates,
    *,
    cut_short: Sequence[str] = (),
    fits: Callable[[str], bool] = lambda trial_id: True,
) -> Step:
    """Return what a free worker does.

    A paused trial goes on only because its rung lets it, never because a worker has nothing else to do; the exception
    is `Candidates.last_resort`, without which a sweep in which nothing was learnt would end with nothing.

    Args:
        situation: with the trials that were cut short among those that go on.
        candidates: from the scheduler, in its order.
        cut_short: trials that were running when their worker or the sweep ended, in order.
        fits: whether the examples to a trial's next rung are within what the sweep may spend. For a new trial,
            `situation.may_start` says so.
    """
    for action, trials in ((Action.RESUME, cut_short), (Action.PROMOTE, candidates.promotions)):
        for trial_id in trials:
            if fits(trial_id):
                return Step(action, trial_id)
    if situation.may_start:
        return Step(Action.START)
    if set(situation.going) - set(cut_short):
        return Step(Action.WAIT)
    last = candidates.last_resort
    if last is not None and not situation.has_finished and fits(last):
        return Step(Action.PROMOTE, last)
    return Step(Action.END)


def candidates_of(judge: Judge | None, situation: Situation) -> Candidates:
    """Return what becomes of paused trials; where the scheduler pauses none, all may go on, in the order proposed."""
    if judge is None:
        affordable = situation.paused.keys() - situation.too_dear
        return Candidates(tuple(sorted(affordable, key=in_order_of_proposal)))
    return judge.candidates(situation)


def judge_of(ray_scheduler: Any) -> Judge | None:
    """Return what decides in a Ray scheduler of this project where it pauses trials; None for all others."""
    found: Judge | None = getattr(ray_scheduler, "judge", None)
    return found


def in_order_of_proposal(trial_id: str) -> tuple[int, str]:
    """Return a sorting key: ids count up, and may grow by a digit."""
    return len(trial_id), trial_id


@dataclass(frozen=True)
class Account:
    """What one trial has consumed and what it may come to.

    Attributes:
        seen: examples at its last report or at its end.
        budget: examples of its whole training; 0 where nothing is trained.
        is_going: it runs: the examples to its next rung are reserved.
        is_open: it has not ended.
    """

    seen: int
    budget: int
    is_going: bool = False
    is_open: bool = True


@dataclass(frozen=True)
class Allowance:
    """The examples that all trials of a sweep may consume together.

    As long as no trial has been trained to its end, the examples that one of them still needs for it are kept back:
    otherwise a sweep could spend all on rungs that tell nothing, and end with nothing. A trial counts as being at its
    rung, although it reports after the step that reaches it: the total can be exceeded by less than a batch for each
    trial, and no stretch that was kept back is lost by it.

    Attributes:
        total: None: no limit.
        rungs: of the scheduler, rising.
    """

    total: int | None
    rungs: tuple[int, ...]

    def stretch(self, account: Account) -> int:
        """Return the examples from a trial's rung to its next one or to its end."""
        if account.budget <= account.seen:
            return 0
        place = bisect_right(self.rungs, account.seen)
        end = self.rungs[place] if place < len(self.rungs) else account.budget
        return min(end, account.budget) - self._counted(account)

    def fits(
        self, others: Iterable[Account], account: Account, *, more: int = 0, has_finished: bool = False
    ) -> bool:
        """Return whether a trial's next stretch fits beside what is consumed, reserved and kept back.

        Args:
            others: of all other trials.
            account: of the trial that asks.
            more: examples that come with it or were consumed beside the trials, such as teachers'.
            has_finished: some trial has been trained to its end.
        """
        if self.total is None:
            return True
        accounts = [*others, replace(account, is_going=True)]
        reached = [self._counted(item) + (self.stretch(item) if item.is_going else 0) for item in accounts]
        to_the_end = [
            item.budget - there
            for item, there in zip(accounts, reached, strict=True)
            if item.is_open and item.budget > item.seen
        ]
        kept_back = 0 if has_finished else min(to_the_end, default=0)
        return sum(reached) + kept_back + more <= self.total

    def _counted(self, account: Account) -> int:
        """Return the rung that a trial has reached, or its whole budget."""
        if account.seen >= account.budget:
            return account.budget
        place = bisect_right(self.rungs, account.seen)
        return self.rungs[place - 1] if place else 0
