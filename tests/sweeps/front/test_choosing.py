"""Which finished trial is handed over: limits on what it costs, met together, and what is said where none fits."""

from dataclasses import replace
from typing import Any

import pytest

from sweeps.front.choosing import FIXED, at_least, limit_to_type, read_limits, refusal, within
from sweeps.front.front import compute_front
from sweeps.front.points import LIMITABLE
from sweeps.front.result import FrontResult
from sweeps.run_folder.records import Record
from sweeps.spec.objectives import MEASURES, Objective
from tests.sweeps.front.test_front import BOTH, EM, MEMORY, record

SPEED = Objective(name="latency_p50_ms", goal="min", reference=100)


def trial(trial_id: str, em: float, memory: float, artifact: int, latency: float, **changes: Any) -> Record:
    cost = {"inference_peak_bytes": memory * 1e6, "artifact_bytes": artifact, "latency_p50_ms": latency}
    return record(trial_id, em, memory, cost=cost, **changes)


RECORDS = [
    trial("t0", 60, 9, 400, 30.0),
    trial("t1", 50, 5, 500, 20.0),
    trial("t2", 40, 7, 100, 10.0),
    trial("t3", 40, 6, 200, 25.0),
]


def front() -> FrontResult:
    return compute_front(RECORDS, BOTH)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"memory_mb": 9}, ["t0", "t1", "t3", "t2"]),  # of equals the one of less memory
        ({"artifact_bytes": 400}, ["t0", "t2", "t3"]),  # of equals the smaller file
        ({"memory_mb": 8.99, "artifact_bytes": 499}, ["t3", "t2"]),
        ({"latency_p50_ms": 20, "memory_mb": 6}, ["t1"]),
        ({"latency_p50_ms": 9}, []),
        ({"weights_bytes": 10**9}, []),  # nobody says
    ],
)
def test_the_best_quality_within_all_limits_comes_first(
    limits: dict[str, float], expected: list[str]
) -> None:
    for objectives in (BOTH, [MEMORY, EM]):
        found = within(compute_front(RECORDS, objectives), limits)
        assert [point.trial_id for point in found] == expected


def test_where_none_fits_the_smallest_need_of_each_limit_is_named() -> None:
    words = refusal(front(), {"latency_p50_ms": 9, "weights_bytes": 5})
    assert "none of 4 finished trials fits" in words
    assert "the smallest latency_p50_ms is 10 (t2), no record says its weights_bytes" in words
    together = refusal(front(), {"memory_mb": 5, "artifact_bytes": 100})
    assert together.endswith("each limit is met by some trial, all of them by none")
    assert "there is none yet" in refusal(compute_front([], BOTH), {"memory_mb": 5})
    without = [replace(item, objectives={"em_percent": 30.0}) for item in RECORDS[:2]]
    words = refusal(compute_front(without, BOTH), {"memory_mb": 5})
    assert words.endswith("no finished trial fits, not compared: 2 without memory_mb")


@pytest.mark.parametrize("value", [0.674104, 85.12345678, 10.0, 999.999, 1_234_564.2])
def test_a_need_that_is_shown_is_met_when_it_is_typed(value: float) -> None:
    assert value <= float(at_least(value)) <= value * 1.02


def test_limits_are_read_in_the_units_of_their_objectives() -> None:
    assert read_limits(["memory_mb=20", "artifact_bytes=2e7"]) == {"memory_mb": 20.0, "artifact_bytes": 2e7}
    assert set(LIMITABLE) == {name for name, item in MEASURES.items() if item.section == "cost"}
    assert "latency_p50_ms" in LIMITABLE
    assert "latency_p50_ms" not in FIXED


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [(BOTH, ("memory_mb", "9.0")), ([EM, SPEED], ("latency_p50_ms", "20.0")), ([EM], ("memory_mb", "9.0"))],
    ids=["memory", "latency", "quality-alone"],
)
def test_the_limit_to_type_is_one_that_the_middle_of_the_front_meets(objectives: Any, expected: Any) -> None:
    values = [
        {"em_percent": em, "memory_mb": memory, "latency_p50_ms": latency}
        for em, memory, latency in ((60, 9, 30.0), (50, 5, 20.0), (40, 7, 10.0), (40, 6, 25.0))
    ]
    records = [
        Record(**{**vars(item), "objectives": {one.name: found[one.name] for one in objectives}})
        for item, found in zip(RECORDS, values, strict=True)
    ]
    result = compute_front(records, objectives)
    name, text = limit_to_type(result) or ("", "")
    assert (name, text) == expected
    assert within(result, {name: float(text)})


@pytest.mark.parametrize(
    ("limits", "min_em", "expected"),
    [
        ({}, 40, ["t1", "t3", "t2", "t0"]),  # the least memory first
        ({}, 40.5, ["t1", "t0"]),
        ({"artifact_bytes": 400}, 40, ["t2", "t3", "t0"]),  # the least of what is limited
        ({"latency_p50_ms": 25}, 45, ["t1"]),
        ({}, 61, []),
    ],
)
def test_with_a_least_exact_match_the_cheapest_comes_first(
    limits: dict[str, float], min_em: float, expected: list[str]
) -> None:
    assert [point.trial_id for point in within(front(), limits, min_em=min_em)] == expected


def test_a_least_exact_match_that_none_has_is_refused_with_the_best() -> None:
    assert refusal(front(), {}, min_em=61) == (
        "--min-em: found 61; none of 4 finished trials has it: the best em_percent is 60 (t0)"
    )
    within_limits = refusal(front(), {"memory_mb": 6}, min_em=51)
    assert within_limits.endswith("has it within memory_mb=6: the best em_percent is 50 (t1)")
    assert refusal(front(), {"memory_mb": 1}, min_em=51).startswith("--max: found memory_mb=1; none of 4")
    assert refusal(compute_front([], BOTH), {}, min_em=5).startswith("--min-em: found 5; no finished trial")
