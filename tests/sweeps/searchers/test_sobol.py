"""Sobol points: the contract, one proposal a round for each product of family and methods, evenly spread."""

from collections import Counter

import pytest

from sweeps.searchers.base import fingerprint
from sweeps.searchers.sobol import POINTS_NOTE, SobolSearcher
from sweeps.space.paths import method_names
from sweeps.space.space import Assignment
from tests.contracts.searcher import GOALS, SearcherContract, Session
from tests.sweeps.toys import SPACE, toy_space

CHOICES_ONLY = [SPACE[0], SPACE[1], SPACE[2]]  # 17 legal recipes
STRATA = 5 + 5 + 3  # products of alpha, beta and gamma that are legal with some head


def product(assignment: Assignment) -> tuple[str, tuple[str, ...]]:
    return assignment["model.family"], method_names(assignment["methods"])


class TestSobol(SearcherContract):
    name = "sobol"

    def test_each_round_has_every_product_once_in_another_order(self) -> None:
        searcher = self.make()
        rounds = [
            [product(item.assignment) for _ in range(STRATA) if (item := searcher.propose()) is not None]
            for _ in range(4)
        ]
        assert {len(set(found)) for found in rounds} == {STRATA}
        assert len({tuple(found) for found in rounds}) == 4
        assert {tuple(sorted(found)) for found in rounds} == {tuple(sorted(rounds[0]))}

    def test_the_points_of_a_product_leave_no_gap(self) -> None:
        space = toy_space(
            space=[
                {"set": "model.family", "choice": ["alpha", "gamma"]},
                {"set": "train.weight_decay", "uniform": [0, 1]},
                {"set": "train.warmup_share", "uniform": [0, 0.5]},
            ]
        )
        searcher = self.make(space)
        found = [item.assignment for _ in range(2 * 16) if (item := searcher.propose()) is not None]
        for family in ("alpha", "gamma"):
            for name, high in (("train.weight_decay", 1.0), ("train.warmup_share", 0.5)):
                values = [item[name] for item in found if item["model.family"] == family]
                assert sorted(int(16 * value / high) for value in values) == list(range(16))

    def test_a_structural_choice_before_the_methods_is_one_that_they_allow(self) -> None:
        # sole needs span output: with the head generate it is not legal, and the head comes first.
        searcher = self.make()
        found = [item.assignment for _ in range(6 * STRATA) if (item := searcher.propose()) is not None]
        assert {
            item["model.head"] for item in found if item["methods"] == "sole" and "model.head" in item
        } == {"span"}
        heads = Counter(item["model.head"] for item in found if product(item) == ("beta", ()))
        assert heads.keys() == {"span", "generate"}
        assert heads.total() == 6

    def test_a_finite_space_is_used_up_before_a_recipe_repeats(self) -> None:
        space = toy_space(space=CHOICES_ONLY)
        searcher = self.make(space)
        proposals = [searcher.propose() for _ in range(2 * 17)]
        counts = Counter(fingerprint(item.assignment) for item in proposals[:17] if item)
        assert counts == {fingerprint(item): 1 for item in space.grid()}
        assert None not in proposals  # then it repeats

    @pytest.mark.parametrize("cut", [11, 14, 16, 20])
    def test_points_that_were_passed_over_are_not_looked_at_again_after_a_resume(self, cut: int) -> None:
        def small(assignment: Assignment) -> bool:
            return assignment.get("train.batch_size", 8) == 8

        rates = {"set": "train.learning_rate", "choice": [1e-4]}
        space = toy_space(space=[*CHOICES_ONLY, rates, SPACE[-1]])
        undisturbed = Session(self.make(space, admits=small), open_at_most=2)
        expected = undisturbed.go_on(24)
        rebuilt = undisturbed.rebuilt(cut, self.make(space, admits=small))
        assert rebuilt.go_on(24) == expected
        assert rebuilt.searcher.refused == undisturbed.searcher.refused > 0
        assert any(len(item.notes[POINTS_NOTE]) > 1 for item in expected[:cut]) or cut == 11


@pytest.mark.usefixtures("toy_registry")
def test_where_neither_family_nor_methods_are_searched_there_is_one_product() -> None:
    space = toy_space(
        space=[{"set": "train.batch_size", "choice": [8, 16, 32, 64]}],
        recipe={"model": {"family": "alpha"}},
    )
    searcher = SobolSearcher(space, GOALS, seed=0, options={})
    found = [
        item.assignment["train.batch_size"] for _ in range(4) if (item := searcher.propose()) is not None
    ]
    assert sorted(found) == [8, 16, 32, 64]
