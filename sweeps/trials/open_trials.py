"""The trials of a sweep that have no record, as one that decides what a free worker does must see them.

The driver (`sweeps/trials/driver.py`) moves trials between running, cut short and paused, and asks here. The decision
itself is `next_step` in `sweeps/schedulers/pausing.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qa_core.config import RunConfig
from sweeps.budget.examples import Spending
from sweeps.run_folder.records import Record
from sweeps.schedulers.pausing import Account, Candidates, Situation, Step, next_step
from sweeps.trials.running import Running


@dataclass(frozen=True)
class OpenTrials:
    """A view of the driver's own collections, which change under it.

    Attributes:
        records: of the trials that have ended.
        running: by trial.
        cut_short: by the end of their worker or of the sweep, the one to take up first in front.
        paused: by trial.
        spending: what may still be consumed.
    """

    records: Sequence[Record]
    running: Mapping[str, Running]
    cut_short: Sequence[Running]
    paused: Mapping[str, Running]
    spending: Spending

    def situation(self, *, may_start: bool, pausing: str | None = None, seen: int = 0) -> Situation:
        """Return what a decision depends on.

        Args:
            may_start: a new trial may come.
            pausing: a running trial that is taken for paused, at so many examples.
        """
        going = {
            trial_id: item.examples_seen for trial_id, item in self.running.items() if trial_id != pausing
        }
        going |= {item.task.trial_id: item.examples_seen for item in self.cut_short}
        paused = {trial_id: item.examples_seen for trial_id, item in self.paused.items()}
        if pausing is not None:
            paused[pausing] = seen
        waiting = {**{item.task.trial_id: item.examples_seen for item in self.cut_short}, **paused}
        too_dear = self._too_dear(waiting)
        return Situation(paused, going, may_start, self._has_finished(), too_dear)

    def step(self, situation: Situation, candidates: Candidates) -> Step:
        """Return what a free worker does in a situation of these trials."""
        items = {**self.running, **{item.task.trial_id: item for item in self.cut_short}, **self.paused}
        return next_step(
            situation,
            candidates,
            cut_short=[item.task.trial_id for item in self.cut_short],
            fits=lambda trial_id: self.fits(items[trial_id], situation.paused.get(trial_id)),
        )

    def fits(self, running: Running, seen: int | None = None) -> bool:
        """Return whether a trial's examples to its next rung may be spent, from its last report or from `seen`."""
        if self.spending.total is None:
            return True
        reached = running.examples_seen if seen is None else seen
        account = self.spending.account(running.task.recipe, reached, is_going=False)
        others = self.accounts(besides=running.task.trial_id)
        return self.spending.fits(account, others, has_finished=self._has_finished())

    def fits_new(self, recipe: RunConfig) -> bool:
        """Return whether a new trial's examples to its first rung, and its teachers', may be spent."""
        return self.spending.fits_new(recipe, self.accounts(), has_finished=self._has_finished())

    def accounts(self, *, besides: str | None = None) -> list[Account]:
        """Return what all trials have consumed and, of those that run, what is reserved; one may be left out."""
        found = [
            Account(record.examples_seen, record.budget_examples, is_open=False) for record in self.records
        ]
        for items, is_going in (
            (self.running.values(), True),
            (self.cut_short, False),
            (self.paused.values(), False),
        ):
            found += [
                self.spending.account(item.task.recipe, item.examples_seen, is_going=is_going)
                for item in items
                if item.task.trial_id != besides
            ]
        return found

    def _too_dear(self, waiting: Mapping[str, int]) -> frozenset[str]:
        """Return the trials, paused or cut short at so many examples, whose next stretch may not be spent."""
        if self.spending.total is None:
            return frozenset()
        items = {**self.running, **{item.task.trial_id: item for item in self.cut_short}, **self.paused}
        return frozenset(
            trial_id for trial_id, seen in waiting.items() if not self.fits(items[trial_id], seen)
        )

    def _has_finished(self) -> bool:
        """Return whether some trial has been trained to its end."""
        return any(record.status == "ok" and record.examples_seen > 0 for record in self.records)
