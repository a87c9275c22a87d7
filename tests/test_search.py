"""The search benchmark: shares and intervals as on paper, each method runs, absent ones are left out."""

import json
import math
from pathlib import Path

import pytest
import typer

from benchmarks import moasha, search
from benchmarks.synthetic import SyntheticOptions, synthetic_table
from qa_core.errors import MissingDependency
from sweeps import registry
from sweeps.curve_files import write_table
from sweeps.replay import recorded_space, replay
from sweeps.schedulers.asha import AshaOptions
from tests.sweeps.curves import three_recipes

SMALL = SyntheticOptions(families=1, learning_rates=2)
needs_syne_tune = pytest.mark.skipif(
    not moasha.is_installed(), reason="Syne Tune (extra bench) is not installed"
)


def test_a_replay_is_summed_up_in_shares_of_the_grid() -> None:
    table = three_recipes()  # all three: 60 * 90 + 30 * 85 = 7950 of volume, 90 examples
    kind = registry.searcher_class("grid")
    searcher = kind(recorded_space(table), table.spec.objectives, seed=0, options={})
    scheduler = registry.make_scheduler("pareto_asha", {"grace_examples": 10})
    found = search.summary(table, replay(table, searcher, scheduler, workers=1))
    # A ends first, with 5400 (68 %); B is stopped, and C too: none of the shares is reached.
    assert found.reached == (None, None, None)
    assert found.volumes == pytest.approx((0.0, 0.0, 0.0, 0.0, 5400 / 7950))
    assert (found.finished, found.stopped, found.distinct) == (1, 2, 3)
    assert found.spent == pytest.approx(50 / 90)


def test_quantiles_are_values_that_occurred_and_never_is_the_greatest() -> None:
    values = [0.1, None, 0.3, 0.2, None, 0.5, 0.4, None, None, None]
    assert search.interval(values) == (0.1, 0.5, math.inf)
    assert search.cell(values) == "50.0 (10.0-never)"
    assert search.cell([None, None]) == "never"
    assert search.cell([0.25, 0.25]) == "25.0"


def test_every_method_runs_and_the_results_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(moasha, "is_installed", lambda: False)
    path = tmp_path / "small.parquet"
    write_table(synthetic_table(SMALL), path)
    search.main(table=[path], synthetic=["none"], seeds=1, workers=2, first_rung=[9], out=tmp_path / "o.json")
    rows = json.loads((tmp_path / "o.json").read_text())["results"]["small"]
    assert list(rows) == [
        "full grid, shuffled",
        "random",
        "Optuna NSGA-II",
        "Optuna TPE",
        "random + Ray's ASHA on EM, 1/9",
        "random + pareto_asha, 1/9",
        "random + pareto_asha, 4 bins, 1/9",
        "random + pareto_asha, 12 bins, 1/9",
        "Optuna TPE + pareto_asha, 1/9",
    ]
    for name, (only,) in rows.items():
        assert 0 < only["spent"] <= 1.0
        assert (only["stopped"] == 0) == ("asha" not in name.lower())
    assert rows["full grid, shuffled"][0]["reached"][-1] is not None
    assert "Syne Tune is not installed; its rows are left out" in capsys.readouterr().out


def test_large_tables_are_spared_the_slow_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    table = synthetic_table(SMALL)
    monkeypatch.setattr(search, "SLOW_ABOVE", len(table.curves) - 1)
    assert not any("Optuna" in name or "Syne" in name for name in search.methods(table, [9]))


def test_an_unknown_synthetic_table_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="found 'x'; allowed: curves seldom cross"):
        search.chosen_tables([], ["x"])


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
    pareto = registry.make_scheduler("pareto_asha", {"grace_examples": 3000})
    theirs = replay(table, searcher, scheduler, workers=1)
    mine = replay(table, ours, pareto, workers=1)
    assert scheduler.rungs(27_000) == pareto.rungs(27_000) == (3000, 9000)
    assert [trial.curve for trial in theirs.trials] == [trial.curve for trial in mine.trials]
    assert 0 < theirs.counts["stopped"] < len(theirs.trials)
    assert {trial.examples_seen for trial in theirs.trials} <= {3000, 9000, 27_000}


@needs_syne_tune
def test_the_priority_that_it_comes_with_is_an_order_and_the_repaired_one_is_ranks() -> None:
    import numpy as np
    from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import NonDominatedPriority

    chain = np.array([[3.0, 3.0], [1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])  # each beats the next
    assert moasha.ranked_priority()(chain).tolist() == [2, 0, 1, 3]
    # A release that returns ranks itself makes this red: then the second row of the benchmark is to go.
    assert NonDominatedPriority()(chain).tolist() == [1, 2, 0, 3]
