"""What every searcher must do. A searcher's test inherits `SearcherContract` and names its class."""

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from qa_core import registry as core_registry
from qa_core.errors import ConfigError
from sweeps import registry
from sweeps.searchers.base import Proposal, Report, Searcher, make_searcher
from sweeps.space.paths import method_names
from sweeps.space.space import Space
from sweeps.spec.objectives import Objective
from tests.sweeps.toys import OBJECTIVES, SPACE, toy_space, toy_spec

REBUILT_TRIALS = 16
GOALS = [Objective.model_validate(item) for item in OBJECTIVES]


def answers(proposal: Proposal, objectives: int = 2) -> tuple[str, list[float] | None]:
    """Say how a proposal ended: a made-up rule that uses every status."""
    if proposal.id % 5 == 3:
        return "stopped", None
    if proposal.id % 7 == 4:
        return ("oom" if proposal.id % 2 else "failed"), None
    rate = next(value for name, value in proposal.assignment.items() if "learning_rate" in name)
    return "ok", [100 * rate**0.1, float(len(proposal.assignment["methods"]))][:objectives]


def early_report(proposal: Proposal, objectives: int = 2) -> Report | None:
    """Say what a trial reports while it runs: of every third one nothing."""
    if proposal.id % 3 == 1:
        return None
    values: list[float | None] = [5.0 + proposal.id % 4, None]
    return 100, values[:objectives]


def late_report(proposal: Proposal, objectives: int = 2) -> Report:
    """Say what a trial reports before it ends."""
    return 300, [20.0 + 3 * (proposal.id % 4), float(len(proposal.assignment["methods"]))][:objectives]


def run(searcher: Searcher, trials: int) -> list[Proposal]:
    """Propose and tell, with two proposals open at a time; the last one stays open."""
    return Session(searcher, open_at_most=2).go_on(trials)


class Session:
    """Trials that are proposed, report and are told by a fixed timetable, and what their records keep."""

    def __init__(self, searcher: Searcher, *, open_at_most: int) -> None:
        self.searcher, self.open_at_most = searcher, open_at_most
        self.proposals: list[Proposal] = []
        self.open: list[int] = []
        self.open_after: list[list[int]] = [[]]  # by the number of proposals

    def go_on(self, trials: int) -> list[Proposal]:
        """Go on to so many proposals, or until none is left; the last `open_at_most` - 1 stay open."""
        while len(self.proposals) < trials:
            proposal = self.searcher.propose()
            if proposal is None:
                break
            self.proposals.append(proposal)
            self.open.append(proposal.id)
            if (report := early_report(proposal, len(self.searcher.objectives))) is not None:
                self.searcher.observe(proposal.id, *report)
            if len(self.open) == self.open_at_most:
                told = self.open.pop(len(self.proposals) % len(self.open))  # not always the oldest
                late = late_report(self.proposals[told], len(self.searcher.objectives))
                self.searcher.observe(told, *late)
                self.searcher.tell(told, *self.answers(self.proposals[told]))
            self.open_after.append(list(self.open))
        return self.proposals

    def answers(self, proposal: Proposal) -> tuple[str, list[float] | None]:
        return answers(proposal, len(self.searcher.objectives))

    def rebuilt(self, cut: int, searcher: Searcher) -> "Session":
        """Return the session after `cut` proposals, as another process finds it in its records."""
        session = Session(searcher, open_at_most=self.open_at_most)
        session.open = list(self.open_after[cut])
        for proposal in self.proposals[:cut]:
            assignment, notes = json.loads(json.dumps([proposal.assignment, proposal.notes]))
            is_open, objectives = proposal.id in session.open, len(searcher.objectives)
            reports = [
                early_report(proposal, objectives),
                None if is_open else late_report(proposal, objectives),
            ]
            curve = [report for report in reports if report is not None]
            ending = (None, None) if is_open else self.answers(proposal)
            session.proposals.append(searcher.remember(assignment, *ending, notes, curve))
        return session


def check_rebuilding(make: Callable[[], Searcher], *, open_at_most: int) -> None:
    """Cut a session at every point, rebuild it from its records, and compare all that comes after."""
    undisturbed = Session(make(), open_at_most=open_at_most)
    expected = undisturbed.go_on(REBUILT_TRIALS)
    assert len(expected) == REBUILT_TRIALS
    assert len({answers(proposal)[0] for proposal in expected}) == 4
    assert max(map(len, undisturbed.open_after)) == open_at_most - 1
    for cut in range(REBUILT_TRIALS):
        later = undisturbed.rebuilt(cut, make())
        assert later.go_on(REBUILT_TRIALS) == expected
        assert later.searcher.refused == undisturbed.searcher.refused


def small_rates(assignment: Mapping[str, Any]) -> bool:
    """Admit 1 of about 3 recipes: a made-up budget over the learning rate and the batch."""
    rate = next((value for name, value in assignment.items() if "learning_rate" in name), 0.0)
    return rate < 3e-3 and assignment.get("train.batch_size", 8) == 8


def first_recipes(space: Space) -> list[Mapping[str, Any]]:
    """Return recipes of the space as another sweep may have found them."""
    rng = np.random.default_rng(7)
    return [space.sample(rng) for _ in range(7)]


@pytest.mark.usefixtures("toy_registry")
class SearcherContract:
    """Inherit as `class TestX(SearcherContract)`."""

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    depends_on_seed: ClassVar[bool] = True

    def make(
        self,
        space: Space | None = None,
        *,
        seed: int = 0,
        admits: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> Searcher:
        kind = registry.searcher_class(self.name)
        return kind(space or toy_space(), GOALS, seed=seed, options=self.options, admits=admits)

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

    def test_what_its_receiver_does_to_a_proposal_changes_no_later_one(self) -> None:
        space, found = toy_space(), []
        for is_careless in (False, True):
            searcher, seen = self.make(space), []
            for _ in range(6):
                proposal = searcher.propose()
                assert proposal is not None
                seen.append(dict(proposal.assignment))
                if is_careless:
                    proposal.assignment.clear()
            found.append(seen)
        assert found[0] == found[1]

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

    @pytest.mark.parametrize("admits", [None, small_rates], ids=["all-admitted", "some-refused"])
    @pytest.mark.parametrize("open_at_most", [1, 3])
    def test_a_searcher_rebuilt_at_any_point_goes_on_as_if_it_had_never_stopped(
        self, open_at_most: int, admits: Callable[[Mapping[str, Any]], bool] | None
    ) -> None:
        space = toy_space()
        check_rebuilding(lambda: self.make(space, seed=5, admits=admits), open_at_most=open_at_most)

    def test_recipes_to_begin_with_come_first_and_are_not_proposed_again(self) -> None:
        space = toy_space()
        first = first_recipes(space)
        searcher = self.make(space, admits=small_rates)
        refused = searcher.refused
        searcher.begin_with(first)
        admitted = [item for item in first if small_rates(item)]
        assert 2 <= len(admitted) < len(first)
        assert searcher.refused - refused == len(first) - len(admitted)
        found = [proposal.assignment for proposal in run(searcher, 20)]
        assert found[: len(admitted)] == admitted
        assert [item for item in found[len(admitted) :] if item in admitted] == []
        assert len(found) > len(admitted)

    def test_a_searcher_that_begins_with_recipes_is_rebuilt_like_any_other(self) -> None:
        space = toy_space()
        first = first_recipes(space)

        def made() -> Searcher:
            searcher = self.make(space, seed=5, admits=small_rates)
            searcher.begin_with(first)
            return searcher

        check_rebuilding(made, open_at_most=3)

    def test_the_order_of_the_answers_decides_nothing(self) -> None:
        later = []
        for order in (range(12), reversed(range(12))):
            searcher = self.make(seed=2)
            proposals = [searcher.propose() for _ in range(12)]
            for index in order:
                proposal = proposals[index]
                assert proposal is not None
                searcher.tell(proposal.id, *answers(proposal))
            later.append([searcher.propose() for _ in range(4)])
        assert later[0] == later[1]

    def test_the_order_of_the_reports_decides_nothing_and_the_last_one_at_an_examples_count_stands(
        self,
    ) -> None:
        later = []
        for is_reversed in (False, True):
            searcher = self.make(seed=2)
            proposals = [proposal for _ in range(12) if (proposal := searcher.propose()) is not None]
            reports = [(proposal.id, *late_report(proposal)) for proposal in proposals]
            reports += [(proposal.id, 100, [7.0, 8.0]) for proposal in proposals]
            if is_reversed:
                searcher.observe(0, 100, [99.0, 1.0])  # not its last word
            for report in reversed(reports) if is_reversed else reports:
                searcher.observe(*report)
            later.append([searcher.propose() for _ in range(4)])
        assert later[0] == later[1]

    def test_a_report_that_makes_no_sense_is_refused(self) -> None:
        searcher = self.make()
        proposal = searcher.propose()
        assert proposal is not None
        for examples, values in ((-1, [1.0, 2.0]), (100, [1.0]), (100, [1.0, float("nan")])):
            with pytest.raises(ValueError, match="a report needs examples from 0 and a finite value or None"):
                searcher.observe(proposal.id, examples, values)
            with pytest.raises(ValueError, match="a report needs examples from 0"):
                self.make().remember(proposal.assignment, None, None, proposal.notes, [(examples, values)])
        searcher.observe(proposal.id, 100, [1.0, None])
        searcher.tell(proposal.id, "stopped", None)
        for identity in (proposal.id, 99):
            with pytest.raises(ValueError, match="is not open"):
                searcher.observe(identity, 300, [1.0, 2.0])

    def test_an_open_trial_of_an_earlier_session_is_told_later_and_has_no_values_before(self) -> None:
        proposal = self.make().propose()
        assert proposal is not None
        searcher = self.make()
        with pytest.raises(ValueError, match="an open trial has no final values"):
            searcher.remember(proposal.assignment, None, [1.0, 2.0])
        with pytest.raises(ValueError, match="needs one finite value"):
            searcher.remember(proposal.assignment, "ok", None)
        remembered = searcher.remember(proposal.assignment, None, None, proposal.notes)
        assert remembered == proposal
        searcher.tell(remembered.id, "ok", [1.0, 2.0])
        with pytest.raises(ValueError, match="is not open"):
            searcher.tell(remembered.id, "ok", [1.0, 2.0])

    def test_a_told_trial_of_an_earlier_session_is_not_open(self) -> None:
        proposal = self.make().propose()
        assert proposal is not None
        searcher = self.make()
        remembered = searcher.remember(proposal.assignment, "failed", None, proposal.notes)
        with pytest.raises(ValueError, match="is not open"):
            searcher.tell(remembered.id, "failed", None)

    def test_a_refused_recipe_is_never_proposed_and_counted(self) -> None:
        asked: list[tuple[bool, Mapping[str, Any]]] = []

        def admits(assignment: Mapping[str, Any]) -> bool:
            asked.append((small_rates(assignment), assignment))
            return asked[-1][0]

        searcher = self.make(admits=admits)
        refused = searcher.refused  # known recipes, if it has any
        proposals = run(searcher, 30)
        assert len(proposals) >= 20  # of the grid, 22 points are admitted
        assert all(small_rates(proposal.assignment) for proposal in proposals)
        assert searcher.refused > 10
        noted = sum(proposal.notes.get("refused", 0) for proposal in proposals)
        assert noted == searcher.refused - refused
        assert sum(not verdict for verdict, _ in asked) >= 10

    def test_where_everything_is_refused_nothing_is_proposed(self) -> None:
        for space in (toy_space(), toy_space(space=SPACE[:3])):
            searcher = self.make(space, admits=lambda assignment: False)
            assert searcher.propose() is None
            assert searcher.propose() is None
            assert searcher.refused > 0

    def test_the_sweep_hands_over_what_it_admits(self) -> None:
        spec = toy_spec(searcher={"name": self.name, "options": self.options})
        assert make_searcher(spec, toy_space()).propose() is not None
        assert make_searcher(spec, toy_space(), admits=lambda assignment: False).propose() is None

    def test_the_last_admitted_recipe_of_a_finite_space_is_found(self) -> None:
        values = list(range(1, 2001))
        space = toy_space(
            space=[
                {"set": "model.family", "choice": ["alpha"]},
                {"set": "train.batch_size", "choice": values},
            ]
        )
        proposal = self.make(space, admits=lambda item: item["train.batch_size"] == 1777).propose()
        assert proposal is not None
        assert proposal.assignment == {"model.family": "alpha", "train.batch_size": 1777}

    def test_a_space_without_choices_left_is_proposed_as_it_is(self) -> None:
        space = toy_space(space=[{"set": "model.family", "choice": ["gamma"]}])
        proposal = self.make(space).propose()
        assert proposal is not None
        assert (proposal.id, proposal.assignment) == (0, {"model.family": "gamma"})
