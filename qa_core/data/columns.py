"""Readers of the hub's column layout: Parquet files and data sets named by their hub name.

Columns: id, title (may be absent), context, question, answers {text: list, answer_start: list}. There is no
`is_impossible` there: a question with empty lists has no answer. JSON files are read in `squad.py`.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qa_core.data.table import BadExample, QaTable, TableBuilder
from qa_core.data.table_cache import cached_table
from qa_core.errors import DataError

COLUMNS = ("id", "context", "question", "answers")
HUB_SPLITS = {"train": "train", "dev": "validation"}


def read_parquet(path: Path, *, skip_bad_examples: bool) -> QaTable:
    """Read a Parquet file.

    Raises:
        DataError: not a Parquet file, a column is missing, or a row is malformed (unless those are skipped).
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: found {error}; allowed: a complete Parquet file") from error
    _check_columns(str(path), names)
    columns = [*COLUMNS, *(["title"] if "title" in names else [])]
    try:
        rows = [row for batch in file.iter_batches(columns=columns) for row in batch.to_pylist()]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: found {error}; allowed: a complete Parquet file") from error
    return _read_rows(str(path), rows, skip_bad_examples=skip_bad_examples)


def read_hub(name: str, *, split: str, skip_bad_examples: bool, cache_dir: Path | None = None) -> QaTable:
    """Download (once) and read a hub data set; split "train" or "dev", which is the hub's `validation`.

    The library keeps what it has downloaded in a cache of its own; `cache_dir` is where the table goes that is made
    of it, None for nowhere.

    Raises:
        DataError: the hub cannot be reached or has no such data set or split, or a row is malformed.
    """
    import datasets

    hub_split = HUB_SPLITS[split]
    try:
        rows = datasets.load_dataset(name, split=hub_split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"data set {name!r}, split {hub_split!r}: the hub gave {type(error).__name__}: {error}. Where "
            "the hub cannot be reached, give a SQuAD file (.json, .json.gz), a Parquet file or `sample`, "
            "the built-in corpus"
        ) from error
    source = f"{name}:{hub_split}"
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
    missing = [name for name in COLUMNS if name not in set(found)]
    if missing:
        raise DataError(
            f"{source}: found columns {', '.join(found)}; missing: {', '.join(missing)} "
            "(allowed: id, title, context, question, answers)"
        )


def _read_rows(source: str, rows: Iterable[Mapping[str, Any]], *, skip_bad_examples: bool) -> QaTable:
    builder = TableBuilder(source)
    for number, row in enumerate(rows):
        place = f"row {number}"
        try:
            named = {"question_id": row["id"]} if isinstance(row["id"], str) else {}
            title = row.get("title") or ""
            if not isinstance(title, str):
                raise builder.bad(f"{place}.title", title, "text", **named)
            context = builder.text(f"{place}.context", row["context"], **named)
            answers = list(_answers(builder, f"{place}.answers", row["answers"], named))
            values = {"id": row["id"], "question": row["question"], "answers": answers}
            builder.add_question(place, values, context=context, title=title, empty_is_unanswerable=True)
        except BadExample:
            if not skip_bad_examples:
                raise
            builder.skipped += 1
    return builder.build()


def _answers(
    builder: TableBuilder, place: str, value: Any, named: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Turn {text: [...], answer_start: [...]} into the JSON layout's list of objects."""
    texts = value.get("text") if isinstance(value, Mapping) else None
    starts = value.get("answer_start") if isinstance(value, Mapping) else None
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise builder.bad(place, value, "two lists of equal length, text and answer_start", **named)
    for text, start in zip(texts, starts, strict=True):
        yield {"text": text, "answer_start": start}
