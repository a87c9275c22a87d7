"""Random search: the contract, and no repeats while there are other recipes."""

from collections import Counter

from sweeps.searchers.base import fingerprint
from tests.contracts.searcher import SearcherContract
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
