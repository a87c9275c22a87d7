"""Cost of one early-stopping decision when a rung has seen many results.

    python -m benchmarks.rung_decisions

A decision takes in one result and says whether its trial goes on (`sweeps/schedulers/halving.py`). For each input a
rung is filled to a size, then the next decisions are timed one by one, in processor time of the thread, so that other
processes count little. `growth` is the exponent e of cost ~ size^e between the second and the last size: 1 is linear.

    random            two independent losses
    correlated        correlation 0.9: many thin layers
    conflicting       correlation -0.9: few thick layers
    all on the front  each result is better than any other in one loss
    all tied          one and the same result
    20 sizes          memory takes 20 values, quality is continuous: the layers are thin and as many as results / 20,
                      and a good result moves through most of them. The worst case known
    20 sizes, steps   the same with quality in steps of 0.5, as on a selection split of 200 questions
    three losses      independent, on the path for more than two objectives
"""

import json
import math
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from qa_core.hardware import describe_device
from sweeps.schedulers.halving import Halving, HalvingSettings

ETA = 3.0
BUDGET = 1
Maker = Callable[[np.random.Generator, int], np.ndarray]  # -> [results, losses]


def random(rng: np.random.Generator, results: int) -> np.ndarray:
    return rng.random((results, 2))


def gaussian(correlation: float) -> Maker:
    covariance = [[1.0, correlation], [correlation, 1.0]]
    return lambda rng, results: rng.multivariate_normal([0.0, 0.0], covariance, results)


def all_on_the_front(rng: np.random.Generator, results: int) -> np.ndarray:
    first = rng.random(results)
    return np.column_stack([first, -first])


def all_tied(rng: np.random.Generator, results: int) -> np.ndarray:
    return np.ones((results, 2))


def sizes(rng: np.random.Generator, results: int) -> np.ndarray:
    return np.column_stack([-100 * rng.random(results), rng.integers(1, 21, results)])


def sizes_and_steps(rng: np.random.Generator, results: int) -> np.ndarray:
    return np.column_stack([rng.integers(-200, 1, results) / 2, rng.integers(1, 21, results)])


def three_losses(rng: np.random.Generator, results: int) -> np.ndarray:
    return rng.random((results, 3))


INPUTS: dict[str, tuple[Maker, int]] = {  # maker, largest size
    "random": (random, 100_000),
    "correlated": (gaussian(0.9), 100_000),
    "conflicting": (gaussian(-0.9), 100_000),
    "all on the front": (all_on_the_front, 100_000),
    "all tied": (all_tied, 100_000),
    "20 sizes": (sizes, 100_000),
    "20 sizes, steps": (sizes_and_steps, 100_000),
    "three losses": (three_losses, 10_000),
}


def main(
    size: Annotated[list[int] | None, typer.Option(help="results on the rung; repeat for several")] = None,
    seed: Annotated[int, typer.Option(help="of the random results")] = 0,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/rung_decisions.json"),
) -> None:
    """Measure, print the table and write the JSON file."""
    filled = sorted(size or [100, 1_000, 10_000, 100_000])
    measured = {}
    for name, (make, largest) in INPUTS.items():
        measured[name] = measure(make, [one for one in filled if one <= largest], seed=seed)
        typer.echo(f"{name}: {measured[name]}")
    result = {
        "microseconds": measured,
        "growth": {name: growth(costs) for name, costs in measured.items()},
        "setting": {"eta": ETA, "seed": seed, "sizes": filled},
        "provenance": {
            "device": describe_device(torch.device("cpu")),
            "versions": {name: version(name) for name in ("numpy", "qa-sweeps")},
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2))
    print_table(result)
    typer.echo(f"written to {out}")


def measure(make: Maker, filled: list[int], *, seed: int) -> dict[int, dict[str, float]]:
    """Return mean, median and 99th percentile of a decision's microseconds for each size."""
    costs = {}
    for size in filled:
        timed = max(20, min(size // 10, 2_000))
        microseconds: list[float] = []
        for repeat in range(max(1, 200 // timed)):  # small rungs: several of them
            losses = make(np.random.default_rng([seed, size, repeat]), size + timed).tolist()
            halving = Halving(HalvingSettings(rungs=(BUDGET,), columns=len(losses[0]), eta=ETA))
            halving.replay((f"t{index}", BUDGET, item) for index, item in enumerate(losses[:size]))
            microseconds += [decision(halving, f"n{index}", item) for index, item in enumerate(losses[size:])]
        costs[size] = {
            "mean": round(float(np.mean(microseconds)), 1),
            "median": round(float(np.median(microseconds)), 1),
            "p99": round(float(np.quantile(microseconds, 0.99)), 1),
        }
    return costs


def decision(halving: Halving, trial_id: str, losses: list[float]) -> float:
    """Judge one result; returns microseconds."""
    started = time.thread_time_ns()
    halving.judge(trial_id, BUDGET, losses)
    return (time.thread_time_ns() - started) / 1e3


def growth(costs: dict[int, dict[str, float]]) -> float | None:
    """Return the exponent of the mean cost between the second and the last size; None with fewer than three."""
    filled = sorted(costs)
    if len(filled) < 3:
        return None
    low, high = filled[1], filled[-1]
    return round(math.log(costs[high]["mean"] / costs[low]["mean"]) / math.log(high / low), 2)


def print_table(result: dict[str, Any]) -> None:
    """Print mean (99th percentile) for each input and size."""
    table = Table(title="microseconds for one decision: mean (99th percentile), by results on the rung")
    table.add_column("input")
    for size in result["setting"]["sizes"]:
        table.add_column(f"{size:,}", justify="right")
    table.add_column("growth", justify="right")
    for name, costs in result["microseconds"].items():
        cells = [
            f"{costs[size]['mean']:,.0f} ({costs[size]['p99']:,.0f})" if size in costs else ""
            for size in result["setting"]["sizes"]
        ]
        exponent = result["growth"][name]
        table.add_row(name, *cells, "" if exponent is None else f"{exponent:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
