"""The search benchmark: each method runs, rows with and without forms share a grid, absent ones are left out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from benchmarks import moasha, oracle, search, search_rows, search_runs
from benchmarks.synthetic import SyntheticOptions, synthetic_table
from sweeps.front import pareto
from sweeps.replay.curve_files import write_table
from sweeps.replay.curves import CurveTable
from tests.sweeps.curves import with_three_forms

SMALL = SyntheticOptions(families=1, learning_rates=2)


def setting_of(table: CurveTable, workers: int = 1, others: bool = False) -> search_rows.Setting:
    return search_rows.Setting(table, workers, (9,), others)


def test_every_method_runs_and_the_results_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.parquet"
    write_table(synthetic_table(SMALL), path)
    search.main(table=[path], synthetic=["none"], seeds=1, workers=2, first_rung=[9], out=tmp_path / "o.json")
    written = json.loads((tmp_path / "o.json").read_text())
    rows = written["results"]["small"]
    assert list(rows) == [
        "oracle",
        "full grid, shuffled",
        "random",
        "random + Ray's ASHA on EM, 1/9",
        "random + pareto_asha, no floor, 1/9",
        "random + pareto_asha, 1/9",
        "sobol + pareto_asha, 1/9",
        "surrogate + pareto_asha, 1/9",
    ]
    for name, (only,) in rows.items():
        assert 0 < only["spent"] <= 1.0
        assert (only["stopped"] == 0) == ("asha" not in name.lower())
        for share, bound in zip(only["reached"], rows["oracle"][0]["reached"], strict=True):
            assert share is None or share >= bound
    assert rows["full grid, shuffled"][0]["reached"][-1] is not None
    shown = capsys.readouterr().out
    assert "| method | budget % to 90 % HV |" in shown
    assert "| random + pareto_asha, 1/9, minus random |" in shown
    assert "| surrogate + pareto_asha, 1/9, minus random + pareto_asha, 1/9; at the end |" in shown


def test_rows_with_and_without_forms_have_the_same_grid() -> None:
    setting = setting_of(with_three_forms())
    replayer = search.Replayer(setting)
    assert list(search_rows.methods(setting)) == [
        *("full grid, shuffled", "random", "random + Ray's ASHA on EM, 1/9"),
        *("random + pareto_asha, no floor, 1/9", "random + pareto_asha, 1/9"),
        *("sobol + pareto_asha, 1/9", "surrogate + pareto_asha, 1/9"),
        *("full grid, shuffled + forms", "random + forms", "random + Ray's ASHA on EM + forms, 1/9"),
        *("random + pareto_asha, no floor + forms, 1/9", "random + pareto_asha + forms, 1/9"),
        *("sobol + pareto_asha + forms, 1/9", "surrogate + pareto_asha + forms, 1/9"),
    ]
    shared, alone = replayer.run("full grid, shuffled + forms", 0), replayer.run("full grid, shuffled", 0)
    assert shared.spent == 1.0
    assert shared.busy[-1] is not None
    assert shared.busy[-1] <= 1.0
    assert alone.spent == pytest.approx(8 / 3)
    for run in (shared, alone):
        assert run.end is not None
        assert run.end.volume == pytest.approx(1.0)
        assert (run.end.front_points, run.end.em_lost) == (5, 0.0)
    for row in search_rows.methods(setting):
        assert 0 < replayer.run(row, 1).spent <= 8 / 3


def test_of_trainings_with_forms_the_oracle_takes_the_one_that_adds_the_most() -> None:
    table = with_three_forms()
    subsets = oracle.best_subsets(table)
    volumes = [pareto.hypervolume(table.losses_of(subset), table.reference) for subset in subsets]
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(table.hypervolume)
    best = max(range(3), key=lambda index: pareto.hypervolume(table.losses_of([index]), table.reference))
    assert subsets[:2] == [(), (best,)]
    bound = search_runs.oracle_run(table)
    assert bound.reached[-1] == bound.spent == 1.0
    assert search.Replayer(setting_of(table)).run("random + forms", 0).reached[0] >= bound.reached[0]


@pytest.mark.long
def test_two_processes_give_the_runs_of_one(tmp_path: Path) -> None:
    setting = setting_of(synthetic_table(SMALL), workers=3)
    once, again = (search.measure(setting, seeds=range(3, 5), processes=processes) for processes in (1, 2))
    assert once == again
    assert once["random"][0] != once["random"][1]


def test_other_searches_are_added_on_request_and_large_tables_are_spared_the_slow_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moasha, "is_installed", lambda: False)
    table = synthetic_table(SMALL)
    added = set(search_rows.methods(setting_of(table, others=True))) - set(
        search_rows.methods(setting_of(table))
    )
    bins = {f"random + pareto_asha, {count} bins, 1/9" for count in (4, 12)}
    assert added == bins | {"Optuna NSGA-II", "Optuna TPE", "Optuna TPE + pareto_asha, 1/9"}
    for name in added:
        assert 0 < search.Replayer(setting_of(table, workers=2, others=True)).run(name, 0).spent <= 1.0
    monkeypatch.setattr(search_rows, "SLOW_ABOVE", len(table.curves) - 1)
    left = set(search_rows.methods(setting_of(table, others=True)))
    assert left & added == bins
    assert {name for name in left if name.startswith(("sobol", "surrogate"))} == {"sobol + pareto_asha, 1/9"}


def test_single_rows_can_be_replayed() -> None:
    setting = replace(setting_of(synthetic_table(SMALL)), rows=("random",))
    assert list(search.measure(setting, seeds=range(1), processes=1)) == ["oracle", "random"]
    with pytest.raises(typer.BadParameter, match="--row: found 'x'; allowed: full grid, shuffled; random; "):
        search_rows.methods(replace(setting, rows=("random", "x")))
