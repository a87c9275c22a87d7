"""Which column of a source holds which field: as the user names them, else by their usual names.

The fields are those of a question: id, title, context, question, answer, start and is_impossible. Standard library
only.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qa_core.errors import DataError, nearest

# field -> the hub's name for it, then other usual ones; letter case, spaces and signs between words do not count.
NAMES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "question_id", "qid", "qas_id", "example_id"),
    "title": ("title", "article_title", "document_title"),
    "context": ("context", "passage", "paragraph", "document"),
    "question": ("question", "query", "question_text"),
    "answer": ("answers", "answer", "answer_text", "gold_answer", "gold"),
    "start": ("answer_start", "answer_starts", "start", "start_char"),
    "is_impossible": ("is_impossible", "impossible", "is_unanswerable", "unanswerable"),
}
REQUIRED = ("context", "question", "answer")  # the last not where a question can be called impossible
SHOWN_COLUMNS = 20
SETTING = "data.columns"


class ForeignColumns(DataError):
    """A source has none of the columns that the user names: they are those of another source."""


@dataclass(frozen=True)
class ColumnMap:
    """Which column holds which field.

    Attributes:
        columns: field -> column, in the order of `NAMES`; fields that the source lacks are not in it.
        guessed: fields whose column was not given and has another name than the field's own or the hub's.
        unused: the other columns.
    """

    columns: Mapping[str, str]
    guessed: tuple[str, ...]
    unused: tuple[str, ...]


def map_columns(
    names: Iterable[str], given: Mapping[str, str], source: str, *, needs_answers: bool = True
) -> ColumnMap:
    """Find the column of each field.

    Args:
        names: of the source's columns, in order; unnamed ones ("") are left aside.
        given: field -> column, as the user names them.
        source: its name in messages.
        needs_answers: whether a source without answers is refused.

    Raises:
        ForeignColumns: columns are named, and none of them is there.
        DataError: a column that is named is not there, one that is needed cannot be guessed, several could be meant, or
            one name stands twice.
    """
    found = [name for name in names if name]
    columns: dict[str, str] = {}
    guessed: list[str] = []
    for field, usual in NAMES.items():
        if field in given:
            if given[field] not in found:
                kind = DataError if set(given.values()) & set(found) else ForeignColumns
                raise kind(
                    f"{source}: {SETTING}.{field}: found no column {given[field]!r}{nearest(given[field], found)}; "
                    f"allowed: {_listed(found)}"
                )
            columns[field] = given[field]
            continue
        candidates = _candidates(field, usual, found, taken=set(given.values()), source=source)
        if candidates:
            columns[field] = candidates
            if plain_name(candidates) not in (usual[0], field):
                guessed.append(field)
    is_optional = {"answer": not needs_answers or "is_impossible" in columns}
    missing = [field for field in REQUIRED if field not in columns and not is_optional.get(field)]
    if missing:
        raise DataError(_missing(source, found, missing))
    counted = Counter(found)
    if twice := [name for name in columns.values() if counted[name] > 1]:
        raise DataError(
            f"{source}: found {counted[twice[0]]} columns {twice[0]!r}; allowed: columns with names of their own"
        )
    used = set(columns.values())
    return ColumnMap(columns, tuple(guessed), tuple(name for name in found if name not in used))


def _candidates(
    field: str, usual: tuple[str, ...], found: list[str], *, taken: set[str], source: str
) -> str | None:
    """Return the one column that has the hub's name, else the one with a usual name; None where there is none."""
    if usual[0] in found and usual[0] not in taken:
        return usual[0]
    plain = {plain_name(name) for name in usual}
    named = [name for name in dict.fromkeys(found) if plain_name(name) in plain and name not in taken]
    if len(named) > 1:
        raise DataError(
            f"{source}: found the columns {_listed(named)}, each of which could be the {field}; allowed: one of them "
            f"named in {SETTING}.{field} (--columns {field}={named[0]})"
        )
    return named[0] if named else None


def plain_name(name: str) -> str:
    """Return a name in small letters, with one underscore for whatever stands between its words."""
    return re.sub(r"[\W_]+", "_", name.strip().casefold()).strip("_")


def _missing(source: str, found: list[str], missing: list[str]) -> str:
    usual = "; ".join(f"{field}: {', '.join(NAMES[field])}" for field in missing)
    return (
        f"{source}: found columns {_listed(found) or 'without names'}; missing: {', '.join(missing)} (usual names are "
        f"{usual}); allowed: a column for each, named in {SETTING} where its name is another (--columns "
        f"{missing[0]}=COLUMN)"
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
    return ", ".join(name if len(name) <= 60 else f"{name[:60]}..." for name in names[:SHOWN_COLUMNS]) + more
