"""What every searcher must do. A searcher's test inherits `SearcherContract` and names its class."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from qa_core import registry as core_registry
from qa_core.errors import ConfigError
from sweeps import registry
from sweeps.searchers.base import Proposal, Searcher
from sweeps.space import Space, method_names
from sweeps.spec import Objective
from tests.sweeps.toys import OBJECTIVES, toy_space

GOALS = [Objective.model_validate(item) for item in OBJECTIVES]


def answers(proposal: Proposal) -> tuple[str, list[float] | None]:
    """Say how a proposal ended: a made-up rule that uses every status."""
    if proposal.id % 5 == 3:
        return "stopped", None
    if proposal.id % 7 == 4:
        return ("oom" if proposal.id % 2 else "failed"), None
    rate = next(value for name, value in proposal.assignment.items() if "learning_rate" in name)
    return "ok", [100 * rate**0.1, float(len(proposal.assignment["methods"]))]


def run(searcher: Searcher, trials: int) -> list[Proposal]:
    """Propose and tell, with two proposals open at a time."""
    done: list[Proposal] = []
    waiting: list[Proposal] = []
    for _ in range(trials):
        proposal = searcher.propose()
        if proposal is None:
            break
        done.append(proposal)
        waiting.append(proposal)
        if len(waiting) == 2:
            first = waiting.pop(0)
            searcher.tell(first.id, *answers(first))
    return done


@pytest.mark.usefixtures("toy_registry")
class SearcherContract:
    """Inherit as `class TestX(SearcherContract)`."""

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    depends_on_seed: ClassVar[bool] = True

    def make(self, space: Space | None = None, *, seed: int = 0) -> Searcher:
        kind = registry.searcher_class(self.name)
        return kind(space or toy_space(), GOALS, seed=seed, options=self.options)

    def test_it_is_registered_under_its_own_name(self) -> None:
        assert registry.searcher_class(self.name).name == self.name

    def test_conditional_parameters_appear_only_when_active(self) -> None:
        for seed in range(8):
            space = toy_space()
            for proposal in run(self.make(space, seed=seed), 25):
                found = proposal.assignment
                active: dict[str, Any] = {}
                for parameter in space.parameters:
                    if parameter.is_active(active):
                        active[parameter.id] = found[parameter.id]
                assert list(active) == list(found)
                assert ("methods.adapt.rank" in found) is ("adapt" in method_names(found["methods"]))

    def test_every_proposal_is_a_legal_recipe(self) -> None:
        space = toy_space()
        for proposal in run(self.make(space), 60):
            config = space.to_run_config(proposal.assignment, seed=0)
            family, methods = core_registry.make_family(config), core_registry.make_methods(config)
            core_registry.check_combination(family, methods)

    def test_the_same_seed_and_answers_give_the_same_proposals(self) -> None:
        assert run(self.make(seed=3), 40) == run(self.make(seed=3), 40)

    def test_another_seed_gives_other_proposals_where_chance_plays_a_part(self) -> None:
        is_other = run(self.make(seed=3), 20) != run(self.make(seed=4), 20)
        assert is_other is self.depends_on_seed

    def test_proposals_count_from_zero_and_may_all_stay_open(self) -> None:
        searcher = self.make()
        proposals = [searcher.propose() for _ in range(15)]
        assert [proposal.id for proposal in proposals if proposal] == list(range(15))

    def test_a_proposal_can_be_changed_by_its_receiver_without_harm(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        searcher = self.make()
        learnt: list[Mapping[str, Any]] = []
        monkeypatch.setattr(searcher, "_learn", lambda identity, assignment, *rest: learnt.append(assignment))
        proposal = searcher.propose()
        assert proposal is not None
        before = dict(proposal.assignment)
        proposal.assignment.clear()
        searcher.tell(proposal.id, "failed", None)
        assert learnt == [before]

    def test_an_answer_that_makes_no_sense_is_refused_and_the_proposal_stays_open(self) -> None:
        searcher = self.make()
        proposal = searcher.propose()
        assert proposal is not None
        for status, values, expected in (
            ("done", None, "allowed: ok, stopped, failed, oom"),
            ("ok", None, "needs one finite value"),
            ("ok", [1.0], "needs one finite value"),
            ("ok", [1.0, float("nan")], "needs one finite value"),
            ("ok", [1.0, float("inf")], "needs one finite value"),
            ("stopped", [1.0, 2.0], "has no final values"),
        ):
            with pytest.raises(ValueError, match=expected):
                searcher.tell(proposal.id, status, values)
        searcher.tell(proposal.id, "ok", [1.0, 2.0])
        for identity in (proposal.id, 99, -1):
            with pytest.raises(ValueError, match="is not open"):
                searcher.tell(identity, "ok", [1.0, 2.0])

    def test_an_unknown_option_is_refused_with_its_path(self) -> None:
        with pytest.raises(ConfigError, match=r"searcher\.options\.colour: unknown setting 'colour'"):
            registry.searcher_class(self.name).check_options({"colour": 1})

    def test_trials_of_an_earlier_session_can_be_remembered(self) -> None:
        earlier = run(self.make(seed=1), 12)
        searcher = self.make(seed=2)
        for proposal in earlier:
            searcher.remember(proposal.assignment, *answers(proposal))
        later = run(searcher, 12)
        assert [proposal.id for proposal in later] == list(range(12))

    def test_a_space_without_choices_left_is_proposed_as_it_is(self) -> None:
        space = toy_space(space=[{"set": "model.family", "choice": ["gamma"]}])
        proposal = self.make(space).propose()
        assert proposal == Proposal(0, {"model.family": "gamma"})
