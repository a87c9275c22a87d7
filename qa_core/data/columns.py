"""Readers of the hub's column layout: Parquet files and data sets named by their hub name.

Columns: id, context, question, answers {text: list, answer_start: list}; title and is_impossible may be absent: a
question with empty lists has no answer. JSON files are read in `squad.py`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qa_core import files as files_door  # `files` are those of the hub here
from qa_core.data.fields import BadExample
from qa_core.data.table import QaTable, TableBuilder
from qa_core.data.table_cache import cached_table
from qa_core.errors import DataError

COLUMNS = ("id", "context", "question", "answers")
COLUMNS_WANTED = "id, title, context, question, answers {text: list, answer_start: list}"  # for messages
OPTIONAL_COLUMNS = ("title", "is_impossible")
HUB_SPLITS = {"train": "train", "dev": "validation"}


def read_parquet(path: Path, *, skip_bad_examples: bool) -> QaTable:
    """Read a Parquet file.

    Raises:
        DataError: not a Parquet file, a column is missing, or a row is malformed (unless those are skipped).
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(files_door.checked_file(path, most_bytes=files_door.DATA_BYTES))
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: found {error}; allowed: a complete Parquet file") from error
    _check_columns(str(path), names)
    columns = [name for name in (*COLUMNS, *OPTIONAL_COLUMNS) if name in names]
    try:
        rows = [row for batch in file.iter_batches(columns=columns) for row in batch.to_pylist()]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: found {error}; allowed: a complete Parquet file") from error
    return _read_rows(str(path), rows, skip_bad_examples=skip_bad_examples)


def read_hub(name: str, *, split: str, skip_bad_examples: bool, cache_dir: Path | None = None) -> QaTable:
    """Download (once) and read a hub data set: NAME, NAME:CONFIGURATION, either with @SPLIT.

    Without @SPLIT "train" is the hub's `train` and "dev" its `validation`. The library keeps what it has downloaded in
    a cache of its own; `cache_dir` is where the table goes that is made of it, None for nowhere.

    Raises:
        DataError: the hub cannot be reached or has no such data set, configuration or split, or a row is malformed.
    """
    import datasets

    rest, _, named_split = name.partition("@")
    owner_and_name, _, configuration = rest.partition(":")
    hub_split = named_split or HUB_SPLITS[split]
    try:
        rows = datasets.load_dataset(
            owner_and_name, *([configuration] if configuration else []), split=hub_split
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"data set {name!r}, split {hub_split!r}: the hub gave {type(error).__name__}: {error}. A configuration or "
            f"another split is named so: {owner_and_name}:CONFIGURATION, {owner_and_name}@SPLIT. Where the hub cannot "
            "be reached, give a SQuAD file (.json, .json.gz), a Parquet file or `sample`, the built-in corpus"
        ) from error
    source = name if named_split else f"{name}:{hub_split}"
    _check_columns(source, rows.column_names)
    files = [Path(item["filename"]) for item in rows.cache_files]

    def parse() -> QaTable:
        return _read_rows(source, rows, skip_bad_examples=skip_bad_examples)

    if cache_dir is None or not files:  # a data set in memory has no file to know it by
        return parse()
    return cached_table(
        files,
        parse,
        source=source,
        layout="hub",
        skip_bad_examples=skip_bad_examples,
        cache_dir=cache_dir,
    )


def _check_columns(source: str, found: Iterable[str]) -> None:
    names = list(found)
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DataError(
            f"{source}: found columns {', '.join(names)}; missing: {', '.join(missing)} (allowed: {COLUMNS_WANTED}; "
            "title and is_impossible may be absent). Rename them with rename_column of the library `datasets`, "
            "and write a Parquet file with to_parquet"
        )


def _read_rows(source: str, rows: Iterable[Mapping[str, Any]], *, skip_bad_examples: bool) -> QaTable:
    builder = TableBuilder(source, skip_bad_answers=skip_bad_examples)
    fields = builder.fields
    for number, row in enumerate(rows):
        place = f"row {number}"
        try:
            named = {"question_id": row["id"]} if isinstance(row["id"], str) else {}
            title = fields.title(f"{place}.title", row.get("title"), **named)
            context = fields.text(f"{place}.context", row["context"], **named)
            builder.add_question(place, dict(row), context=context, title=title, empty_is_unanswerable=True)
        except BadExample:
            if not skip_bad_examples:
                raise
            builder.skipped += 1
    return builder.build()
