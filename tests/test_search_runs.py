"""What the search benchmark measures: shares and the loss in EM as on paper, and the bound that no search is below."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks import oracle, search_runs
from benchmarks.synthetic import SyntheticOptions, synthetic_table
from sweeps import registry
from sweeps.front import pareto
from sweeps.replay.curves import CurveTable
from sweeps.replay.simulate import recorded_space, replay
from sweeps.schedulers.base import make_scheduler
from tests.sweeps.curves import OBJECTIVES, curve, spec_of, three_recipes

SMALL = SyntheticOptions(families=1, learning_rates=2)


def test_a_replay_is_summed_up_in_shares_of_the_grid() -> None:
    table = three_recipes()  # all three: 60 * 90 + 30 * 85 = 7950 of volume, 90 examples
    kind = registry.searcher_class("grid")
    searcher = kind(recorded_space(table), table.spec.objectives, seed=0, options={})
    scheduler = make_scheduler("pareto_asha", {"grace_examples": 10})
    outcome = replay(table, searcher, scheduler, workers=1)
    found = search_runs.summary(table, outcome)
    # All wait at the rung for a third result. A alone goes on, and ends with 5400 (68 %) after 50 of 90: none of the
    # shares is reached.
    assert found.reached == (None,) * 4
    assert (found.finished, found.stopped) == (1, 2)
    assert found.spent == pytest.approx(50 / 90)
    assert outcome.finished_at(49) == []
    assert outcome.finished_at(50) == [0]
    nothing, all_of_a = (search_runs.standing(table, outcome.finished_at(spent)) for spent in (49, 50))
    # The front is A, 60 at 10 MB, and C, 90 at 15 MB; nothing at all has the reference's EM, which is 0.
    assert nothing == search_runs.Standing(0.0, 0, 90.0)
    assert all_of_a == search_runs.Standing(5400 / 7950, 1, 30.0)


def table_of(points: Sequence[tuple[float, float]], em_reference: float = 0.0) -> CurveTable:
    """Return recipes that end with these EM and memory, of 30 examples each; the reference of memory is 100."""
    rates = [0.001 * (1 + number) for number in range(len(points))]
    objectives = [{**OBJECTIVES[0], "reference": em_reference}, OBJECTIVES[1]]
    spec = spec_of([{"set": "train.learning_rate", "choice": rates}], objectives=objectives)
    return CurveTable(
        spec,
        tuple(
            curve({"train.learning_rate": rate}, final={"em_percent": em, "memory_mb": memory})
            for rate, (em, memory) in zip(rates, points, strict=True)
        ),
    )


def test_em_is_lost_where_no_finished_trial_of_that_memory_or_less_is_as_good() -> None:
    table = table_of([(30.0, 10.0), (50.0, 20.0), (80.0, 40.0), (45.0, 15.0), (20.0, 5.0)], em_reference=25.0)
    assert len(search_runs.grid_front(table)) == 4  # the last recipe is below the reference
    assert search_runs.standing(table, [0, 1, 2, 3]) == search_runs.Standing(1.0, 4, 0.0)
    assert search_runs.standing(table, [0, 1, 2]).em_lost == 15.0  # at 15 MB: 30 where 45 could be had
    assert (
        search_runs.standing(table, [1, 2, 3]).em_lost == 5.0
    )  # at 10 MB: no answer, 25, where 30 could be had
    assert search_runs.standing(table, [0, 3]).em_lost == 35.0
    assert search_runs.standing(table, []).em_lost == 55.0


def test_the_oracle_takes_the_best_recipes_of_each_number_and_no_search_is_below_it() -> None:
    rng = np.random.default_rng(0)
    for count in range(1, 9):
        points = [(float(rng.integers(0, 60)), float(rng.integers(1, 120))) for _ in range(count)]
        table = table_of(points, em_reference=20.0)
        subsets = oracle.best_subsets(table)
        for size, subset in enumerate(subsets):
            assert len(set(subset)) == size
            best = max(
                pareto.hypervolume(table.losses[list(chosen)], table.reference)
                for chosen in itertools.combinations(range(count), size)
            )
            assert pareto.hypervolume(table.losses[list(subset)], table.reference) == pytest.approx(best)
        assert pareto.hypervolume(table.losses[list(subsets[-1])], table.reference) == table.hypervolume
    table = synthetic_table(SMALL)
    bound, whole = search_runs.oracle_run(table), oracle.best_subsets(table)[-1]
    assert (
        bound.spent
        == len(whole) / len(table.curves)
        == len(search_runs.grid_front(table)) / len(table.curves)
    )
    assert bound.reached[0] < bound.reached[-1] <= bound.spent
    found = search_runs.standing(table, whole)
    assert (found.front_points, found.em_lost) == (len(whole), 0.0)
    assert found.volume == pytest.approx(1.0)
