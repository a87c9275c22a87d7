"""Read a JSON file, plain or gzip, and word what is wrong with it; not what its values mean."""

import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.errors import DataError

LINES_HINT = (
    "Where each line is an object of its own (JSON lines), convert the file: datasets.load_dataset('json', "
    "data_files=..., split='train').to_parquet('FILE.parquet')"
)
MOST_UNPACKED, SMALL_BYTES = 200, 2**20  # text is packed to about a fifth
GZIP_MAGIC = b"\x1f\x8b"


def read_json(path: Path) -> Any:
    """Return the parsed document of a .json or .gz file.

    Raises:
        DataError: the file is missing, empty, truncated, not gzip data under the suffix .gz, or not JSON in
            UTF-8; names the file and, where there is one, the line.
    """
    content = _content(path)
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
        hint = f". {LINES_HINT}" if error.msg == "Extra data" else ""  # a second document
        raise DataError(f"{path}: {place}: {error.msg}; allowed: one JSON document{hint}") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}; allowed: one JSON document") from error


def _content(path: Path) -> bytes:
    try:
        content = files.read_bytes(path, most_bytes=files.DATA_BYTES)
        if path.suffix != ".gz" or not content:
            return content
        if not content.startswith(GZIP_MAGIC):
            raise DataError(f"{path}: found a file that is not gzip; allowed: gzip data under the suffix .gz")
        most_bytes = min(files.DATA_BYTES, MOST_UNPACKED * len(content) + SMALL_BYTES)
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(most_bytes + 1)
        if len(unpacked) > most_bytes:
            raise DataError(
                f"{path}: found gzip data that unpack to more than {most_bytes} bytes; allowed: at most "
                f"{MOST_UNPACKED} times as many as the {len(content)} of the file"
            )
        return unpacked
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: found truncated or damaged gzip data ({error}); allowed: a complete file"
        ) from error
