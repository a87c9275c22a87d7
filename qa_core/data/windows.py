"""Strided windows: each question with a chunk of its paragraph, as token ids with character offsets and
labels.

Built once for each (data, tokenizer, layout, lengths) and shared by all trials of a machine as a
memory-mapped Arrow file. Window boundaries are those of the transformers library's `truncation="only_second"`
with a stride. Tokens and offsets come from `encoding.py`, the arrangement from `chunks.py`; batches
are made in `batches.py`.
"""

import hashlib
import json
import zlib
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa

from qa_core.data.cache import DamagedFile, read_or_make
from qa_core.data.chunks import SCHEMA, WindowLengths, check_room, lay_out
from qa_core.data.encoding import encode_table
from qa_core.data.layout import WindowLayout
from qa_core.data.table import QaTable
from qa_core.data.tokenizers import tokenizer_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["WindowLengths", "WindowSet", "build_windows", "no_windows"]

FORMAT = 2  # raise it when the file's columns or their meaning change: older cache files are then left alone


class WindowSet:
    """Windows as flat memory-mapped arrays; nothing is copied into the process until it is used.

    W windows; window w holds tokens `token_starts[w]` to `token_starts[w + 1]` of every flat array. Arrays
    are read-only.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return self._batch.num_rows

    @cached_property
    def token_starts(self) -> np.ndarray:
        """Where each window begins in the flat arrays, and the end of the last one, [W + 1] int64."""
        return self._batch.column("token_ids").offsets.to_numpy()

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each window, [W] int32."""
        return np.diff(self.token_starts).astype(np.int32)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest window; 0 when there is none."""
        return int(self.lengths.max(initial=0))

    @cached_property
    def token_ids(self) -> np.ndarray:
        """All windows' tokens, flat int32."""
        return self._values("token_ids")

    @cached_property
    def char_starts(self) -> np.ndarray:
        """First character of each context token in its paragraph, -1 outside the context, flat int32."""
        return self._values("char_starts")

    @cached_property
    def char_ends(self) -> np.ndarray:
        """Character after each context token as `characters.py` moves it, -1 outside the context, flat int32."""
        return self._values("char_ends")

    @cached_property
    def segments(self) -> np.ndarray:
        """1 on the context (and on what follows it, if the question comes first), else 0, flat int8."""
        return self._values("segments")

    @cached_property
    def question_index(self) -> np.ndarray:
        """Row of the question in its `QaTable`, [W] int32, rising: a question's windows stand together."""
        return self._column("question_index")

    @cached_property
    def null_positions(self) -> np.ndarray:
        """Token that stands for "no answer", [W] int32."""
        return self._column("null_positions")

    @cached_property
    def start_positions(self) -> np.ndarray:
        """First token of the gold answer, or the null position, [W] int32."""
        return self._column("start_positions")

    @cached_property
    def end_positions(self) -> np.ndarray:
        """Last token of the gold answer, inclusive, or the null position, [W] int32."""
        return self._column("end_positions")

    @cached_property
    def has_answer(self) -> np.ndarray:
        """Whether the gold answer lies wholly in the window, [W] bool."""
        return self._column("has_answer").view(bool)

    @cached_property
    def target_ids(self) -> np.ndarray:
        """All windows' targets, flat int32; empty unless the layout has a null text."""
        return self._values("target_ids")

    @cached_property
    def target_starts(self) -> np.ndarray:
        """Where each window's target begins in `target_ids`, [W + 1] int64."""
        return self._batch.column("target_ids").offsets.to_numpy()

    def offsets(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (char_start, char_end) of one window's tokens, each [L] int32, -1 outside the context."""
        span = slice(self.token_starts[window], self.token_starts[window + 1])
        return self.char_starts[span], self.char_ends[span]

    def _values(self, name: str) -> np.ndarray:
        return self._batch.column(name).values.to_numpy()

    def _column(self, name: str) -> np.ndarray:
        return self._batch.column(name).to_numpy()


def no_windows() -> WindowSet:
    """Return an empty set, for a part of the data that nobody reads."""
    arrays = [pa.array([], field.type) for field in SCHEMA]
    return WindowSet(pa.record_batch(arrays, schema=SCHEMA))


def build_windows(
    table: QaTable,
    tokenizer: "PreTrainedTokenizerFast",
    layout: WindowLayout,
    *,
    lengths: WindowLengths,
    cache_dir: Path,
) -> WindowSet:
    """Return the windows of all questions of a table, built on the first call and mapped from a file after
    it.

    A question becomes windows over its paragraph that overlap by `stride` tokens; it is cut to
    `max_question_length` tokens. The first gold answer gives the labels: the tokens that cover its characters
    where they lie wholly in the window, the null position elsewhere. With a null text in the layout each
    window has a target as well; a leading space of the null text is put before every answer too.

    Raises:
        ConfigError: the layout's own tokens leave no room for the context.
        StorageError: the cache folder cannot be written to.
    """
    check_room(layout, lengths)
    key = _cache_key(table, tokenizer, layout, lengths)

    def make() -> pa.RecordBatch:
        encoded = encode_table(table, tokenizer, layout, max_question_length=lengths.max_question_length)
        return lay_out(encoded, layout, lengths)

    return read_or_make(
        Path(cache_dir) / "windows" / f"{key}.arrow",
        read=lambda path: _read(path, key),
        make=make,
        write=lambda file, batch: _write(file, batch, key),
    )


def _cache_key(
    table: QaTable, tokenizer: "PreTrainedTokenizerFast", layout: WindowLayout, lengths: WindowLengths
) -> str:
    parts = [FORMAT, table.data_hash, tokenizer_hash(tokenizer), asdict(layout), asdict(lengths)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _write(file: BinaryIO, batch: pa.RecordBatch, key: str) -> None:
    metadata = {"key": key, "windows": str(batch.num_rows), "crc32": str(_checksum(batch))}
    batch = batch.replace_schema_metadata(metadata)
    with pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _read(path: Path, key: str) -> WindowSet:
    """Map the file and check that it is whole; the checksum also brings it into memory in one sweep."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = reader.schema.metadata or {}
        if (
            metadata.get(b"key") != key.encode()
            or not reader.schema.equals(SCHEMA)
            or reader.num_record_batches != 1
        ):
            raise DamagedFile(path)
        batch = reader.get_batch(0)
        if metadata.get(b"crc32") != str(_checksum(batch)).encode():
            raise DamagedFile(path)
    except (pa.ArrowInvalid, pa.ArrowIndexError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise DamagedFile(path) from error
    return WindowSet(batch)


def _checksum(batch: pa.RecordBatch) -> int:
    checksum = 0
    for column in batch.columns:
        arrays = [column.offsets, column.values] if pa.types.is_large_list(column.type) else [column]
        for array in arrays:
            checksum = zlib.crc32(array.to_numpy().data, checksum)
    return checksum
