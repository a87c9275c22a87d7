"""What each step of `gpu.py` measures: `python -m benchmarks.gpu_steps STEP [--small]` prints one JSON object a row.

Written on machines without a GPU: what only CUDA computes has not run yet. A step that cannot measure anything on this
machine prints why. Sizes with `small` are for a test of the steps themselves; their figures mean nothing.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from benchmarks.products import METHODS
from qa_core import registry
from qa_core.config import ModelConfig, RunConfig, TrainConfig
from qa_core.data.batches import collate
from qa_core.data.squad import load_table, read_squad
from qa_core.data.tokenizers import prepare_tokenizer
from qa_core.data.windows import WindowLengths, WindowSet, build_windows
from qa_core.families.bert import Bert
from qa_core.hardware import choose_device, describe_device
from qa_core.models.quantised_linear import Int8Linear, Nf4Linear
from qa_core.models.stored.base import StoredLinear
from qa_core.run import run
from qa_core.seeding import seed_torch
from qa_core.training.train import RungHooks, TrainTask, train
from qa_core.values import from_dict
from sweeps.budget.memory import MemoryForecast

Row = Mapping[str, Any]
MB = 10**6
REPEATS = 5  # of a timed call; the median counts
NO_GPU = "needs a CUDA device"
TESTS_NOT_FOUND = 5  # pytest's exit code
# Methods of the memory step, each on the first family that takes it, and every family as it is.
FORMS: tuple[Mapping[str, Any], ...] = (
    {"lora": METHODS["lora"]},
    {"qlora": METHODS["qlora"]},
    {"lora_int8": METHODS["lora_int8"]},
    {"quantize": {"bits": 8}},
    {"quantize": {"bits": 4}},
    {"static_prune": METHODS["static_prune"]},
)


def device() -> torch.device:
    return choose_device("auto")


def memory(*, small: bool) -> Iterator[Row]:
    """Compare predicted with measured memory, of inference and of training, for every family and form."""
    families = [{"family": name, "head": None} for name in registry.FAMILIES] + [
        {"family": "t5", "head": "generate"}
    ]
    products = [(model, methods) for model in families[:1] for methods in FORMS] + [
        (model, {}) for model in families
    ]
    if small:
        products = [(families[0], {"quantize": {"bits": 4}})]
    with tempfile.TemporaryDirectory() as scratch:
        cache_dir = Path(scratch) / "cache"
        for number, (model, methods) in enumerate(products):
            config = _recipe(model, methods, checkpoint="micro" if small else "tiny")
            row = {**model, "methods": methods, "device": describe_device(device())}
            try:
                foreseen = MemoryForecast(cache_dir=cache_dir).training_bytes(config)
                found = run(
                    config, lambda progress: None, folder=Path(scratch) / str(number), cache_dir=cache_dir
                )
            except Exception as error:  # one row is lost, the others are measured
                yield {**row, "failed": f"{type(error).__name__}: {error}".splitlines()[0]}
                continue
            cost = found.cost
            yield {
                **row,
                "predicted_inference_mb": _mb(cost.predicted_inference_peak_bytes),
                "measured_inference_mb": _mb(cost.inference_peak_bytes),
                "predicted_inference_batch8_mb": _mb(cost.predicted_inference_peak_batch8_bytes),
                "measured_inference_batch8_mb": _mb(cost.inference_peak_batch8_bytes),
                "predicted_training_mb": _mb(foreseen),
                "measured_training_mb": _mb(cost.train_peak_bytes),
                "micro_batch_parts": cost.micro_batch_parts,
                "compute_path": cost.compute_path,
            }


def _recipe(model: Mapping[str, Any], methods: Mapping[str, Any], *, checkpoint: str) -> RunConfig:
    return from_dict(
        RunConfig,
        {
            "model": {**model, "checkpoint": checkpoint, "vocab_size": 400},
            "methods": dict(methods),
            "data": {
                "train_questions": 120,
                "evaluation_questions": 16,
                "selection_questions": 16,
                "max_length": 128,
                "stride": 16,
                "max_question_length": 32,
            },
            "train": {"budget_examples": 32, "batch_size": 8, "learning_rate": 1e-3},
            "evaluation": {"latency_runs": 3, "max_new_tokens": 4},
        },
    )


def _mb(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else round(size_bytes / MB, 3)


def ours(*, small: bool) -> Iterator[Row]:
    """Time one epoch of the project's loop in bfloat16, and its share of the rate of one large matrix product."""
    with tempfile.TemporaryDirectory() as scratch:
        family, tokenizer, windows, batch_size = _bert(Path(scratch), small=small)
        config = TrainConfig(batch_size=batch_size, precision="bfloat16")
        for name in ("warm-up", "ours"):
            seed_torch(0)
            model = family.build(tokenizer).to(device())
            task = TrainTask(family, [], windows, tokenizer.pad_token_id, config, 0, device())
            hooks = RungHooks(evaluate=lambda state: None, report=lambda state: None)
            seconds = _seconds(lambda: train(model, task, hooks=hooks, checkpoint_folder=None))  # noqa: B023
            if name == "ours":
                yield _rate(name, model, windows, seconds, small=small)


def trainer(*, small: bool) -> Iterator[Row]:
    """Time one epoch of `Trainer` at its best.

    That is: bfloat16, grouped by length, padded to the batch, no attention dropout, fused AdamW.
    """
    import transformers

    with tempfile.TemporaryDirectory() as scratch:
        family, tokenizer, windows, batch_size = _bert(Path(scratch), small=small)
        starts = windows.token_starts
        rows = [
            {
                "row": row,
                "input_ids": windows.token_ids[starts[row] : starts[row + 1]],
            }  # the ids say how long it is
            for row in range(len(windows))
        ]

        def collated(chosen: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            batch = collate(windows, np.array([item["row"] for item in chosen]), tokenizer.pad_token_id)
            names = ("input_ids", "attention_mask", "token_type_ids", "start_positions", "end_positions")
            return {name: batch[name] for name in names}

        for name in ("warm-up", "trainer at its best"):
            seed_torch(0)
            model = transformers.AutoModelForQuestionAnswering.from_pretrained(
                family.model.checkpoint,
                dtype=torch.float32,
                attention_probs_dropout_prob=0.0,
                trust_remote_code=False,
            )
            arguments = transformers.TrainingArguments(
                output_dir=str(Path(scratch) / "out"),
                num_train_epochs=1,
                per_device_train_batch_size=batch_size,
                bf16=True,
                optim="adamw_torch_fused",
                train_sampling_strategy="group_by_length",
                use_cpu=device().type == "cpu",
                remove_unused_columns=False,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            )
            loop = transformers.Trainer(model, arguments, train_dataset=rows, data_collator=collated)  # type: ignore[arg-type]
            loop.remove_callback(transformers.PrinterCallback)
            seconds = _seconds(loop.train)
            if name != "warm-up":
                yield _rate(name, model, windows, seconds, small=small)


def _bert(folder: Path, *, small: bool) -> tuple[Bert, Any, WindowSet, int]:
    """Return a BERT with random weights, its tokenizer, windows of which most have the maximum length, a batch size."""
    import transformers

    length, count, batch_size = (64, 4, 4) if small else (384, 160, 32)
    table = load_table("sample", split="train")
    examples = list(table.examples())[: count * 12 : 12]
    filler = " ".join(example.context for example in examples[: 2 if small else 24])
    paragraphs = []
    for example in examples:
        answers = [{"text": item.text, "answer_start": item.start} for item in example.answers[:1]]
        question = {"id": example.question_id, "question": example.question, "answers": answers}
        paragraphs.append({"context": f"{example.context} {filler}", "qas": [question]})
    long_table = read_squad(
        {"version": "v2.0", "data": [{"title": "long", "paragraphs": paragraphs}]}, "long"
    )
    tokenizer = prepare_tokenizer(
        Bert(ModelConfig(family="bert", checkpoint="micro", vocab_size=1500)), table, folder
    )
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(**(shape if small else {}), vocab_size=len(tokenizer))
    checkpoint = folder / "bert"
    transformers.BertForQuestionAnswering(config).save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    family = Bert(ModelConfig(family="bert", checkpoint=str(checkpoint)))
    lengths = WindowLengths(length, length // 4, 24)
    windows = build_windows(
        long_table, tokenizer, family.layout(tokenizer), lengths=lengths, cache_dir=folder
    )
    return family, tokenizer, windows, batch_size


def _rate(name: str, model: nn.Module, windows: WindowSet, seconds: float, *, small: bool) -> Row:
    """Return examples per second, and the share of the matrix rate that the products of the model come to.

    A parameter of the body makes 2 operations a token forward and 4 backward (Kaplan et al. 2020, arXiv 2001.08361,
    section 2.1); embeddings and the scores of attention are left out.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    body = sum(item.numel() for item in model.parameters() if id(item) not in tables)
    operations = 6 * body * int(windows.lengths.sum())
    peak = _matrix_rate(256 if small else 8192)
    return {
        "way": name,
        "examples_per_second": round(len(windows) / seconds, 2),
        "tokens": windows.longest,
        "matrix_tflops": round(peak / 1e12, 2),
        "share_of_matrix_rate": round(operations / seconds / peak, 3),
        "device": describe_device(device()),
    }


def _matrix_rate(size: int) -> float:
    """Return the operations per second of a square product in bfloat16."""
    left, right = (torch.randn(size, size, device=device(), dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / _median_seconds(lambda: left @ right)


def decode(*, small: bool) -> Iterator[Row]:
    """Compare layers of bitsandbytes with ours on the same codes: time of a product, and the largest difference."""
    rows, columns, tokens = (64, 128, 16) if small else (3072, 768, 3072)
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(columns, rows)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(rows, columns, generator=generator) * 0.05)
    linear = linear.to(device())
    inputs = torch.randn(tokens, columns, generator=generator).to(device())
    exact = linear(inputs).detach()
    makers: dict[str, Callable[[], Nf4Linear | Int8Linear]] = {
        "nf4": lambda: Nf4Linear(linear, double_quantisation=False),
        "nf4, double quantisation": lambda: Nf4Linear(linear, double_quantisation=True),
        "int8": lambda: Int8Linear(linear, threshold=6.0),
    }
    for name, make in makers.items():
        theirs = make().eval()
        stored = StoredLinear(theirs.stored(), theirs.bias).to(device()).eval()
        with torch.inference_mode():
            outputs = [layer(inputs) for layer in (theirs, stored)]
            seconds = [_median_seconds(lambda layer=layer: layer(inputs)) for layer in (theirs, stored)]  # type: ignore[misc]
        scale = exact.abs().max()
        yield {
            "encoding": name,
            "shape": [tokens, columns, rows],
            "bitsandbytes_ms": round(1e3 * seconds[0], 3),
            "ours_ms": round(1e3 * seconds[1], 3),
            "difference": float((outputs[0] - outputs[1]).abs().max() / scale),
            "error_of_bitsandbytes": float((outputs[0] - exact).abs().max() / scale),
            "error_of_ours": float((outputs[1] - exact).abs().max() / scale),
        }


def mamba(*, small: bool) -> Iterator[Row]:
    """Time a step of Mamba on the project's scan, and on the kernels of mamba-ssm where they are there."""
    from transformers import MambaConfig, MambaModel

    from qa_core.models.mamba import scan_path, use_project_scan

    width, layers, length, rows = (32, 1, 16, 2) if small else (768, 4, 384, 8)
    config = MambaConfig(vocab_size=100, hidden_size=width, num_hidden_layers=layers, state_size=16)
    seed_torch(0)
    model = use_project_scan(MambaModel(config)).to(device())
    token_ids = torch.randint(0, 100, (rows, length), generator=torch.Generator().manual_seed(0)).to(device())

    def step() -> None:
        model(input_ids=token_ids, use_cache=False).last_hidden_state.sum().backward()

    paths = {scan_path(model)}
    yield {
        "path": scan_path(model),
        "step_ms": round(1e3 * _median_seconds(step), 2),
        "tokens": [rows, length],
    }
    if "mamba-ssm" in paths:
        with mock.patch("qa_core.models.mamba._kernels_fit", return_value=False):
            yield {
                "path": scan_path(model),
                "step_ms": round(1e3 * _median_seconds(step), 2),
                "tokens": [rows, length],
            }
    else:
        yield {"path": "mamba-ssm", "not_measured": "needs a CUDA device and the extra gpu"}


def sweep(*, small: bool) -> Iterator[Row]:
    """Run a real sweep of 8 small trials that share one GPU: their shares, ends and cut micro-batches."""
    if device().type != "cuda":
        yield {"skipped": NO_GPU}
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        arguments = [
            "--trials",
            "8",
            "--out",
            str(folder),
            "--quiet",
            "--set",
            "resources.gpus_per_trial=auto",
        ]
        arguments += ["--set", f"budget.examples={800 if small else 2400}", "--set", "scheduler={name: fifo}"]
        done = subprocess.run(
            [sys.executable, "sweeps/run.py", *arguments], stdout=subprocess.DEVNULL, check=False
        )
        for line in (folder / "records.jsonl").read_text().splitlines():
            record = json.loads(line)
            cost, provenance = record.get("cost") or {}, record.get("provenance") or {}
            names = (
                "micro_batch_parts",
                "train_peak_bytes",
                "inference_peak_bytes",
                "train_examples_per_second",
            )
            yield {
                "trial": record.get("trial_id"),
                "status": record.get("status"),
                "gpu_share": provenance.get("gpu_share"),
                "device": cost.get("device"),
                **{name: cost.get(name) for name in names},
            }
        yield {"exit_code": done.returncode}


def tests(*, small: bool) -> Iterator[Row]:
    """Run the tests that are marked gpu."""
    if device().type != "cuda":
        yield {"skipped": NO_GPU}
        return
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-x" if small else "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == TESTS_NOT_FOUND:
        yield {"skipped": "no test is marked gpu"}
        return
    yield {"exit_code": done.returncode, "summary": done.stdout.strip().splitlines()[-1:]}


def _seconds(call: Callable[[], Any]) -> float:
    _settle()
    started = time.perf_counter()
    call()
    _settle()
    return time.perf_counter() - started


def _median_seconds(call: Callable[[], Any]) -> float:
    call()
    return statistics.median(_seconds(call) for _ in range(REPEATS))


def _settle() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


STEPS: dict[str, Callable[..., Iterator[Row]]] = {
    step.__name__: step for step in (memory, ours, trainer, decode, mamba, sweep, tests)
}


def main() -> None:
    """Run one step and print its rows."""
    name, *more = sys.argv[1:]
    for row in STEPS[name](small="--small" in more):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
