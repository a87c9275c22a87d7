"""Readers of tables with columns: Parquet, Arrow, folders and hub data sets of the library `datasets`.

The hub's columns are id, title, context, question, answers {text: list, answer_start: list}; other names and answers as
text are found by `mapping.py` and read by `rows.py`. Nothing here runs code that comes with data.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_core import files as files_door  # `files` are those of the hub here
from qa_core.data.fields import BadExample
from qa_core.data.mapping import ColumnMap, map_columns
from qa_core.data.rows import RowReader, reading_of
from qa_core.data.table import QaTable, TableBuilder
from qa_core.data.table_cache import cached_table, table_layout
from qa_core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

HUB_SPLITS = {"train": "train", "dev": "validation"}
STATE, SPLITS = (
    "state.json",
    "dataset_dict.json",
)  # what save_to_disk writes for a data set, and for one with splits
FILE_SETS = "_data_files"
ARROW_LAYOUT = "Arrow table"


class MissingSplit(DataError):
    """A data set has no split of the name that is asked for."""


def read_parquet(path: Path, *, columns: Mapping[str, str], skip_bad_examples: bool, **more: Any) -> QaTable:
    """Read a Parquet file.

    Raises:
        DataError: not a Parquet file, a column is missing, or a row is malformed (unless those are skipped).
    """
    from pyarrow import parquet

    allowed = "a complete Parquet file"
    with _refusing(str(path), allowed):
        file = parquet.ParquetFile(files_door.checked_file(path, most_bytes=files_door.DATA_BYTES))
        schema = file.schema_arrow
    column_map = map_columns(schema.names, columns, str(path), needs_answers=more.get("needs_answers", True))
    batches = file.iter_batches(columns=_read_names(column_map))
    return _from_batches(
        str(path), batches, schema, column_map, "Parquet", skip_bad_examples, allowed=allowed, **more
    )


def read_arrow_file(
    path: Path, *, columns: Mapping[str, str], skip_bad_examples: bool, **more: Any
) -> QaTable:
    """Read an Arrow file or stream (.arrow, .feather). Raises as `read_parquet`."""
    allowed = "a complete Arrow file"
    with _refusing(str(path), allowed):
        schema, batches = _opened(path)
    column_map = map_columns(schema.names, columns, str(path), needs_answers=more.get("needs_answers", True))
    return _from_batches(
        str(path), batches, schema, column_map, ARROW_LAYOUT, skip_bad_examples, allowed=allowed, **more
    )


def saved_files(folder: Path, split: str | None) -> list[Path]:
    """Return the Arrow files of a folder that `save_to_disk` has written, in order.

    Args:
        folder: of a data set, or of one with splits.
        split: the split's name; None: the folder has none.

    Raises:
        MissingSplit: it has no such split. DataError: the folder is damaged, or names files outside of itself.
    """
    if split is not None:
        found = saved_splits(folder)
        if split not in found:
            raise MissingSplit(
                f"{folder}: found no split {split!r}; allowed: {', '.join(f'{folder}@{name}' for name in found)}"
            )
        folder = folder / split
    state = folder / STATE
    listed = files_door.read_object(state).get(FILE_SETS)
    names = [item.get("filename") if isinstance(item, dict) else None for item in listed or []]
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise DataError(f"{state}: {FILE_SETS}: found {names!r}; allowed: names of files in this folder")
    return [folder / str(name) for name in names]


def saved_splits(folder: Path) -> list[str]:
    """Return the names of a folder's splits, as its list says; raises DataError where that is damaged."""
    path = folder / SPLITS
    names = files_door.read_object(path).get("splits")
    if not isinstance(names, list) or not all(
        isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name for name in names
    ):
        raise DataError(f"{path}: splits: found {names!r}; allowed: names of folders")
    return names


def read_saved(
    source: str, paths: list[Path], *, columns: Mapping[str, str], skip_bad_examples: bool, **more: Any
) -> QaTable:
    """Read the files of a folder of `save_to_disk` as one table. Raises as `read_parquet`."""
    allowed = "complete Arrow files, all with the same columns"

    def batches() -> Iterator["pa.RecordBatch"]:
        for path in paths:
            found, inside = _opened(path)
            if found.names != schema.names:
                raise OSError(f"{path.name} has other columns")
            yield from inside

    with _refusing(source, allowed):
        schema, _ = _opened(paths[0])
    column_map = map_columns(schema.names, columns, source, needs_answers=more.get("needs_answers", True))
    layout = "folder of the library datasets"
    return _from_batches(
        source, batches(), schema, column_map, layout, skip_bad_examples, allowed=allowed, **more
    )


def read_hub(
    name: str,
    *,
    split: str,
    columns: Mapping[str, str],
    skip_bad_examples: bool,
    cache_dir: Path | None = None,
    needs_answers: bool = True,
) -> QaTable:
    """Download (once) and read a hub data set: NAME, NAME:CONFIGURATION, either with @SPLIT.

    Without @SPLIT "train" is the hub's `train` and "dev" its `validation`. The library keeps what it has downloaded in
    a cache of its own; `cache_dir` is where the table goes that is made of it, None for nowhere.

    Raises:
        MissingSplit: the data set has no such split.
        DataError: the hub cannot be reached or has no such data set or configuration, or a row is malformed.
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
        kind = MissingSplit if str(error).startswith("Unknown split") else DataError
        raise kind(
            f"data set {name!r}, split {hub_split!r}: the hub gave {type(error).__name__}: {error}. A configuration or "
            f"another split is named so: {owner_and_name}:CONFIGURATION, {owner_and_name}@SPLIT. Where the hub cannot "
            "be reached, give a SQuAD file (.json, .json.gz), a Parquet file or `sample`, the built-in corpus"
        ) from error
    source = name if named_split else f"{name}:{hub_split}"
    column_map = map_columns(rows.column_names, columns, source, needs_answers=needs_answers)
    files = [Path(item["filename"]) for item in rows.cache_files]

    def parse() -> QaTable:
        return read_rows(
            source,
            ((f"row {number}", row) for number, row in enumerate(rows)),
            column_map,
            layout="hub data set",
            skip_bad_examples=skip_bad_examples,
            takes_null=_takes_null(rows.features.arrow_schema, column_map),
            needs_answers=needs_answers,
        )

    if cache_dir is None or not files:  # a data set in memory has no file to know it by
        return parse()
    return cached_table(
        files,
        parse,
        source=source,
        layout=table_layout("hub", columns),
        skip_bad_examples=skip_bad_examples,
        cache_dir=cache_dir,
    )


def read_arrow_table(
    table: "pa.Table", source: str, *, columns: Mapping[str, str], skip_bad_examples: bool
) -> QaTable:
    """Read an Arrow table in memory. Raises as `read_parquet`."""
    column_map = map_columns(table.column_names, columns, source)
    batches = table.select(_read_names(column_map)).to_batches(max_chunksize=1024)
    return _from_batches(
        source, batches, table.schema, column_map, ARROW_LAYOUT, skip_bad_examples, allowed="plain values"
    )


def read_rows(
    source: str,
    rows: Iterable[tuple[str, Any]],
    column_map: ColumnMap,
    *,
    layout: str,
    skip_bad_examples: bool,
    is_text: bool = False,
    takes_null: bool = True,
    needs_answers: bool = True,
) -> QaTable:
    """Return the table of rows with their places; in place of a row may stand the `BadExample` that it is.

    Raises:
        DataError: a row is malformed (unless those are skipped), or there is none.
    """
    builder = TableBuilder(source, skip_bad_examples=skip_bad_examples)
    builder.reading = reading_of(layout, column_map)
    reader = RowReader(
        builder, column_map, is_text=is_text, needs_answers=needs_answers, takes_null=takes_null
    )
    for place, row in rows:
        try:
            if isinstance(row, BadExample):
                reader.skip()
                raise row
            reader.add(place, row)
        except BadExample as error:
            builder.refuse(error)
    return builder.build()


def _from_batches(
    source: str,
    batches: Iterable["pa.RecordBatch"],
    schema: "pa.Schema",
    column_map: ColumnMap,
    layout: str,
    skip_bad_examples: bool,
    *,
    allowed: str,
    needs_answers: bool = True,
) -> QaTable:
    def rows() -> Iterator[tuple[str, Any]]:
        number = 0
        with _refusing(source, allowed):
            for batch in batches:
                for row in batch.select(_read_names(column_map)).to_pylist():
                    yield f"row {number}", row
                    number += 1

    return read_rows(
        source,
        rows(),
        column_map,
        layout=layout,
        skip_bad_examples=skip_bad_examples,
        takes_null=_takes_null(schema, column_map),
        needs_answers=needs_answers,
    )


def _takes_null(schema: "pa.Schema", column_map: ColumnMap) -> bool:
    """Tell whether an answer that is null says that there is none: where answers are text; an object is never null."""
    import pyarrow as pa

    name = column_map.columns.get("answer")
    if name is None:
        return True
    kind = schema.field(name).type
    kind = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    return not pa.types.is_struct(kind)


def _read_names(column_map: ColumnMap) -> list[str]:
    return list(dict.fromkeys(column_map.columns.values()))


def _opened(path: Path) -> tuple["pa.Schema", Iterator["pa.RecordBatch"]]:
    """Map an Arrow file or stream; its batches share the file's pages."""
    import pyarrow as pa

    source = pa.memory_map(str(files_door.checked_file(path, most_bytes=files_door.DATA_BYTES)))
    if source.size() and source.read(6) == b"ARROW1":
        source.seek(0)
        file = pa.ipc.open_file(source)
        return file.schema, (file.get_batch(number) for number in range(file.num_record_batches))
    source.seek(0)
    stream = pa.ipc.open_stream(source)
    return stream.schema, iter(stream)


@contextmanager
def _refusing(source: str, allowed: str) -> Iterator[None]:
    """Word what Arrow finds wrong with a source."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{source}: found {error}; allowed: {allowed}") from error
