"""Readers: a source name becomes a table of checked questions.

What a name may be is said by `sources.py`. Tables are in `table.py`, the layouts of JSON in `articles.py`, CSV in
`delimited.py`, Parquet, Arrow and the hub in `columns.py`, objects in memory in `qa_core/data/objects.py`, subsets and
splits in `selection.py`. What is malformed is refused with file, place and field.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from qa_core.data.articles import articles_of, is_row, questions_of, row_names
from qa_core.data.columns import (
    HUB_SPLITS,
    read_arrow_file,
    read_hub,
    read_parquet,
    read_rows,
    read_saved,
    saved_files,
)
from qa_core.data.delimited import DelimitedFile
from qa_core.data.fields import BadExample
from qa_core.data.json_file import (
    JsonLinesFound,
    parse_document,
    parse_json_lines,
    read_json,
    read_json_lines,
)
from qa_core.data.mapping import SETTING, ForeignColumns, map_columns
from qa_core.data.reading import Reading
from qa_core.data.rows import RowReader, reading_of
from qa_core.data.selection import select_questions, split_selection
from qa_core.data.sources import (
    ARROW,
    BUILT_IN,
    DELIMITED,
    HARD_SAMPLE,
    JSON,
    PARQUET,
    SAVED,
    Found,
    find,
    is_file_source,
    suffix_of,
)
from qa_core.data.table import QaTable, TableBuilder
from qa_core.data.table_cache import cached_table, table_layout
from qa_core.errors import DataError

__all__ = [
    "QaTable",
    "is_file_source",
    "load_questions",
    "load_table",
    "read_articles",
    "read_questions",
    "read_squad",
    "select_questions",
    "split_selection",
]

ANSWER_FIELDS = ("answers", "is_impossible", "plausible_answers")
SQUAD_LAYOUT, ROWS_LAYOUT, LINES_LAYOUT = "SQuAD JSON", "JSON, a row for each question", "JSON lines"
Items = Callable[[], Iterable[tuple[str, Any]]]


def load_table(
    source: str,
    *,
    split: str,
    skip_bad_examples: bool = False,
    columns: Mapping[str, str] | None = None,
    cache_dir: Path | None = None,
) -> QaTable:
    """Read all questions of a source.

    Args:
        source: `sample` or `sample:hard`, the path of a file or folder, or a hub data set name; see `sources.py`.
        split: "train" or "dev"; a file is read whole, whatever the split.
        skip_bad_examples: drop malformed questions and paragraphs and count them in `skipped`; of a question with
            good answers, the bad ones alone, counted in `skipped_answers`. A file that cannot be read at all is
            refused all the same.
        columns: field -> column, of those that have another name than a usual one; see `mapping.py`. None: none has.
        cache_dir: where the table is kept for the other trials of the machine; None: it is parsed again each time.

    Raises:
        StorageError: the cache folder cannot be written to.
        DataError: names file, place and field, what was found and what is allowed.
    """
    if split not in HUB_SPLITS:
        raise DataError(f"split: found {split!r}; allowed: {', '.join(HUB_SPLITS)}")
    columns = columns or {}
    if source in BUILT_IN:
        _refuse_columns(source, columns)
        return _sample(source, split)
    if not is_file_source(source):
        return read_hub(
            source, split=split, columns=columns, skip_bad_examples=skip_bad_examples, cache_dir=cache_dir
        )
    found = find(source)
    paths = _paths(found, split)
    name = str(found.path) if found.split is None else source

    def parse() -> QaTable:
        return _read_file(found, paths, name, columns=columns, skip_bad_examples=skip_bad_examples)

    if cache_dir is None:
        return parse()
    return cached_table(
        paths,
        parse,
        source=name,
        layout=table_layout(f"{found.kind} {suffix_of(found.path.name)}", columns),
        skip_bad_examples=skip_bad_examples,
        cache_dir=cache_dir,
    )


def load_questions(
    source: str, *, columns: Mapping[str, str] | None = None, skip_bad_examples: bool = False
) -> QaTable:
    """Read the questions of a source and leave its gold answers alone; a blind test file need not have any.

    Raises:
        DataError: as for `load_table`, except that nothing about answers is looked at.
    """
    options: dict[str, Any] = {
        "columns": columns or {},
        "skip_bad_examples": skip_bad_examples,
    }
    if source in BUILT_IN:
        return load_table(source, split="dev", **options)
    if not is_file_source(source):
        return read_hub(source, split="dev", needs_answers=False, **options)
    found = find(source)
    return _read_file(found, _paths(found, "dev"), source, needs_answers=False, **options)


def read_questions(
    content: bytes, source: str, *, columns: Mapping[str, str] | None = None, skip_bad_examples: bool = False
) -> QaTable:
    """Return the questions of a text that is JSON lines or a document as in a .json file, whichever it is.

    Args:
        content: the text, in UTF-8.
        source: its name in messages.
        columns, skip_bad_examples: as for `load_questions`.

    Raises:
        DataError: as for `load_questions`.
    """
    options: dict[str, Any] = {"columns": columns or {}, "skip_bad_examples": skip_bad_examples}
    try:
        document = parse_document(content, source)
        if not isinstance(document, dict) or "data" in document:  # a single line is a document too
            return read_squad(document, source, needs_answers=False, **options)
    except JsonLinesFound:
        pass
    lines = content.decode("utf-8-sig").splitlines()
    return _read_items(
        lambda: parse_json_lines(lines, source),
        source,
        LINES_LAYOUT,
        needs_answers=False,
        empty_is_unanswerable=True,
        **options,
    )


def read_articles(source: str) -> list[Any] | None:
    """Return the articles of a SQuAD file, of which nothing is checked yet; None for a source in another layout.

    Raises:
        DataError: the file is missing, or not JSON.
    """
    if not is_file_source(source) or (found := find(source)).kind != JSON:
        return None
    try:
        document = read_json(found.path)
    except JsonLinesFound:
        return None
    items = [item for _, item in articles_of(document, source)]
    return None if row_names(items, {}) else items


def read_squad(
    document: Any,
    source: str,
    *,
    skip_bad_examples: bool = False,
    columns: Mapping[str, str] | None = None,
    needs_answers: bool = True,
) -> QaTable:
    """Turn a parsed JSON document, SQuAD v1.1 or v2.0 or one row for each question, into a table.

    Args:
        document: a mapping with `version` and `data`, or a list of rows, see `articles.py`.
        source: its name in messages and records.
        skip_bad_examples, columns: as for `load_table`.
        needs_answers: False leaves the answers alone: all questions have none.

    Raises:
        DataError: as for `load_table`.
    """
    document = document if needs_answers else _without_answers(document)
    items = articles_of(document, source)
    version = str(document.get("version", "")) if isinstance(document, dict) else ""
    return _read_items(
        lambda: items,
        source,
        ROWS_LAYOUT,
        columns=columns or {},
        skip_bad_examples=skip_bad_examples,
        needs_answers=needs_answers,
        empty_is_unanswerable=version.lower().lstrip("v").startswith("2"),
    )


@cache  # it is written anew each time, and a sweep asks for it several times before its first trial
def _sample(source: str, split: str) -> QaTable:
    from qa_core.data.sample import HARD, PLAIN, sample_squad

    difficulty = HARD if source == HARD_SAMPLE else PLAIN
    return read_squad(sample_squad(split, 0, difficulty), f"{source}:{split}")


def _paths(found: Found, split: str) -> list[Path]:
    return saved_files(found.path, found.split_for(split)) if found.kind == SAVED else [found.path]


def _read_file(
    found: Found,
    paths: list[Path],
    source: str,
    *,
    columns: Mapping[str, str],
    skip_bad_examples: bool,
    needs_answers: bool = True,
) -> QaTable:
    path, options = found.path, {"skip_bad_examples": skip_bad_examples, "needs_answers": needs_answers}
    if found.kind == PARQUET:
        return read_parquet(path, columns=columns, **options)
    if found.kind == ARROW:
        return read_arrow_file(path, columns=columns, **options)
    if found.kind == SAVED:
        return read_saved(source, paths, columns=columns, **options)
    if found.kind == DELIMITED:
        file = DelimitedFile(path)
        column_map = map_columns(file.names, columns, str(path), needs_answers=needs_answers)
        return read_rows(str(path), file.rows(), column_map, layout=file.layout, is_text=True, **options)
    if found.kind == JSON:
        try:
            return read_squad(read_json(path), str(path), columns=columns, **options)
        except JsonLinesFound:
            pass
    return _read_items(
        lambda: read_json_lines(path),
        str(path),
        LINES_LAYOUT,
        columns=columns,
        empty_is_unanswerable=True,
        **options,
    )


def _read_items(
    items: Items,
    source: str,
    layout: str,
    *,
    columns: Mapping[str, str],
    skip_bad_examples: bool,
    needs_answers: bool,
    empty_is_unanswerable: bool,
) -> QaTable:
    """Read articles and rows of JSON, which are walked through twice: for the names of columns, then for the rest."""
    builder = TableBuilder(source, skip_bad_examples=skip_bad_examples)
    names = row_names((item for _, item in items()), columns)
    reader = None
    if names:
        column_map = map_columns(names, columns, source, needs_answers=needs_answers)
        builder.reading = reading_of(layout, column_map)
        reader = RowReader(builder, column_map, needs_answers=needs_answers)
    else:
        _refuse_columns(source, columns)
        builder.reading = Reading(SQUAD_LAYOUT)
    for place, item in items():
        try:
            if isinstance(item, BadExample):
                if reader is not None:
                    reader.skip()
                raise item
            if reader is not None and is_row(item):
                reader.add(place, item)
                continue
        except BadExample as error:
            builder.refuse(error)
            continue
        for question in questions_of(place, item, builder.fields, on_bad=builder.refuse):
            try:
                builder.add_question(
                    question.place,
                    question.values,
                    context=question.context,
                    title=question.title,
                    empty_is_unanswerable=empty_is_unanswerable,
                )
            except BadExample as error:
                builder.refuse(error)
    return builder.build()


def _refuse_columns(source: str, columns: Mapping[str, str]) -> None:
    if columns:
        raise ForeignColumns(
            f"{source}: {SETTING}: found {dict(columns)}; allowed: nothing for articles with paragraphs, which have no "
            "columns"
        )


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
