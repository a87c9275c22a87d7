"""A front run again with other seeds: what is planned, what is compared, what is called tied."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from qa_core.errors import DataError
from qa_core.scoring.answer_file import SCHEMA, UNIT
from sweeps.front import confirm
from sweeps.front.confirm import Confirmed
from sweeps.front.front import compute_front
from sweeps.run_folder import journal
from sweeps.run_folder.records import Record
from sweeps.spec.load import load_spec, stored_spec
from sweeps.spec.sections import SweepSpec
from tests.sweeps.run_folder.test_records import record

QUESTIONS = 200


def spec() -> SweepSpec:
    path = Path(__file__).parents[3] / "sweeps" / "configs" / "quickstart.yaml"
    return load_spec(path).with_references({"em_percent": 0.0, "memory_mb": 32.0})


def trial(trial_id: str, em: float, memory: float, **changes: Any) -> Record:
    config = {
        "model": {"family": "bert", "checkpoint": "micro"},
        "methods": {},
        "train": {"learning_rate": 0.1, "rungs": [10]},
        "evaluation": {"confirm_share": 0.0},
        "seed": int(trial_id[1:]),
    }
    values = {
        "objectives": {"em_percent": em, "memory_mb": memory},
        "quality": {"em_percent": em},
        "cost": {"inference_peak_bytes": memory * 1e6},
        "config": config,
        "assignment": {"model.family": "bert"},
    }
    return record(trial_id, **{**values, **changes})


TRIALS = [
    trial("t0000", 60.0, 9.0),
    trial("t0001", 20.0, 2.0),
    trial("t0002", 58.0, 5.0),
    trial("t0003", 10.0, 8.0),
]
ON_FRONT = ["t0000", "t0001", "t0002"]


def front() -> Any:
    return compute_front(TRIALS, spec().objectives)


def test_each_recipe_of_the_front_is_planned_with_new_seeds_and_nothing_else_changed(tmp_path: Path) -> None:
    confirming = confirm.plan(spec(), front(), TRIALS, tmp_path, seeds=2)
    past = journal.read(tmp_path).trials
    assert stored_spec(tmp_path).as_dict() == confirming.as_dict()
    assert (confirming.budget.trials, confirming.name) == (6, "quickstart-confirm")
    assert [item.reference for item in confirming.objectives] == [0.0, 32.0]
    assert (confirming.scheduler.name, confirming.recipe, confirming.space) == (
        "fifo",
        spec().recipe,
        spec().space,
    )
    assert sorted(item.notes["confirms"] for item in past) == sorted(2 * ON_FRONT)
    by_id = {item.trial_id: item for item in TRIALS}
    for item in past:
        original = by_id[item.notes["confirms"]]
        assert item.assignment == original.assignment
        train = {"learning_rate": 0.1, "rungs": []}
        assert item.recipe == {**original.config, "train": train, "seed": item.recipe["seed"]}
    seeds = {item.recipe["seed"] for item in past}
    assert len(seeds) == 6
    assert not seeds & {item.config["seed"] for item in TRIALS}


def test_questions_that_were_set_aside_score_the_repeats_and_nothing_else_changes(tmp_path: Path) -> None:
    trials = [replace(item, config={**item.config, "evaluation": {"confirm_share": 0.4}}) for item in TRIALS]
    confirm.plan(spec(), compute_front(trials, spec().objectives), trials, tmp_path, seeds=1)
    recipes = [item.recipe for item in journal.read(tmp_path).trials]
    assert [recipe["evaluation"] for recipe in recipes] == 3 * [{"confirm_share": 0.4, "part": "confirm"}]
    assert {recipe["train"]["learning_rate"] for recipe in recipes} == {0.1}


def test_more_seeds_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    confirm.plan(spec(), front(), TRIALS, tmp_path, seeds=1)
    first = journal.read(tmp_path).trials
    confirming = confirm.plan(spec(), front(), TRIALS, tmp_path, seeds=3)
    later = journal.read(tmp_path).trials
    assert (len(first), len(later), confirming.budget.trials) == (3, 9, 9)
    assert later[:3] == first
    assert [item.trial_id for item in later] == [f"t{index:04d}" for index in range(9)]
    confirm.plan(spec(), front(), TRIALS, tmp_path, seeds=3)
    assert len(journal.read(tmp_path).trials) == 9


def test_a_sweep_without_a_front_cannot_be_confirmed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no trial has finished"):
        confirm.plan(spec(), compute_front([], spec().objectives), [], tmp_path, seeds=1)


def found(tmp_path: Path, exact: dict[str, list[np.ndarray]], *, in_article: int = 1) -> list[Confirmed]:
    """Judge a front of which each point got the given answers, one row for each new seed."""
    repeats = []
    for original, rows in exact.items():
        for row in rows:
            trial_id = f"t{len(repeats):04d}"
            folder = tmp_path / "trials" / trial_id
            folder.mkdir(parents=True)
            columns = {
                "question_id": [f"q{index}" for index in range(len(row))],
                "answer": [""] * len(row),
                "exact_match": row.astype(float),
                "f1": row.astype(float),
                "cluster": np.arange(len(row), dtype=np.int32) // in_article,
            }
            schema = SCHEMA.with_metadata({UNIT: b"article"})
            parquet.write_table(pa.table(columns, schema=schema), folder / "answers.parquet")
            memory = 5.0 + len(repeats)
            repeats.append(trial(trial_id, 100.0 * row.mean(), memory, notes={"confirms": original}))
    failed = replace(repeats[0], trial_id="t9999", status="failed", reason="x", objectives=None, quality=None)
    return confirm.judge(front(), [*repeats, failed], tmp_path)


def right(share: float, start: int = 0) -> np.ndarray:
    places = (np.arange(QUESTIONS) + start) % QUESTIONS
    return places < share * QUESTIONS


def test_a_gain_that_may_be_none_is_a_tie_and_one_that_is_clear_is_not(tmp_path: Path) -> None:
    exact = {
        "t0001": [right(0.2), right(0.21)],
        "t0002": [right(0.55), right(0.57)],
        "t0000": [right(0.56), right(0.55, start=2)],
    }
    small, middle, large = found(tmp_path, exact)
    assert [item.point.trial_id for item in (small, middle, large)] == ["t0001", "t0002", "t0000"]
    assert small.em_percents == pytest.approx((20.0, 21.0))
    assert small.memory_mb == (5.0, 6.0)
    assert small.em is not None
    assert small.em.estimate == pytest.approx(20.5)
    assert (small.gain, small.tied_with) == (None, None)
    assert middle.gain is not None
    assert middle.gain.low is not None
    assert middle.gain.low > 0  # 35.5, from two seeds each that differ by 1 and 2 points
    assert middle.tied_with is None
    assert large.gain is not None
    assert large.gain.holds_zero
    assert large.tied_with == "t0002"


def test_the_same_answers_are_worth_less_where_they_are_about_few_articles(tmp_path: Path) -> None:
    exact = {"t0001": [right(0.2)], "t0002": [right(0.3)]}
    _, alone, _ = found(tmp_path / "alone", exact)
    _, together, _ = found(tmp_path / "together", exact, in_article=20)
    _, few, _ = found(tmp_path / "few", exact, in_article=50)
    for item in (alone, together, few):
        assert item.gain is not None
        assert item.gain.estimate == pytest.approx(10.0)
    assert alone.gain is not None
    assert (alone.gain.unit, alone.gain.clusters, alone.tied_with) == ("article", 200, None)
    assert together.gain is not None
    assert (together.gain.clusters, together.tied_with) == (10, "t0001")
    assert few.gain is not None
    assert (few.gain.clusters, few.gain.low, few.tied_with) == (4, None, None)


def test_a_point_none_of_whose_seeds_finished_is_shown_without_numbers_and_skipped(tmp_path: Path) -> None:
    exact = {"t0001": [right(0.2)], "t0000": [right(0.6)]}
    small, middle, large = found(tmp_path, exact)
    assert (middle.em, middle.em_percents, middle.memory_mb, middle.gain) == (None, (), None, None)
    assert large.gain is not None
    assert large.gain.estimate == pytest.approx(40.0)
    assert small.em is not None


def test_seeds_that_answered_other_questions_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its questions are not those of the other seeds"):
        found(tmp_path, {"t0001": [right(0.2), right(0.2)[:50]]})
