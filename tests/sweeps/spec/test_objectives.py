"""Objectives: where each is read, in which unit, and which of them a scheduler can see."""

from dataclasses import fields

import pytest

from qa_core.errors import ConfigError, DataError
from qa_core.schema import Cost, Progress, Quality
from sweeps.budget.memory import PREDICTED
from sweeps.spec.objectives import (
    MEASURES,
    RETIRED,
    WHY_RETIRED,
    final_values,
    measure,
    rung_field,
    rung_values,
)

QUALITY = {"em_percent": 61.5, "f1_percent": 70.25}
COST = {
    "inference_peak_bytes": 7_250_000,
    "inference_peak_batch8_bytes": 31_500_000,
    "artifact_bytes": 4_000,
    "latency_p50_ms": None,
}


def test_every_measure_names_a_field_that_exists() -> None:
    names = {"quality": {item.name for item in fields(Quality)}, "cost": {item.name for item in fields(Cost)}}
    progress = {item.name for item in fields(Progress)}
    assert len(MEASURES) == 10
    for item in MEASURES.values():
        assert item.field in names[item.section]
        assert item.rung_field is None or item.rung_field in progress


def test_values_of_a_report_are_none_where_it_has_none_or_no_number() -> None:
    report = {"selection_em_percent": 12, "memory_mb": float("nan"), "artifact_bytes": None}
    names = ["memory_mb", "em_percent", "artifact_bytes", "latency_p50_ms", "weights_bytes"]
    assert rung_values(names, report) == [None, 12.0, None, None, None]


def test_final_values_are_read_in_their_units() -> None:
    names = ["memory_mb", "memory_batch8_mb", "em_percent", "artifact_bytes"]
    assert final_values(names, quality=QUALITY, cost=COST) == {
        "memory_mb": 7.25,
        "memory_batch8_mb": 31.5,
        "em_percent": 61.5,
        "artifact_bytes": 4000.0,
    }


def test_records_and_their_json_form_are_read_alike() -> None:
    peak = 9_000_001
    values: dict[str, object] = {item.name: 1 for item in fields(Cost)}
    cost = Cost(**{**values, "inference_peak_bytes": peak})  # type: ignore[arg-type]
    assert final_values(["memory_mb"], quality=QUALITY, cost=cost) == {"memory_mb": cost.memory_mb}
    assert final_values(["memory_mb"], quality=QUALITY, cost=vars(cost)) == {"memory_mb": peak / 1e6}


@pytest.mark.parametrize("name", ["latency_p50_ms", "weights_bytes"])
def test_a_value_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(DataError, match=rf"'{name}': the result has no cost\.{name}"):
        final_values([name], quality=QUALITY, cost=COST)


def test_rungs_show_the_selection_split_never_the_evaluation_set() -> None:
    seen = {name: rung_field(name) for name, item in MEASURES.items() if item.rung_field}
    assert seen == {
        "em_percent": "selection_em_percent",
        "f1_percent": "selection_f1_percent",
        "memory_mb": "memory_mb",
        "memory_batch8_mb": "memory_batch8_mb",
        "artifact_bytes": "artifact_bytes",
        "weights_bytes": "weights_bytes",
        "inference_peak_bytes": "inference_peak_bytes",
    }
    with pytest.raises(ConfigError, match="measured only on the finished artifact"):
        rung_field("latency_p50_ms")
    assert set(PREDICTED) < set(seen), "what a recipe fixes is known at every rung"


def test_an_unknown_objective_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'memory_mb'"):
        measure("memory_md")


def test_what_a_worker_happens_to_hold_is_no_objective_but_old_folders_with_it_are_read() -> None:
    assert "rss_peak_bytes" not in MEASURES
    assert final_values(["rss_peak_bytes"], quality=QUALITY, cost={"rss_peak_bytes": 9}) == {
        "rss_peak_bytes": 9
    }
    assert set(RETIRED) == set(WHY_RETIRED)


def test_training_that_did_not_happen_took_no_memory() -> None:
    cost = {**COST, "train_peak_bytes": None}
    assert final_values(["train_peak_bytes"], quality=QUALITY, cost=cost) == {"train_peak_bytes": 0.0}
