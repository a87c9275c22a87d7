"""Make the pretrained networks that are part of the package.

    python -m benchmarks.pretrain_sample [FAMILY/NAME ...]      # writes qa_core/checkpoints/FAMILY/NAME

A network learns to answer questions about other worlds than the built-in corpus's (`other_worlds.py`), through a span
head that is not kept: what ships is the body, as of any pretrained network. Attention starts as `matching_start.py`
says. On one machine a second run gives the same bytes; another CPU may round otherwise. What the networks are good for
is measured by `finetune_sample.py`.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks import other_worlds
from benchmarks.matching_start import start_matching
from qa_core import registry, seeding
from qa_core.checkpoints import FOLDER
from qa_core.config import RunConfig
from qa_core.data.squad import QaTable, load_table, read_squad
from qa_core.data.tokenizers import trained_tokenizer
from qa_core.data.windows import WindowLengths, build_windows
from qa_core.measure import Reader
from qa_core.memory.protocol import Protocol
from qa_core.models.span_heads import SpanReader
from qa_core.scoring import evaluate
from qa_core.training.checkpoint import TrainState
from qa_core.training.train import RungHooks, TrainTask, train
from qa_core.values import from_dict

WORLDS = 300
HELD_OUT = 600  # questions of the last worlds, which are not trained on
VOCABULARY = 4096  # larger than the corpus's own: built-in words are spelled from pieces
LENGTHS = WindowLengths(128, 32, 32)
REPORTS = 5  # lines of progress
KEPT_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Course:
    """How one network is taught."""

    preset: str
    learning_rate: float
    windows: int
    batch_size: int = 32


# FAMILY/NAME -> its course
COURSES = {
    "bert/sample-micro": Course("micro", 2e-3, 60_000),
    "bert/sample-tiny": Course("tiny", 1e-3, 60_000),
    "distilbert/sample-micro": Course("micro", 2e-3, 60_000),
    "distilbert/sample-tiny": Course("tiny", 1e-3, 40_000),
    "t5/sample-tiny": Course("tiny", 2e-3, 40_000),
    "mamba/sample-tiny": Course("micro", 3e-3, 48_000),
}


def main(
    networks: Annotated[list[str] | None, typer.Argument(help="FAMILY/NAME; default: all")] = None,
    out: Annotated[Path, typer.Option(help="folder of FAMILY/NAME")] = FOLDER,
) -> None:
    """Teach each network and write its body, tokenizer and configuration."""
    torch.set_num_threads(1)  # sums are then made in one order
    document = other_worlds.questions(WORLDS)
    other_worlds.refuse_shared(document)
    table = read_squad(document, "worlds")
    with tempfile.TemporaryDirectory() as scratch:
        for network in networks or COURSES:
            family = network.partition("/")[0]
            pretrain(family, COURSES[network], table, folder=out / network, cache_dir=Path(scratch))


def pretrain(
    family_name: str,
    course: Course,
    table: QaTable,
    *,
    folder: Path,
    cache_dir: Path,
    held_out: int = HELD_OUT,
) -> None:
    """Teach one network and write `folder` anew; prints loss and exact match on the way.

    Args:
        table: the questions; the last `held_out` are scored and not trained on.
    """
    config = recipe(family_name, course)
    family = registry.make_family(config)
    tokenizer = trained_tokenizer(family.tokenizer_kind, table, vocab_size=VOCABULARY, cache_dir=cache_dir)
    layout = family.layout(tokenizer)
    rows = np.arange(len(table))
    parts = {
        "other worlds": table.take(rows[-held_out:]),
        "built-in": load_table("sample", split="dev"),  # read, never trained on
    }
    taught, *scored = (
        build_windows(part, tokenizer, layout, lengths=LENGTHS, cache_dir=cache_dir)
        for part in (table.take(rows[:-held_out]), *parts.values())
    )
    seeding.seed_torch(config.seed)
    model = family.build(tokenizer)
    start_matching(family, model)
    device = torch.device("cpu")
    reader = Reader(model, Protocol(family, tokenizer, LENGTHS.max_length, config.evaluation, device))
    task = TrainTask(family, [], taught, tokenizer.pad_token_id, config.train, config.seed, device)
    started = time.process_time()

    def show(state: TrainState) -> None:
        model.eval()
        exact = []
        for windows, part in zip(scored, parts.values(), strict=True):
            predictions = reader.predict(windows, part)
            exact.append(evaluate.quality(predictions, part, evaluate.tune_threshold(predictions, part)))
        model.train()
        scores = ", ".join(f"{name} {item.em_percent:.1f}" for name, item in zip(parts, exact, strict=True))
        loss = state.loss_sum / max(state.loss_windows, 1)
        seconds = time.process_time() - started
        print(
            f"{family_name}: {state.examples_seen} windows, loss {loss:.3f}, EM {scores}, {seconds:.0f} s of CPU",
            flush=True,
        )

    show(
        train(model, task, hooks=RungHooks(evaluate=show, report=lambda state: None), checkpoint_folder=None)
    )
    write(model, tokenizer, folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{family_name}: {folder}: {size} bytes", flush=True)


def recipe(family: str, course: Course) -> RunConfig:
    """Return the settings as a recipe of the project."""
    rungs = [course.windows * number // REPORTS for number in range(1, REPORTS)]
    values = {
        "model": {"family": family, "checkpoint": course.preset, "dropout": 0.0},
        "train": {
            "precision": "float32",
            "budget_examples": course.windows,
            "rungs": rungs,
            "learning_rate": course.learning_rate,
            "batch_size": course.batch_size,
        },
        "evaluation": {"precision": "float32"},
        "device": "cpu",
    }
    return from_dict(RunConfig, values)


def write(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the body in float16, its configuration and the tokenizer, and nothing else."""
    body = model.body if isinstance(model, SpanReader) else model.base_model
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        body.half().save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        folder.mkdir(parents=True)
        for name in KEPT_FILES:
            shutil.copyfile(Path(scratch) / name, folder / name)


if __name__ == "__main__":
    typer.run(main)
