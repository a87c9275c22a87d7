"""Readers: a source name becomes a table of checked questions.

A source is `sample` (the built-in corpus), a JSON file (.json, .json.gz) of SQuAD v1.1 or v2.0 or of rows, a Parquet
file, or the name of a data set on the hub. What is malformed is refused with file, place and field. Tables are in
`table.py`, the layouts of JSON in `articles.py`, the hub's columns in `columns.py`, subsets and splits in
`selection.py`.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.data.articles import articles_of, questions_of
from qa_core.data.columns import COLUMNS_WANTED, HUB_SPLITS, read_hub, read_parquet
from qa_core.data.fields import BadExample
from qa_core.data.json_file import read_json
from qa_core.data.selection import select_questions, split_selection
from qa_core.data.table import QaTable, TableBuilder
from qa_core.data.table_cache import cached_table
from qa_core.errors import DataError

__all__ = ["QaTable", "is_file_source", "load_questions", "load_table", "select_questions", "split_selection"]

FILE_SUFFIXES = (".json", ".json.gz", ".parquet")
ANSWER_FIELDS = ("answers", "is_impossible", "plausible_answers")
# What is not read itself, by the name under which `datasets` reads it.
CONVERTIBLE = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".jsonl.gz": "json",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
}
SOURCES = (
    "`sample`, a file (.json, .json.gz, .parquet) or a hub data set name (owner/name, owner/name:configuration, "
    "owner/name@split)"
)
HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w.-]+|[\w-]+)(:[\w.-]+)?(@[\w.-]+)?")


def load_table(
    source: str, *, split: str, skip_bad_examples: bool = False, cache_dir: Path | None = None
) -> QaTable:
    """Read all questions of a source.

    Args:
        source: `sample`, the path of a .json, .json.gz or .parquet file, or a hub data set name.
        split: "train" or "dev"; a file is read whole, whatever the split.
        skip_bad_examples: drop malformed questions and paragraphs and count them in `skipped`; of a question with
            good answers, the bad ones alone, counted in `skipped_answers`. A file that cannot be read at all is
            refused all the same.
        cache_dir: where the table is kept for the other trials of the machine; None: it is parsed again each time.

    Raises:
        StorageError: the cache folder cannot be written to.
        DataError: names file, place and field, what was found and what is allowed.
    """
    if split not in HUB_SPLITS:
        raise DataError(f"split: found {split!r}; allowed: {', '.join(HUB_SPLITS)}")
    if source == "sample":
        return _sample(split)
    if not is_file_source(source):
        return read_hub(source, split=split, skip_bad_examples=skip_bad_examples, cache_dir=cache_dir)
    path = _existing_file(source)
    if cache_dir is None:
        return _read_file(path, skip_bad_examples)
    return cached_table(
        [path],
        lambda: _read_file(path, skip_bad_examples),
        source=str(path),
        layout=next(suffix for suffix in FILE_SUFFIXES if path.name.endswith(suffix)),
        skip_bad_examples=skip_bad_examples,
        cache_dir=cache_dir,
    )


@cache  # it is written anew each time, and a sweep asks for it several times before its first trial
def _sample(split: str) -> QaTable:
    from qa_core.data.sample import sample_squad

    return read_squad(sample_squad(split, 0), f"sample:{split}")


def _read_file(path: Path, skip_bad_examples: bool) -> QaTable:
    if path.name.endswith(".parquet"):
        return read_parquet(path, skip_bad_examples=skip_bad_examples)
    return read_squad(read_json(path), str(path), skip_bad_examples=skip_bad_examples)


def load_questions(source: str) -> QaTable:
    """Read the questions of a source and leave its gold answers alone; a blind test file need not have any.

    Raises:
        DataError: as for `load_table`, except that nothing about answers is looked at in a JSON file.
    """
    if not is_file_source(source) or source.endswith(".parquet"):
        return load_table(source, split="dev")
    path = _existing_file(source)
    return read_squad(_without_answers(read_json(path)), str(path))


def _existing_file(source: str) -> Path:
    if not _exists(source):
        raise DataError(f"{source}: found no such file; allowed: {SOURCES}")
    path = Path(source).expanduser()
    if not files.is_file(path) or not path.name.endswith(FILE_SUFFIXES):
        kind = "a folder" if files.is_folder(path) else "a file of another kind"
        raise DataError(f"{source}: found {kind}; allowed: {SOURCES}{_how_to_convert(path)}")
    return path


def _how_to_convert(path: Path) -> str:
    """Return how the library `datasets` makes a Parquet file of a source of another kind; "" where it cannot."""
    named = repr(str(path))
    if path.is_dir():
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            part = "" if (path / "state.json").is_file() else '["train"]'
            return f". Convert it: datasets.load_from_disk({named}){part}.to_parquet('FILE.parquet')"
        return ". Name one of its files"
    format_name = next((name for suffix, name in CONVERTIBLE.items() if path.name.endswith(suffix)), None)
    if format_name is None:
        return ""
    return (
        f". Convert it: datasets.load_dataset({format_name!r}, data_files={named}, split='train')"
        f".to_parquet('FILE.parquet'), with the columns {COLUMNS_WANTED}"
    )


def _exists(source: str) -> bool:
    try:
        return Path(source).expanduser().exists()
    except (OSError, RuntimeError):  # a name too long, or ~ of a user that is not there
        return False


def _without_answers(value: Any) -> Any:
    """Return the parsed document as version 2.0 with no answers; what is malformed stays as it is."""
    if isinstance(value, list):
        return [_without_answers(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _without_answers(item) for name, item in value.items() if name not in ANSWER_FIELDS}
    if "data" in kept:
        kept["version"] = "v2.0"
    return {**kept, "answers": []} if "question" in kept else kept


def is_file_source(source: str) -> bool:
    """Tell whether a source means a file, there or not, rather than `sample` or a hub name."""
    if source == "sample":
        return False
    return source.endswith(FILE_SUFFIXES) or HUB_NAME.fullmatch(source) is None or _exists(source)


def read_squad(document: Any, source: str, *, skip_bad_examples: bool = False) -> QaTable:
    """Turn a parsed JSON document, SQuAD v1.1 or v2.0 or one row for each question, into a table.

    Args:
        document: the mapping with `version` and `data`, see `articles.py`.
        source: its name in messages and records.
        skip_bad_examples: as for `load_table`.

    Raises:
        DataError: as for `load_table`.
    """
    articles = articles_of(document, source)
    builder = TableBuilder(source, skip_bad_answers=skip_bad_examples)
    is_version_2 = str(document.get("version", "")).lower().lstrip("v").startswith("2")

    def on_bad(error: BadExample, questions: int) -> None:
        if not skip_bad_examples:
            raise error
        builder.skipped += questions

    for found in questions_of(articles, builder.fields, on_bad=on_bad):
        try:
            builder.add_question(
                found.place,
                found.values,
                context=found.context,
                title=found.title,
                empty_is_unanswerable=is_version_2,
            )
        except BadExample as error:
            on_bad(error, 1)
    return builder.build()
