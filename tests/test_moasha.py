"""Syne Tune's MOASHA in a replay: the proposals it sees, and the ranks that are repaired."""

import numpy as np
import pytest

from benchmarks import moasha
from benchmarks.synthetic import SyntheticOptions, synthetic_table
from qa_core.errors import MissingDependency
from sweeps import registry
from sweeps.replay.simulate import recorded_space, replay
from sweeps.schedulers.asha import AshaOptions
from sweeps.schedulers.base import make_scheduler
from tests.sweeps.curves import three_recipes

SMALL = SyntheticOptions(families=1, learning_rates=2)
needs_syne_tune = pytest.mark.skipif(
    not moasha.is_installed(), reason="Syne Tune (extra bench) is not installed"
)


def test_without_syne_tune_its_method_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moasha, "is_installed", lambda: False)
    table = three_recipes()
    with pytest.raises(MissingDependency, match=r"qa-sweeps\[bench\]"):
        moasha.make_moasha(
            table, recorded_space(table), seed=0, options=AshaOptions(grace_examples=10), is_ranked=False
        )


@needs_syne_tune
def test_syne_tune_sees_the_proposals_of_our_random_searcher() -> None:
    table = synthetic_table(SMALL)
    space, options = recorded_space(table), AshaOptions(grace_examples=3000)
    searcher, scheduler = moasha.make_moasha(table, space, seed=3, options=options, is_ranked=True)
    ours = registry.searcher_class("random")(space, table.spec.objectives, seed=3, options={})
    pareto = make_scheduler("pareto_asha", {"grace_examples": 3000})
    theirs = replay(table, searcher, scheduler, workers=1)
    mine = replay(table, ours, pareto, workers=1)
    assert scheduler.rungs(27_000) == pareto.rungs(27_000) == (3000, 9000)
    assert [trial.curve for trial in theirs.trials] == [trial.curve for trial in mine.trials]
    assert 0 < theirs.counts["stopped"] < len(theirs.trials)
    assert {trial.examples_seen for trial in theirs.trials} <= {3000, 9000, 27_000}


@needs_syne_tune
def test_the_priority_that_it_comes_with_is_an_order_and_the_repaired_one_is_ranks() -> None:
    from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import NonDominatedPriority

    chain = np.array([[3.0, 3.0], [1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])  # each beats the next
    assert moasha.ranked_priority()(chain).tolist() == [2, 0, 1, 3]
    # A release that returns ranks itself makes this red: then the second row of the benchmark is to go.
    assert NonDominatedPriority()(chain).tolist() == [1, 2, 0, 3]
