"""Training examples per second: our loop beside transformers' `Trainer`, in one run.

    python -m benchmarks.train_throughput --model FOLDER --data TRAIN.json.gz

Three ways to train family `bert` in float32 from the same weights, on the same windows, with the same batch
size and threads, interleaved round by round:

    ours                           `qa_core.training.train.train` as it stands: length buckets, no attention dropout
    trainer, no attention dropout  `Trainer`, every window padded to the maximum length
    trainer                        the same with the checkpoint's own attention dropout

The middle row says how much of the gain is attention dropout and how much is padding. A round is far smaller
than an epoch, so its length buckets are coarser and ours looks a little slower than it is. Speed only: what
is learned is shown by a sweep's scores.
"""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table

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

OURS, MIDDLE, PLAIN = "ours", "trainer, no attention dropout", "trainer"
GOAL = 3.0  # times the plain trainer's throughput
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
    steps: Annotated[int, typer.Option(help="optimiser steps of one measurement")] = 8,
    batch_size: Annotated[int, typer.Option(help="windows of one step")] = 16,
    rounds: Annotated[int, typer.Option(help="measurements of each way")] = 3,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/train_throughput.json"),
) -> None:
    """Measure, print the table and write the JSON file."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    family = Bert(ModelConfig(family="bert", checkpoint=model))
    table = load_table(data, split="train")
    with tempfile.TemporaryDirectory() as scratch:
        cache_dir = Path(scratch)
        tokenizer = prepare_tokenizer(family, table, cache_dir)
        config = TrainConfig(batch_size=batch_size, precision="float32")
        setting = Setting(family, tokenizer, DataConfig().max_length, config)
        measure(setting, windows_of(setting, table, questions=batch_size, seed=rounds, cache_dir=cache_dir))
        measured = []
        for number in range(rounds):  # after the round above, which also paid for the process's first steps
            questions = steps * batch_size
            windows = windows_of(setting, table, questions=questions, seed=number, cache_dir=cache_dir)
            measured.append(measure(setting, windows))
            typer.echo(f"round {number + 1}: {measured[-1]}")
    result = {
        "goal": GOAL,
        "medians_examples_per_second": medians(measured),
        "ratio": statistics.median(one[OURS] / one[PLAIN] for one in measured),  # within rounds: load drifts
        "rounds_examples_per_second": measured,
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


def measure(setting: Setting, windows: WindowSet) -> dict[str, float]:
    """Return examples per second of each way over one epoch of the windows."""
    seconds = {
        OURS: ours(setting, windows),
        MIDDLE: plain_trainer(setting, windows, attention_dropout=0.0),
        PLAIN: plain_trainer(setting, windows, attention_dropout=None),
    }
    return {name: round(len(windows) / value, 3) for name, value in seconds.items()}


def windows_of(setting: Setting, table: Any, *, questions: int, seed: int, cache_dir: Path) -> WindowSet:
    """Return the windows of some questions: at most one incomplete batch more than `questions`."""
    lengths = WindowLengths(setting.max_length, DataConfig().stride, DataConfig().max_question_length)
    chosen = select_questions(table, questions, seed=seed)
    layout = setting.family.layout(setting.tokenizer)
    return build_windows(chosen, setting.tokenizer, layout, lengths=lengths, cache_dir=cache_dir)


def ours(setting: Setting, windows: WindowSet) -> float:
    """Train one epoch with the project's loop; returns seconds."""
    seed_torch(SEED)
    model = setting.family.build(setting.tokenizer)
    device = torch.device("cpu")
    task = TrainTask(setting.family, [], windows, setting.tokenizer.pad_token_id, setting.train, SEED, device)
    hooks = RungHooks(evaluate=lambda state: None, report=lambda state: None)
    state = train(model, task, hooks=hooks, checkpoint_folder=None)
    assert state.examples_seen == len(windows)
    return state.train_seconds


def plain_trainer(setting: Setting, windows: WindowSet, *, attention_dropout: float | None) -> float:
    """Train one epoch with transformers' `Trainer`, padded to the maximum length; returns seconds.

    Args:
        attention_dropout: None for the checkpoint's own.
    """
    import transformers

    class Clock(transformers.TrainerCallback):
        seconds = 0.0

        def on_train_begin(self, *arguments: Any, **more: Any) -> None:
            self.seconds = -time.perf_counter()

        def on_train_end(self, *arguments: Any, **more: Any) -> None:
            self.seconds += time.perf_counter()

    seed_torch(SEED)
    changes = {} if attention_dropout is None else {"attention_probs_dropout_prob": attention_dropout}
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(
        setting.family.model.checkpoint, dtype=torch.float32, trust_remote_code=False, **changes
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = transformers.TrainingArguments(
            output_dir=scratch,
            num_train_epochs=1,
            per_device_train_batch_size=setting.train.batch_size,
            learning_rate=setting.train.learning_rate,
            weight_decay=setting.train.weight_decay,
            max_grad_norm=setting.train.clip_norm,
            seed=SEED,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        rows = padded_rows(setting, windows)
        trainer = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[clock])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return clock.seconds


def padded_rows(setting: Setting, windows: WindowSet) -> list[dict[str, torch.Tensor]]:
    """Return a row for each window, padded to the maximum length before the clock runs."""
    pad_id = setting.tokenizer.pad_token_id
    batch = collate(windows, np.arange(len(windows)), pad_id)
    missing = setting.max_length - batch["input_ids"].shape[1]
    fill = {"input_ids": pad_id, "attention_mask": 0, "token_type_ids": 0}
    columns = {name: F.pad(batch[name], (0, missing), value=value) for name, value in fill.items()}  # [W, L]
    columns |= {name: batch[name] for name in ("start_positions", "end_positions")}  # [W]
    return [{name: column[row] for name, column in columns.items()} for row in range(len(windows))]


def medians(measured: list[dict[str, float]]) -> dict[str, float]:
    """Return the median examples per second of each way."""
    return {name: statistics.median(one[name] for one in measured) for name in measured[0]}


def print_table(result: dict[str, Any]) -> None:
    """Print medians, spread and ratios."""
    threads, batch_size = result["provenance"]["threads"], result["setting"]["train"]["batch_size"]
    table = Table(title=f"float32, batch {batch_size}, threads {threads}")
    for heading in ("way", "examples/s (median)", "lowest - highest", "times the trainer"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    middle = result["medians_examples_per_second"]
    for name, median in middle.items():
        rates = [one[name] for one in result["rounds_examples_per_second"]]
        spread = f"{min(rates):.2f} - {max(rates):.2f}"
        table.add_row(name, f"{median:.2f}", spread, f"{median / middle[PLAIN]:.2f}")
    Console().print(table)
    verdict = "reached" if result["ratio"] >= GOAL else "missed"
    typer.echo(f"ours / trainer = {result['ratio']:.2f}; goal {GOAL:g} {verdict}")


if __name__ == "__main__":
    typer.run(main)
