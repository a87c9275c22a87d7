"""A table as columns of JSON, small: words that recur are written once, numbers with six digits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

DIGITS = 6  # significant ones of a number that is not whole


def encoded(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return one entry for each key: `numbers`, or `levels` with the place of each row's word, -1 for none.

    A column with anything but finite numbers is one of words.
    """
    return [{"key": key, **_column([row.get(key) for row in rows])} for key in keys]


def decoded(columns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of `encoded`; None where a row has no value."""
    values = {
        column["key"]: column["numbers"]
        if "numbers" in column
        else [None if place < 0 else column["levels"][place] for place in column["at"]]
        for column in columns
    }
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def rounded(value: float | None) -> float | int | None:
    """Return a number with six significant digits, a whole one as it is; None for one that is not finite."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, int) or (value == int(value) and abs(value) < 2**53):
        return int(value)
    return float(f"{value:.{DIGITS}g}")


def _column(values: Sequence[Any]) -> dict[str, Any]:
    found = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in found):
        return {"numbers": [rounded(value) for value in values]}
    words = [None if value is None else _word(value) for value in values]
    levels = list(dict.fromkeys(word for word in words if word is not None))
    places = {word: place for place, word in enumerate(levels)}
    return {"levels": levels, "at": [-1 if word is None else places[word] for word in words]}


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)
