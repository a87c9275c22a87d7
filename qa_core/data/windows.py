"""Strided windows: each question with a chunk of its paragraph, as token ids with character offsets and labels.

Built once for each (data, tokenizer, layout, lengths) and shared by all trials of a machine as a memory-mapped Arrow
file. Window boundaries are those of the transformers library's `truncation="only_second"` with a stride. Tokens and
offsets come from `encoding.py`; batches of windows are made in `batches.py`.
"""

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa

from qa_core.data.cache import DamagedFile, read_or_make
from qa_core.data.encoding import EncodedTable, encode_table
from qa_core.data.table import QaTable
from qa_core.data.tokenizers import tokenizer_hash
from qa_core.errors import ConfigError
from qa_core.families.base import WindowLayout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FORMAT = 1  # raise it when the file's layout or the meaning of a column changes
OUTSIDE = -1  # character offset of a token that is not of the context
SCHEMA = pa.schema(
    [
        ("token_ids", pa.large_list(pa.int32())),
        ("char_starts", pa.large_list(pa.int32())),
        ("char_ends", pa.large_list(pa.int32())),
        ("segments", pa.large_list(pa.int8())),
        ("question_index", pa.int32()),
        ("null_positions", pa.int32()),
        ("start_positions", pa.int32()),
        ("end_positions", pa.int32()),
        ("has_answer", pa.uint8()),
        ("target_ids", pa.large_list(pa.int32())),
    ]
)


@dataclass(frozen=True)
class WindowLengths:
    """Lengths in tokens: of a whole window, of the overlap of neighbours, and of the question at most."""

    max_length: int
    stride: int
    max_question_length: int


class WindowSet:
    """Windows as flat memory-mapped arrays; nothing is copied into the process until it is used.

    W windows; window w holds tokens `token_starts[w]` to `token_starts[w + 1]` of every flat array. Arrays are
    read-only.
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
    def token_ids(self) -> np.ndarray:
        """All windows' tokens, flat int32."""
        return self._values("token_ids")

    @cached_property
    def char_starts(self) -> np.ndarray:
        """First character of each context token in its paragraph, -1 outside the context, flat int32."""
        return self._values("char_starts")

    @cached_property
    def char_ends(self) -> np.ndarray:
        """Character after each context token, -1 outside the context, flat int32. Never includes white space."""
        return self._values("char_ends")

    @cached_property
    def segments(self) -> np.ndarray:
        """1 on the context (and on what follows it, when the question comes first), 0 elsewhere, flat int8."""
        return self._values("segments")

    @cached_property
    def question_index(self) -> np.ndarray:
        """Row of the question in its `QaTable`, [W] int32; windows of one question stand together, in order."""
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


def build_windows(
    table: QaTable,
    tokenizer: "PreTrainedTokenizerFast",
    layout: WindowLayout,
    *,
    lengths: WindowLengths,
    cache_dir: Path,
) -> WindowSet:
    """Return the windows of all questions of a table, built on the first call and mapped from a file after it.

    A question becomes windows over its paragraph that overlap by `stride` tokens; it is cut to `max_question_length`
    tokens. The first gold answer gives the labels: the tokens that cover its characters where they lie wholly in the
    window, the null position elsewhere. With a null text in the layout each window has a target as well; a leading
    space of the null text is put before every answer too.

    Raises:
        ConfigError: the layout's own tokens leave no room for the context.
        StorageError: the cache folder cannot be written to.
    """
    _check_room(layout, lengths)
    key = _cache_key(table, tokenizer, layout, lengths)

    def make(file: BinaryIO) -> None:
        encoded = encode_table(table, tokenizer, layout, max_question_length=lengths.max_question_length)
        _write(file, _lay_out(encoded, layout, lengths), key)

    path = Path(cache_dir) / "windows" / f"{key}.arrow"
    return read_or_make(path, read=lambda file: _read(file, key), make=make)


def _check_room(layout: WindowLayout, lengths: WindowLengths) -> None:
    own = len(layout.prefix) + len(layout.middle) + len(layout.suffix)
    room = lengths.max_length - lengths.max_question_length - own
    if room <= lengths.stride:
        raise ConfigError(
            f"data.max_length: found {lengths.max_length}, which after {lengths.max_question_length} question tokens "
            f"and {own} tokens of the layout leaves {max(room, 0)} for the context; allowed: more than data.stride, "
            f"which is {lengths.stride}"
        )


def _cache_key(
    table: QaTable, tokenizer: "PreTrainedTokenizerFast", layout: WindowLayout, lengths: WindowLengths
) -> str:
    parts = [FORMAT, table.data_hash, tokenizer_hash(tokenizer), asdict(layout), asdict(lengths)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _lay_out(encoded: EncodedTable, layout: WindowLayout, lengths: WindowLengths) -> pa.RecordBatch:
    """Cut every paragraph into chunks and write question and chunk side by side into flat arrays."""
    question_index, chunk_starts, chunk_ends = _chunks(encoded, layout, lengths)
    question_lengths = encoded.questions.lengths[question_index]
    own = len(layout.prefix) + len(layout.middle) + len(layout.suffix)
    starts = _offsets(own + question_lengths + chunk_ends - chunk_starts)  # [W + 1]
    context_offsets = len(layout.prefix) + (len(layout.middle) + question_lengths if layout.question_first else 0)

    token_ids = np.empty(starts[-1], dtype=np.int32)
    char_starts = np.full(starts[-1], OUTSIDE, dtype=np.int32)
    char_ends = np.full(starts[-1], OUTSIDE, dtype=np.int32)
    segments = np.zeros(starts[-1], dtype=np.int8)
    prefix, middle, suffix = (np.array(part, np.int32) for part in (layout.prefix, layout.middle, layout.suffix))
    contexts = encoded.contexts
    context_starts = contexts.starts[encoded.context_index[question_index]]
    spans = zip(
        question_index.tolist(),
        starts[:-1].tolist(),
        (starts[:-1] + context_offsets).tolist(),
        (context_starts + chunk_starts).tolist(),
        (context_starts + chunk_ends).tolist(),
        starts[1:].tolist(),
        strict=True,
    )
    for question, start, context_start, chunk_start, chunk_end, end in spans:
        question_ids, chunk_ids = encoded.questions[question], contexts.token_ids[chunk_start:chunk_end]
        first, second = (question_ids, chunk_ids) if layout.question_first else (chunk_ids, question_ids)
        np.concatenate((prefix, first, middle, second, suffix), out=token_ids[start:end])
        context_end = context_start + chunk_end - chunk_start
        char_starts[context_start:context_end] = encoded.char_starts[chunk_start:chunk_end]
        char_ends[context_start:context_end] = encoded.char_ends[chunk_start:chunk_end]
        segments[context_start : end if layout.question_first else context_end] = 1

    answer_starts, answer_ends = encoded.answer_starts[question_index], encoded.answer_ends[question_index]
    has_answer = (answer_starts >= chunk_starts) & (answer_ends <= chunk_ends) & (answer_ends > answer_starts)
    null_positions = np.zeros(len(question_index), np.int64) if layout.null_at == "first" else np.diff(starts) - 1
    shift = context_offsets - chunk_starts
    targets, target_starts = _targets(encoded, question_index, has_answer)
    return pa.record_batch(
        [
            _list_array(starts, token_ids),
            _list_array(starts, char_starts),
            _list_array(starts, char_ends),
            _list_array(starts, segments),
            question_index.astype(np.int32),
            null_positions.astype(np.int32),
            np.where(has_answer, answer_starts + shift, null_positions).astype(np.int32),
            np.where(has_answer, answer_ends - 1 + shift, null_positions).astype(np.int32),
            has_answer.astype(np.uint8),
            _list_array(target_starts, targets),
        ],
        schema=SCHEMA,
    )


def _chunks(
    encoded: EncodedTable, layout: WindowLayout, lengths: WindowLengths
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return question, first token and end token (in its paragraph) of each window, [W] each.

    A chunk begins `stride` tokens before the last one's end, and the first chunk that reaches the end is the last.
    """
    own = len(layout.prefix) + len(layout.middle) + len(layout.suffix)
    context_lengths = encoded.contexts.lengths[encoded.context_index]  # [questions]
    room = lengths.max_length - own - encoded.questions.lengths
    step = room - lengths.stride
    counts = 1 + np.maximum(0, -(-(context_lengths - room) // step))
    question_index = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(counts.sum()) - np.repeat(_offsets(counts)[:-1], counts)
    starts = number * step[question_index]
    return question_index, starts, np.minimum(starts + room[question_index], context_lengths[question_index])


def _targets(
    encoded: EncodedTable, question_index: np.ndarray, has_answer: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return flat targets and their bounds [W + 1]; all empty for a layout without targets."""
    if encoded.targets is None or encoded.null_target is None:
        return np.empty(0, np.int32), np.zeros(len(question_index) + 1, np.int64)
    null_target = encoded.null_target
    pieces = [
        encoded.targets[question] if answered else null_target
        for question, answered in zip(question_index.tolist(), has_answer.tolist(), strict=True)
    ]
    return np.concatenate(pieces), _offsets(np.array([len(piece) for piece in pieces]))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _list_array(starts: np.ndarray, values: np.ndarray) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array(starts), pa.array(values))


def _write(file: BinaryIO, batch: pa.RecordBatch, key: str) -> None:
    metadata = {"key": key, "windows": str(batch.num_rows), "crc32": str(_checksum(batch))}
    batch = batch.replace_schema_metadata(metadata)
    with pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _read(path: Path, key: str) -> WindowSet:
    """Map the file and check that it is whole; the checksum also brings it into the page cache in one sweep."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = reader.schema.metadata or {}
        if metadata.get(b"key") != key.encode() or not reader.schema.equals(SCHEMA) or reader.num_record_batches != 1:
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
            checksum = zlib.crc32(np.ascontiguousarray(array.to_numpy()).view(np.uint8), checksum)
    return checksum
