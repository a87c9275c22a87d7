"""`predict`: an artifact at work on one question or a file. How it is scored: `evaluate.py`."""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_core import files
from qa_core.errors import ArtifactError, ConfigError, StorageError
from sweeps.checks.data import remarks
from sweeps.run_folder.masking import printable

if TYPE_CHECKING:
    from qa_core.artifact.loaded import LoadedArtifact
    from qa_core.data.reading import Reading
    from qa_core.data.table import QaTable
    from qa_core.scoring.decode import Prediction


def predict_one(artifact: Path, *, question: str | None, context: str | None) -> int:
    """Print the answer to one question; an empty line when the paragraph does not answer it.

    Raises:
        ConfigError: question or context is missing.
    """
    if question is None or context is None:
        raise ConfigError("predict: expected --question with --context, or --input with --output")
    from qa_core.data.table import TableBuilder
    from qa_core.scoring.decode import apply_threshold

    builder = TableBuilder("command line")
    values = {"id": "question", "question": question, "is_impossible": True}
    builder.add_question("--question", values, context=context, title="", empty_is_unanswerable=True)
    builder.fields.text("--context", context)
    loaded = load_artifact(artifact)
    predictions = answer(loaded, builder.build(), device="cpu")
    print(apply_threshold(predictions, loaded.null_threshold)["question"])
    return 0


def predict_file(
    artifact: Path,
    data: str,
    *,
    output: Path | None,
    force: bool,
    columns: Mapping[str, str] | None = None,
) -> int:
    """Answer every question of a source and write a JSON object of question id -> answer, "" for none.

    Raises:
        ConfigError: no output is named.
        StorageError: the output exists and `force` is not given, or it cannot be written.
    """
    if output is None:
        raise ConfigError("predict: expected --output FILE with --input")
    if files.is_there(output) and not force:
        raise StorageError(f"{output}: exists already; choose another file or give --force")
    from qa_core.data.squad import load_questions
    from qa_core.scoring.decode import apply_threshold

    table = load_questions(data, columns=columns)
    tell(table.reading)
    loaded = load_artifact(artifact)
    answers = apply_threshold(answer(loaded, table, device="auto"), loaded.null_threshold)
    write_json(output, answers)
    empty = sum(not text for text in answers.values())
    print(f"{output}: {len(answers)} answers, {empty} of them empty")
    return 0


def tell(reading: "Reading") -> None:
    """Say on the error stream what was guessed about the data."""
    for line in remarks(reading):
        print(f"note: {printable(line)}", file=sys.stderr)


def answer(loaded: "LoadedArtifact", table: "QaTable", *, device: str) -> "list[Prediction]":
    """Let the artifact answer a table under its own recipe's lengths and decoding settings.

    Raises:
        ArtifactError: its network or tokenizer cannot be used, such as for a setting of the wrong type.
    """
    import torch

    try:
        return _answer(loaded, table, device=device)
    except torch.OutOfMemoryError:  # of the device, not of the artifact
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{loaded.folder}: cannot answer: {type(error).__name__}: {reason}") from error


def _answer(loaded: "LoadedArtifact", table: "QaTable", *, device: str) -> "list[Prediction]":
    from qa_core.data.windows import WindowLengths, build_windows
    from qa_core.hardware import choose_device
    from qa_core.scoring import evaluate as evaluator

    place = choose_device(device)
    data = loaded.config.data
    lengths = WindowLengths(data.max_length, data.stride, data.max_question_length)
    layout = loaded.family.layout(loaded.tokenizer)
    with tempfile.TemporaryDirectory() as scratch:  # these questions are asked once
        windows = build_windows(table, loaded.tokenizer, layout, lengths=lengths, cache_dir=Path(scratch))
        return evaluator.predict(
            loaded.model.to(place),
            loaded.family,
            windows,
            table,
            tokenizer=loaded.tokenizer,
            settings=loaded.config.evaluation,
            device=place,
        )


def load_artifact(folder: Path) -> "LoadedArtifact":
    """Verify an artifact and read it back; raises ArtifactError."""
    from qa_core.artifact import artifact

    return artifact.load(folder)


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON; the file appears whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    files.make_folder(path.parent)
    files.write_text(path, json.dumps(values, ensure_ascii=False, indent=1))
