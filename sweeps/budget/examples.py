"""How many examples a recipe trains on, its teachers counted apart: what `budget.total_examples` is spent on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.errors import ConfigError
from qa_core.values import from_dict, to_dict
from sweeps.schedulers.pausing import Account, Allowance
from sweeps.searchers.base import fingerprint

Key = tuple[tuple[str, str], ...]


def examples_of(recipe: RunConfig) -> int:
    """Return the examples of a recipe of a sweep, trained to its end; 0 where one of its methods trains nothing."""
    trains = all(method.trains for method in registry.make_methods(recipe))
    return (recipe.train.budget_examples or 0) if trains else 0


def teachers_of(recipe: RunConfig) -> dict[Key, int]:
    """Return the examples of each recipe that is trained before this one, under a key that equal recipes share.

    A teacher that is already in the cache counts too: what a sweep may spend does not depend on the machine.

    Raises:
        ConfigError: a teacher's training is given in epochs, whose length the driver does not know.
    """
    found = {}
    for method in registry.make_methods(recipe):
        teacher = method.prerequisite(recipe)
        if not isinstance(teacher, RunConfig):
            continue
        if teacher.train.budget_examples is None:
            raise ConfigError(
                f"budget.total_examples: methods.{method.name}: the training before it is given in epochs; allowed: in "
                "examples, by train.budget_examples of its recipe"
            )
        values = to_dict(teacher)
        del values["train"]["rungs"]  # where it checkpoints changes nothing
        found[fingerprint(values)] = teacher.train.budget_examples
    return found


def check_teachers(recipes: Iterable[RunConfig], total_examples: int | None) -> None:
    """Refuse recipes whose teachers cannot be counted, where they are counted; raises ConfigError."""
    if total_examples is not None:
        for recipe in recipes:
            teachers_of(recipe)


class Spending:
    """What the trials of a sweep may still consume, their teachers counted once. Without a limit nothing is counted."""

    def __init__(self, total: int | None, rungs: Sequence[int]) -> None:
        self.total = total
        self._allowance = Allowance(total, tuple(rungs))
        self._teachers: dict[Key, int] = {}

    def count(self, recipe: Mapping[str, Any]) -> None:
        """Take in the recipe of a trial that has started: its teachers are trained, or about to be."""
        if self.total is not None:
            self._teachers.update(teachers_of(from_dict(RunConfig, recipe)))

    def account(self, recipe: Mapping[str, Any], seen: int, *, is_going: bool) -> Account:
        """Return what a trial without a record has consumed and may come to."""
        budget = 0 if self.total is None else examples_of(from_dict(RunConfig, recipe))
        return Account(seen, budget, is_going)

    def fits(self, account: Account, others: Iterable[Account], *, has_finished: bool) -> bool:
        """Return whether the examples to a trial's next rung may be spent; see `Allowance.fits`."""
        more = sum(self._teachers.values())
        return self._allowance.fits(others, account, more=more, has_finished=has_finished)

    def fits_new(self, recipe: RunConfig, others: Iterable[Account], *, has_finished: bool) -> bool:
        """Return whether a new trial's examples to its first rung, and its teachers', may be spent."""
        if self.total is None:
            return True
        more = sum({**self._teachers, **teachers_of(recipe)}.values())
        account = Account(0, examples_of(recipe))
        return self._allowance.fits(others, account, more=more, has_finished=has_finished)

    def spent(self, accounts: Iterable[Account]) -> int:
        """Return what the trials have consumed, teachers included."""
        return sum(account.seen for account in accounts) + sum(self._teachers.values())
