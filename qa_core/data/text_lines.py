"""Lines of a text file, plain or gzip, one at a time: UTF-8, with a bound on their length and on what gzip unpacks to.

JSON lines are in `json_file.py`, CSV and TSV in `delimited.py`.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from qa_core import files
from qa_core.errors import DataError

MOST_UNPACKED, SMALL_BYTES = 200, 2**20  # text is packed to about a fifth
GZIP_MAGIC = b"\x1f\x8b"
MOST_LINE_BYTES = 64 * 2**20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(path: Path) -> Iterator[str]:
    r"""Yield each line with its end (LF or CRLF); lines end at LF alone.

    Raises:
        DataError: the file is missing, too large, not gzip data under the suffix .gz, or not UTF-8, or a line is too
            long; names the file and the line.
    """
    try:
        with files.opened(path, most_bytes=files.DATA_BYTES) as file:
            if path.suffix.lower() != ".gz":
                yield from _lines(file, path, files.DATA_BYTES)
                return
            size = file.seek(0, 2)
            file.seek(0)
            if size:
                refuse_other_than_gzip(file.read(len(GZIP_MAGIC)), path)
                file.seek(0)
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield from _lines(cast(BinaryIO, unpacked), path, most_unpacked(size))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged_gzip(path, error) from error


def most_unpacked(size: int) -> int:
    """Return how many bytes a gzip file of this size may unpack to."""
    return min(files.DATA_BYTES, MOST_UNPACKED * size + SMALL_BYTES)


def refuse_other_than_gzip(begin: bytes, path: Path) -> None:
    """Raise DataError unless a file that is called .gz begins as gzip data do."""
    if not begin.startswith(GZIP_MAGIC):
        raise DataError(f"{path}: found a file that is not gzip; allowed: gzip data under the suffix .gz")


def damaged_gzip(path: Path, error: Exception) -> DataError:
    """Word the refusal of gzip data that cannot be unpacked."""
    return DataError(f"{path}: found truncated or damaged gzip data ({error}); allowed: a complete file")


def unpacked_too_large(path: Path, most_bytes: int) -> DataError:
    """Word the refusal of gzip data that unpack to more than they may."""
    return DataError(
        f"{path}: found gzip data that unpack to more than {most_bytes} bytes; allowed: at most {MOST_UNPACKED} times "
        "as many as the file has"
    )


def _lines(file: BinaryIO, path: Path, most_bytes: int) -> Iterator[str]:
    number = total = 0
    while raw := file.readline(MOST_LINE_BYTES + 1):
        number += 1
        total += len(raw)
        if total > most_bytes:
            raise unpacked_too_large(path, most_bytes)
        if len(raw) > MOST_LINE_BYTES:
            raise DataError(
                f"{path}: line {number}: found a line of more than {MOST_LINE_BYTES} bytes; allowed: at most as many"
            )
        if (nul := raw.find(b"\0")) >= 0:
            raise DataError(
                f"{path}: line {number}: found a NUL byte at byte {nul} of it; allowed: text in UTF-8 (a spreadsheet "
                'writes it as "CSV UTF-8")'
            )
        try:
            yield (raw.removeprefix(BYTE_ORDER_MARK) if number == 1 else raw).decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: line {number}: found bytes that are not UTF-8; allowed: text in UTF-8 (a spreadsheet writes "
                'it as "CSV UTF-8")'
            ) from error
