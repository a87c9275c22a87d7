"""Files of one JSON object a line that are only ever appended, and forced to the disk with each line.

A process that is killed in the middle of a line leaves it torn: it is left out when the file is read, and cut off
when the next line is appended. What the lines mean is said by their owners: `records.py`, `journal.py`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.errors import DataError, StorageError
from sweeps.run_folder.masking import masked_values


def append(path: Path, values: Mapping[str, Any], *, what: str) -> None:
    """Append one object, secrets masked, and force it to the disk; a line torn by an earlier crash is cut off first.

    Args:
        what: the object's name in errors, such as "record t0003".

    Raises:
        DataError: a value is not finite or not JSON; nothing was written.
        StorageError: the file cannot be written.
    """
    try:
        line = json.dumps(masked_values(values), allow_nan=False, ensure_ascii=False, sort_keys=True)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what}: cannot be stored: {error}") from error
    if path.is_symlink():
        raise StorageError(f"{path}: cannot be written: found a link; allowed: a file of the folder's own")
    try:
        _cut_torn_line(path)
        with path.open("ab") as file:
            file.write(line.encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error}") from error


def read(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], tuple[str, ...]]:
    """Return each object with its place, "FILE:LINE", and notes on what was left out.

    Raises:
        DataError: the file cannot be read, or a whole line is not a JSON object.
    """
    data = files.read_bytes(path, most_bytes=files.LINES_BYTES, inside=path.parent)
    *lines, tail = data.split(b"\n")
    notes = (
        (f"{path}:{len(lines) + 1}: left out a last line that was torn while it was written",) if tail else ()
    )
    places = [f"{path}:{number}" for number in range(1, len(lines) + 1)]
    return [(place, _parse(line, place)) for place, line in zip(places, lines, strict=True)], notes


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
        values = files.parse_json(text)
        if "\\ud" in text.lower():  # of a pair, or alone, which UTF-8 cannot hold
            json.dumps(values, ensure_ascii=False).encode()
    except ValueError as error:
        raise DataError(f"{place}: not a JSON line: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{place}: expected a JSON object, found {type(values).__name__}")
    return values


def _cut_torn_line(path: Path) -> None:
    if not files.is_there(path):
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
