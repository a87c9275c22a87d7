"""Points of trials with stored forms: one for each form that is ok; the others are counted and listed with reasons."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from qa_core.errors import DataError
from sweeps.front import plots
from sweeps.front.choosing import refusal, within
from sweeps.front.front import choosable, compute_front, prediction_note
from sweeps.front.points import finished, points
from sweeps.front.tables import write_csv, write_parquet
from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.records import Record
from sweeps.spec.objectives import Objective
from tests.sweeps.forms import BITS, TABLE_BITS, stored, with_forms, without
from tests.sweeps.front.test_front import BOTH, EM, ended, record, text_of

BUDGET, SMALLER = "over budget", "a smaller form is as good"
# Best first by hand: t0 int8 (59, 3) and t1 int8 (50, 1). t1 int8 beats t1 float32 (50, 2), t2 and t0 nf4.
RECORDS = [
    with_forms(
        record("t0", 60, 8),
        stored("nf4", 40, 2),
        stored("int8", 59, 3),
        without("int8+e8", "failed", "RuntimeError: no kernel for 12 rows"),
        without("float32", "skipped", BUDGET),
    ),
    with_forms(
        record(
            "t1", 50, 2, config={"model": {"family": "lstm", "checkpoint": "tiny"}, "methods": {"lora": {}}}
        ),
        stored("int8", 50, 1),
        stored("float32", 50, 2),
    ),
    record(
        "t2", 45, 1.5, config={"model": {"family": "bert", "checkpoint": "tiny"}, "methods": {"quantize": {}}}
    ),
    with_forms(
        record("t3", 70, 9),
        without("int8", "failed", "RuntimeError: no kernel for 7 rows"),
        without("float32", "skipped", BUDGET),
    ),
    ended("t4", "stopped"),
]
MODELS = ["t0 nf4", "t0 int8", "t1 int8", "t1 float32", "t2"]
FAILED = "failed (RuntimeError: no kernel for N rows)"


def names(found: Any) -> list[str]:
    return [str(point.id) for point in found]


def test_each_form_that_is_ok_is_a_point_and_all_else_is_counted_trials_and_forms_apart() -> None:
    given = points(RECORDS, BOTH)
    assert names(given.points) == MODELS
    assert given.left_out == {"stopped": 1, "without a stored form": 1}
    assert given.forms_left_out == {FAILED: 2, f"skipped ({BUDGET})": 2}
    small = given.points[1]
    assert (small.values, small.memory_mb, small.em_percent) == (
        {"em_percent": 59, "memory_mb": 3},
        3.0,
        59.0,
    )
    assert (small.artifact, small.form_settings) == ("trials/t0/forms/int8/artifact", {BITS: 8})
    assert (given.points[2].methods, given.points[2].family) == ("lora", "lstm")
    assert [item.trial_id for item in finished(RECORDS, BOTH)] == ["t0", "t1", "t2"]


def test_the_front_its_volume_and_its_words_are_those_computed_by_hand() -> None:
    result = compute_front(RECORDS, BOTH)
    assert names(result.front) == ["t0 int8", "t1 int8"]
    assert result.hypervolume == 2 * 50 + 7 * 59  # from 1 to 3 MB: 50 %; from 3 to 10 MB: 59 %
    text = " ".join(text_of(result).split())
    assert "Front: 2 of 5 points from 3 finished trials" in text
    assert "not compared: 1 stopped, 1 without a stored form; 2 forms failed" in text
    assert f"2 forms skipped ({BUDGET})" in text
    line = next(line for line in text_of(result).splitlines() if "t0 int8" in line)
    assert "59.00" in line
    assert "3.00" in line
    assert "bits" not in line  # the label says it


def test_the_order_of_records_decides_nothing() -> None:
    assert compute_front(RECORDS[::-1], BOTH) == compute_front(RECORDS, BOTH)


def test_of_models_that_tie_the_one_of_the_earlier_trial_is_the_knee_and_each_is_on_the_front() -> None:
    tied = [
        record("t0", 60, 8),
        record("t9", 10, 1),
        with_forms(record("t2", 50, 9), stored("int8", 50, 2), stored("nf4", 50, 2)),
        with_forms(record("t1", 50, 9), stored("int8", 50, 2)),
    ]
    result = compute_front(tied, BOTH)
    assert names(point for point in result.points if point.is_knee) == ["t1 int8"]
    assert names(result.front) == ["t0", "t1 int8", "t2 int8", "t2 nf4", "t9"]


def test_a_form_that_lacks_an_objective_is_left_out_by_name_and_the_others_of_its_trial_stay() -> None:
    late = Objective(name="latency_p50_ms", goal="min", reference=100)
    timed = {"em_percent": 50.0, "latency_p50_ms": 3.0}
    item = with_forms(record("t0", 60, 8), stored("int8", 50, 2, objectives=timed), stored("nf4", 40, 1))
    given = points([item], [EM, late])
    assert names(given.points) == ["t0 int8"]
    assert (given.left_out, given.forms_left_out) == ({}, {"without latency_p50_ms": 1})


def test_every_form_has_a_row_with_its_reason_and_settings(tmp_path: Path) -> None:
    result = compute_front(RECORDS, BOTH)
    write_csv(result, tmp_path / "front.csv")
    write_parquet(result, tmp_path / "front.parquet")
    with (tmp_path / "front.csv").open(newline="") as file:
        texts = list(csv.DictReader(file))
    rows = {(row["trial_id"], row["form"]): row for row in texts}
    assert list(rows) == [
        ("t0", "int8"),
        ("t1", "int8"),
        ("t0", "nf4"),
        ("t1", "float32"),
        ("t2", ""),
        ("t0", "float32"),
        ("t0", "int8+e8"),
        ("t3", "float32"),
        ("t3", "int8"),
        ("t4", ""),
    ]
    assert [row["status"] for row in texts] == ["ok"] * 5 + [
        "skipped",
        "failed",
        "skipped",
        "failed",
        "stopped",
    ]
    assert rows["t0", "int8+e8"]["left_out"] == "RuntimeError: no kernel for 12 rows"
    assert (rows["t0", "int8+e8"][BITS], rows["t0", "int8+e8"][TABLE_BITS]) == ("8", "8")
    assert (rows["t1", "float32"][BITS], rows["t0", "float32"]["em_percent"]) == ("", "")
    assert (rows["t0", "int8"]["em_percent"], rows["t0", "int8"]["on_front"]) == ("59.0", "True")
    compared = ("em_against_twin", "em_against_twin_low", "em_against_twin_high")
    assert [rows["t0", "int8"][name] for name in compared] == ["-1.5", "-3.25", "0.25"]
    assert rows["t1", "float32"]["em_against_twin"] == ""
    typed = parquet.read_table(tmp_path / "front.parquet").to_pylist()
    assert typed == [{name: row[name] for name in typed[0]} for row in result.rows()]
    assert (typed[0][BITS], typed[0]["form"], typed[4]["form"]) == (8, "int8", None)


def test_artifacts_of_forms_that_are_beaten_are_not_wanted() -> None:
    assert choosable(compute_front(RECORDS, BOTH)) == {ModelId("t0", "int8"), ModelId("t1", "int8")}


def test_limits_choose_among_forms_and_a_refusal_counts_and_names_them() -> None:
    result = compute_front(RECORDS, BOTH)
    assert names(within(result, {"memory_mb": 2})) == ["t1 int8", "t1 float32", "t2", "t0 nf4"]
    words = refusal(result, {"memory_mb": 0.5})
    assert "none of 5 points from 3 finished trials fits: the smallest memory_mb is 1 (t1 int8)" in words
    nothing = refusal(compute_front(RECORDS[3:], BOTH), {"memory_mb": 5})
    assert "1 without a stored form" in nothing
    assert f"1 stored forms skipped ({BUDGET})" in nothing


def test_a_form_that_was_measured_elsewhere_is_named_beside_those_of_its_trial() -> None:
    elsewhere = stored("nf4", 99, 0.5, cost={"inference_peak_bytes": 5e5, "device": "cuda: H200"})
    item = replace(RECORDS[0], forms=(*RECORDS[0].forms[1:], elsewhere))
    result = compute_front([item, *RECORDS[1:]], BOTH)
    assert names(result.front) == ["t0 int8", "t1 int8"]
    assert result.forms_left_out["with device cuda: H200 instead of cpu (t0)"] == 1
    assert result.left_out == {"stopped": 1, "without a stored form": 1}
    (row,) = [row for row in result.rows() if (row["trial_id"], row["form"]) == ("t0", "nf4")]
    assert row["left_out"] == "with device cuda: H200 instead of cpu (t0)"
    assert ModelId("t0", "nf4") in choosable(result)


def test_the_group_that_is_shown_is_that_of_most_trials_however_many_forms_others_have() -> None:
    other = {"data": {"evaluation": {"data_hash": "other"}}}
    many = with_forms(record("t0", **other), *(stored(name, 90, 1) for name in ("int8", "int8+e8", "nf4")))
    result = compute_front([many, record("t1"), record("t2")], BOTH)
    assert names(result.points) == ["t1", "t2"]
    assert result.left_out == {"with evaluation data other instead of 0123456789ab (t0)": 1}
    assert {str(point.id) for point in result.others} == {"t0 int8", "t0 int8+e8", "t0 nf4"}


@pytest.mark.parametrize(
    ("against", "words"),
    [({"em_difference_percent": "much"}, "could not convert"), ({"low": 1.0}, None), ({}, None)],
)
def test_a_difference_to_the_twin_that_is_none_is_refused_or_left_out(
    against: Any, words: str | None
) -> None:
    item = with_forms(record("t0"), stored("int8", 50, 2, against_twin=against))
    if words is None:
        assert points([item], BOTH).points[0].against_twin == {}
    else:
        with pytest.raises(DataError, match=rf"trial t0: its record cannot be read: {words}"):
            points([item], BOTH)


def test_predictions_are_compared_for_each_form() -> None:
    def cost(foreseen: float, measured: float) -> dict[str, float]:
        return {"inference_peak_bytes": measured, "predicted_inference_peak_bytes": foreseen}

    item: Record = with_forms(
        record("t0", cost=cost(9e6, 1e6)),  # of the twin, which is no model
        stored("int8", 50, 2, cost=cost(2e6, 2e6)),
        stored("nf4", 40, 1, cost=cost(1.5e6, 1e6)),
    )
    assert prediction_note([item]) == (
        "memory was not as predicted in 1 of 2 models, worst in t0 nf4: 1.50 MB predicted, 1.00 MB measured (+50 %)"
    )


@pytest.mark.parametrize("objectives", [BOTH, [EM]], ids=["two", "one"])
def test_plots_take_forms_and_tell_those_of_one_trial_apart(objectives: Any, tmp_path: Path) -> None:
    result = compute_front(RECORDS, objectives)
    plots.write_png(result, tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    xs, _ = plots._coordinates(compute_front(RECORDS, [EM]), result.points)
    assert xs == [0.0, 1.0, 2.0, 3.0, 4.0]
