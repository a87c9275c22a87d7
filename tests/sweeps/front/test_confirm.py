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
from tests.sweeps.forms import stored, with_forms
from tests.sweeps.from_scratch import FROM_SCRATCH
from tests.sweeps.run_folder.test_records import record

QUESTIONS = 200


def spec() -> SweepSpec:
    return load_spec(FROM_SCRATCH).with_references({"em_percent": 0.0, "memory_mb": 32.0})


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


# t0000 and t0002 were trained once each; on the front are two forms of the first and one of the second.
STORED = [
    with_forms(TRIALS[0], stored("nf4", 15.0, 1.0), stored("int8", 59.0, 3.0), stored("float32", 60.0, 9.0)),
    TRIALS[1],
    with_forms(TRIALS[2], stored("int8", 20.0, 1.5), stored("float32", 58.0, 5.0)),
]


def front_of(trials: list[Record]) -> Any:
    return compute_front(trials, spec().objectives)


def planned(folder: Path) -> list[tuple[str, list[str]]]:
    """Return which trial each repeats and which forms it makes."""
    trials = journal.read(folder).trials
    return [(item.notes["confirms"], [form["label"] for form in item.notes["forms"]]) for item in trials]


def test_a_training_is_repeated_once_for_each_seed_and_makes_its_forms_of_the_front(tmp_path: Path) -> None:
    on_front = front_of(STORED)
    assert [str(point.id) for point in on_front.front] == [
        "t0000 float32",
        "t0000 int8",
        "t0002 int8",
        "t0000 nf4",
    ]
    confirming = confirm.plan(spec(), on_front, STORED, tmp_path, seeds=2)
    assert confirming.budget.trials == 4
    assert planned(tmp_path) == 2 * [("t0000", ["nf4", "int8", "float32"]), ("t0002", ["int8"])]
    first = journal.read(tmp_path).trials[0]
    assert first.notes["forms"][1] == {"label": "int8", "settings": {"methods.quantize.bits": 8}}
    assert confirming.forms == spec().forms
    seeds = [item.recipe["seed"] for item in journal.read(tmp_path).trials]
    assert len(set(seeds)) == 4
    confirm.plan(spec(), on_front, STORED, tmp_path, seeds=2)
    assert len(planned(tmp_path)) == 4


def test_a_form_that_came_onto_the_front_later_is_added_with_the_same_seed(tmp_path: Path) -> None:
    before = [with_forms(TRIALS[0], stored("float32", 60.0, 9.0)), TRIALS[1]]
    confirm.plan(spec(), front_of(before), before, tmp_path, seeds=1)
    after = [with_forms(TRIALS[0], stored("int8", 59.0, 3.0), stored("float32", 60.0, 9.0)), TRIALS[1]]
    confirm.plan(spec(), front_of(after), after, tmp_path, seeds=1)
    assert planned(tmp_path) == [("t0000", ["float32"]), ("t0001", []), ("t0000", ["int8"])]
    first, _, later = journal.read(tmp_path).trials
    assert first.recipe == later.recipe


def test_notes_of_a_confirming_trial_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    confirm.plan(spec(), front_of(STORED), STORED, tmp_path, seeds=1)
    path = tmp_path / "journal.jsonl"
    path.write_text(path.read_text().replace('"label": "nf4"', '"label": "../nf4"'))
    with pytest.raises(
        DataError, match=r"trial t0000: notes.forms: label: found '../nf4'; allowed: the name"
    ):
        confirm.plan(spec(), front_of(STORED), STORED, tmp_path, seeds=1)


def test_forms_of_one_network_are_compared_seed_by_seed(tmp_path: Path) -> None:
    """Its seeds lie 40 points apart, and in each the larger form is 4 points better."""
    repeats = []
    for index, low in enumerate((0.30, 0.70)):
        trial_id = f"t{index:04d}"
        forms = {"int8": right(low), "float32": right(low + 0.04)}
        for label, row in forms.items():
            below = tmp_path / "trials" / trial_id
            write_answers(below / "forms" / label if label == "int8" else below, row)
        write_answers(
            tmp_path / "trials" / trial_id / "forms" / "float32", right(0.0)
        )  # not read: not where they are
        kept = [stored(label, 100.0 * row.mean(), 3.0 + index) for label, row in forms.items()]
        repeats.append(with_forms(trial(trial_id, 0.0, 9.0, notes={"confirms": "t0000"}), *kept))
    trials = [with_forms(TRIALS[0], stored("int8", 59.0, 3.0), stored("float32", 60.0, 9.0))]
    small, large = confirm.judge(front_of(trials), repeats, tmp_path)
    assert [str(item.point.id) for item in (small, large)] == ["t0000 int8", "t0000 float32"]
    assert small.em_percents == pytest.approx((30.0, 70.0))
    assert large.em_percents == pytest.approx((34.0, 74.0))
    assert small.memory_mb == (3.0, 4.0)
    assert large.gain is not None
    assert large.gain.low is not None
    assert large.gain.estimate == pytest.approx(4.0)
    assert large.gain.low > 0
    assert large.tied_with is None


def test_a_tie_names_the_form(tmp_path: Path) -> None:
    forms = {"int8": right(0.5), "float32": right(0.5, start=3)}
    for label, row in forms.items():
        below = tmp_path / "trials" / "t0000"
        write_answers(below / "forms" / label if label == "int8" else below, row)
    kept = [stored(label, 50.0, 3.0) for label in forms]
    repeats = [with_forms(trial("t0000", 50.0, 9.0, notes={"confirms": "t0000"}), *kept)]
    trials = [with_forms(TRIALS[0], stored("int8", 59.0, 3.0), stored("float32", 60.0, 9.0))]
    _, large = confirm.judge(front_of(trials), repeats, tmp_path)
    assert large.tied_with == "t0000 int8"


def write_answers(folder: Path, row: np.ndarray, *, in_article: int = 1) -> None:
    """Write a file of answers, of which a row of zeros and ones says which are right."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "question_id": [f"q{index}" for index in range(len(row))],
        "answer": [""] * len(row),
        "exact_match": row.astype(float),
        "f1": row.astype(float),
        "cluster": np.arange(len(row), dtype=np.int32) // in_article,
    }
    schema = SCHEMA.with_metadata({UNIT: b"article"})
    parquet.write_table(pa.table(columns, schema=schema), folder / "answers.parquet")


def found(tmp_path: Path, exact: dict[str, list[np.ndarray]], *, in_article: int = 1) -> list[Confirmed]:
    """Judge a front of which each point got the given answers, one row for each new seed."""
    repeats = []
    for original, rows in exact.items():
        for row in rows:
            trial_id = f"t{len(repeats):04d}"
            write_answers(tmp_path / "trials" / trial_id, row, in_article=in_article)
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
