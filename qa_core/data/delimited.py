"""Rows of a CSV or TSV file: quoted as RFC 4180 says, with a first row of names; not what their cells mean.

Of .csv files with one column when split by commas, semicolons, tabs and bars are tried: spreadsheets write what their
language sets. Cells are text; what they hold is read in `qa_core/data/rows.py`.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qa_core.data.fields import BadExample
from qa_core.data.text_lines import read_lines
from qa_core.errors import DataError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MOST_CELL_CHARACTERS = 16 * 2**20
QUOTES = (
    'cells with quotes, line ends or separators within them in double quotes ("), quotes in them doubled ("")'
)


class DelimitedFile:
    """A CSV or TSV file, opened up to its first row.

    Args:
        path: its suffix says which separator is tried first.

    Raises:
        DataError: as for `read_lines`, or the file is empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        first_line = next((line for line in read_lines(path) if line.strip()), None)
        if first_line is None:
            raise DataError(
                f"{path}: found an empty file; allowed: a row of column names and a row for each question"
            )
        self._separator = self._separator_of(first_line)
        header = next(self._cells(), None)
        assert header is not None, "there is a line that is not blank"
        self.names: list[str] = [name.strip() for name in header[1]]

    @property
    def layout(self) -> str:
        """The format in words."""
        kind = "TSV" if self._separator == "\t" else "CSV"
        return f"{kind}, separated by {SEPARATORS[self._separator]}"

    def rows(self) -> Iterator[tuple[str, dict[str, str] | BadExample]]:
        """Yield place and cells of each row that is not blank; in place of the cells what is wrong with their number.

        Raises:
            DataError: the quotes of the file do not end, or a cell is too large.
        """
        rows = self._cells()
        next(rows)
        for line, cells in rows:
            place = f"line {line}"
            if len(cells) == len(self.names):
                yield place, dict(zip(self.names, cells, strict=True))
            else:
                yield (
                    place,
                    BadExample(
                        f"{self._path}: {place}: found {len(cells)} cells; allowed: {len(self.names)}, as many as "
                        "there are column names"
                    ),
                )

    def _separator_of(self, first_line: str) -> str:
        name = self._path.name.lower().removesuffix(".gz")
        first = "\t" if name.endswith(".tsv") else ","
        for separator in (first, *(item for item in SEPARATORS if item != first)):
            with _large_cells():
                try:
                    cells = next(csv.reader([first_line], delimiter=separator), [])
                except csv.Error:  # told when the rows are read
                    continue
            if len(cells) > 1:
                return separator
        return first

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line at which each row begins, from 1, and its cells; rows without any text are left out."""
        reader = csv.reader(read_lines(self._path), delimiter=self._separator, strict=True)
        begin = 1
        while True:
            with _large_cells():
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    raise DataError(
                        f"{self._path}: line {begin}: {error} (line {reader.line_num}); allowed: {QUOTES}"
                    ) from error
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield begin, cells
            begin = reader.line_num + 1


@contextmanager
def _large_cells() -> Iterator[None]:
    """Let the library read a cell as large as a context may be; its limit is one for the process."""
    before = csv.field_size_limit(MOST_CELL_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(before)
