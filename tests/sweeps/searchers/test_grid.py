"""Grid search: the contract, every recipe once, then the end."""

import pytest

from qa_core.errors import ConfigError
from sweeps.searchers.grid import GridSearcher
from tests.contracts.searcher import GOALS, SearcherContract
from tests.sweeps.toys import SPACE, toy_space

CHOICES_ONLY = [SPACE[0], SPACE[1], SPACE[2]]  # 17 legal recipes


class TestGridSearcher(SearcherContract):
    name = "grid"
    depends_on_seed = False

    def test_it_proposes_the_grid_in_order_and_then_nothing(self) -> None:
        space = toy_space(space=CHOICES_ONLY)
        searcher = self.make(space)
        proposals = [searcher.propose() for _ in range(17)]
        assert [item.assignment for item in proposals if item] == list(space.grid())
        assert searcher.propose() is None
        assert searcher.propose() is None

    def test_remembered_points_are_skipped(self) -> None:
        space = toy_space(space=CHOICES_ONLY)
        grid = list(space.grid())
        searcher = self.make(space)
        for assignment in grid[::2]:
            searcher.remember(assignment, "failed", None)
        assert [searcher.propose().assignment for _ in range(8)] == grid[1::2]  # type: ignore[union-attr]
        assert searcher.propose() is None

    def test_a_recipe_to_begin_with_is_left_out_of_the_walk_and_hides_no_refused_one(self) -> None:
        space = toy_space(space=CHOICES_ONLY)
        grid = list(space.grid())
        searcher = self.make(space, admits=lambda assignment: assignment != grid[1])
        searcher.begin_with([grid[2]])
        found = [proposal for _ in range(3) if (proposal := searcher.propose())]
        assert [proposal.assignment for proposal in found] == [grid[2], grid[0], grid[3]]
        assert [proposal.notes for proposal in found] == [{}, {}, {"refused": 1}]
        assert searcher.refused == 1

    def test_points_cut_each_range_and_must_be_positive(self) -> None:
        space = toy_space(
            space=[
                {"set": "model.family", "choice": ["alpha"]},
                {"set": "train.weight_decay", "uniform": [0, 1]},
            ]
        )
        searcher = GridSearcher(space, GOALS, seed=0, options={"points": 5})
        values = [searcher.propose().assignment["train.weight_decay"] for _ in range(5)]  # type: ignore[union-attr]
        assert values == [0.0, 0.25, 0.5, 0.75, 1.0]
        with pytest.raises(ConfigError, match="points: found 0; allowed: 1 or more"):
            GridSearcher.check_options({"points": 0})


class TestShuffledGridSearcher(SearcherContract):
    name = "grid"
    options = {"shuffle": True, "points": 2}

    def test_it_proposes_every_point_once_in_another_order(self) -> None:
        space = toy_space(space=CHOICES_ONLY)
        searcher = self.make(space)
        found = [searcher.propose().assignment for _ in range(17)]  # type: ignore[union-attr]
        grid = list(space.grid())
        assert found != grid
        assert all(item in found for item in grid)
        assert searcher.propose() is None
