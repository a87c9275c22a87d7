"""What each way of compressing a reader saves and costs, on real questions: EM, F1, bytes on disk and memory.

    python -m benchmarks.compression --model FOLDER --data TRAIN.json.gz --eval-data DEV.json.gz

Each row is one recipe of family `bert`, run by `qa_core.run`: trained, written, loaded back, then scored and measured.
All rows that train spend the same budget; those that only store the fully trained weights in fewer bits start from the
artifact of the row `full` and train nothing; that artifact also teaches the distilled rows. Evaluation is in float32.

A row's result is kept as JSON in the folder, and rows that are there are not run again, so that several processes can
share the work (`--rows full,int8`). The table is printed from all results present.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from qa_core.config import RunConfig
from qa_core.run import run
from qa_core.schema import as_json
from qa_core.values import from_dict

FULL = "full"
SCORES_RATE = 2e-2  # learning rate of mask scores, as in the study
KEPT_F1 = {"int8": 0.99, "nf4": 0.97}  # share of the F1 of `full` that the row must keep


def rows(full_artifact: str) -> dict[str, dict[str, Any]]:
    """Return row name -> recipe values that differ from the shared ones."""
    stored = {"model": {"checkpoint": full_artifact}, "train": {"budget_examples": 0}}
    teacher = {"teacher": full_artifact}
    masked = {"train": {"warmup_share": 0.0}}  # the head keeps the shared rate, the scores have their own
    table: dict[str, dict[str, Any]] = {
        FULL: {},
        "16-bit": {**stored, "methods": {"quantize": {"bits": 16}}},
        "int8": {**stored, "methods": {"quantize": {"bits": 8}}},
        "int8 dynamic": {**stored, "methods": {"quantize": {"bits": 8, "scheme": "dynamic"}}},
        "nf4": {**stored, "methods": {"quantize": {"bits": 4}}},
        "nf4 + embeddings int8": {**stored, "methods": {"quantize": {"bits": 4, "embedding_bits": 8}}},
        "lora": _adapter("lora"),
        "ia3": {"methods": {"ia3": {}}, "train": {"learning_rate": 5e-3}},
        "qlora": _adapter("qlora"),
        "lora on int8": _adapter("lora_int8"),
    }
    for density in (0.5, 0.1):
        options = {"criterion": "smp_s", "density": density, "score_learning_rate": SCORES_RATE}
        pruned = {"static_prune": options}
        table[f"smp {density}"] = {**masked, "methods": pruned}
        table[f"smp {density} + kd"] = {**masked, "methods": {**pruned, "distill": teacher}}
    table["smp 0.5 + kd + int8"] = {
        **masked,
        "methods": {**table["smp 0.5 + kd"]["methods"], "quantize": {"bits": 8}},
    }
    return table


def main(
    model: Annotated[str, typer.Option(help="folder or hub name of a BERT checkpoint")],
    data: Annotated[str, typer.Option(help="training data")],
    eval_data: Annotated[str, typer.Option(help="evaluation data")],
    examples: Annotated[int, typer.Option(help="training windows of each row that trains")] = 8100,
    eval_questions: Annotated[int, typer.Option(help="evaluation questions, drawn by seed")] = 2000,
    only: Annotated[str | None, typer.Option("--rows", help="names of rows, joined by commas")] = None,
    out: Annotated[Path, typer.Option(help="folder of results and artifacts")] = Path("runs/compression"),
) -> None:
    """Run the rows that have no result yet, then print the table of all results."""
    full_folder = out / "trials" / FULL
    table = rows(str(full_folder / "artifact"))
    shared = {
        "model": {"family": "bert", "checkpoint": model},
        "data": {
            "train": data,
            "evaluation": eval_data,
            "evaluation_questions": eval_questions,
            "window": "256/64",
            "selection_share": 0.05,
            "selection_questions": 300,
        },
        "train": {"budget_examples": examples, "learning_rate": 3e-4, "micro_batch_tokens": 6144},
        "evaluation": {"precision": "float32", "latency_runs": 20},
        "seed": 0,
    }
    for name in only.split(",") if only else table:
        if not _result_file(out, name).exists():
            _run_row(out, name, from_dict(RunConfig, _merged(shared, table[name])))
    results = {
        name: json.loads(_result_file(out, name).read_text())
        for name in table
        if _result_file(out, name).exists()
    }
    show(results)
    (out / "compression.json").write_text(
        json.dumps({name: _figures(result) for name, result in results.items()}, indent=1)
    )


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print one line for each result, and whether the quantised rows keep what they must."""
    columns = ("EM", "F1", "F1 / full", "artifact MB", "weights MB", "memory MB", "train MB", "trained", "s")
    table = Table("row", *columns, title="compression of one reader")
    reference = results.get(FULL)
    for name, result in results.items():
        figures = _figures(result)
        share = figures["f1_percent"] / reference["quality"]["f1_percent"] if reference else None
        train_peak = figures["train_peak_mb"]
        table.add_row(
            name,
            f"{figures['em_percent']:.1f}",
            f"{figures['f1_percent']:.1f}",
            "-" if share is None else f"{share:.3f}",
            *(f"{figures[key]:.1f}" for key in ("artifact_mb", "weights_mb", "memory_mb")),
            "-" if train_peak is None else f"{train_peak:.0f}",
            f"{figures['trainable_parameters']:,}",
            f"{figures['seconds']:.0f}",
        )
        if share is not None and name in KEPT_F1 and share < KEPT_F1[name]:
            print(f"{name}: keeps {share:.3f} of the F1 of {FULL}; wanted: {KEPT_F1[name]}")
    Console(width=130).print(table)


def _adapter(method: str) -> dict[str, Any]:
    options = {"rank": 16, "alpha": 32, "targets": "all_linear"}
    return {"methods": {method: options}, "train": {"learning_rate": 2e-3}}


def _run_row(out: Path, name: str, config: RunConfig) -> None:
    started = time.perf_counter()
    folder = out / "trials" / name.replace(" ", "_").replace(",", "").replace("+", "and")
    print(f"{name}: running", flush=True)
    result = run(config, lambda progress: None, folder=folder, cache_dir=out / "cache")
    seconds = time.perf_counter() - started
    _result_file(out, name).parent.mkdir(parents=True, exist_ok=True)
    _result_file(out, name).write_text(json.dumps({**as_json(result), "seconds": seconds}, indent=1))


def _result_file(out: Path, name: str) -> Path:
    return out / "results" / f"{name.replace(' ', '_')}.json"


def _figures(result: dict[str, Any]) -> dict[str, Any]:
    quality, cost = result["quality"], result["cost"]
    train_peak = cost["train_peak_bytes"]
    return {
        "em_percent": quality["em_percent"],
        "f1_percent": quality["f1_percent"],
        "questions": quality["questions"],
        "artifact_mb": cost["artifact_bytes"] / 1e6,
        "weights_mb": cost["weights_bytes"] / 1e6,
        "memory_mb": cost["inference_peak_bytes"] / 1e6,
        "train_peak_mb": None if train_peak is None else train_peak / 1e6,
        "trainable_parameters": cost["trainable_parameters"],
        "latency_p50_ms": cost["latency_p50_ms"],
        "train_seconds": cost["train_seconds"],
        "seconds": result["seconds"],
        "device": cost["device"],
        "precision": cost["precision"],
    }


def _merged(shared: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(shared)
    for key, value in changes.items():
        is_section = isinstance(value, dict) and isinstance(shared.get(key), dict)
        merged[key] = {**shared[key], **value} if is_section else value
    return merged


if __name__ == "__main__":
    typer.run(main)
