"""CPU seconds of one Mamba training step: the project's scan beside transformers' own and mambapy's, in one run.

    pip install -e '.[bench]'
    python -m benchmarks.mamba_scan

Forward and backward through the same weights and tokens, in float32, interleaved round by round:

    ours          `qa_core.models.mamba.use_project_scan`
    mambapy       transformers with `use_mambapy=True`: a parallel scan by mamba.py
    transformers  its default path without CUDA kernels: O(L^2) in the backward pass, so it is timed once

Seconds are those of the process on its one thread, so that other work on the machine counts less than on a
clock on the wall. Ours and mambapy are also held against that default path, a plain loop over time: states and
all gradients, as the largest difference relative to the largest value of the tensor.
"""

import copy
import json
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from qa_core.errors import ConfigError
from qa_core.hardware import describe_device
from qa_core.models import mamba

OURS, MAMBAPY, DEFAULT = "ours", "mambapy", "transformers"
GOALS = {DEFAULT: 20.0, MAMBAPY: 1.3}  # times as fast as these
SEED = 0


@dataclass(frozen=True)
class Setting:
    """Sizes of model and batch."""

    batch: int
    length: int
    width: int
    layers: int
    vocabulary: int = 2048


@dataclass(frozen=True)
class Step:
    """One training step: its CPU seconds, the states [B, L, D] and the gradient of each parameter."""

    seconds: float
    states: torch.Tensor
    gradients: dict[str, torch.Tensor]


def main(
    batch: Annotated[int, typer.Option(help="windows of one step")] = 8,
    length: Annotated[int, typer.Option(help="tokens of a window")] = 384,
    width: Annotated[int, typer.Option(help="width of the model")] = 256,
    layers: Annotated[int, typer.Option(help="layers of the model")] = 4,
    rounds: Annotated[int, typer.Option(help="measurements of ours and mambapy")] = 5,
    default_path: Annotated[bool, typer.Option(help="time transformers' default path, minutes")] = True,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/mamba_scan.json"),
) -> None:
    """Measure, print the table and write the JSON file."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(1)
    setting = Setting(batch, length, width, layers)
    models = build(setting)
    for name in (OURS, MAMBAPY):  # pays for the process's first steps
        train_step(models[name], setting)
    measured: list[dict[str, float]] = []
    for number in range(rounds):
        measured.append({name: train_step(models[name], setting).seconds for name in (OURS, MAMBAPY)})
        typer.echo(f"round {number + 1}: {measured[-1]}")
    seconds = {name: [one[name] for one in measured] for name in (OURS, MAMBAPY)}
    differences = {}
    if default_path:
        sequential = train_step(models[DEFAULT], setting)
        seconds[DEFAULT] = [sequential.seconds]
        differences = {
            name: difference(train_step(models[name], setting), sequential) for name in (OURS, MAMBAPY)
        }
    result = {
        "goals": GOALS,
        "cpu_seconds": seconds,
        "ratios": ratios(seconds),
        "differences": differences,
        "setting": {**asdict(setting), "seed": SEED, "dtype": "float32"},
        "provenance": {
            "device": describe_device(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "transformers", "mambapy", "qa-sweeps")},
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2))
    print_table(result)
    typer.echo(f"written to {out}")


def build(setting: Setting) -> dict[str, Any]:
    """Return three models of equal weights, each with its way to scan.

    Raises:
        ConfigError: mambapy is not installed; transformers would fall back to its default path in silence.
    """
    from transformers import MambaConfig, MambaModel

    try:
        version("mambapy")
    except PackageNotFoundError as error:
        raise ConfigError("mambapy is not installed: pip install 'qa-sweeps[bench]'") from error
    torch.manual_seed(SEED)
    config = MambaConfig(
        vocab_size=setting.vocabulary, hidden_size=setting.width, num_hidden_layers=setting.layers
    )
    default = MambaModel(config).train()
    models = {name: copy.deepcopy(default) for name in (OURS, MAMBAPY)}
    mamba.use_project_scan(models[OURS])
    for layer in models[MAMBAPY].layers:
        layer.mixer.use_mambapy = True
    return {**models, DEFAULT: default}


def train_step(model: Any, setting: Setting) -> Step:
    """Run one forward and backward pass."""
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(setting.vocabulary, (setting.batch, setting.length), generator=generator)
    dtype = next(model.parameters()).dtype
    weights = torch.randn(*ids.shape, setting.width, generator=generator).to(dtype)
    started = time.process_time()
    states = model(input_ids=ids, use_cache=False).last_hidden_state  # [B, L, D]
    (states * weights).sum().backward()
    seconds = time.process_time() - started
    gradients = {name: item.grad for name, item in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return Step(seconds, states.detach(), gradients)


def difference(step: Step, reference: Step) -> dict[str, float]:
    """Return the largest difference of the states and of any gradient, relative to its tensor's largest value."""
    return {
        "states": _relative(step.states, reference.states),
        "gradients": max(
            _relative(found, reference.gradients[name]) for name, found in step.gradients.items()
        ),
    }


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Return how many times as fast as each other way ours is; within rounds where there are, as load drifts."""
    ours = seconds[OURS]
    found = {MAMBAPY: statistics.median(b / a for a, b in zip(ours, seconds[MAMBAPY], strict=True))}
    if DEFAULT in seconds:
        found[DEFAULT] = seconds[DEFAULT][0] / statistics.median(ours)
    return found


def print_table(result: dict[str, Any]) -> None:
    """Print medians, spread, ratios and differences."""
    setting = result["setting"]
    sizes = f"{setting['batch']} x {setting['length']}, width {setting['width']}, {setting['layers']} layers"
    table = Table(title=f"One training step, float32, {sizes}, threads {result['provenance']['threads']}")
    for heading in (
        "way",
        "CPU seconds (median)",
        "lowest - highest",
        "ours is faster by",
        "off by, relative",
    ):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, seconds in result["cpu_seconds"].items():
        ratio, off = result["ratios"].get(name), result["differences"].get(name)
        table.add_row(
            name,
            f"{statistics.median(seconds):.2f}",
            f"{min(seconds):.2f} - {max(seconds):.2f}",
            "" if ratio is None else f"{ratio:.1f}",
            "" if off is None else f"{max(off.values()):.1e}",
        )
    Console().print(table)
    for name, ratio in result["ratios"].items():
        goal = GOALS[name]
        typer.echo(f"{name} / ours = {ratio:.1f}; goal {goal:g} {'reached' if ratio >= goal else 'missed'}")


def _relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    return float((found - reference).abs().max() / reference.abs().max())


if __name__ == "__main__":
    typer.run(main)
