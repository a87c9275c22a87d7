"""`report`: the page of a sweep, written anew from its folder. What it says is in `sweeps/report/story.py`."""

from pathlib import Path

from qa_core import files
from sweeps.commands.export import examples_of
from sweeps.commands.snapshots import snapshot_in
from sweeps.front.ties import answers_of
from sweeps.report.answer_book import AnswerBook
from sweeps.report.page import write_page
from sweeps.report.snapshot import Snapshot
from sweeps.report.story import ShownExample, story
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.models import id_of, models_of

MOST_MODELS = 8  # whose answers are shown with the questions


def report(run_dir: Path, *, out: Path | None, with_examples: bool = False) -> int:
    """Write the report of a sweep, finished or running, and say where; otherwise as `write`.

    Raises:
        DataError: the folder or its records cannot be read, or the questions to show.
        StorageError: the file cannot be written.
    """
    print(f"written: {write(snapshot_in(run_dir), out=out, with_examples=with_examples)}")
    return 0


def write(snapshot: Snapshot, *, out: Path | None, with_examples: bool = False) -> Path:
    """Write the report of a sweep and return its file.

    Args:
        snapshot: of the sweep.
        out: the file to write; None for `report.html` in the sweep's folder.
        with_examples: show a few evaluation questions with the answers of models of the front.

    Raises:
        DataError: the questions to show cannot be read.
        StorageError: the file cannot be written.
    """
    examples = _examples(snapshot) if with_examples else []
    path = RunFolder(snapshot.folder).report if out is None else out
    files.make_folder(path.parent)
    write_page(story(snapshot, AnswerBook(snapshot.folder), examples=examples), path)
    return path


def _examples(snapshot: Snapshot) -> list[ShownExample]:
    """Return the first questions with the answers of the first models of the front that have answers."""
    models = {id_of(model): model for record in snapshot.records for model in models_of(record)}
    asked = [point for point in snapshot.result.front if files.is_file(answers_of(snapshot.folder, point))][
        :MOST_MODELS
    ]
    found = {
        str(point.id): examples_of(models[point.id], answers_of(snapshot.folder, point)) for point in asked
    }
    return [
        ShownExample(
            together[0].question,
            together[0].golds,
            {name: example.answer for name, example in zip(found, together, strict=True)},
        )
        for together in zip(*found.values(), strict=True)
    ]
