"""Word vectors from a text file: GloVe's and fastText's formats, plain or gzipped, read once on a machine.

One word a line, then its numbers, all separated by single spaces. fastText's files begin with a line that counts
words and numbers; GloVe's do not. The parsed table is kept in the cache folder, keyed by the file's content, and
memory-mapped: trials share its pages and copy only the rows that they look up. What a model does with the vectors is
in `qa_core/models/word_embedding.py`.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qa_core import files
from qa_core.data.cache import DamagedFile, read_or_make
from qa_core.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FORMAT = 1  # raise it when the cached file changes: older ones are then left alone
LINES_AT_ONCE = 8192  # bounds the memory of the parser: 10 MB of 300 numbers each
NO_WORD = "\n"  # stands on no line
LARGEST = float(np.finfo(np.float32).max)
LINE = "a word and {size} finite numbers, separated by single spaces"


@dataclass(frozen=True)
class FoundVectors:
    """What a table knows about some words: `vectors` [n, D] float32 belong to the words numbered `places` [n]."""

    places: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True, eq=False)
class VectorTable:
    """All words of a file and their vectors, memory-mapped; `sha256` is that of the file as it lies on the disk."""

    batches: tuple[pa.RecordBatch, ...]
    sha256: str

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self.batches)

    @property
    def size(self) -> int:
        """Numbers of each vector, D."""
        return self.batches[0].schema.field("vector").type.list_size

    def find(self, words: Sequence[str]) -> FoundVectors:
        """Return the vectors of those words that the file holds, letter by letter; of a repeated one the first."""
        known = pa.chunked_array([batch.column("word") for batch in self.batches])
        rows = pc.index_in(pa.array(words, pa.large_string()), value_set=known)
        places = np.flatnonzero(rows.is_valid().to_numpy(zero_copy_only=False))
        wanted = rows.drop_null().to_numpy()
        vectors = np.empty((len(wanted), self.size), np.float32)
        first = 0
        for batch in self.batches:
            is_here = (wanted >= first) & (wanted < first + batch.num_rows)
            values = batch.column("vector").values.to_numpy().reshape(-1, self.size)
            vectors[is_here] = values[wanted[is_here] - first]
            first += batch.num_rows
        return FoundVectors(places, vectors)


def open_vectors(path: Path, *, cache_dir: Path) -> VectorTable:
    """Return the table of a file, parsed on the first call on a machine and mapped from the cache after it.

    Every call reads the file once for its hash.

    Raises:
        DataError: the file cannot be read, or a line is malformed; names file and line.
        StorageError: the cache folder cannot be written to.
    """
    with files.opened(path, most_bytes=files.DATA_BYTES) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    def write(file: BinaryIO, batches: Iterator[pa.RecordBatch]) -> None:
        first = next(batches)  # there is one, or the parser has refused the file
        with pa.ipc.new_file(file, first.schema) as writer:
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)

    batches = read_or_make(
        Path(cache_dir) / "vectors" / f"{sha256[:32]}-v{FORMAT}.arrow",
        read=_read,
        make=lambda: _parse(path),
        write=write,
    )
    return VectorTable(batches, sha256)


def look_up(
    tokenizer: "PreTrainedTokenizerFast", path: Path, *, cache_dir: Path
) -> tuple[FoundVectors, dict[str, Any]]:
    """Return the vectors of a tokenizer's vocabulary, numbered by token id, and facts for the record.

    Special tokens are no words and get no vector. The facts are the file's name, hash, words and size, and how many
    words of the vocabulary it has and lacks.

    Raises:
        DataError, StorageError: see `open_vectors`.
    """
    table = open_vectors(path, cache_dir=cache_dir)
    special = set(tokenizer.all_special_tokens)
    words = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    found = table.find([NO_WORD if word in special else word for word in words])
    vocabulary = len(words) - len(special)
    facts = {
        "file": path.name,
        "sha256": table.sha256,
        "file_words": len(table),
        "size": table.size,
        "vocabulary_words": vocabulary,
        "found_words": len(found.places),
        "missing_words": vocabulary - len(found.places),
    }
    return found, facts


def _read(path: Path) -> tuple[pa.RecordBatch, ...]:
    """Map the file. It was moved into place whole, so that its frame alone is checked: it may have gigabytes."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.schema.names != ["word", "vector"] or not reader.num_record_batches:
            raise DamagedFile(path)
        return tuple(reader.get_batch(index) for index in range(reader.num_record_batches))
    except (pa.ArrowInvalid, pa.ArrowIndexError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise DamagedFile(path) from error


def _parse(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the file's lines in batches; a fault surfaces when its batch is asked for."""
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path}: found an empty file; allowed: on each line {LINE.format(size='some')}")
    header = _header(first[1])
    size = header[1] if header else first[1].count(b" ")
    total = 0
    words: list[str] = []
    vectors = np.empty((LINES_AT_ONCE, size), np.float32)
    for number, line in lines if header else _with(first, lines):
        fields = line.rsplit(b" ", size)
        vectors[len(words)] = _numbers(fields, size, f"{path}:{number}")
        words.append(fields[0].decode("utf-8", errors="replace"))  # what cannot be read matches no word
        if len(words) == LINES_AT_ONCE:
            total += len(words)
            yield _batch(words, vectors)
            words = []
    if header and total + len(words) != header[0]:
        found = total + len(words)
        raise DataError(f"{path}: found {found} words; allowed: {header[0]}, as its first line says")
    if words:
        yield _batch(words, vectors[: len(words)])


def _with(first: tuple[int, bytes], lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    yield first
    yield from lines


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each line. Only a line feed ends one: words hold other kinds of white space."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip(b" \r\n")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _header(line: bytes) -> tuple[int, int] | None:
    """Return words and numbers that fastText's first line counts, None for a line with a vector."""
    fields = line.split(b" ")
    if len(fields) == 2 and all(field.isdigit() for field in fields) and min(map(int, fields)) > 0:
        return int(fields[0]), int(fields[1])
    return None


def _numbers(fields: list[bytes], size: int, place: str) -> list[float]:
    """Return a line's numbers; a number too many would stand at the end of its word."""
    allowed = LINE.format(size=size or "some")
    extra = fields[0].rpartition(b" ")
    if size < 1 or len(fields) <= size:
        raise DataError(f"{place}: found {len(fields) - 1} numbers after the word; allowed: {allowed}")
    if extra[1] and _number(extra[2]) is not None:
        raise DataError(f"{place}: found more than {size} numbers; allowed: {allowed}")
    numbers = [_number(field) for field in fields[1:]]
    for field, value in zip(fields[1:], numbers, strict=True):
        if value is None:
            raise DataError(f"{place}: found {field.decode(errors='replace')!r}; allowed: {allowed}")
    return numbers  # type: ignore[return-value]


def _number(field: bytes) -> float | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None  # neither infinite nor NaN


def _batch(words: list[str], vectors: np.ndarray) -> pa.RecordBatch:
    size = vectors.shape[1]
    flat = pa.array(vectors.reshape(-1).copy())
    columns = [pa.array(words, pa.large_string()), pa.FixedSizeListArray.from_arrays(flat, size)]
    return pa.record_batch(columns, names=["word", "vector"])
