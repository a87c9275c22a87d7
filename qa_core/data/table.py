"""One table of questions, whatever file it came from.

A `QaTable` holds questions as Arrow columns and each paragraph once. `TableBuilder` checks every question on
its way in. Reading files is in `squad.py` and `columns.py`; subsets and splits are in `selection.py`.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from qa_core.errors import DataError
from qa_core.schema import Answer, Example

SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("title", pa.string()),
        ("context_index", pa.int32()),
        ("question", pa.string()),
        ("answer_texts", pa.list_(pa.string())),
        ("answer_starts", pa.list_(pa.int32())),
    ]
)
SHOWN_CHARACTERS = 60


class BadExample(DataError):
    """One question, paragraph or article is malformed; a reader may drop it instead of stopping."""


@dataclass(frozen=True, eq=False)
class QaTable:
    """Questions on paragraphs, in a fixed order.

    Args:
        rows: one row per question, columns as in `SCHEMA`; no answers means unanswerable.
        contexts: the distinct paragraphs in order of first use; `context_index` points into it.
        source: where it came from, for messages and records.
        skipped: questions that were dropped as malformed while reading.
    """

    rows: pa.Table
    contexts: pa.Array
    source: str
    skipped: int = 0

    def __len__(self) -> int:
        return self.rows.num_rows

    @cached_property
    def data_hash(self) -> str:
        """First 16 hex digits of a SHA-256 over every field of every question, in order."""
        contexts = [hashlib.sha256(text.encode()).hexdigest() for text in self.contexts.to_pylist()]
        digest = hashlib.sha256()
        for row in _rows(self.rows):
            values = [
                contexts[row["context_index"]] if name == "context_index" else row[name]
                for name in SCHEMA.names
            ]
            digest.update(json.dumps(values).encode() + b"\n")
        return digest.hexdigest()[:16]

    @cached_property
    def context_index(self) -> np.ndarray:
        """For each question the index of its paragraph in `contexts`, [questions] int32."""
        return self.rows.column("context_index").to_numpy()

    @property
    def question_ids(self) -> list[str]:
        """The ids, in order; they are distinct."""
        return self.rows.column("question_id").to_pylist()

    @cached_property
    def is_unanswerable(self) -> np.ndarray:
        """For each question whether it has no answer, [questions] bool."""
        answers = self.rows.column("answer_starts").combine_chunks()
        return answers.value_lengths().to_numpy() == 0

    @property
    def has_unanswerable(self) -> bool:
        """True when at least one question has no answer."""
        return bool(self.is_unanswerable.any())

    def example(self, index: int) -> Example:
        """Return one question; a negative index counts from the end."""
        position = range(len(self))[index]
        return self._example(self.rows.slice(position, 1).to_pylist()[0])

    def examples(self) -> Iterator[Example]:
        """Yield all questions in order, faster than calling `example` for each."""
        return map(self._example, _rows(self.rows))

    def take(self, indices: Sequence[int] | np.ndarray) -> "QaTable":
        """Return the questions at these rows, in the order given; paragraphs no longer used are left out."""
        rows = self.rows.take(pa.array(np.asarray(indices, dtype=np.int64)))
        used, first_use, inverse = np.unique(
            rows.column("context_index").to_numpy(), return_index=True, return_inverse=True
        )
        order = np.argsort(first_use)  # old contexts in order of first use
        position = np.empty(len(used), dtype=np.int32)
        position[order] = np.arange(len(used), dtype=np.int32)
        column = rows.schema.get_field_index("context_index")
        rows = rows.set_column(column, SCHEMA.field("context_index"), pa.array(position[inverse]))
        return QaTable(rows, self.contexts.take(pa.array(used[order])), self.source, self.skipped)

    def _example(self, row: dict[str, Any]) -> Example:
        answers = zip(row["answer_texts"], row["answer_starts"], strict=True)
        return Example(
            question_id=row["question_id"],
            question=row["question"],
            context=self.contexts[row["context_index"]].as_py(),
            answers=tuple(Answer(text, start) for text, start in answers),
            title=row["title"],
        )


class TableBuilder:
    """Collects checked questions; a reader that drops those refused counts them in `skipped`."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.skipped = 0
        self._columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        self._context_index: dict[str, int] = {}
        self._places: dict[str, str] = {}

    def add_question(
        self, place: str, values: Any, *, context: str, title: str, empty_is_unanswerable: bool
    ) -> None:
        """Check one question in the JSON layout and keep it.

        Args:
            place: where it stands, for messages, such as `data[3].paragraphs[0].qas[7]`.
            values: a mapping with `id`, `question`, `answers` and perhaps `is_impossible`.
            context: the paragraph, checked already.
            title: the article's title, "" when there is none.
            empty_is_unanswerable: whether an empty list of answers is allowed without `is_impossible`.

        Raises:
            BadExample: names file, place, question and field, what was found and what is allowed.
        """
        if not isinstance(values, dict):
            raise self.bad(place, values, "an object with id, question and answers", title=title)
        question_id = self._question_id(place, values, title)
        named = {"title": title, "question_id": question_id}
        if question_id in self._places:
            allowed = f"ids that occur once; it stands at {self._places[question_id]} already"
            raise self.bad(f"{place}.id", question_id, allowed, **named)
        question = self.text(f"{place}.question", values.get("question"), **named)
        answers = self._answers(
            place, values, context, empty_is_unanswerable=empty_is_unanswerable, named=named
        )
        self._places[question_id] = place
        index = self._context_index.setdefault(context, len(self._context_index))
        texts, starts = [text for text, _ in answers], [start for _, start in answers]
        for column, value in zip(
            self._columns.values(), (question_id, title, index, question, texts, starts), strict=True
        ):
            column.append(value)

    def build(self) -> QaTable:
        """Return the table.

        Raises:
            DataError: no question was kept.
        """
        if not self._places:
            dropped = f" ({self.skipped} malformed ones were dropped)" if self.skipped else ""
            raise DataError(f"{self.source}: found no questions{dropped}; allowed: at least one")
        rows = pa.table(self._columns, schema=SCHEMA)
        return QaTable(
            rows, pa.array(list(self._context_index), pa.large_string()), self.source, self.skipped
        )

    def text(self, place: str, value: Any, *, title: str = "", question_id: str = "") -> str:
        """Return a text field, refusing other types, blank text and characters that UTF-8 cannot hold."""
        if not isinstance(value, str) or not value.strip():
            raise self.bad(place, value, "text that is not blank", title=title, question_id=question_id)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self.bad(
                    place, value, "no lone surrogates", title=title, question_id=question_id
                ) from None
        return value

    def bad(
        self, place: str, found: Any, allowed: str, *, title: str = "", question_id: str = ""
    ) -> BadExample:
        """Word the refusal of one value."""
        names = [f"article {title!r}"] * bool(title) + [f"question {question_id!r}"] * bool(question_id)
        named = f" ({', '.join(names)})" if names else ""
        return BadExample(f"{self.source}: {place}{named}: found {shown(found)}; allowed: {allowed}")

    def _question_id(self, place: str, values: dict[str, Any], title: str) -> str:
        value = values.get("id")
        if isinstance(value, int) and not isinstance(value, bool):  # some data sets number their questions
            return str(value)
        return self.text(f"{place}.id", value, title=title)

    def _answers(
        self,
        place: str,
        values: dict[str, Any],
        context: str,
        *,
        empty_is_unanswerable: bool,
        named: dict[str, str],
    ) -> list[tuple[str, int]]:
        impossible = values.get("is_impossible")
        if impossible is not None and not isinstance(impossible, bool):
            raise self.bad(f"{place}.is_impossible", impossible, "true or false", **named)
        answers = values.get("answers", [] if impossible else None)
        if not isinstance(answers, list):
            raise self.bad(
                f"{place}.answers", answers, "a list of objects with text and answer_start", **named
            )
        if impossible and answers:
            raise self.bad(f"{place}.answers", answers, "no answers where is_impossible is true", **named)
        if not answers and impossible is None and not empty_is_unanswerable:
            allowed = 'at least one answer, or "is_impossible": true, or a file whose version is v2.0'
            raise self.bad(f"{place}.answers", answers, allowed, **named)
        return [
            self._answer(f"{place}.answers[{index}]", answer, context, named)
            for index, answer in enumerate(answers)
        ]

    def _answer(self, place: str, answer: Any, context: str, named: dict[str, str]) -> tuple[str, int]:
        if not isinstance(answer, dict):
            raise self.bad(place, answer, "an object with text and answer_start", **named)
        text = self.text(f"{place}.text", answer.get("text"), **named)
        start = answer.get("answer_start")
        if not isinstance(start, int) or isinstance(start, bool):
            raise self.bad(f"{place}.answer_start", start, "an integer, in characters from 0", **named)
        found = context[start : start + len(text)] if start >= 0 else ""
        if found != text:
            elsewhere = context.find(text)
            hint = f"it occurs at {elsewhere}" if elsewhere >= 0 else "it does not occur in the context"
            allowed = f"an offset where the context reads {shown(text)} ({hint})"
            raise self.bad(
                f"{place}.answer_start", _Raw(f"{start}, where it reads {shown(found)}"), allowed, **named
            )
        return text, start


class _Raw(str):
    """Text that `shown` leaves as it is."""


def shown(value: Any) -> str:
    """Return a value for a message, cut to a readable length; a missing one as "nothing"."""
    if value is None:
        return "nothing"
    if isinstance(value, _Raw):
        return str(value)
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _rows(rows: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in rows.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()
