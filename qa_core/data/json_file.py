"""Read a JSON file or a file of JSON lines, plain or gzip, and word what is wrong with it; not what its values mean."""

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.data.fields import BadExample
from qa_core.data.text_lines import (
    damaged_gzip,
    most_unpacked,
    read_lines,
    refuse_other_than_gzip,
    unpacked_too_large,
)
from qa_core.errors import DataError


class JsonLinesFound(DataError):
    """A file called .json holds a document on its first line, and more below it."""


def read_json(path: Path) -> Any:
    """Return the parsed document of a .json or .gz file.

    Raises:
        DataError: the file is missing, empty, truncated, not gzip data under the suffix .gz, or not JSON in
            UTF-8; names the file and, where there is one, the line.
    """
    return parse_document(_content(path), str(path))


def parse_document(content: bytes, path: str) -> Any:
    """Return the parsed document of some bytes; `path` is its name in messages.

    Raises:
        DataError: as for `read_json`.
    """
    if not content.strip():
        raise DataError(f"{path}: found an empty file; allowed: one JSON document")
    nul = content.find(b"\0")
    if nul >= 0:
        line = content.count(b"\n", 0, nul) + 1
        raise DataError(f"{path}: line {line}: found a NUL byte at byte {nul}; allowed: JSON in UTF-8")
    try:
        return files.parse_json(content.decode("utf-8-sig"), is_finite=False)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line}: found bytes that are not UTF-8; allowed: JSON in UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        is_of_lines = (
            error.msg == "Extra data" and "\n" in error.doc and "\n" not in error.doc[: error.pos].strip()
        )
        kind = JsonLinesFound if is_of_lines else DataError
        raise kind(f"{path}: {place}: {error.msg}; allowed: one JSON document") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}; allowed: one JSON document") from error


def read_json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield place and value of each line that is not blank; see `parse_json_lines`.

    Raises:
        DataError: as for `read_lines`.
    """
    return parse_json_lines(read_lines(path), str(path))


def parse_json_lines(lines: Iterable[str], source: str) -> Iterator[tuple[str, Any]]:
    """Yield place and value of each line that is not blank; of one that is not JSON a `BadExample` that says so."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            yield place, files.parse_json(line.rstrip(), is_finite=False)
        except json.JSONDecodeError as error:
            yield (
                place,
                BadExample(
                    f"{source}: {place}, column {error.colno}: {error.msg}; allowed: one JSON object on each line"
                ),
            )
        except ValueError as error:
            yield place, BadExample(f"{source}: {place}: {error}; allowed: one JSON object on each line")


def _content(path: Path) -> bytes:
    try:
        content = files.read_bytes(path, most_bytes=files.DATA_BYTES)
        if path.suffix.lower() != ".gz" or not content:
            return content
        refuse_other_than_gzip(content, path)
        most_bytes = most_unpacked(len(content))
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(most_bytes + 1)
        if len(unpacked) > most_bytes:
            raise unpacked_too_large(path, most_bytes)
        return unpacked
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged_gzip(path, error) from error
