"""The fields of one question as data files write them, checked alike for training, evaluation and scoring.

What is refused here is refused by every command, and what is read here by one is read by all; offsets, which scoring
does not need, are checked in `table.py`. Where questions stand in a file is in `articles.py`.
"""

from collections.abc import Mapping
from typing import Any

from qa_core.errors import DataError
from qa_core.values import shown as cut

ANSWER_LAYOUTS = "a list of objects with text and answer_start, or two lists of equal length with these names"
ROW_LAYOUTS = f"{ANSWER_LAYOUTS}; in rows also text or a list of texts"


class BadExample(DataError):
    """One question, paragraph or article is malformed; a reader may drop it instead of stopping."""


class TextAlone(str):
    """A gold answer of which the source gives the text and not the place."""


class Fields:
    """Checks fields of a source; each refusal is a `BadExample` that names it, the place and the question.

    Places are such as `data[3].paragraphs[0].qas[7]`; `named` may hold `title` and `question_id`. `names` says what
    fields are called in a source of rows: its own columns.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.names: Mapping[str, str] = {}

    def at(self, place: str, field: str) -> str:
        """Return the place of a field of a question, as the source names it."""
        return f"{place}.{self.names.get(field, field)}"

    def bad(
        self, place: str, found: Any, allowed: str, *, title: str = "", question_id: str = ""
    ) -> BadExample:
        """Word the refusal of one value."""
        names = [f"article {title!r}"] * bool(title) + [f"question {question_id!r}"] * bool(question_id)
        named = f" ({', '.join(names)})" if names else ""
        return BadExample(f"{self.source}: {place}{named}: found {shown(found)}; allowed: {allowed}")

    def text(self, place: str, value: Any, **named: str) -> str:
        """Return a text field, refusing other types, blank text and characters that UTF-8 cannot hold."""
        if not isinstance(value, str) or not value.strip():
            raise self.bad(place, value, "text that is not blank", **named)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self.bad(place, value, "no lone surrogates", **named) from None
        return value

    def title(self, place: str, value: Any, **named: str) -> str:
        """Return an article's title, "" where there is none."""
        if value is None or value == "":
            return ""
        if not isinstance(value, str):
            raise self.bad(place, value, "text", **named)
        return self.text(place, value, **named)

    def question_id(self, place: str, value: Any, **named: str) -> str:
        """Return the id of a question; one that is a whole number as text."""
        if isinstance(value, int) and not isinstance(value, bool):  # some data sets number their questions
            return str(value)
        return self.text(place, value, **named)

    def answers(
        self, place: str, values: Mapping[str, Any], *, empty_is_unanswerable: bool, named: Mapping[str, str]
    ) -> list[Any]:
        """Return the gold answers of a question, not yet looked at one by one; none: it is unanswerable.

        They are a list of objects, or the hub's object of two lists, in which no answer needs no `is_impossible`.
        Beside `is_impossible` an answer with the text "" says the same as none.

        Args:
            place: of the question.
            values: the question's `answers` and perhaps `is_impossible`.
            empty_is_unanswerable: whether an empty list is allowed without `is_impossible`.
        """
        impossible = values.get("is_impossible")
        if impossible is not None and not isinstance(impossible, bool):
            raise self.bad(self.at(place, "is_impossible"), impossible, "true or false", **named)
        answers, here = values.get("answers", [] if impossible else None), self.at(place, "answers")
        if isinstance(answers, Mapping):
            answers = self._as_objects(here, answers, named)
            empty_is_unanswerable = True
        if not isinstance(answers, list):
            raise self.bad(here, answers, ROW_LAYOUTS if self.names else ANSWER_LAYOUTS, **named)
        if impossible:
            answers = [answer for answer in answers if not _says_nothing(answer)]
        if impossible and answers:
            raise self.bad(here, answers, "no answers where is_impossible is true", **named)
        if not answers and impossible is None and not empty_is_unanswerable:
            allowed = 'at least one answer, or "is_impossible": true, or a file whose version is v2.0'
            raise self.bad(here, answers, allowed, **named)
        return answers

    def _as_objects(self, place: str, value: Mapping[str, Any], named: Mapping[str, str]) -> list[Any]:
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise self.bad(place, value, ANSWER_LAYOUTS, **named)
        return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]


def _says_nothing(answer: Any) -> bool:
    return isinstance(answer, Mapping) and answer.get("text") == ""


class Raw(str):
    """Text that `shown` leaves as it is."""


def shown(value: Any) -> str:
    """Return a value for a message, cut to a readable length; a missing one as "nothing"."""
    if value is None:
        return "nothing"
    if isinstance(value, Raw):
        return str(value)
    return cut(value)
