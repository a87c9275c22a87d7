"""Where questions stand in JSON: articles with paragraphs (SQuAD), or one row for each question.

    {"version": ..., "data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers"}]}]}]}
    {"version": ..., "data": [{"id", "title", "context", "question", "answers"}]}
    [{"id", "title", "context", "question", "answers"}]

The second is what the examples of transformers read and write; the third may also stand as JSON lines. The keys of a
row may have other names (`mapping.py`). Fields are checked in `fields.py`. Standard library only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qa_core.data.fields import BadExample, Fields, shown
from qa_core.data.mapping import NAMES, plain_name
from qa_core.errors import DataError

PARAGRAPHS = "paragraphs"


@dataclass(frozen=True)
class FoundQuestion:
    """One question, not yet looked at, and its paragraph; title and context are "" where only golds are wanted."""

    place: str
    title: str
    context: str
    values: Any


def articles_of(document: Any, source: str) -> list[tuple[str, Any]]:
    """Return articles or rows of a document with their places; raises DataError where it holds no list of them."""
    items, name = document, ""
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        items, name = document["data"], "data"
    elif not isinstance(document, list) or not any(isinstance(item, dict) for item in document):
        keys = ", ".join(map(repr, document)) or "no keys" if isinstance(document, dict) else ""
        found = f"an object with {keys}" if isinstance(document, dict) else shown(document)
        raise DataError(
            f"{source}: found {found}; allowed: an object with a list `data`, or a list with an object for each "
            "question"
        )
    return [(f"{name}[{index}]", item) for index, item in enumerate(items)]


def row_names(items: Iterable[Any], given: Mapping[str, str]) -> list[str]:
    """Return the keys of all rows among the items, in order of first use; [] where there are articles alone.

    Items without paragraphs are rows where one of them has a question, by the name of a key. Where there are no
    paragraphs at all, they are rows unless they have a title and nothing else.

    Args:
        given: field -> key, as the user names them.
    """
    names: dict[str, None] = {}
    has_articles = False
    for item in items:
        if is_row(item):
            names.update(dict.fromkeys(item))
        else:
            has_articles = has_articles or isinstance(item, dict)
    plain = {plain_name(name) for name in names}
    has_questions = given.get("question") in names or not plain.isdisjoint(NAMES["question"])
    is_else = not has_articles and not plain <= {"title"}
    return list(names) if has_questions or is_else else []


def is_row(item: Any) -> bool:
    """Tell whether an item is a question of its own, in a document that has rows."""
    return isinstance(item, dict) and PARAGRAPHS not in item


def questions_of(
    place: str,
    article: Any,
    fields: Fields,
    *,
    on_bad: Callable[[BadExample, int], None],
    golds_only: bool = False,
) -> Iterator[FoundQuestion]:
    """Yield the questions of an article in order.

    Args:
        place: where it stands.
        article: with paragraphs.
        fields: checks titles and contexts.
        on_bad: called with what is wrong with an article or paragraph and the number of questions in it, one where they
            cannot be counted; it raises, or they are left out.
        golds_only: titles and contexts need not be there and are not looked at.
    """
    try:
        title, paragraphs = _article(fields, place, article, golds_only)
    except BadExample as error:
        on_bad(error, 1)
        return
    for number, paragraph in enumerate(paragraphs):
        here = f"{place}.paragraphs[{number}]"
        try:
            context, questions = _paragraph(fields, here, paragraph, title=title, golds_only=golds_only)
        except BadExample as error:
            on_bad(error, _count(paragraph))
            continue
        for order, values in enumerate(questions):
            yield FoundQuestion(f"{here}.qas[{order}]", title, context, values)


def _article(fields: Fields, place: str, article: Any, golds_only: bool) -> tuple[str, list[Any]]:
    if not isinstance(article, dict):
        raise fields.bad(place, article, "an object with title and paragraphs")
    title = "" if golds_only else fields.title(f"{place}.title", article.get("title") or "")
    paragraphs = article.get(PARAGRAPHS)
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
