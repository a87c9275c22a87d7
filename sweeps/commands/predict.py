"""`predict`: an artifact at work on one question, a file or the standard input. How it is scored: `evaluate.py`.

Questions are read and checked before the model is loaded. How answers are written is in `answer_formats.py`.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qa_core import files
from qa_core.errors import ArtifactError, ConfigError, DataError, StorageError, counted
from sweeps.checks.data import remarks
from sweeps.commands.answer_formats import FORMATS, OBJECT, TEXT, formatted, is_answered
from sweeps.progress.answering import answering
from sweeps.run_folder.masking import printable

if TYPE_CHECKING:
    import torch

    from qa_core.artifact.loaded import LoadedArtifact
    from qa_core.config import EvaluationConfig
    from qa_core.data.reading import Reading
    from qa_core.data.table import QaTable
    from qa_core.data.windows import WindowSet
    from qa_core.scoring.decode import Prediction, Ranked

STANDARD_INPUT = "-"
# On a CPU: larger batches pad more and take more time for each question. Measured in docs/LOG.md, 2026-11-30.
CPU_BATCH_TOKENS = 4096
Found = TypeVar("Found")


@dataclass(frozen=True)
class Wanted:
    """How `predict` answers, and where to.

    Args:
        output: the file of the answers; None for the standard output.
        force: overwrite it.
        format: one of `FORMATS`; None: text on the standard output, and the object that `score` reads in a file.
        n_best: how many answers are given for each question, at most.
        skip_bad_examples: leave out malformed questions and count them.
        device: auto, cpu or cuda.
        columns: field -> column of the questions, of those that have an unusual name; None: none has.
    """

    output: Path | None = None
    force: bool = False
    format: str | None = None
    n_best: int = 1
    skip_bad_examples: bool = False
    device: str = "auto"
    columns: Mapping[str, str] | None = None


def predict_one(artifact: Path, *, question: str | None, context: str | None, wanted: Wanted) -> int:
    """Answer one question.

    Raises:
        ConfigError: question or context is missing, or a setting is refused.
        ArtifactError: the artifact is refused.
        StorageError: the output exists and `force` is not given, or it cannot be written.
    """
    if question is None or context is None:
        raise ConfigError("predict: expected --question with --context, or --input FILE")
    _check(wanted)
    from qa_core.data.table import TableBuilder

    builder = TableBuilder("command line")
    values = {"id": "question", "question": question, "is_impossible": True}
    builder.add_question("--question", values, context=context, title="", empty_is_unanswerable=True)
    builder.fields.text("--context", context)
    return _predict(artifact, builder.build(), wanted, is_named=False)


def predict_file(artifact: Path, data: str, *, wanted: Wanted) -> int:
    """Answer every question of a file, or of the standard input where `data` is "-".

    Raises:
        ConfigError: a setting is refused.
        ArtifactError, DataError: artifact or questions are refused.
        StorageError: the output exists and `force` is not given, or it cannot be written.
    """
    _check(wanted)
    from qa_core.data.squad import load_questions, read_questions

    options: dict[str, Any] = {"columns": wanted.columns, "skip_bad_examples": wanted.skip_bad_examples}
    if data == STANDARD_INPUT:
        table = read_questions(_standard_input(), "standard input", **options)
    else:
        table = load_questions(data, **options)
    tell(table.reading)
    return _predict(artifact, table, wanted, is_named=True)


def _check(wanted: Wanted) -> None:
    """Refuse what cannot be done before anything is read."""
    if wanted.format is not None and wanted.format not in FORMATS:
        raise ConfigError(f"--format: found {wanted.format!r}; allowed: {', '.join(FORMATS)}")
    if wanted.n_best < 1:
        raise ConfigError(f"--n-best: found {wanted.n_best}; allowed: 1 or more")
    if wanted.n_best > 1 and _format(wanted) == OBJECT:
        raise ConfigError(
            f"--n-best: found {wanted.n_best} with the format {OBJECT}, which has one answer for each question; "
            "allowed: with --format text, json or jsonl"
        )
    if wanted.output is not None and files.is_there(wanted.output) and not wanted.force:
        raise StorageError(f"{wanted.output}: exists already; choose another file or give --force")


def _format(wanted: Wanted) -> str:
    return wanted.format or (TEXT if wanted.output is None else OBJECT)


def _standard_input() -> bytes:
    content = sys.stdin.buffer.read(files.DATA_BYTES + 1)
    if len(content) > files.DATA_BYTES:
        raise DataError(
            f"standard input: found more than {files.DATA_BYTES} bytes; allowed: at most that many"
        )
    return content


def asked_table(questions: Sequence[str], contexts: Sequence[str]) -> "QaTable":
    """Return questions that came in a call as a table; their ids are their numbers, from 0.

    Raises:
        DataError: a question or context is no text, or blank; the message names it by its number.
    """
    from qa_core.data.table import TableBuilder

    builder = TableBuilder("answers")
    for number, (question, context) in enumerate(zip(questions, contexts, strict=True)):
        builder.fields.text(f"context {number}", context)
        values = {"id": str(number), "question": question, "is_impossible": True}
        builder.add_question(
            f"question {number}", values, context=context, title="", empty_is_unanswerable=True
        )
    return builder.build()


def _predict(artifact: Path, table: "QaTable", wanted: Wanted, *, is_named: bool) -> int:
    loaded = load_artifact(artifact)
    ranked = rank(loaded, table, device=wanted.device, count=wanted.n_best)
    threshold = loaded.null_threshold
    text = formatted(ranked, threshold, form=_format(wanted), n_best=wanted.n_best, is_named=is_named)
    if table.skipped:
        print(f"note: {counted(table.skipped, 'malformed question')} left out", file=sys.stderr)
    if wanted.output is None:
        sys.stdout.write(text)
        return 0
    files.make_folder(wanted.output.parent)
    files.write_text(wanted.output, text)
    empty = sum(not is_answered(item, threshold) for item in ranked)
    print(f"{wanted.output}: {counted(len(ranked), 'answer')}, {empty} of them 'no answer'")
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
    from qa_core.scoring import evaluate as evaluator

    return _asked(loaded, table, evaluator.predict, device=device)


def rank(loaded: "LoadedArtifact", table: "QaTable", *, device: str, count: int) -> "list[Ranked]":
    """Return the best `count` answers to each question with their places; otherwise as `answer`."""
    from qa_core.scoring import evaluate as evaluator

    return _asked(loaded, table, evaluator.rank, device=device, count=count)


def _asked(
    loaded: "LoadedArtifact", table: "QaTable", ask: Callable[..., Found], *, device: str, **options: Any
) -> Found:
    """Lay out the windows of a table and let `ask`, a function of the evaluator, answer them; shows the progress."""
    import torch

    try:
        with tempfile.TemporaryDirectory() as scratch:  # these questions are asked once
            windows = _windows(loaded, table, Path(scratch))
            return _with_progress(loaded, table, windows, ask, device=device, **options)
    except torch.OutOfMemoryError:  # of the device, not of the artifact
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{loaded.folder}: cannot answer: {type(error).__name__}: {reason}") from error


def _windows(loaded: "LoadedArtifact", table: "QaTable", cache_dir: Path) -> "WindowSet":
    from qa_core.data.windows import WindowLengths, build_windows

    data = loaded.config.data
    lengths = WindowLengths(data.max_length, data.stride, data.max_question_length)
    layout = loaded.family.layout(loaded.tokenizer)
    return build_windows(table, loaded.tokenizer, layout, lengths=lengths, cache_dir=cache_dir)


def _with_progress(
    loaded: "LoadedArtifact",
    table: "QaTable",
    windows: "WindowSet",
    ask: Callable[..., Found],
    *,
    device: str,
    **options: Any,
) -> Found:
    from qa_core.hardware import choose_device

    place = choose_device(device)
    with answering(len(windows)) as on_batch:
        return ask(
            loaded.model.to(place),
            loaded.family,
            windows,
            table,
            tokenizer=loaded.tokenizer,
            settings=_settings(loaded.config.evaluation, place),
            device=place,
            on_batch=on_batch,
            **options,
        )


def _settings(recorded: "EvaluationConfig", place: "torch.device") -> "EvaluationConfig":
    """Return the settings of the recipe, its batches no larger than a CPU answers fast; they change no answer."""
    if place.type != "cpu":
        return recorded
    return replace(recorded, batch_tokens=min(recorded.batch_tokens, CPU_BATCH_TOKENS))


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
