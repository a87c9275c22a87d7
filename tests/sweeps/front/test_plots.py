"""The still plot of a front: what it shows, for any objectives and any names."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sweeps.front.plots import _front_line, write_png
from sweeps.front.points import Point
from sweeps.front.result import FrontResult
from sweeps.spec.objectives import Objective

EM = Objective(name="em_percent", goal="max", reference=0)
MEMORY = Objective(name="memory_mb", goal="min", reference=10)
LATENCY = Objective(name="latency_p50_ms", goal="min", reference=100)
NASTY = "<script>alert('$x$')</script>"


def result(objectives: Sequence[Objective] = (EM, MEMORY), *, name: str = "tiny") -> FrontResult:
    placed = []
    for index, (em, memory, on_front) in enumerate(
        [(60, 8, True), (50, 2, True), (40, 5, False), (10, 1, True)]
    ):
        values = {"em_percent": float(em), "memory_mb": float(memory), "latency_p50_ms": 3.0 + index}
        placed.append(
            Point(
                trial_id=f"t{index}",
                values=values,
                family=name if index % 2 else "bert",
                head=None,
                methods="full",
                checkpoint=name,
                seed=1,
                memory_mb=float(memory),
                memory_batch8_mb=None,
                seconds=2.0,
                artifact=None,
                on_front=on_front,
                is_knee=index == 1,
            )
        )
    return FrontResult(tuple(objectives), tuple(placed), 430.0, {"stopped": 2}, {"no answer": 25.0})


def test_the_line_of_the_front_is_a_staircase_that_never_promises_more_than_a_point() -> None:
    assert _front_line(result()) == ([1, 2, 2, 8, 8], [10, 10, 50, 50, 60])
    assert _front_line(result((EM, MEMORY, LATENCY))) is None


@pytest.mark.parametrize("objectives", [(EM,), (EM, MEMORY), (MEMORY, EM), (EM, MEMORY, LATENCY)])
def test_a_plot_is_drawn_for_any_number_of_objectives(
    tmp_path: Path, objectives: tuple[Objective, ...]
) -> None:
    write_png(result(objectives), tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_names_from_configs_are_drawn_and_not_read_as_mathematics(tmp_path: Path) -> None:
    write_png(result(name=NASTY), tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
