"""Where questions stand in a JSON document: articles with paragraphs (SQuAD), or one row for each question.

    {"version": ..., "data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers"}]}]}]}
    {"version": ..., "data": [{"id", "title", "context", "question", "answers"}]}

The second is what the examples of transformers read and write. Fields are checked in `fields.py`. Standard library
only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qa_core.data.fields import BadExample, Fields, shown
from qa_core.errors import DataError

ROWS_HINT = 'such a list is read under the key "data": {"data": [...]}'


@dataclass(frozen=True)
class FoundQuestion:
    """One question, not yet looked at, and its paragraph; title and context are "" where only golds are wanted."""

    place: str
    title: str
    context: str
    values: Any


def articles_of(document: Any, source: str) -> list[Any]:
    """Return the list `data` of a document; raises DataError, with a hint, where there is none."""
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        return document["data"]
    keys = ", ".join(map(repr, document)) or "no keys" if isinstance(document, dict) else ""
    found = f"an object with {keys}" if isinstance(document, dict) else shown(document)
    is_rows = isinstance(document, list) and any(isinstance(item, dict) for item in document)
    hint = f" ({ROWS_HINT})" if is_rows else ""
    raise DataError(f"{source}: found {found}; allowed: an object with a list `data`{hint}")


def questions_of(
    articles: list[Any],
    fields: Fields,
    *,
    on_bad: Callable[[BadExample, int], None],
    golds_only: bool = False,
) -> Iterator[FoundQuestion]:
    """Yield the questions of a document in order.

    Args:
        articles: the list `data`.
        fields: checks titles and contexts.
        on_bad: called with what is wrong with an article or paragraph and the number of questions in it, one where they
            cannot be counted; it raises, or they are left out.
        golds_only: titles and contexts need not be there and are not looked at.
    """
    for index, article in enumerate(articles):
        place = f"data[{index}]"
        try:
            is_row = isinstance(article, dict) and "paragraphs" not in article and "question" in article
            if is_row:
                yield _row(fields, place, article, golds_only)
                continue
            title, paragraphs = _article(fields, place, article, golds_only)
        except BadExample as error:
            on_bad(error, 1)
            continue
        for number, paragraph in enumerate(paragraphs):
            here = f"{place}.paragraphs[{number}]"
            try:
                context, questions = _paragraph(fields, here, paragraph, title=title, golds_only=golds_only)
            except BadExample as error:
                on_bad(error, _count(paragraph))
                continue
            for order, values in enumerate(questions):
                yield FoundQuestion(f"{here}.qas[{order}]", title, context, values)


def _row(fields: Fields, place: str, row: dict[str, Any], golds_only: bool) -> FoundQuestion:
    if golds_only:
        return FoundQuestion(place, "", "", row)
    title = fields.title(f"{place}.title", row.get("title"))
    context = fields.text(f"{place}.context", row.get("context"), title=title)
    return FoundQuestion(place, title, context, row)


def _article(fields: Fields, place: str, article: Any, golds_only: bool) -> tuple[str, list[Any]]:
    if not isinstance(article, dict):
        raise fields.bad(place, article, "an object with title and paragraphs")
    title = "" if golds_only else fields.title(f"{place}.title", article.get("title") or "")
    paragraphs = article.get("paragraphs")
    if not isinstance(paragraphs, list):
        allowed = "a list of objects with context and qas"
        raise fields.bad(f"{place}.paragraphs", paragraphs, allowed, title=title)
    return title, paragraphs


def _paragraph(
    fields: Fields, place: str, paragraph: Any, *, title: str, golds_only: bool
) -> tuple[str, list[Any]]:
    if not isinstance(paragraph, dict):
        raise fields.bad(place, paragraph, "an object with context and qas", title=title)
    context = "" if golds_only else fields.text(f"{place}.context", paragraph.get("context"), title=title)
    questions = paragraph.get("qas")
    if not isinstance(questions, list):
        raise fields.bad(f"{place}.qas", questions, "a list of questions", title=title)
    return context, questions


def _count(paragraph: Any) -> int:
    questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
    return len(questions) if isinstance(questions, list) and questions else 1
