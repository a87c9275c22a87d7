"""One table of questions, whatever file it came from.

A `QaTable` holds questions as Arrow columns and each paragraph once. `TableBuilder` checks every question on
its way in, by `fields.py`. Reading files is in `squad.py` and `columns.py`; subsets and splits are in `selection.py`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from qa_core.data.fields import BadExample, Fields, Raw, TextAlone, shown
from qa_core.data.placing import ABSENT, AMBIGUOUS, find_answer
from qa_core.data.reading import Reading
from qa_core.errors import DataError
from qa_core.schema import Answer, Example

SHOWN_MALFORMED = 3  # refusals that are kept as examples
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


@dataclass(frozen=True, eq=False)
class QaTable:
    """Questions on paragraphs, in a fixed order.

    Args:
        rows: one row per question, columns as in `SCHEMA`; no answers means unanswerable.
        contexts: the distinct paragraphs in order of first use; `context_index` points into it.
        source: where it came from, for messages and records.
        skipped: questions that were dropped as malformed while reading.
        skipped_answers: malformed gold answers that were dropped from questions with others.
        reading: how the source was understood; of a part of a table, that of the whole.
    """

    rows: pa.Table
    contexts: pa.Array
    source: str
    skipped: int = 0
    skipped_answers: int = 0
    reading: Reading = field(default_factory=Reading)

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
        contexts = self.contexts.take(pa.array(used[order]))
        return replace(self, rows=rows, contexts=contexts)

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
    """Collects checked questions.

    Args:
        source: its name in messages and records.
        skip_bad_examples: what `refuse` does with a malformed question. Malformed gold answers of a question that has
            others are then dropped alone.
    """

    def __init__(self, source: str, *, skip_bad_examples: bool = False) -> None:
        self.fields = Fields(source)
        self.reading = Reading()  # what the reader knows; completed by `build`
        self.skipped = 0
        self._skips = skip_bad_examples
        self._malformed: list[str] = []
        self._found: Counter[str] = Counter()
        self._skipped_answers = 0
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
        fields = self.fields
        if not isinstance(values, dict):
            raise fields.bad(place, values, "an object with id, question and answers", title=title)
        question_id = fields.question_id(fields.at(place, "id"), values.get("id"), title=title)
        named = {"title": title, "question_id": question_id}
        if question_id in self._places:
            allowed = f"ids that occur once; it stands at {self._places[question_id]} already"
            raise fields.bad(fields.at(place, "id"), question_id, allowed, **named)
        question = fields.text(fields.at(place, "question"), values.get("question"), **named)
        found = fields.answers(place, values, empty_is_unanswerable=empty_is_unanswerable, named=named)
        answers = self._checked_answers(place, found, context, named)
        self._places[question_id] = place
        index = self._context_index.setdefault(context, len(self._context_index))
        texts, starts = [text for text, _ in answers], [start for _, start in answers]
        for column, value in zip(
            self._columns.values(), (question_id, title, index, question, texts, starts), strict=True
        ):
            column.append(value)

    def refuse(self, error: BadExample, questions: int = 1) -> None:
        """Raise the error, or leave out and count the questions that it is about where malformed ones are skipped."""
        if not self._skips:
            raise error
        self.skipped += questions
        self._remember(error)

    def build(self) -> QaTable:
        """Return the table.

        Raises:
            DataError: no question was kept.
        """
        source = self.fields.source
        if not self._places:
            dropped = f" ({self.skipped} malformed ones were dropped)" if self.skipped else ""
            raise DataError(f"{source}: found no questions{dropped}; allowed: at least one")
        rows = pa.table(self._columns, schema=SCHEMA)
        contexts = pa.array(list(self._context_index), pa.large_string())
        reading = replace(self.reading, answers=dict(self._found), malformed=tuple(self._malformed))
        return QaTable(rows, contexts, source, self.skipped, self._skipped_answers, reading)

    def _checked_answers(
        self, place: str, answers: list[Any], context: str, named: dict[str, str]
    ) -> list[tuple[str, int]]:
        """Return (text, start) of each; where bad ones may be dropped, of the good ones if there is one."""
        good: list[tuple[str, int]] = []
        refusals: list[BadExample] = []
        for index, answer in enumerate(answers):
            try:
                good.append(
                    self._answer(f"{self.fields.at(place, 'answers')}[{index}]", answer, context, named)
                )
            except BadExample as error:
                refusals.append(error)
        if refusals and not (good and self._skips):
            raise refusals[0]
        self._skipped_answers += len(refusals)
        for refusal in refusals:
            self._remember(refusal)
        return good

    def _answer(self, place: str, answer: Any, context: str, named: dict[str, str]) -> tuple[str, int]:
        fields = self.fields
        if isinstance(answer, TextAlone):
            return self._place(place, fields.text(place, str(answer), **named), context, named)
        if not isinstance(answer, dict):
            raise fields.bad(place, answer, "an object with text and answer_start", **named)
        text = fields.text(f"{place}.text", answer.get("text"), **named)
        start = answer.get("answer_start")
        if not isinstance(start, int) or isinstance(start, bool):
            raise fields.bad(f"{place}.answer_start", start, "an integer, in characters from 0", **named)
        found = context[start : start + len(text)] if start >= 0 else ""
        if found != text:
            elsewhere = context.find(text)
            hint = f"it occurs at {elsewhere}" if elsewhere >= 0 else "it does not occur in the context"
            allowed = f"an offset where the context reads {shown(text)} ({hint})"
            raise fields.bad(
                f"{place}.answer_start", Raw(f"{start}, where it reads {shown(found)}"), allowed, **named
            )
        return text, start

    def _place(self, place: str, text: str, context: str, named: dict[str, str]) -> tuple[str, int]:
        """Return text and start of an answer in its context, and count how it was found."""
        found = find_answer(text, context)
        if found is None:
            self._found[ABSENT] += 1
            raise self.fields.bad(
                place, text, "text of the context, in any letter case and with any white space", **named
            )
        self._found[found.how] += 1
        self._found[AMBIGUOUS] += found.places > 1
        return found.text, found.start

    def _remember(self, error: BadExample) -> None:
        if len(self._malformed) < SHOWN_MALFORMED:
            self._malformed.append(str(error).removeprefix(f"{self.fields.source}: "))


def _rows(rows: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in rows.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()
