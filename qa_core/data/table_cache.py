"""Checked questions of a source, kept in the cache folder so that a machine parses each source once for all trials.

    CACHE/tables/KEY.arrow    64 bytes: the CRC-32 of what follows; then an Arrow file of the questions, each with its
                              paragraph as an entry of a dictionary

The key is the content of the source's files and what decides how they are read, never their names or times: a source
that changes is parsed again. The file is memory-mapped, so that trials share its pages.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from qa_core import files as files_door  # `files` are those of the source here
from qa_core.data.cache import DamagedFile, read_or_make
from qa_core.data.reading import Reading
from qa_core.data.table import SCHEMA, QaTable

FORMAT = 3  # raise it when the file or the checks of the readers change: older ones are then left alone
HEADER_BYTES = 64  # keeps the Arrow file aligned
CONTEXT = "context"
COUNTS = ("skipped", "skipped_answers")
READING = "reading"
STORED = pa.schema(
    [
        pa.field(CONTEXT, pa.dictionary(pa.int32(), pa.large_string()))
        if field.name == "context_index"
        else field
        for field in SCHEMA
    ]
)


def cached_table(
    files: Sequence[Path],
    parse: Callable[[], QaTable],
    *,
    source: str,
    layout: str,
    skip_bad_examples: bool,
    cache_dir: Path,
) -> QaTable:
    """Return the table of a source, parsed on the first call on a machine and mapped from the cache after it.

    Every call reads the files once for their hash.

    Args:
        files: all that the table is made of.
        parse: makes the table; what it raises is passed on, and nothing is kept then.
        source: its name in messages and records, which is the caller's: another's may have the same content.
        layout: how the files are read.
        skip_bad_examples: as `parse` takes it.

    Raises:
        DataError: a file cannot be read. StorageError: the cache folder cannot be written to.
    """
    digest = hashlib.sha256(f"{FORMAT} {layout} {skip_bad_examples}".encode())
    for path in files:
        with files_door.opened(path, most_bytes=files_door.DATA_BYTES) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return read_or_make(
        Path(cache_dir) / "tables" / f"{digest.hexdigest()[:32]}.arrow",
        read=lambda path: _read(path, source),
        make=parse,
        write=_write,
    )


def table_layout(kind: str, columns: Mapping[str, str]) -> str:
    """Return what decides how the files of a source are read, beside their content."""
    return f"{kind} {json.dumps(dict(columns), sort_keys=True)}"


def _write(file: BinaryIO, table: QaTable) -> None:
    columns = [
        pa.DictionaryArray.from_arrays(table.rows.column("context_index").combine_chunks(), table.contexts)
        if name == CONTEXT
        else table.rows.column(name).combine_chunks()
        for name in STORED.names
    ]
    metadata = {name: str(getattr(table, name)) for name in COUNTS}
    metadata[READING] = json.dumps(table.reading.as_values())
    stored = pa.table(columns, schema=STORED.with_metadata(metadata))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, stored.schema) as writer:
        writer.write_table(stored)
    body = sink.getvalue()
    file.write(_header(body))
    file.write(body)


def _read(path: Path, source: str) -> QaTable:
    """Map the file and check that it is whole."""
    try:
        content = pa.memory_map(str(path)).read_buffer()
        body = content[HEADER_BYTES:]
        if content[:HEADER_BYTES].to_pybytes() != _header(body):
            raise DamagedFile(path)
        stored = pa.ipc.open_file(body).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise DamagedFile(path) from error
    contexts = stored.column(CONTEXT).combine_chunks()
    columns = [contexts.indices if name == "context_index" else stored.column(name) for name in SCHEMA.names]
    counts = {name: int(stored.schema.metadata[name.encode()]) for name in COUNTS}
    reading = Reading.from_values(json.loads(stored.schema.metadata[READING.encode()]))
    return QaTable(pa.table(columns, schema=SCHEMA), contexts.dictionary, source, **counts, reading=reading)


def _header(body: pa.Buffer) -> bytes:
    return f"qa-table {FORMAT} {zlib.crc32(body):08x}".encode().ljust(HEADER_BYTES)
