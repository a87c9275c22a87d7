"""Random search: the contract, and no repeats while there are other recipes."""

from collections import Counter

from sweeps.searchers.base import fingerprint
from sweeps.searchers.optuna import OptunaSearcher
from sweeps.searchers.random import RandomSearcher
from sweeps.space.known_recipes import known_recipes
from tests.contracts.searcher import SearcherContract, run
from tests.sweeps.toys import SPACE, toy_space

CHOICES_ONLY = [SPACE[0], SPACE[1], SPACE[2]]  # 17 legal recipes


class TestRandomSearcher(SearcherContract):
    name = "random"

    def test_a_finite_space_is_used_up_before_a_recipe_repeats(self) -> None:
        space = toy_space(space=CHOICES_ONLY)
        searcher = self.make(space)
        proposals = [searcher.propose() for _ in range(2 * 17)]
        counts = Counter(fingerprint(item.assignment) for item in proposals[:17] if item)
        assert set(counts.values()) == {1}
        assert counts.keys() == {fingerprint(item) for item in space.grid()}
        assert None not in proposals  # then it repeats

    def test_a_rare_recipe_is_found_by_looking_when_draws_fail(self) -> None:
        entries = [
            {"set": "model.family", "choice": ["alpha", "beta"]},
            {"set": "train.batch_size", "choice": list(range(1, 400)), "when": {"model.family": "alpha"}},
        ]
        searcher = self.make(toy_space(space=entries))
        proposals = [searcher.propose() for _ in range(400)]
        assert len({fingerprint(item.assignment) for item in proposals if item}) == 400

    def test_a_remembered_recipe_is_not_proposed_again(self) -> None:
        space = toy_space(space=CHOICES_ONLY)
        grid = list(space.grid())
        searcher = self.make(space)
        for assignment in grid[:-1]:
            searcher.remember(assignment, "stopped", None)
        proposal = searcher.propose()
        assert proposal is not None
        assert proposal.assignment == grid[-1]

    def test_what_is_drawn_depends_on_its_number_and_not_on_what_came_before(self) -> None:
        searcher, other = self.make(seed=1), self.make(seed=2)
        strange = other.propose()
        undisturbed = [searcher.propose() for _ in range(3)]
        assert strange is not None
        searcher = self.make(seed=1)
        searcher.remember(strange.assignment, "failed", None, strange.notes)
        assert [searcher.propose() for _ in range(2)] == undisturbed[1:]

    def test_a_finite_space_that_is_used_up_repeats_only_what_is_admitted(self) -> None:
        space = toy_space(space=CHOICES_ONLY)
        admitted = [item for item in space.grid() if item["methods"] == "adapt"]
        searcher = self.make(space, admits=lambda assignment: assignment["methods"] == "adapt")
        found = [searcher.propose() for _ in range(9)]
        assert len(admitted) == 3
        assert all(item.assignment in admitted for item in found if item)
        assert sorted(map(str, admitted)) == sorted(str(item.assignment) for item in found[:3] if item)
        assert None not in found


class TestRandomSearcherFromKnownRecipes(SearcherContract):
    name = "random"
    options = {"known": True}

    def test_known_recipes_come_first_and_then_chance(self) -> None:
        space = toy_space()
        known = known_recipes(space, seed=4)
        found = [item.assignment for item in run(self.make(space, seed=4), 20)]
        assert found[:13] == known
        assert not [item for item in found[13:] if item in known]
        by_chance = self.make(space, seed=5, admits=lambda assignment: assignment not in known)
        assert by_chance.refused == 13


def test_no_known_recipe_is_proposed_unless_asked_for() -> None:
    assert RandomSearcher.check_options({}).known is False
    assert OptunaSearcher.check_options({}).known is False
