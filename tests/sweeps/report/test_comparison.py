"""Sweeps against the first: exact volumes, a paired interval that a plain loop agrees with, refusals that name both."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qa_core.errors import ConfigError
from sweeps.front.front import compute_front
from sweeps.report.answer_book import AnswerBook
from sweeps.report.columns import decoded
from sweeps.report.comparison import Comparison, compare
from sweeps.report.comparison_story import comparison_story
from sweeps.report.page import page
from sweeps.report.snapshot import Snapshot
from sweeps.run_folder.records import Record
from sweeps.spec.objectives import Objective
from tests.sweeps.front.test_front import record
from tests.sweeps.report.made import write_answers

EM = Objective(name="em_percent", goal="max", reference=20)
MEMORY = Objective(name="memory_mb", goal="min", reference=10)


def sweep(
    folder: Path, records: list[Record], objectives: tuple[Objective, ...] = (EM, MEMORY), **spec: Any
) -> Snapshot:
    return Snapshot(folder, {"name": folder.name, **spec}, records, compute_front(records, objectives))


def compared(*sweeps: Snapshot) -> Comparison:
    return compare(sweeps, [AnswerBook(item.folder) for item in sweeps])


def test_volumes_new_and_lost_points_are_exact(tmp_path: Path) -> None:
    first = sweep(tmp_path / "a", [record("t0", 60, 8), record("t1", 30, 2)])
    other = sweep(tmp_path / "b", [record("t0", 60, 8), record("t1", 50, 4), record("t2", 10, 1)])
    found = compared(first, other)
    assert found.hypervolumes == (40 * 2 + 10 * 6, 40 * 2 + 30 * 4)
    (difference,) = found.differences
    assert difference.hypervolume == 60
    assert [point.trial_id for point in difference.new] == ["t1", "t2"]
    assert [point.trial_id for point in difference.lost] == ["t1"]
    assert difference.interval is None
    assert difference.why_no_interval == "answers of a model of a front are not there"


def test_the_worst_reference_of_all_counts_for_all(tmp_path: Path) -> None:
    first = sweep(tmp_path / "a", [record("t0", 60, 8)])
    lower = EM.model_copy(update={"reference": 10.0})
    wider = MEMORY.model_copy(update={"reference": 28.0})
    other = sweep(tmp_path / "b", [record("t0", 60, 8)], (wider, lower))  # in another order
    found = compared(first, other)
    assert [item.worst for item in found.objectives] == [10.0, 28.0]
    assert found.hypervolumes == (50 * 20, 50 * 20)
    assert found.differences[0].new == found.differences[0].lost == ()


def test_the_interval_is_that_of_leaving_out_each_article_in_both_at_once(tmp_path: Path) -> None:
    exact = {"a": {"t0": 60.0, "t1": 30.0}, "b": {"t0": 64.0, "t1": 45.5}}
    memory = {"t0": 8.0, "t1": 2.0}
    sweeps = []
    for name, models in exact.items():
        for trial, em in models.items():
            write_answers(tmp_path / name / "trials" / trial / "answers.parquet", em)
        sweeps.append(
            sweep(tmp_path / name, [record(trial, em, memory[trial]) for trial, em in models.items()])
        )
    (found,) = compared(*sweeps).differences

    def volume(em: dict[str, float]) -> float:
        return (em["t0"] - 20) * 2 + (em["t1"] - 20) * 6

    article = np.arange(200) % 10
    right = {
        (name, trial): 100.0 * (np.arange(200) < round(em * 2))
        for name in exact
        for trial, em in exact[name].items()
    }
    without = []
    for left_out in range(10):
        rest = article != left_out
        sides = {name: volume({trial: right[name, trial][rest].mean() for trial in memory}) for name in exact}
        without.append(sides["b"] - sides["a"])
    estimate = volume(exact["b"]) - volume(exact["a"])
    half = 2.262157 * np.sqrt(0.9 * ((np.array(without) - estimate) ** 2).sum())  # t of 9 degrees of freedom
    assert found.hypervolume == pytest.approx(estimate)
    assert found.interval is not None
    assert found.interval.low == pytest.approx(estimate - half, rel=1e-5)
    assert found.interval.high == pytest.approx(estimate + half, rel=1e-5)
    assert (found.interval.unit, found.interval.clusters) == ("article", 10)
    assert half > 1


def test_there_is_no_interval_without_the_same_questions_or_with_too_few_articles(tmp_path: Path) -> None:
    sweeps = [sweep(tmp_path / name, [record("t0", 60, 8)]) for name in "ab"]
    whys = []
    for questions, articles in ((100, 10), (200, 7)):
        write_answers(sweeps[0].folder / "trials/t0/answers.parquet", 60, questions=200, articles=articles)
        write_answers(
            sweeps[1].folder / "trials/t0/answers.parquet", 60, questions=questions, articles=articles
        )
        whys.append(compared(*sweeps).differences[0].why_no_interval)
    assert whys == ["the answers are not to the same questions", "7 articles are too few for an interval"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"evaluation": {"data_hash": "other"}}}, "evaluation data: found other in b; "),
        ({"budget_examples": 500, "examples_seen": 500}, "budget in examples: found 500 in b; "),
        ({"device": "NVIDIA H200"}, "device: found NVIDIA H200 in b; cpu in a"),
        ({"cost": {"protocol_version": 7}}, "version of the measuring protocol: found 7 in b; "),
    ],
    ids=["data", "budget", "device", "protocol"],
)
def test_what_was_not_measured_on_equal_terms_is_refused_with_both_values(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    one, other = record("t0", 60, 8), record("t0", 60, 8, **changes)
    with pytest.raises(ConfigError, match="not measured on equal terms") as refused:
        compared(sweep(tmp_path / "a", [one]), sweep(tmp_path / "b", [other]))
    assert words in str(refused.value)


def test_other_objectives_the_same_folder_and_a_sweep_without_a_result_are_refused(tmp_path: Path) -> None:
    first = sweep(tmp_path / "a", [record("t0", 60, 8)])
    single = sweep(tmp_path / "b", [record("t0", 60, 8)], (EM,))
    with pytest.raises(
        ConfigError, match=r"objectives: found em_percent \(max\) in b; em_percent \(max\), memory"
    ):
        compared(first, single)
    with pytest.raises(ConfigError, match="each once"):
        compared(first, first)
    with pytest.raises(ConfigError, match="b has no finished trial"):
        compared(first, sweep(tmp_path / "b", []))


def test_settings_that_differ_are_named_entry_by_entry_of_the_space(tmp_path: Path) -> None:
    rate = {"set": "train.learning_rate", "log_uniform": [0.001, 0.004], "when": {"methods": ["full"]}}
    family = {"set": "model.family", "choice": ["bert", "t5"]}
    first = sweep(
        tmp_path / "a", [record("t0")], seed=1, budget={"trials": 5, "examples": 9}, space=[rate, family]
    )
    wider = {**rate, "log_uniform": [0.001, 0.01]}
    other = sweep(
        tmp_path / "b", [record("t0")], seed=1, budget={"trials": 7, "examples": 9}, space=[wider, family]
    )
    assert compared(first, other).settings == (
        ("budget.trials", "5", "7"),
        (
            "space: train.learning_rate where methods: full",
            "evenly in the logarithm 0.001 to 0.004",
            "evenly in the logarithm 0.001 to 0.01",
        ),
    )


def test_sweeps_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    sweeps = [sweep(tmp_path / name / "run", [record("t0", 60, 8)]) for name in "ab"]
    assert compared(*sweeps).labels == (str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run"))


def test_the_page_of_a_comparison_has_each_point_once_and_escapes_names(tmp_path: Path) -> None:
    nasty = "</script><script>alert(1)</script>"
    config = {**record("t0").config, "model": {"family": nasty, "checkpoint": nasty}}
    first = sweep(tmp_path / "a", [record("t0", 60, 8), record("t1", 30, 9)], seed=nasty)
    other = sweep(tmp_path / "b", [replace(record("t0", 70, 8), config=config)])
    told = comparison_story(compared(first, other))
    rows = decoded(told["rows"]["columns"])
    assert [(row["sweep"], row["trial"], row["place"], row["new"]) for row in rows] == [
        (0, "t0", "front", None),
        (0, "t1", "behind", None),
        (1, "t0", "front", "yes"),
    ]
    assert rows[2]["family"] == nasty
    assert page(told).count("</script>") == 2
