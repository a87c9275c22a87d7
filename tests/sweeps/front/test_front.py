"""From records to the front: who is a point, who is on it, and what the tables say."""

import csv
import itertools
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet
from rich.console import Console

from qa_core.errors import DataError
from sweeps.front import plots
from sweeps.front.choosing import FIXED, within
from sweeps.front.front import choosable, compute_front, prediction_note, with_paused
from sweeps.front.points import points
from sweeps.front.result import FrontResult
from sweeps.front.tables import table, write_csv, write_parquet
from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.records import Record
from sweeps.spec.objectives import Objective

EM = Objective(name="em_percent", goal="max", reference=0)
MEMORY = Objective(name="memory_mb", goal="min", reference=10)
BOTH = [EM, MEMORY]


def record(trial_id: str, em: float = 50.0, memory: float = 5.0, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "trial_id": trial_id,
        "status": "ok",
        "reason": None,
        "seed": 7,
        "assignment": {},
        "config": {"model": {"family": "bert", "checkpoint": "tiny"}, "methods": {}},
        "examples_seen": 900,
        "budget_examples": 900,
        "curve": (),
        "device": "cpu: some processor",
        "started_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T03:05:05+00:00",
        "seconds": 60.0,
        "objectives": {"em_percent": em, "memory_mb": memory},
        "quality": {"baseline_no_answer_em_percent": 25.0, "baseline_first_span_em_percent": 2.5},
        "cost": {"inference_peak_bytes": round(memory * 1e6)},
        "data": {"evaluation": {"data_hash": "0123456789abcdef"}},
        "artifact": f"trials/{trial_id}/artifact",
    }
    return Record(**{**values, **changes})


def ended(trial_id: str, status: str) -> Record:
    return record(
        trial_id, status=status, reason="why", objectives=None, quality=None, cost=None, device=None
    )


MIXED = [
    record("t0", 60, 8),
    record(
        "t1",
        50,
        2,
        config={"model": {"family": "lstm", "checkpoint": "[b]"}, "methods": {"lora": {}, "pack": {}}},
    ),
    record("t2", 40, 5),
    ended("t3", "stopped"),
    record("t4", 10, 1),
    ended("t5", "failed"),
    ended("t6", "stopped"),
    ended("t7", "oom"),
]


SEARCHED = record(
    "t8",
    9,
    0.9,
    assignment={
        "model.family": "bert",
        "methods": "static_prune+distill+quantize",
        "train.learning_rate.2": 0.00321,
        "methods.quantize.bits": 4,
        "model.options.attention": "dot",
    },
    config={
        "model": {
            "family": "bert",
            "checkpoint": "/home/somebody/models/pretrained/minilm-l6-bert",
            "options": {"attention": "dot"},
        },
        "methods": {"static_prune": {}, "distill": {}, "quantize": {"bits": 4}},
        "train": {"learning_rate": 0.00321},
    },
)


def text_of(result: FrontResult, width: int = 140) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(table(result))
    return console.export_text()


def test_only_finished_trials_are_points_and_the_others_are_counted() -> None:
    given = points(MIXED, BOTH)
    assert [point.trial_id for point in given.points] == ["t0", "t1", "t2", "t4"]
    assert given.left_out == {"failed": 1, "oom": 1, "stopped": 2}
    assert given.points[1].methods == "lora+pack"
    assert given.points[0].methods == "full"


def test_the_front_its_volume_and_its_knee_are_those_computed_by_hand() -> None:
    result = compute_front(MIXED, BOTH)
    assert [point.trial_id for point in result.front] == ["t0", "t1", "t4"]  # t1 beats t2
    assert [point.trial_id for point in result.points if point.is_knee] == ["t1"]
    # from 1 to 2 MB: 10 %; from 2 to 8 MB: 50 %; from 8 to 10 MB: 60 %
    assert result.hypervolume == 1 * 10 + 6 * 50 + 2 * 60


def test_goals_and_references_decide_not_the_order_of_records() -> None:
    swapped = compute_front(MIXED[::-1], [MEMORY, EM])
    assert swapped.hypervolume == compute_front(MIXED, BOTH).hypervolume
    assert [point.trial_id for point in swapped.front] == ["t4", "t1", "t0"]  # least memory first


def test_of_trials_that_tie_the_one_proposed_first_is_named_whatever_ended_first() -> None:
    """Two trials are the knee alike, and two have memory that was mispredicted alike."""
    wrong = {"inference_peak_bytes": 2_000_000, "predicted_inference_peak_bytes": 3_000_000}
    trials = [record("t0", 60, 8), record("t4", 10, 1)]
    trials += [record(name, 50, 2, cost=wrong) for name in ("t2", "t1", "t3")]
    results = [compute_front(order, BOTH) for order in itertools.permutations(trials)]
    assert len(results) == 120
    assert all(result == results[0] for result in results)
    assert [point.trial_id for point in results[0].points if point.is_knee] == ["t1"]
    assert "worst in t1" in str(results[0].prediction_note)


def test_a_missing_objective_leaves_a_trial_out_by_name() -> None:
    late = Objective(name="latency_p50_ms", goal="min", reference=100)
    result = compute_front([record("t0"), ended("t1", "stopped")], [EM, late])
    assert result.points == ()
    assert result.left_out == {"stopped": 1, "without latency_p50_ms": 1}
    assert result.hypervolume == 0.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"data": {"evaluation": {"data_hash": "other"}}},
            "with evaluation data other instead of 0123456789ab (t9)",
        ),
        ({"device": "cuda: H200"}, "with device cuda: H200 instead of cpu (t9)"),
        (
            {"examples_seen": 1800, "budget_examples": 1800},
            "with budget in examples 1800 instead of 900 (t9)",
        ),
        (
            {"cost": {"inference_peak_bytes": 1, "precision": "torch.bfloat16", "protocol_version": 2}},
            "with version of the measuring protocol 2 instead of 1, compute precision bfloat16 instead of None (t9)",
        ),
    ],
)
def test_of_trials_that_do_not_compare_the_largest_group_is_shown_and_the_others_are_named(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    odd = record("t9", 99, 0.5, **changes)  # would beat all others
    for records in ([*MIXED, odd], [odd, *MIXED]):
        result = compute_front(records, BOTH)
        assert [point.trial_id for point in result.front] == ["t0", "t1", "t4"]
        assert result.hypervolume == compute_front(MIXED, BOTH).hypervolume
        assert result.left_out == {**compute_front(MIXED, BOTH).left_out, reason: 1}
        assert ModelId("t9") in choosable(result)  # of its own group: its artifact stays
        assert within(result, {"memory_mb": 1e9})[0].trial_id == "t0"
        assert f"1 {reason}" in " ".join(text_of(result).split())
    plots.write_png(result, tmp_path / "front.png")
    write_csv(result, tmp_path / "front.csv")
    write_parquet(result, tmp_path / "front.parquet")


def test_of_two_groups_as_large_the_one_with_the_earliest_trial_is_shown() -> None:
    other = {"data": {"evaluation": {"data_hash": "other"}}}
    records = [record("t10", **other), record("t2"), record("t3", **other), record("t9")]
    for order in (records, records[::-1]):
        assert {point.trial_id for point in compute_front(order, BOTH).points} == {"t2", "t9"}


def test_an_artifact_is_wanted_until_a_trial_on_its_own_terms_beats_it() -> None:
    other = {"data": {"evaluation": {"data_hash": "other"}}}
    records = [*MIXED, record("t8", 5, 9, **other), record("t9", 4, 9.5, **other)]
    assert choosable(compute_front(records, BOTH)) == {ModelId(trial) for trial in ("t0", "t1", "t4", "t8")}


def test_a_trial_that_trains_nothing_compares_with_every_budget() -> None:
    long = {"examples_seen": 1800, "budget_examples": 1800}
    untrained = record("t7", 30, 0.5, examples_seen=0, budget_examples=0)
    result = compute_front([*MIXED, untrained, record("t8", 20, 9, **long)], BOTH)
    assert "t7" in {point.trial_id for point in result.front}
    assert result.left_out["with budget in examples 1800 instead of 900 (t8)"] == 1


def test_the_model_of_the_cpu_counts_where_an_objective_depends_on_it() -> None:
    speed = Objective(name="latency_p50_ms", goal="min", reference=100)
    values = {"em_percent": 50.0, "memory_mb": 2.0, "latency_p50_ms": 9.0}
    records = [record(f"t{index}", objectives=values) for index in range(2)]
    records.append(record("t9", objectives=values, device="cpu: another processor"))
    assert len(compute_front(records, BOTH).points) == 3
    timed = compute_front(records, [EM, speed])
    assert len(timed.points) == 2
    assert list(timed.left_out) == ["with device cpu: another processor instead of cpu: some processor (t9)"]


@pytest.mark.parametrize(
    ("changes", "what"), [({"data": {}}, "evaluation data"), ({"device": None}, "device")]
)
def test_a_record_that_does_not_say_what_it_was_measured_on_is_an_error(
    changes: dict[str, Any], what: str
) -> None:
    with pytest.raises(DataError, match=f"t9: its record does not say which {what}"):
        compute_front([*MIXED, record("t9", **changes)], BOTH)


def test_devices_may_differ_where_the_user_allowed_nodes_to_and_the_table_says_so() -> None:
    allowed = record("t9", device="cuda: H200", provenance={"mixed_nodes": True})
    result = compute_front([*MIXED, allowed], BOTH)
    assert "t9" in {point.trial_id for point in result.points}
    note = "measured on different devices (--allow-mixed), which do not compare: cpu, cuda: H200"
    assert result.device_note == note
    assert str(table(result).caption).endswith(note)
    assert compute_front(MIXED, BOTH).device_note is None
    other = record("t9", provenance={"mixed_nodes": True}, data={"evaluation": {"data_hash": "other"}})
    assert "t9" not in {point.trial_id for point in compute_front([*MIXED, other], BOTH).points}


def test_cross_domain_sets_change_neither_what_is_comparable_nor_the_front() -> None:
    abroad = {"x.json": {"data_hash": "other", "quality": {"em_percent": 99.0}}}
    facts = {
        "evaluation": {"data_hash": "0123456789abcdef"},
        "cross_domain": {"x.json": {"data_hash": "other"}},
    }
    changed = [
        record("t0", 60, 8, cross_domain=abroad, data=facts),
        *(item for item in MIXED if item.trial_id != "t0"),
    ]
    assert compute_front(changed, BOTH).rows() == compute_front(MIXED, BOTH).rows()


def test_baselines_stand_below_the_table_as_far_as_a_record_has_them() -> None:
    keys = [f"baseline_{name}_em_percent" for name in ("no_answer", "first_span", "question_blind")]
    quality = dict(zip(keys, (25.0, 2.5, 7.25), strict=True))
    whole = compute_front([record("t0", quality=quality)], BOTH)
    assert list(whole.baselines.values()) == [25.0, 2.5, 7.25]
    assert next(line for line in text_of(whole).splitlines() if "question blind" in line).split()[1] == "7.25"
    old = compute_front(MIXED, BOTH)  # written before the third baseline was scored
    assert list(old.baselines.values()) == [25.0, 2.5]


def test_trials_that_did_not_finish_need_not_be_comparable() -> None:
    odd = ended("t9", "stopped")
    assert compute_front([*MIXED, odd], BOTH).left_out["stopped"] == 3


def test_equal_points_are_all_on_the_front() -> None:
    result = compute_front([record("t0", 50, 2), record("t1", 50, 2), record("t2", 49, 2)], BOTH)
    assert [point.on_front for point in result.points] == [True, True, False]


def test_a_value_that_is_not_finite_raises() -> None:
    with pytest.raises(ValueError, match="finite"):
        compute_front([record("t0", float("nan"), 2)], BOTH)


def test_a_trial_is_choosable_when_it_is_on_the_front_or_the_best_within_some_limit() -> None:
    speed = Objective(name="latency_p50_ms", goal="min", reference=100)
    rng = np.random.default_rng(7)
    for objectives in (BOTH, [EM, speed], [speed, EM], [speed]):
        for _ in range(20):
            found = []
            for index, (em, memory, latency) in enumerate(rng.integers(1, 8, size=(9, 3)).astype(float)):
                item = record(f"t{index}", em, memory)
                values = {"em_percent": em, "memory_mb": memory, "latency_p50_ms": latency}
                found.append(replace(item, objectives={one.name: values[one.name] for one in objectives}))
            result = compute_front(found, objectives)
            limits = [{name: value} for name in FIXED for value in range(1, 9 * 10**6, 10**6)]
            limits += [{"memory_mb": value} for value in range(1, 9)]
            best = [fitting[0] for limit in limits if (fitting := within(result, limit))]
            expected = {point.id for point in (*result.front, *best)}
            assert choosable(result) == expected


def test_rows_hold_every_point_front_first_with_objectives_by_name() -> None:
    rows = compute_front(MIXED, BOTH).rows()
    assert [row["trial_id"] for row in rows] == ["t0", "t1", "t4", "t2", "t3", "t5", "t6", "t7"]
    assert [row["on_front"] for row in rows] == [True, True, True, False, *[False] * 4]
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["stopped", "failed", "stopped", "oom"]
    assert [row["left_out"] for row in rows] == [None] * 4 + ["stopped", "failed", "stopped", "oom"]
    assert (rows[4]["em_percent"], rows[4]["family"]) == (None, "bert")
    assert (rows[1]["em_percent"], rows[1]["memory_mb"], rows[1]["family"]) == (50, 2, "lstm")


def test_the_table_shows_the_front_units_knee_baselines_and_what_was_left_out() -> None:
    text = text_of(compute_front(MIXED, BOTH))
    assert "Front: 3 of 4 finished trials" in text
    heading = [line.split() for line in text.splitlines()[2:4]]
    assert [cells[1] for cells in heading] == ["em_percent", "[%]"]
    assert [cells[3] for cells in heading] == ["memory_mb", "[MB]"]
    line = next(line for line in text.splitlines() if "t1" in line)
    for part in ("50.00", "2.00", "lstm", "lora+pack", "[b]", "knee"):
        assert part in line
    assert "t2" not in text
    assert next(line for line in text.splitlines() if "no answer to anything" in line).split()[1] == "25.00"
    assert "hypervolume 430; not compared: 1 failed, 1 oom, 2 stopped" in text


def test_a_sweep_without_finished_trials_has_an_empty_table() -> None:
    result = compute_front([ended("t0", "failed")], BOTH)
    assert "Front: 0 of 0 finished trials" in text_of(result)
    assert [(row["trial_id"], row["status"]) for row in result.rows()] == [("t0", "failed")]


def test_csv_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    result = compute_front([*MIXED, SEARCHED], BOTH)
    write_csv(result, tmp_path / "front.csv")
    write_parquet(result, tmp_path / "front.parquet")
    with (tmp_path / "front.csv").open(newline="") as file:
        texts = list(csv.DictReader(file))
    typed = parquet.read_table(tmp_path / "front.parquet").to_pylist()
    assert typed == [{name: row[name] for name in typed[0]} for row in result.rows()]
    assert [
        {key: str(value) if value is not None else "" for key, value in row.items()} for row in result.rows()
    ] == [{name: text[name] for name in row} for text, row in zip(texts, result.rows(), strict=True)]
    assert list(texts[0])[:4] == ["trial_id", "form", "em_percent", "memory_mb"]
    (searched,) = [row for row in typed if row["trial_id"] == "t8"]
    assert searched["train.learning_rate"] == 0.00321
    assert searched["methods.quantize.bits"] == 4
    assert searched["model.options.attention"] == "dot"
    assert next(row for row in texts if row["trial_id"] == "t3")["status"] == "stopped"


def test_an_empty_front_can_be_written(tmp_path: Path) -> None:
    result = compute_front([], BOTH)
    write_csv(result, tmp_path / "front.csv")
    write_parquet(result, tmp_path / "front.parquet")
    plots.write_png(result, tmp_path / "front.png")
    assert (tmp_path / "front.csv").read_text().startswith("trial_id,form,em_percent,memory_mb,family")
    assert parquet.read_table(tmp_path / "front.parquet").num_rows == 0


def test_at_80_columns_the_table_tells_recipes_apart_that_differ_in_a_setting_alone() -> None:
    other = replace(SEARCHED, trial_id="t9", config={**SEARCHED.config, "train": {"learning_rate": 0.00987}})
    text = text_of(compute_front([SEARCHED, other], BOTH), width=80)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.replace("│", " ").replace("┃", " ").split())
    for part in ("lr=0.00321", "lr=0.00987", "static_prune+distill+quantize", "bits=4"):
        assert part in words
    assert "minilm-l6-bert" in words
    assert "/home/somebody" not in words


# A front that is no success


def test_a_front_that_no_model_lifts_above_the_best_baseline_is_not_called_a_success() -> None:
    """As on SQuAD v2.0, where a reader that never answers has the score of "no answer to anything"."""
    quality = {"baseline_no_answer_em_percent": 51.47, "baseline_first_span_em_percent": 2.5}
    never = [
        record(f"t{index}", 51.47, 9 - index, quality={**quality, "em_percent": 51.47}) for index in range(2)
    ]
    result = compute_front(never, BOTH)
    assert result.warning is not None
    assert result.warning.startswith(
        "no model of the front beats the baseline 'no answer to anything' (EM 51.47), which reads no question; what "
        "helps: more training (budget.examples)"
    )
    assert "warning: no model of the front beats" in " ".join(text_of(result).split())
    reads = record("t5", 60.0, 9.5, quality={**quality, "em_percent": 60.0})
    some = compute_front([*never, reads], BOTH).warning
    assert some is not None
    assert some.startswith("t1: not better than the baseline")
    assert compute_front([reads], BOTH).warning is None
    assert compute_front([], BOTH).warning is None


# Memory that was not as predicted


def predicted(trial_id: str, foreseen: float | None, found: float, **changes: Any) -> Record:
    cost = {"inference_peak_bytes": found, "predicted_inference_peak_bytes": foreseen}
    return record(trial_id, cost=cost, **changes)


def test_predictions_that_were_off_are_counted_and_the_worst_is_named() -> None:
    records = [
        predicted("t0", 3e6, 3e6),
        predicted("t1", 1.02e6, 1e6),  # within 2 %
        predicted("t2", 0.9e6, 1e6),
        predicted("t3", 5e6, 4e6),
        predicted("t4", None, 1e6),
        predicted("t5", 9e6, 1e6, status="failed", reason="why", objectives=None),
    ]
    note = prediction_note(records)
    assert note == (
        "memory was not as predicted in 2 of 4 trials, worst in t3: 5.00 MB predicted, 4.00 MB measured (+25 %)"
    )
    assert note in " ".join(text_of(compute_front(records, BOTH)).split())  # the table wraps it


def test_there_is_no_word_of_predictions_that_were_right() -> None:
    records = [predicted("t0", 3e6, 3e6), predicted("t1", None, 1e6), record("t2")]
    assert prediction_note(records) is None
    assert "predicted" not in text_of(compute_front(records, BOTH))


def test_paused_trials_are_counted_among_those_that_are_not_compared() -> None:
    stopped = record("t1", status="stopped", reason="x", objectives=None)
    result = compute_front([record("t0"), stopped], BOTH)
    assert with_paused(result, 0) == result
    assert list(with_paused(result, 3).left_out.items()) == [("paused", 3), ("stopped", 1)]
    assert "not compared: 3 paused, 1 stopped" in str(table(with_paused(result, 3)).caption)
