"""What a front says in sentences: numbers that a reader can check by hand, and nothing where nothing is to be said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.front import findings
from sweeps.front.front import compute_front
from sweeps.front.result import FrontResult
from tests.sweeps.front.test_front import BOTH, record
from tests.sweeps.front.test_ties import answers


def result_of(*models: tuple[str, float, float, str]) -> FrontResult:
    """Return the front of (trial, exact match, memory, family)."""
    found = compute_front([record(name, exact, memory) for name, exact, memory, _ in models], BOTH)
    families = {name: family for name, _, _, family in models}
    points = tuple(replace(point, family=families[point.trial_id]) for point in found.points)
    return replace(found, points=points)


@pytest.fixture
def three() -> FrontResult:
    return result_of(("t0", 50.0, 8.0, "bert"), ("t1", 47.5, 4.0, "bert"), ("t2", 25.0, 2.0, "lstm"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    answers(tmp_path / "t0.parquet", list(range(20)))
    answers(tmp_path / "t1.parquet", [*range(2, 20), 30])  # two lost, one won
    answers(tmp_path / "t2.parquet", list(range(10)))  # one lost in almost every article
    return tmp_path


def said(result: FrontResult, folder: Path, **options: Any) -> list[str]:
    return findings.sentences(result, lambda point: folder / f"{point.trial_id}.parquet", **options)


def test_the_span_is_that_of_the_smallest_and_the_largest(three, folder):
    assert said(three, folder)[0] == (
        "3 models of 2 families, from EM 25.0 at 2.00 MB to EM 50.0 at 8.00 MB: 4.0 times the memory, "
        "25.0 points of EM."
    )


@pytest.mark.parametrize(
    ("larger_em", "larger_mb", "end"),
    [
        (50.0, 3.0, "to EM 50.0 at 3.00 MB: 1.5 times the memory, 2.5 points of EM."),
        (47.6, 2.02, "to EM 47.6 at 2.02 MB: 1.0 % more memory, 0.1 points of EM."),
        (47.51, 2.0004, "to EM 47.5 at 2.00 MB: less than 0.1 % more memory, less than 0.1 points of EM."),
    ],
    ids=["far", "near", "nearer"],
)
def test_a_small_step_is_not_rounded_to_nothing(larger_em, larger_mb, end, folder):
    pair = result_of(("t0", larger_em, larger_mb, "bert"), ("t1", 47.5, 2.0, "bert"))
    assert said(pair, folder)[0] == f"2 models of one family, from EM 47.5 at 2.00 MB {end}"


def test_equal_models_are_said_to_be_equal(folder):
    equal = result_of(("t0", 47.5, 2.0, "bert"), ("t1", 47.5, 2.0, "bert"))
    assert said(equal, folder)[0] == "2 models of one family are on the front, all with EM 47.5 at 2.00 MB."


def test_of_one_step_it_is_said_whether_the_questions_tell_the_two_apart(folder):
    tied = result_of(("t0", 50.0, 8.0, "bert"), ("t1", 47.5, 4.0, "bert"))
    told = [line for line in said(tied, folder) if "apart" in line]
    assert len(told) == 1
    assert told[0].startswith("The questions do not tell the two apart: EM +2.5 (-")
    assert told[0].endswith("), 95 % interval by article.")
    apart = result_of(("t1", 47.5, 4.0, "bert"), ("t2", 25.0, 2.0, "lstm"))
    assert any(
        line.startswith("The questions tell the two apart: EM +22.5 (+") for line in said(apart, folder)
    )


def test_a_small_budget_leaves_one_family(three, folder):
    assert said(three, folder)[1] == "Below 4.00 MB, lstm is the only family on the front."
    alone = result_of(("t0", 50.0, 8.0, "bert"), ("t1", 47.5, 4.0, "bert"))
    assert not any("only family" in line for line in said(alone, folder))


def test_steps_are_told_apart_by_the_answers_to_the_same_questions(three, folder):
    found = findings.steps(three, lambda point: folder / f"{point.trial_id}.parquet")
    assert [(step.smaller.trial_id, step.larger.trial_id, step.is_tie) for step in found] == [
        ("t2", "t1", False),
        ("t1", "t0", True),
    ]
    assert [step.difference.estimate for step in found] == pytest.approx([100 * 9 / 40, 100 / 40])
    assert {model.trial_id for model in findings.tied_with_smaller(found)} == {"t0"}
    lines = said(three, folder)
    assert lines[2].startswith("1 of 2 steps from one point to the next larger one is told apart")
    assert lines[3].startswith("Not told apart: t0 (8.00 MB) from t1 (4.00 MB), EM +2.5 (-")


def test_without_answers_nothing_is_told_apart_and_nothing_is_claimed(three, tmp_path):
    assert not any("told apart" in line for line in said(three, tmp_path))
    steps = findings.steps(three, lambda point: tmp_path / f"{point.trial_id}.parquet")
    assert [step.is_tie for step in steps] == [None, None]
    assert findings.tied_with_smaller(steps) == frozenset()


def test_the_smallest_model_that_keeps_a_share_is_named_with_its_ratio(three, folder):
    assert said(three, folder, keep_percent=95)[-1].startswith(
        "The smallest model that keeps 95 % of the EM of t0 (50.0 at 8.00 MB) is t1: "
        "47.5 at 4.00 MB, 95.0 % (EM -2.5 (-"
    )
    assert said(three, folder, keep_percent=95)[-1].endswith(", not told apart).")
    assert said(three, folder, keep_percent=96)[-1] == (
        "No smaller model keeps 96 % of the EM of t0 (50.0 at 8.00 MB)."
    )


def test_a_stored_form_says_what_it_lost_and_what_it_saves(three, folder):
    twin, form = three.points[0], three.points[1]
    small = {"em_difference_percent": -2.5, "low": -5.0, "high": 0.0}
    points = (
        replace(twin, form="float32"),
        replace(
            form, trial_id="t0", form="int8", form_settings={"methods.quantize.bits": 8}, against_twin=small
        ),
        three.points[2],
    )
    with_forms = replace(three, points=points)
    assert (
        "Stored as int8, t0 loses 2.5 EM (-5.0 to +0.0, not told apart) and saves 4.00 MB (8.00 MB as trained)."
        in said(with_forms, folder)
    )


def test_a_front_of_one_point_and_an_empty_one(folder):
    one = result_of(("t0", 50.0, 8.0, "bert"))
    assert said(one, folder) == ["One model is on the front: t0, EM 50.0 at 8.00 MB."]
    assert said(replace(one, points=()), folder) == []


def test_a_front_of_other_objectives_says_nothing(three, folder):
    assert said(replace(three, objectives=three.objectives[:1]), folder, keep_percent=99) == []
