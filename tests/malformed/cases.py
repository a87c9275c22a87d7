"""What a malformed input is, the valid inputs that it is made from, and what a refusal must look like.

A `Case` writes its files into an empty folder, runs the command line there and names what the refusal must say. The
tables of cases are the other modules of this folder; `test_refusals.py` runs them all.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import cli

REFUSED = 2  # exit code
OUT = "out"  # what every command of a case would write

TINY_SWEEP = """\
name: tiny
seed: 1
objectives:
  - {name: em_percent, goal: max, reference: 0}
  - {name: memory_mb, goal: min, reference: 32}
searcher: {name: random}
scheduler: {name: asha, options: {grace_examples: 10, eta: 2}}
budget: {trials: 2, examples: 40}
recipe:
  model: {family: lstm, checkpoint: micro, vocab_size: 200}
  data: {train: train.json, evaluation: good.json, max_length: 64, stride: 8, max_question_length: 16}
space:
  - {set: methods, choice: [full, quantize]}
  - {set: train.learning_rate, log_uniform: [1.0e-3, 1.0e-2]}
scales:
  minute: {budget.trials: 1}
"""
CONTEXT = "The mill of Aln was built by Mara Voss in 1871, of grey stone."
GOOD_SQUAD: dict[str, Any] = {
    "version": "v2.0",
    "data": [
        {
            "title": "Mills",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "q0",
                            "question": "Who built the mill?",
                            "answers": [{"text": "Mara Voss", "answer_start": 29}],
                            "is_impossible": False,
                        },
                        {
                            "id": "q1",
                            "question": "When was it built?",
                            "answers": [{"text": "1871", "answer_start": 42}],
                            "is_impossible": False,
                        },
                        {"id": "q2", "question": "Who burnt it?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}
# What is trained on: two paragraphs, one of which is held out to compare trials on.
TRAIN_SQUAD: dict[str, Any] = {
    "version": "v2.0",
    "data": [
        {
            "title": title,
            "paragraphs": [
                {
                    "context": context,
                    "qas": [
                        {
                            "id": title,
                            "question": "Who built it?",
                            "answers": [{"text": builder, "answer_start": context.index(builder)}],
                        },
                        {
                            "id": f"{title}-0",
                            "question": "Who sold it?",
                            "answers": [],
                            "is_impossible": True,
                        },
                    ],
                }
            ],
        }
        for title, builder, context in (
            ("Bridges", "Ina Brandt", "A bridge of oak over the Odra was built by Ina Brandt."),
            ("Towers", "Jonas Weiss", "The tower of Riga, 61 m tall, is the work of Jonas Weiss."),
        )
    ],
}
GOOD_PREDICTIONS = {"q0": "Mara Voss", "q1": "1871", "q2": ""}


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Args:
        name: of the case, distinct among all.
        command: what is typed; `OUT` stands for what would be written.
        make: writes the input into an empty folder, which is the current one when the command runs.
        says: parts of the refusal: the file, the place in it, what was found, what is allowed.
    """

    name: str
    command: tuple[str, ...]
    make: Callable[[Path], None]
    says: tuple[str, ...]


def files(**named: bytes | str) -> Callable[[Path], None]:
    """Return what writes files: `bad_json=...` becomes bad.json, the last underscore standing for the dot."""

    def make(folder: Path) -> None:
        write_good(folder)
        for name, content in named.items():
            stem, _, suffix = name.rpartition("_")
            path = folder / f"{stem}.{suffix}"
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def write_good(folder: Path) -> None:
    """Write valid data, predictions and a valid sweep."""
    (folder / "good.json").write_text(json.dumps(GOOD_SQUAD))
    (folder / "train.json").write_text(json.dumps(TRAIN_SQUAD))
    (folder / "predictions.json").write_text(json.dumps(GOOD_PREDICTIONS))
    (folder / "tiny.yaml").write_text(TINY_SWEEP)


def changed(document: Any, path: Sequence[str | int], value: Any) -> Any:
    """Return a deep copy with the value at a path replaced; an `...` takes it away."""
    document = copy.deepcopy(document)
    target = document
    for part in path[:-1]:
        target = target[part]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return document


def tree(folder: Path) -> Mapping[str, str]:
    """Return every file, link and folder below one, with the content's hash."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def check_refusal(code: int, out: str, err: str, says: Sequence[str]) -> None:
    """Hold what every refusal is: exit code 2, one message on stderr that says what it must, nothing else."""
    assert code == REFUSED, (code, out, err)
    assert err.startswith("error: "), err
    assert err.count("error: ") == 1, err
    assert "Traceback" not in err
    assert out == ""
    missing = [part for part in says if part not in err]
    assert not missing, (missing, err)


def run_case(case: Case, folder: Path, read: Callable[[], tuple[str, str]]) -> None:
    """Make the input, run the command and hold that it is refused and that nothing was written.

    Args:
        folder: empty, and the current one.
        read: returns what was printed on stdout and stderr since the last call.
    """
    case.make(folder)
    before = tree(folder)
    read()
    code = cli.main(list(case.command))
    check_refusal(code, *read(), case.says)
    assert tree(folder) == before
