"""The search benchmark: shares and intervals as on paper, each method runs, absent ones are left out."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer

from benchmarks import moasha, oracle, search
from benchmarks.one_form_each import one_form_each
from benchmarks.synthetic import SyntheticOptions, synthetic_table
from qa_core.data.squad import load_table
from qa_core.errors import DataError, MissingDependency
from sweeps import registry
from sweeps.front import pareto
from sweeps.replay.curve_files import write_table
from sweeps.replay.curves import CurveTable, RecordedForm
from sweeps.replay.simulate import recorded_space, replay
from sweeps.schedulers.asha import AshaOptions
from sweeps.schedulers.base import make_scheduler
from tests.sweeps.curves import OBJECTIVES, curve, spec_of, three_recipes

SMALL = SyntheticOptions(families=1, learning_rates=2)
needs_syne_tune = pytest.mark.skipif(
    not moasha.is_installed(), reason="Syne Tune (extra bench) is not installed"
)


def setting_of(table: CurveTable, workers: int = 1, others: bool = False) -> search.Setting:
    return search.Setting(table, workers, (9,), others)


def test_a_replay_is_summed_up_in_shares_of_the_grid() -> None:
    table = three_recipes()  # all three: 60 * 90 + 30 * 85 = 7950 of volume, 90 examples
    kind = registry.searcher_class("grid")
    searcher = kind(recorded_space(table), table.spec.objectives, seed=0, options={})
    scheduler = make_scheduler("pareto_asha", {"grace_examples": 10})
    outcome = replay(table, searcher, scheduler, workers=1)
    found = search.summary(table, outcome)
    # All wait at the rung for a third result. A alone goes on, and ends with 5400 (68 %) after 50 of 90: none of the
    # shares is reached.
    assert found.reached == (None,) * 4
    assert (found.finished, found.stopped) == (1, 2)
    assert found.spent == pytest.approx(50 / 90)
    assert outcome.finished_at(49) == []
    assert outcome.finished_at(50) == [0]
    nothing, all_of_a = (search.standing(table, outcome.finished_at(spent)) for spent in (49, 50))
    # The front is A, 60 at 10 MB, and C, 90 at 15 MB; nothing at all has the reference's EM, which is 0.
    assert nothing == search.Standing(0.0, 0, 90.0)
    assert all_of_a == search.Standing(5400 / 7950, 1, 30.0)


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
    assert len(search.grid_front(table)) == 4  # the last recipe is below the reference
    assert search.standing(table, [0, 1, 2, 3]) == search.Standing(1.0, 4, 0.0)
    assert search.standing(table, [0, 1, 2]).em_lost == 15.0  # at 15 MB: 30 where 45 could be had
    assert search.standing(table, [1, 2, 3]).em_lost == 5.0  # at 10 MB: no answer, 25, where 30 could be had
    assert search.standing(table, [0, 3]).em_lost == 35.0
    assert search.standing(table, []).em_lost == 55.0


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
    bound, whole = search.oracle_run(table), oracle.best_subsets(table)[-1]
    assert bound.spent == len(whole) / len(table.curves) == len(search.grid_front(table)) / len(table.curves)
    assert bound.reached[0] < bound.reached[-1] <= bound.spent
    found = search.standing(table, whole)
    assert (found.front_points, found.em_lost) == (len(whole), 0.0)
    assert found.volume == pytest.approx(1.0)


def test_quantiles_are_values_that_occurred_and_never_is_the_greatest() -> None:
    values = [0.1, None, 0.3, 0.2, None, 0.5, 0.4, None, None, None]
    assert search.interval(values) == (0.1, 0.5, math.inf)
    assert search.cell(values) == "50.0 (10.0-never)"
    assert search.reach_cell(values) == "50.0 (10.0-never); 5 of 10"
    assert search.reach_cell([None, None]) == "never; 0 of 2"
    assert search.reach_cell([0.25, 0.25]) == "25.0"
    assert search.cell([12.5, 3.0], scale=1.0) == "3.0 (3.0-12.5)"


def test_the_recorded_tables_are_measured_above_what_needs_no_training() -> None:
    tables = search.chosen_tables(None, ["none"])
    assert list(tables) == ["corpus", "minilm", "shipped"]
    sources = {"corpus": "sample", "shipped": "sample:hard"}
    for name, table in tables.items():
        em, memory = (objective.worst for objective in table.spec.objectives)
        assert memory == pytest.approx(1.1 * max(item.final["memory_mb"] for item in table.curves))
        if name not in sources:
            assert em == 0.0  # every question of SQuAD v1.1 has an answer
            continue
        questions = load_table(sources[name], split="dev")
        unanswerable = float(questions.is_unanswerable.mean())
        assert em == pytest.approx(100 * unanswerable)
        assert 20 < em < 30
        if name == "corpus":
            assert min(item.final["em_percent"] for item in table.curves) < em  # some learn less than nothing


def test_questions_that_are_not_those_of_the_table_are_refused() -> None:
    (table,) = search.chosen_tables([search.TABLES_FOLDER / "corpus.parquet"], ["none"]).values()
    other = replace(table, provenance={**table.provenance, "evaluation_hash": "0"})
    with pytest.raises(DataError, match="the table was recorded on 0"):
        search.with_references(other)


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


def test_searchers_are_compared_with_random_by_seed() -> None:
    def run_of(volume: float, end: float) -> search.Run:
        standings = tuple(search.Standing(share, 0, 0.0) for share in (volume, 1.0))
        return search.Run((None,) * 4, standings, 0, 1, 1.0, end=search.Standing(end, 0, 0.0))

    rows = {
        "random + pareto_asha, 1/9": [run_of(0.5, 0.8), run_of(0.7, 0.8), run_of(0.6, 0.9)],
        "sobol + pareto_asha, 1/9": [run_of(0.6, 0.8), run_of(0.7, 0.7), run_of(0.9, 0.9)],
    }
    lines = [line for line in search.paired_markdown(rows) if "sobol" in line]
    assert [line.split(" | ") for line in lines] == [
        [
            "| sobol + pareto_asha, 1/9, minus random + pareto_asha, 1/9",
            "10.0 (0.0-30.0)",
            "13.3 (0.0 to 30.0)",
            "2",
            "0 |",
        ],
        [
            "| sobol + pareto_asha, 1/9, minus random + pareto_asha, 1/9; at the end",
            "0.0 (-10.0-0.0)",
            "-3.3 (-10.0 to 0.0)",
            "0",
            "1 |",
        ],
    ]


def test_with_forms_a_searcher_is_compared_with_random_with_forms() -> None:
    def run_of(volume: float) -> search.Run:
        standing = search.Standing(volume, 0, 0.0)
        return search.Run((None,) * 4, (standing, standing), 0, 1, 1.0, end=standing)

    rows = {
        "random + pareto_asha, 1/9": [run_of(0.1)],
        "surrogate + pareto_asha, 1/9": [run_of(0.2)],
        "random + pareto_asha, no floor + forms, 1/9": [run_of(0.6)],
        "random + pareto_asha + forms, 1/9": [run_of(0.5)],
        "surrogate + pareto_asha + forms, 1/9": [run_of(0.9)],
    }
    found = {
        line.split(" | ")[0]: line.split(" | ")[1] for line in search.paired_markdown(rows) if "," in line
    }
    ours = "random + pareto_asha + forms, 1/9"
    assert found["| surrogate + pareto_asha, 1/9, minus random + pareto_asha, 1/9"] == "10.0"
    for end in ("", "; at the end"):
        assert found[f"| surrogate + pareto_asha + forms, 1/9, minus {ours}{end}"] == "40.0"
    assert found[f"| random + pareto_asha, no floor + forms, 1/9, minus {ours}; at the end"] == "10.0"
    assert found[f"| {ours}, minus random + pareto_asha, no floor + forms, 1/9"] == "-10.0"


def with_three_forms() -> CurveTable:
    """Return trainings A, B and C of 30 examples, each in three forms; B's int8 failed."""
    rates = [0.001, 0.002, 0.003]
    spec = spec_of([{"set": "train.learning_rate", "choice": rates}])
    finals = {"A": ((60.0, 40.0), (58.0, 20.0), (30.0, 10.0)), "B": ((50.0, 16.0), None, (45.0, 4.0))}
    finals["C"] = ((20.0, 8.0), (19.0, 4.0), (10.0, 2.0))
    curves = []
    for rate, (name, ends) in zip(rates, finals.items(), strict=True):
        whole = ends[0]
        assert whole is not None
        forms = tuple(
            RecordedForm(
                label,
                kind,
                {"memory_mb": whole[1] / 2**place},
                None if end is None else {"em_percent": end[0], "memory_mb": end[1]},
                2.0,
            )
            for place, (label, kind, end) in enumerate(
                zip(
                    ("float32", "int8", "nf4"), ("scored at rungs: float32", "int8", "nf4"), ends, strict=True
                )
            )
        )
        final = {"em_percent": whole[0], "memory_mb": whole[1]}
        rungs = {"em_percent": (whole[0] / 2, whole[0]), "memory_mb": (whole[1],) * 2}
        curves.append(
            curve(
                {"train.learning_rate": rate},
                trial_id=name,
                final=final,
                rung_values=rungs,
                forms=forms,
                seconds=38.0,
            )
        )
    return CurveTable(spec, tuple(curves))


def test_a_table_with_forms_is_also_one_of_recipes_that_are_trained_each() -> None:
    table = with_three_forms()
    recipes = one_form_each(table)
    assert [item.trial_id for item in recipes.curves] == [
        *("A float32", "A int8", "A nf4", "B float32", "B nf4", "C float32", "C int8", "C nf4")
    ]
    assert recipes.losses.tolist() == table.losses.tolist()
    assert recipes.total_examples == 8 * 30
    assert table.total_examples == 3 * 30
    assert {item.seconds for item in recipes.curves} == {30.0 + 2.0}
    nf4 = recipes.curves[4]
    assert nf4.rung_values == {"em_percent": (25.0 * 45 / 50, 45.0), "memory_mb": (4.0, 4.0)}
    assert nf4.assignment == {"train.learning_rate": 0.002, "form": "nf4"}
    for kind in ("grid", "random"):
        space = recorded_space(recipes)
        searcher = registry.searcher_class(kind)(space, recipes.spec.objectives, seed=0, options={})
        outcome = replay(recipes, searcher, make_scheduler("fifo", {"reports": 0}), workers=2)
        assert sorted(trial.curve for trial in outcome.trials) == list(range(8))
        assert outcome.trace[-1].worker_seconds == 8 * 32.0


def test_rows_with_and_without_forms_have_the_same_grid() -> None:
    setting = setting_of(with_three_forms())
    replayer = search.Replayer(setting)
    assert list(search.methods(setting)) == [
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
    for row in search.methods(setting):
        assert 0 < replayer.run(row, 1).spent <= 8 / 3


def test_of_trainings_with_forms_the_oracle_takes_the_one_that_adds_the_most() -> None:
    table = with_three_forms()
    subsets = oracle.best_subsets(table)
    volumes = [pareto.hypervolume(table.losses_of(subset), table.reference) for subset in subsets]
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(table.hypervolume)
    best = max(range(3), key=lambda index: pareto.hypervolume(table.losses_of([index]), table.reference))
    assert subsets[:2] == [(), (best,)]
    bound = search.oracle_run(table)
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
    added = set(search.methods(setting_of(table, others=True))) - set(search.methods(setting_of(table)))
    bins = {f"random + pareto_asha, {count} bins, 1/9" for count in (4, 12)}
    assert added == bins | {"Optuna NSGA-II", "Optuna TPE", "Optuna TPE + pareto_asha, 1/9"}
    for name in added:
        assert 0 < search.Replayer(setting_of(table, workers=2, others=True)).run(name, 0).spent <= 1.0
    monkeypatch.setattr(search, "SLOW_ABOVE", len(table.curves) - 1)
    left = set(search.methods(setting_of(table, others=True)))
    assert left & added == bins
    assert {name for name in left if name.startswith(("sobol", "surrogate"))} == {"sobol + pareto_asha, 1/9"}


def test_single_rows_can_be_replayed() -> None:
    setting = replace(setting_of(synthetic_table(SMALL)), rows=("random",))
    assert list(search.measure(setting, seeds=range(1), processes=1)) == ["oracle", "random"]
    with pytest.raises(typer.BadParameter, match="--row: found 'x'; allowed: full grid, shuffled; random; "):
        search.methods(replace(setting, rows=("random", "x")))


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
