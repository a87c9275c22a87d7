"""Small curve tables for the tests of replay."""

from collections.abc import Sequence
from typing import Any

from sweeps.replay.curves import Curve, CurveTable, RecordedForm
from sweeps.spec.sections import SweepSpec

BUDGET = 30
OBJECTIVES = [
    {"name": "em_percent", "goal": "max", "reference": 0},
    {"name": "memory_mb", "goal": "min", "reference": 100},
]


def spec_of(space: Sequence[dict[str, Any]], **changes: Any) -> SweepSpec:
    values: dict[str, Any] = {
        "name": "toy",
        "objectives": OBJECTIVES,
        "searcher": {"name": "grid"},
        "scheduler": {"name": "pareto_asha", "options": {"grace_examples": 10}},
        "budget": {"trials": 3, "examples": BUDGET},
        "recipe": {"model": {"family": "lstm", "checkpoint": "micro"}},
        "space": list(space),
    }
    return SweepSpec.model_validate({**values, **changes})


def curve(assignment: dict[str, Any], **changes: Any) -> Curve:
    """Return a curve that reports after a third of its budget; it takes a second for each example."""
    values: dict[str, Any] = {
        "trial_id": "t0000",
        "seed": 1,
        "assignment": assignment,
        "examples_seen": (10, 30),
        "train_seconds": (10.0, 30.0),
        "rung_values": {"em_percent": (20.0, 41.0), "memory_mb": (10.0, 10.0)},
        "final": {"em_percent": 40.0, "memory_mb": 10.0},
        "seconds": 33.0,
    }
    return Curve(**{**values, **changes})


def three_recipes() -> CurveTable:
    """Return A, good and small but slow; B, fast and worse; C, worse than A at the rung."""
    rates = [0.001, 0.002, 0.003]
    timed = (  # EM at the rung and at the end, memory, seconds at the rung, after training and in all
        (50.0, 60.0, 10.0, 10.0, 30.0, 33.0),
        (20.0, 40.0, 20.0, 4.0, 12.0, 14.0),
        (30.0, 90.0, 15.0, 5.0, 15.0, 16.0),
    )
    curves = [
        curve(
            {"train.learning_rate": rate},
            trial_id=f"r{index}",
            train_seconds=(early, late),
            rung_values={"em_percent": (rung, final), "memory_mb": (memory, memory)},
            final={"em_percent": final, "memory_mb": memory},
            seconds=seconds,
        )
        for index, (rate, (rung, final, memory, early, late, seconds)) in enumerate(
            zip(rates, timed, strict=True)
        )
    ]
    return CurveTable(spec_of([{"set": "train.learning_rate", "choice": rates}]), tuple(curves))


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
