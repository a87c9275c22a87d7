"""What a searcher is: it proposes assignments of a space and is told how they ended.

It does not run trials (`sweeps/trials/ray_driver.py`) nor stop them (`sweeps/schedulers/`). Every searcher only
proposes what the space says is legal and what `admits` lets through, and the same seed and the same answers give the
same proposals.

A searcher is lost with its process and rebuilt from what was proposed (`remember`). So proposal `i` depends on the
seed, on `i`, on the earlier proposals with their notes, on the set of their reports (`observe`) and on the answers to
them: never on the state of a generator, nor on the order in which reports and answers came.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from qa_core.values import from_dict
from sweeps.registry import searcher_class
from sweeps.space.first import assignment_of
from sweeps.space.space import Assignment, Space

if TYPE_CHECKING:
    from sweeps.spec.objectives import Objective
    from sweeps.spec.sections import SweepSpec

STATUSES = ("ok", "stopped", "failed", "oom")
REFUSED_NOTE = "refused"  # how many recipes came up and were refused before this one

Fingerprint = tuple[tuple[str, str], ...]
# Of a recipe: for each form that its training is stored in, the objectives that are known before it starts, by name.
Forecast = Callable[[Assignment], Sequence[Mapping[str, float]]]
Report = tuple[int, Sequence[float | None]]  # examples seen, and the objectives there


@dataclass(frozen=True)
class Proposal:
    """One recipe to try; `id` counts from 0 within a searcher.

    `notes` are plain JSON values that belong into the trial's record: what `remember` must be given back.
    """

    id: int
    assignment: Assignment
    notes: Mapping[str, Any] = field(default_factory=dict)


class Searcher(ABC):
    """One searcher with checked options, over one space and its objectives.

    `refused` counts the recipes that came up and that `admits` refused, each time that they came up.
    """

    name: ClassVar[str]
    Options: ClassVar[type]

    def __init__(
        self,
        space: Space,
        objectives: Sequence["Objective"],
        *,
        seed: int,
        options: Mapping[str, Any],
        admits: Callable[[Assignment], bool] | None = None,
        forecast: Forecast | None = None,
    ) -> None:
        """Check the options.

        Args:
            space: of the recipes.
            objectives: in the order of the values that are told.
            seed: of all that is random.
            options: as in the spec.
            admits: False for a recipe that must never be proposed, always the same for the same recipe; None: all may.
            forecast: what is known of a recipe before it starts, always the same for the same recipe; None: nothing is.

        Raises:
            ConfigError: an option is unknown, of the wrong type or out of range.
        """
        self.space = space
        self.objectives = tuple(objectives)
        self.seed = seed
        self.options = self.check_options(options)
        self.admits = admits
        self.forecast = forecast
        self.refused = 0
        self._open: dict[int, Assignment] = {}  # proposed, not yet told
        self._proposals = 0
        self._verdicts: dict[Fingerprint, bool] = {}
        self._first: list[Assignment] = []  # proposed before the searcher's own
        self._begin()

    def _begin(self) -> None:  # noqa: B027 (a searcher may keep nothing)
        """Make what the searcher keeps of its own: called once, when all of the above is there."""

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> Any:
        """Return the options as their dataclass; raises ConfigError with the path of a wrong one."""
        return from_dict(cls.Options, options, path="searcher.options")

    def begin_with(self, first: Sequence[Assignment]) -> None:
        """Let these recipes be proposed before the searcher's own, in this order; what is refused is counted.

        To be called before anything is proposed or remembered. The searcher's own proposals keep their ids: with N
        recipes to begin with, its first own one is proposal N, as it would be without them.
        """
        assert self._proposals == 0, "proposals depend on those before"
        self._first = [dict(item) for item in first if self._is_admitted(item)]
        self.refused += len(first) - len(self._first)

    def propose(self) -> Proposal | None:
        """Return the next recipe to try; None when nothing is left to propose."""
        identity, refused = self._proposals, self.refused
        if identity < len(self._first):
            assignment = self._first[identity]
            return self._take(Proposal(identity, dict(assignment), self._given(identity, assignment)))
        found = self._next(identity)
        if found is None:
            return None
        assignment, notes = found
        if self.refused > refused:
            notes = {**notes, REFUSED_NOTE: self.refused - refused}
        return self._take(Proposal(identity, dict(assignment), notes))

    def observe(self, proposal_id: int, examples: int, values: Sequence[float | None]) -> None:
        """Take in a report of a trial that has not ended. One at the same number of examples takes its place.

        Args:
            proposal_id: of the proposal.
            examples: seen by the trial.
            values: the objectives in their order and units, as measured there; None for one that is not.

        Raises:
            ValueError: the proposal is not open, or the report makes no sense.
        """
        if proposal_id not in self._open:
            raise ValueError(f"proposal {proposal_id} is not open (open: {sorted(self._open)})")
        self._observe(proposal_id, *self._checked_report(examples, values))

    def tell(self, proposal_id: int, status: str, values: Sequence[float] | None) -> None:
        """Say how a proposal ended, once.

        Args:
            proposal_id: of the proposal.
            status: "ok" only for a trial that spent its whole budget; "stopped", "failed" or "oom".
            values: the objectives in their order and units, as measured; None unless the status is "ok".

        Raises:
            ValueError: the proposal is unknown or was told before, or values and status do not fit together.
        """
        if proposal_id not in self._open:
            raise ValueError(f"proposal {proposal_id} is not open (open: {sorted(self._open)})")
        checked = self._checked(status, values)
        self._learn(proposal_id, self._open.pop(proposal_id), status, checked)

    def remember(
        self,
        assignment: Mapping[str, Any],
        status: str | None,
        values: Sequence[float] | None,
        notes: Mapping[str, Any] = {},
        curve: Sequence[Report] = (),
    ) -> Proposal:
        """Take in a trial of an earlier session, as if it had been proposed here, and told unless it is open.

        Trials must be remembered in the order in which they were proposed, before anything is proposed here. Then the
        later proposals are those of a searcher that was never interrupted.

        Args:
            assignment: of the earlier proposal.
            status: how it ended, as for `tell`; None: it is open, and `tell` comes later.
            values: as for `tell`.
            notes: of the earlier proposal.
            curve: the trial's reports, as for `observe`.

        Returns:
            The proposal, under its id here.

        Raises:
            ValueError: values and status do not fit together, a report makes no sense, or the assignment is not of this
                space.
        """
        if status is not None:
            self._checked(status, values)
        elif values is not None:
            raise ValueError(f"an open trial has no final values, found {list(values)}")
        reports = [self._checked_report(*report) for report in curve]
        proposal = Proposal(self._proposals, dict(assignment), dict(notes))
        self._recall(proposal)
        self.refused += notes.get(REFUSED_NOTE, 0)
        self._take(proposal)
        for report in reports:
            self._observe(proposal.id, *report)
        if status is not None:
            self.tell(proposal.id, status, values)
        return proposal

    @abstractmethod
    def _next(self, identity: int) -> tuple[Assignment, Mapping[str, Any]] | None:
        """Return the assignment of a new proposal and its notes, or None when nothing is left."""

    def _given(self, identity: int, assignment: Assignment) -> Mapping[str, Any]:
        """React to a proposal that was not the searcher's idea, and return its notes."""
        self._recall(Proposal(identity, dict(assignment)))
        return {}

    def _observe(  # noqa: B027 - most searchers learn nothing
        self, identity: int, examples: int, values: list[float | None]
    ) -> None:
        """React to a report; by default, nothing is learnt."""

    def _learn(  # noqa: B027 - most searchers learn nothing
        self, identity: int, assignment: Assignment, status: str, values: list[float] | None
    ) -> None:
        """React to the end of a proposal; by default, nothing is learnt."""

    @abstractmethod
    def _recall(self, proposal: Proposal) -> None:
        """React to a proposal of an earlier session, so that the next `_next` is what it would have been."""

    def _is_admitted(self, assignment: Assignment) -> bool:
        """Ask `admits`, once for each recipe."""
        if self.admits is None:
            return True
        key = fingerprint(assignment)
        if key not in self._verdicts:
            self._verdicts[key] = self.admits(dict(assignment))
        return self._verdicts[key]

    def _take(self, proposal: Proposal) -> Proposal:
        self._proposals += 1
        self._open[proposal.id] = dict(proposal.assignment)
        return proposal

    def _checked_report(
        self, examples: int, values: Sequence[float | None]
    ) -> tuple[int, list[float | None]]:
        numbers = [value for value in values if value is not None]
        if examples < 0 or len(values) != len(self.objectives) or not all(map(math.isfinite, numbers)):
            names = ", ".join(objective.name for objective in self.objectives)
            raise ValueError(
                f"a report needs examples from 0 and a finite value or None for each of {names}, found {list(values)} "
                f"at {examples}"
            )
        return examples, [None if value is None else float(value) for value in values]

    def _checked(self, status: str, values: Sequence[float] | None) -> list[float] | None:
        if status not in STATUSES:
            raise ValueError(f"status: found {status!r}; allowed: {', '.join(STATUSES)}")
        if status != "ok":
            if values is not None:
                raise ValueError(
                    f"a trial that ended as {status!r} has no final values, found {list(values)}"
                )
            return None
        if values is None or len(values) != len(self.objectives) or not all(map(math.isfinite, values)):
            names = ", ".join(objective.name for objective in self.objectives)
            raise ValueError(f"a finished trial needs one finite value for each of {names}, found {values}")
        return [float(value) for value in values]


def fingerprint(assignment: Mapping[str, Any]) -> Fingerprint:
    """Return a hashable stand-in: equal for assignments that give the same recipe."""
    return tuple(sorted((identity, repr(value)) for identity, value in assignment.items()))


def make_searcher(
    spec: "SweepSpec",
    space: Space,
    admits: Callable[[Assignment], bool] | None = None,
    *,
    forecast: Forecast | None = None,
) -> Searcher:
    """Build the searcher of a sweep, seeded by it; raises ConfigError for an unknown name, option or first recipe.

    A recipe for which `admits` is False is never proposed. What `forecast` says of a recipe is known before it starts.
    """
    kind: type[Searcher] = searcher_class(spec.searcher.name)
    options = spec.searcher.options
    made = kind(space, spec.objectives, seed=spec.seed, options=options, admits=admits, forecast=forecast)
    made.begin_with([assignment_of(space, item) for item in spec.searcher.first])
    return made
