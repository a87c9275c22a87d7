"""Checkpoints and notes of trials that are refused.

The command line meets them inside a trial, which fails alone with the named error as its reason. The tables are held at
the functions that read them; `test_trials.py` says what becomes of the trial.
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.malformed.artifact_cases import PICKLE
from tests.malformed.cases import changed

Damage = Callable[[Path], None]
FILES = ("model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json")


def network() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a small network that has made a step, and its optimiser."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def content(name: str, data: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(data) and None


def removed(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def state(*path: str, to: Any) -> Damage:
    """Set a value of state.json; `...` takes it away."""

    def damage(folder: Path) -> None:
        document = changed(json.loads((folder / "state.json").read_text()), path, to)
        (folder / "state.json").write_text(json.dumps(document))

    return damage


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        found = {key: item.clone() for key, item in load_file(folder / name).items()}
        change(found)
        save_file(found, folder / name)

    return damage


def _cut(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-3]) and None


# name, damage, what the refusal says beside the folder
BAD: list[tuple[str, Damage, tuple[str, ...]]] = [
    *((f"no {name}", removed(name), ("damaged checkpoint",)) for name in FILES),
    *((f"an empty {name}", content(name, b""), ("damaged checkpoint",)) for name in FILES),
    *((f"a cut {name}", _cut(name), ("damaged checkpoint",)) for name in FILES),
    *((f"a pickle for {name}", content(name, PICKLE), ("damaged checkpoint",)) for name in FILES),
    ("a header of 2^63 bytes", content(FILES[0], b"\xff" * 16), ("damaged checkpoint",)),
    ("a header that is a list", content(FILES[0], struct.pack("<Q", 2) + b"[]"), ("damaged checkpoint",)),
    ("a state that is a list", content("state.json", b"[]"), ("damaged checkpoint", "list")),
    ("a state that is nested deeply", content("state.json", b"[" * 50_000), ("damaged checkpoint",)),
    ("a format of tomorrow", state("format", to=9), ("format 9", "allowed: 1")),
    ("no format", state("format", to=...), ("damaged checkpoint", "format")),
    ("no state", state("state", to=...), ("damaged checkpoint", "state")),
    ("no scalars", state("optimizer_scalars", to=...), ("damaged checkpoint", "optimizer_scalars")),
    ("scalars that are a list", state("optimizer_scalars", to=[1]), ("damaged checkpoint",)),
    ("an unknown entry", state("state", "examples", to=1), ("damaged checkpoint", "examples")),
    ("examples of text", state("state", "examples_seen", to="9"), ("state.examples_seen", "'9'")),
    ("examples that are true", state("state", "examples_seen", to=True), ("state.examples_seen", "True")),
    ("examples below 0", state("state", "examples_seen", to=-1), ("state.examples_seen", "-1")),
    ("an epoch of a fraction", state("state", "epoch", to=0.5), ("state.epoch", "0.5")),
    (
        "seconds of NaN",
        state("state", "train_seconds", to=float("nan")),
        ("state.json", "found NaN; every number must be finite"),
    ),
    (
        "no parts of micro-batches",
        state("state", "micro_batch_parts", to=0),
        ("state.micro_batch_parts", "0"),
    ),
    ("a curve that is a mapping", state("state", "curve", to={}), ("state.curve", "list")),
    ("a curve of numbers", state("state", "curve", to=[3]), ("state.curve[0]", "found 3")),
    ("a weight too few", tensors(FILES[0], lambda found: found.pop("bias")), ("another recipe", "bias")),
    (
        "a weight too many",
        tensors(FILES[0], lambda found: found.update(x=torch.ones(1))),
        ("another recipe", "'x'"),
    ),
    (
        "a weight of another shape",
        tensors(FILES[0], lambda found: found.update(bias=torch.ones(3))),
        ("bias",),
    ),
    (
        "a weight of another dtype",
        tensors(FILES[0], lambda found: found.update(bias=torch.ones(2).half())),
        ("float16",),
    ),
    (
        "a moment of another shape",
        tensors(FILES[1], lambda found: found.update({"0.exp_avg": torch.ones(1)})),
        ("0.exp_avg",),
    ),
    (
        "a moment of no weight",
        tensors(FILES[1], lambda found: found.update({"7.exp_avg": torch.ones(1)})),
        ("damaged",),
    ),
    (
        "a moment of no number",
        tensors(FILES[1], lambda found: found.update({"x.exp_avg": torch.ones(1)})),
        ("damaged",),
    ),
    ("a moment that is a scalar", state("optimizer_scalars", to={"0.exp_avg": 1}), ("0.exp_avg", "a tensor")),
    (
        "no random state",
        tensors(FILES[2], lambda found: (found.clear(), found.update(x=torch.ones(1)))),
        ("'cpu'",),
    ),
    (
        "a short random state",
        tensors(FILES[2], lambda found: found.update(cpu=torch.ones(4, dtype=torch.uint8))),
        ("damaged",),
    ),
    (
        "a random state of floats",
        tensors(FILES[2], lambda found: found.update(cpu=torch.ones(5056))),
        ("damaged",),
    ),
]
OUTCOMES: list[tuple[str, bytes]] = [
    ("an empty file", b""),
    ("bytes", b"\xff\xfe"),
    ("a pickle", PICKLE),
    ("a list", b"[]"),
    ("deep nesting", b"[" * 50_000),
    ("no reason", b'{"status": "failed", "traceback": null}'),
    ("a reason that is a number", b'{"status": "failed", "reason": 3, "traceback": null}'),
    ("a status that is unknown", b'{"status": "done", "reason": "x", "traceback": null}'),
    ("a status that is ok", b'{"status": "ok", "reason": "x", "traceback": null}'),
    ("a status that is a list", b'{"status": ["failed"], "reason": "x", "traceback": null}'),
    ("a traceback that is a list", b'{"status": "failed", "reason": "x", "traceback": ["a"]}'),
]
FINALS: list[tuple[str, bytes]] = [
    ("an empty file", b""),
    ("bytes", b"\xff\xfe"),
    ("a pickle", PICKLE),
    ("a list", b"[]"),
    ("deep nesting", b"[" * 50_000),
    ("no result", b'{"final": true}'),
    ("a result of text", b'{"final": true, "result": "ok"}'),
]
