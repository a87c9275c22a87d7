"""Questions that come as rows, one each, whatever file or table they stand in: JSON, CSV, Parquet, a hub data set.

A `RowReader` takes each row by the column map of its source and gives it to the builder of the table. A row's answer is
in the layout of SQuAD or of the hub, or text alone, or several texts, with or without their places. Which columns
there are is said by `mapping.py`; what is right in a field by `fields.py`.
"""

import ast
import json
from collections.abc import Mapping
from typing import Any

from qa_core.data.fields import TextAlone
from qa_core.data.mapping import ColumnMap
from qa_core.data.reading import Reading
from qa_core.data.table import TableBuilder

BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False, "": None}
LISTS = ("[", "{")  # begin a cell that may hold the answers as JSON, or as Python prints them
MOST_LIST_CHARACTERS = 2**20  # of such a cell, and of one with places


class RowReader:
    """Gives rows to the builder of a table.

    Args:
        builder: takes the questions; its messages then name the columns.
        column_map: of the source.
        is_text: every value is text, as in CSV: numbers, truth values and lists of answers are read from it.
        needs_answers: False leaves the answers alone: all questions have none.
        takes_null: whether an answer that is null means that there is none; else it is refused.
    """

    def __init__(
        self,
        builder: TableBuilder,
        column_map: ColumnMap,
        *,
        is_text: bool = False,
        needs_answers: bool = True,
        takes_null: bool = True,
    ) -> None:
        self._builder = builder
        self._columns = column_map.columns
        self._is_text = is_text
        self._needs_answers = needs_answers
        self._takes_null = takes_null
        self._count = 0
        named = {field: name for field, name in self._columns.items() if field != "answer"}
        builder.fields.names = {**named, "answers": self._columns.get("answer", "answers")}

    def add(self, place: str, row: Mapping[str, Any]) -> None:
        """Check one row and keep its question; raises BadExample."""
        number = self._count
        self._count += 1
        fields = self._builder.fields
        values = {
            field: None if _is_nan(row[name]) else row[name]
            for field, name in self._columns.items()
            if name in row
        }
        question_id = values.get("id") if "id" in self._columns else str(number)
        named = {"question_id": question_id} if isinstance(question_id, str) and question_id.strip() else {}
        title = fields.title(fields.at(place, "title"), values.get("title"), **named)
        context = fields.text(fields.at(place, "context"), values.get("context"), **named)
        question = {
            "id": question_id,
            "question": values.get("question"),
            **self._answers(place, values, named),
        }
        self._builder.add_question(place, question, context=context, title=title, empty_is_unanswerable=True)

    def skip(self) -> None:
        """Count a row that could not be read, so that those after it keep their numbers."""
        self._count += 1

    def _answers(self, place: str, values: Mapping[str, Any], named: dict[str, str]) -> dict[str, Any]:
        """Return `answers` and perhaps `is_impossible`, as `Fields.answers` takes them."""
        if not self._needs_answers:
            return {"answers": [], "is_impossible": True}
        impossible = values.get("is_impossible")
        if self._is_text and isinstance(impossible, str):
            impossible = BOOLEANS.get(impossible.strip().lower(), impossible)
        found: dict[str, Any] = {"is_impossible": impossible}
        if "answer" in values:
            answer, start = values["answer"], values.get("start")
            if self._is_text:
                answer, start = _from_text(answer), _number(start)
            found["answers"] = self._placed(place, answer, start, named)
        return found

    def _placed(self, place: str, answer: Any, start: Any, named: dict[str, str]) -> Any:
        """Put an answer that is text together with its place; what is in another layout stays as it is."""
        if (answer is None and self._takes_null) or (isinstance(answer, str) and not answer.strip()):
            return []
        texts = [answer] if isinstance(answer, str) else answer
        if not isinstance(texts, list) or not all(text is None or isinstance(text, str) for text in texts):
            return answer
        starts = start if isinstance(start, list) else [start] * len(texts) if len(texts) == 1 else None
        if (starts is None and start is not None) or (starts is not None and len(starts) != len(texts)):
            fields = self._builder.fields
            allowed = f"a list of {len(texts)}, one for each answer"
            raise fields.bad(fields.at(place, "start"), start, allowed, **named)
        return [
            TextAlone(text)
            if found is None and isinstance(text, str)
            else {"text": text, "answer_start": _whole(found)}
            for text, found in zip(texts, starts or [None] * len(texts), strict=True)
        ]


def reading_of(layout: str, column_map: ColumnMap) -> Reading:
    """Return how a source of rows was understood, before any row is read."""
    columns = dict(column_map.columns)
    return Reading(layout, columns, column_map.guessed, column_map.unused, is_numbered="id" not in columns)


def _is_nan(value: Any) -> bool:
    """Tell whether a value is the number that pandas writes where there is none."""
    return isinstance(value, float) and value != value


def _whole(value: Any) -> Any:
    """Return 29.0 as 29: a column of whole numbers with gaps becomes one of fractions."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: Any) -> Any:
    """Return the number, or list of numbers, that a cell holds; None for an empty one, other text as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text or text.lower() == "nan":
        return None
    if len(text) > MOST_LIST_CHARACTERS:
        return value
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, int | float | list) and not isinstance(found, bool) else value


def _from_text(value: Any) -> Any:
    """Return the list or the object of answers that a cell holds, written as JSON or as Python does; else its text."""
    if (
        not isinstance(value, str)
        or not value.lstrip().startswith(LISTS)
        or len(value) > MOST_LIST_CHARACTERS
    ):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, Mapping) and "text" in found:
            return found
        if isinstance(found, list) and all(isinstance(item, str | Mapping) for item in found):
            return found
    return value
