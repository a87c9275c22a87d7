"""What a searcher is: it proposes assignments of a space and is told how they ended.

It does not run trials (`sweeps/tuner.py`) nor stop them (`sweeps/schedulers/`). Every searcher only proposes
what the space says is legal, and the same seed and the same answers give the same proposals.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from qa_core.config import from_dict
from sweeps.space import Assignment, Space

if TYPE_CHECKING:
    from sweeps.spec import Objective

STATUSES = ("ok", "stopped", "failed", "oom")


@dataclass(frozen=True)
class Proposal:
    """One recipe to try; `id` counts from 0 within a searcher."""

    id: int
    assignment: Assignment


class Searcher(ABC):
    """One searcher with checked options, over one space and its objectives."""

    name: ClassVar[str]
    Options: ClassVar[type]

    def __init__(
        self, space: Space, objectives: Sequence["Objective"], *, seed: int, options: Mapping[str, Any]
    ) -> None:
        """Check the options.

        Raises:
            ConfigError: an option is unknown, of the wrong type or out of range.
        """
        self.space = space
        self.objectives = tuple(objectives)
        self.seed = seed
        self.options = self.check_options(options)
        self._open: dict[int, Assignment] = {}  # proposed, not yet told
        self._proposals = 0

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> Any:
        """Return the options as their dataclass; raises ConfigError with the path of a wrong one."""
        return from_dict(cls.Options, options, path="searcher.options")

    def propose(self) -> Proposal | None:
        """Return the next recipe to try; None when nothing is left to propose."""
        identity = self._proposals
        assignment = self._next(identity)
        if assignment is None:
            return None
        self._proposals += 1
        self._open[identity] = assignment
        return Proposal(identity, dict(assignment))

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

    def remember(self, assignment: Mapping[str, Any], status: str, values: Sequence[float] | None) -> None:
        """Take in a trial of an earlier session, as if it had been proposed and told here.

        Raises:
            ValueError: values and status do not fit together.
        """
        self._recall(dict(assignment), status, self._checked(status, values))

    @abstractmethod
    def _next(self, identity: int) -> Assignment | None:
        """Return the next assignment, or None when nothing is left."""

    def _learn(  # noqa: B027 - most searchers learn nothing
        self, identity: int, assignment: Assignment, status: str, values: list[float] | None
    ) -> None:
        """React to the end of a proposal; by default, nothing is learnt."""

    @abstractmethod
    def _recall(self, assignment: Assignment, status: str, values: list[float] | None) -> None:
        """React to a trial of an earlier session."""

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


def fingerprint(assignment: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return a hashable stand-in: equal for assignments that give the same recipe."""
    return tuple(sorted((identity, repr(value)) for identity, value in assignment.items()))
