"""What the package's pretrained networks learn of the built-in corpus within a minute, by method and family.

    python -m benchmarks.finetune_sample [FAMILY ...] [--methods full,lora] [--seeds 3] [--windows 4000] [--rate 3e-3]

Each recipe is one trial of the project, trained and measured by `qa_core/run.py`: exact match on the built-in dev
questions, of which a reader that never answers gets the share "no answer". `--checkpoint tiny` shows what the same
recipes learn from random weights. A minute of one CPU core is about 12,000 windows of `bert` and `distilbert`, and
about 10,000 of `t5` and `mamba`.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.data.squad import load_table
from qa_core.errors import IllegalCombination
from qa_core.run import run
from qa_core.values import from_dict

NAME = "sample-tiny"
FAMILIES = ("bert", "distilbert", "t5", "mamba")  # that ship a network of this name
WINDOWS = 4_000
TEACHER = {"train": {"learning_rate": 1e-3}}  # fine-tuned in full
# method -> its options, and the learning rate
METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "full": ({}, 1e-3),
    "lora": ({"lora": {"rank": 16, "targets": "all_linear"}}, 3e-3),
    "ia3": ({"ia3": {}}, 1e-2),
    "smp 0.5": (
        {
            "static_prune": {"density": 0.5, "penalty": 0.0, "score_learning_rate": 2e-2},
            "distill": {"teacher_recipe": TEACHER},
        },
        1e-3,
    ),
    "nf4": ({"quantize": {"bits": 4}}, 1e-3),
    "qlora": ({"qlora": {"rank": 16, "targets": "all_linear"}}, 3e-3),
}


def main(
    families: Annotated[list[str] | None, typer.Argument(help="default: all that ship")] = None,
    methods: Annotated[str, typer.Option(help="joined by commas")] = ",".join(METHODS),
    seeds: Annotated[int, typer.Option(help="of each recipe")] = 3,
    checkpoint: Annotated[str, typer.Option(help="model.checkpoint")] = NAME,
    windows: Annotated[int, typer.Option(help="budget of each recipe")] = WINDOWS,
    data: Annotated[str, typer.Option(help="data.train: sample or sample:hard")] = "sample",
    rate: Annotated[float | None, typer.Option(help="learning rate in place of each method's own")] = None,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/finetune_sample.json"),
) -> None:
    """Run the recipes, print the table and write the JSON file."""
    columns = methods.split(",")
    floor = 100.0 * float(load_table(data, split="dev").is_unanswerable.mean())
    table = Table("family", *columns, title=f'EM on the dev questions of {data} ("no answer": {floor:.1f})')
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for family in families or FAMILIES:
            figures[family] = {}
            for method in columns:
                if not _is_legal(
                    recipe(family, method, 0, checkpoint=checkpoint, windows=windows, data=data)
                ):
                    continue
                for seed in range(seeds):
                    config = recipe(
                        family, method, seed, checkpoint=checkpoint, windows=windows, rate=rate, data=data
                    )
                    started = time.process_time()
                    place = Path(scratch) / f"{family}-{columns.index(method)}-{seed}"
                    result = run(config, _ignore, folder=place, cache_dir=Path(scratch) / "cache")
                    exact = result.quality.em_percent
                    figures[family].setdefault(method, []).append(exact)
                    print(
                        f"{family} {method} seed {seed}: EM {exact:.1f}, F1 {result.quality.f1_percent:.1f}, "
                        f"trained in {result.cost.train_seconds:.0f} s, {time.process_time() - started:.0f} s of CPU",
                        flush=True,
                    )
            table.add_row(family, *(_mean_and_range(figures[family].get(method)) for method in columns))
    Console(width=140).print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"no answer": floor, **figures}, indent=1))


def recipe(
    family: str,
    method: str,
    seed: int,
    *,
    checkpoint: str,
    windows: int,
    rate: float | None = None,
    data: str = "sample",
) -> RunConfig:
    """Return the recipe of one cell."""
    options, own_rate = METHODS[method]
    values = {
        "model": {"family": family, "checkpoint": checkpoint, "dropout": 0.0},
        "methods": options,
        "data": {
            "train": data,
            "max_length": 128,
            "stride": 32,
            "max_question_length": 32,
            "selection_questions": 300,
        },
        "train": {
            "precision": "float32",
            "budget_examples": windows,
            "batch_size": 16,
            "learning_rate": rate or own_rate,
        },
        "evaluation": {"precision": "float32", "latency_runs": 1},
        "seed": seed,
        "device": "cpu",
    }
    return from_dict(RunConfig, values)


def _ignore(progress: Any) -> None:
    """Take a report at a rung, of which these recipes have none."""


def _is_legal(config: RunConfig) -> bool:
    try:
        registry.check_combination(registry.make_family(config), registry.make_methods(config))
    except IllegalCombination:
        return False
    return True


def _mean_and_range(exact: list[float] | None) -> str:
    return "-" if exact is None else f"{statistics.mean(exact):.1f} ({min(exact):.1f}-{max(exact):.1f})"


if __name__ == "__main__":
    typer.run(main)
