"""Tables in memory as sources: pandas, Arrow, a data set of the library `datasets`, a list of rows.

`read_object` checks an object as a file is checked. `write_table` stores what was read as a Parquet file with the hub's
columns, whose path a recipe can name: its questions, and so its data hash, are the same.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.data.columns import read_arrow_table, read_rows
from qa_core.data.mapping import map_columns
from qa_core.data.table import QaTable
from qa_core.errors import DataError

ALLOWED = "a pandas data frame, an Arrow table, a data set of the library datasets, or a list of mappings"
ROWS_LAYOUT = "rows in memory"


def read_object(
    table: Any,
    *,
    source: str = "table",
    columns: Mapping[str, str] | None = None,
    skip_bad_examples: bool = False,
) -> QaTable:
    """Read all questions of a table in memory, one in each row.

    Args:
        table: a pandas data frame (its index is left aside), an Arrow table or record batch, a data set of the library
            `datasets`, or a list of mappings.
        source: its name in messages and records.
        columns, skip_bad_examples: as for `load_table`.

    Raises:
        DataError: it is none of these, a column is missing, or a row is malformed (unless those are skipped).
    """
    options: dict[str, Any] = {"columns": columns or {}, "skip_bad_examples": skip_bad_examples}
    arrow = _as_arrow(table, source)
    if arrow is not None:
        return read_arrow_table(arrow, source, **options)
    if isinstance(table, str | bytes | Mapping) or not isinstance(table, Iterable):
        raise DataError(f"{source}: found {type(table).__name__}; allowed: {ALLOWED}")
    rows = list(table)
    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{source}: row {number}: found {type(row).__name__}; allowed: {ALLOWED}")
        names.update(dict.fromkeys(map(str, row)))
    return read_rows(
        source,
        ((f"row {number}", row) for number, row in enumerate(rows)),
        map_columns(names, columns or {}, source),
        layout=ROWS_LAYOUT,
        skip_bad_examples=skip_bad_examples,
    )


def write_table(table: QaTable, path: Path) -> None:
    """Write a table as a Parquet file with the hub's columns.

    Raises:
        StorageError: it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = table.rows
    texts, starts = (rows.column(f"answer_{name}").combine_chunks() for name in ("texts", "starts"))
    named = {
        "id": rows.column("question_id"),
        "title": rows.column("title"),
        "context": table.contexts.take(pa.array(table.context_index)),
        "question": rows.column("question"),
        "answers": pa.StructArray.from_arrays([texts, starts], names=["text", "answer_start"]),
    }
    with files.written_file(path) as temporary:
        parquet.write_table(pa.table(named), temporary)


def _as_arrow(table: Any, source: str) -> Any:
    """Return an Arrow table of what has columns of Arrow or pandas; None for others."""
    import pyarrow as pa

    if isinstance(table, pa.Table):
        return table
    is_frame = type(table).__module__.split(".")[0] == "pandas" and hasattr(table, "columns")
    try:
        if is_frame:
            return pa.Table.from_pandas(table, preserve_index=False)
        return (
            pa.table(table)
            if hasattr(table, "__arrow_c_stream__") or isinstance(table, pa.RecordBatch)
            else None
        )
    except (pa.ArrowException, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{source}: found columns of several types ({reason}); allowed: one type in each"
        ) from error
