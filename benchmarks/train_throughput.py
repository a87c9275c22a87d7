"""Training examples per second: our loop beside transformers' `Trainer`, in one run.

    python -m benchmarks.train_throughput --model FOLDER --data TRAIN.json.gz --precision float32

Three ways to train family `bert` from the same weights, on the same windows, with the same batch size and threads,
interleaved round by round:

    ours                            `qa_core.training.train.train` as it stands: length buckets, no attention dropout
    trainer at its best             `Trainer`: grouped lengths, dynamic padding, no attention dropout, fused AdamW
    trainer, padded to the maximum  as the example `run_qa.py` of transformers runs it

`Trainer` runs in a process of its own, with torch's own settings. The second row is the fair one. A round is far
smaller than an epoch, so its length buckets are coarser and ours looks a little slower than it is. The mean loss of
each way is printed beside its speed: they are alike and not equal, since batches differ, and since the head of
transformers looks for an answer among all tokens, padding too, where ours looks in the passage.
"""

import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.plain_trainer import BEST, PADDED, Epoch, Job
from benchmarks.plain_trainer import train as train_plainly
from qa_core.config import DataConfig, ModelConfig, TrainConfig
from qa_core.data.batches import collate
from qa_core.data.squad import load_table, select_questions
from qa_core.data.tokenizers import prepare_tokenizer
from qa_core.data.windows import WindowLengths, WindowSet, build_windows
from qa_core.families.bert import Bert
from qa_core.hardware import describe_device
from qa_core.seeding import seed_torch
from qa_core.training.train import RungHooks, TrainTask, train
from qa_core.values import to_dict

OURS = "ours"
GOALS = {"float32": 2.2, "bfloat16": 1.8}  # times the throughput of the trainer at its best
SEED = 0


@dataclass(frozen=True)
class Setting:
    """What the three ways share."""

    family: Bert
    tokenizer: Any
    max_length: int
    train: TrainConfig


def main(
    model: Annotated[str, typer.Option(help="folder or hub name of a BERT checkpoint")],
    data: Annotated[str, typer.Option(help="SQuAD file, Parquet file or hub data set name")],
    precision: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    steps: Annotated[int, typer.Option(help="optimiser steps of one measurement")] = 8,
    batch_size: Annotated[int, typer.Option(help="windows of one step")] = 16,
    rounds: Annotated[int, typer.Option(help="measurements of each way")] = 3,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/train_throughput.json"),
) -> None:
    """Measure, print the table and write the JSON file."""
    torch.set_num_threads(1)
    family = Bert(ModelConfig(family="bert", checkpoint=model))
    table = load_table(data, split="train")
    with tempfile.TemporaryDirectory() as scratch, _own_process() as other:
        cache_dir = Path(scratch)
        tokenizer = prepare_tokenizer(family, table, cache_dir)
        config = TrainConfig(batch_size=batch_size, precision=precision)
        setting = Setting(family, tokenizer, DataConfig().max_length, config)
        first = windows_of(setting, table, questions=batch_size, seed=rounds, cache_dir=cache_dir)
        measure(setting, first, other)  # pays for the first steps of both processes
        measured = []
        for number in range(rounds):
            questions = steps * batch_size
            windows = windows_of(setting, table, questions=questions, seed=number, cache_dir=cache_dir)
            measured.append(measure(setting, windows, other))
            for name, one in measured[-1].items():
                typer.echo(f"round {number + 1}: {name}: {one}")
    result = {
        "goal": GOALS[precision],
        "times_the_best_trainer": ratios(measured),
        "rounds": measured,
        "setting": {
            "model": model,
            "data_hash": table.data_hash,
            "data_source": data,
            "max_length": setting.max_length,
            "seed": SEED,
            "steps": steps,
            "train": to_dict(config),
        },
        "provenance": {
            "device": describe_device(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "transformers", "qa-sweeps")},
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2))
    print_table(result)
    typer.echo(f"written to {out}")


def _own_process() -> ProcessPoolExecutor:
    """Return one process with one thread that inherits nothing of this one's torch."""
    return ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )


def measure(setting: Setting, windows: WindowSet, other: ProcessPoolExecutor) -> dict[str, dict[str, float]]:
    """Return examples per second by wall clock and by CPU time, and the mean loss, of each way over one epoch."""
    job = job_of(setting, windows)
    epochs = {
        OURS: ours(setting, windows),
        **{way: other.submit(train_plainly, job, way).result() for way in (BEST, PADDED)},
    }
    return {
        name: {
            "per_second": round(len(windows) / epoch.seconds, 3),
            "per_cpu_second": round(len(windows) / epoch.cpu_seconds, 3),
            "loss": round(epoch.loss, 4),
        }
        for name, epoch in epochs.items()
    }


def windows_of(setting: Setting, table: Any, *, questions: int, seed: int, cache_dir: Path) -> WindowSet:
    """Return the windows of some questions: at most one incomplete batch more than `questions`."""
    lengths = WindowLengths(setting.max_length, DataConfig().stride, DataConfig().max_question_length)
    chosen = select_questions(table, questions, seed=seed)
    layout = setting.family.layout(setting.tokenizer)
    return build_windows(chosen, setting.tokenizer, layout, lengths=lengths, cache_dir=cache_dir)


def ours(setting: Setting, windows: WindowSet) -> Epoch:
    """Train one epoch with the project's loop."""
    seed_torch(SEED)
    model = setting.family.build(setting.tokenizer)
    device = torch.device("cpu")
    task = TrainTask(setting.family, [], windows, setting.tokenizer.pad_token_id, setting.train, SEED, device)
    hooks = RungHooks(evaluate=lambda state: None, report=lambda state: None)
    cpu_seconds = -time.process_time()
    state = train(model, task, hooks=hooks, checkpoint_folder=None)
    cpu_seconds += time.process_time()
    assert state.examples_seen == len(windows)
    return Epoch(state.train_seconds, cpu_seconds, state.loss_sum / state.loss_windows)


def job_of(setting: Setting, windows: WindowSet) -> Job:
    """Return the same windows and settings for `Trainer`."""
    pad_id = setting.tokenizer.pad_token_id
    batch = collate(windows, np.arange(len(windows)), pad_id)
    rows = [
        {
            **{
                name: batch[name][row, :length].tolist()
                for name in ("input_ids", "attention_mask", "token_type_ids")
            },
            **{name: int(batch[name][row]) for name in ("start_positions", "end_positions")},
        }
        for row, length in enumerate(windows.lengths.tolist())
    ]
    arguments = {
        "per_device_train_batch_size": setting.train.batch_size,
        "learning_rate": setting.train.learning_rate,
        "weight_decay": setting.train.weight_decay,
        "max_grad_norm": setting.train.clip_norm,
        "seed": SEED,
        "bf16": setting.train.precision == "bfloat16",
    }
    return Job(setting.family.model.checkpoint, rows, setting.max_length, pad_id, arguments)


def ratios(measured: list[dict[str, dict[str, float]]]) -> dict[str, list[float]]:
    """Return ours over the trainer at its best, of each round since load drifts, by wall clock and by CPU time."""
    return {
        unit: [round(one[OURS][unit] / one[BEST][unit], 3) for one in measured]
        for unit in ("per_second", "per_cpu_second")
    }


def print_table(result: dict[str, Any]) -> None:
    """Print medians, spread and ratios."""
    setting, threads = result["setting"]["train"], result["provenance"]["threads"]
    table = Table(title=f"{setting['precision']}, batch {setting['batch_size']}, threads {threads}")
    for heading in ("way", "examples/s", "lowest - highest", "examples/CPU s", "mean loss"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name in (OURS, BEST, PADDED):
        rounds = [one[name] for one in result["rounds"]]
        rates = [one["per_second"] for one in rounds]
        table.add_row(
            name,
            f"{statistics.median(rates):.2f}",
            f"{min(rates):.2f} - {max(rates):.2f}",
            f"{statistics.median(one['per_cpu_second'] for one in rounds):.2f}",
            f"{statistics.median(one['loss'] for one in rounds):.3f}",
        )
    Console().print(table)
    times = result["times_the_best_trainer"]
    ratio = statistics.median(times["per_cpu_second"])
    verdict = "reached" if ratio >= result["goal"] else "missed"
    typer.echo(
        f"ours / trainer at its best = {ratio:.2f} by CPU time ({min(times['per_cpu_second']):.2f} to "
        f"{max(times['per_cpu_second']):.2f}), {statistics.median(times['per_second']):.2f} by wall clock; "
        f"goal {result['goal']:g} {verdict}"
    )


if __name__ == "__main__":
    typer.run(main)
