"""Answers as text: for people, as JSON, as JSON lines, and as the object that `score` reads. Writes no file."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeps.run_folder.masking import printable

if TYPE_CHECKING:
    from qa_core.scoring.decode import Candidate, Ranked

TEXT, JSON, LINES, OBJECT = "text", "json", "jsonl", "squad"
FORMATS = (TEXT, JSON, LINES, OBJECT)


def formatted(
    ranked: "Sequence[Ranked]", threshold: float | None, *, form: str, n_best: int, is_named: bool
) -> str:
    """Return all answers in a format.

    Args:
        ranked: one for each question.
        threshold: of no answer; None: the best answer always stands.
        form: text: a line for each question, and one for each further answer. json: a list of objects (`row`). jsonl:
            the same objects, one in each line. squad: one object, id to answer, "" for none.
        n_best: more than 1: all candidates are given.
        is_named: whether text begins with the question's id and a tab.
    """
    if form == OBJECT:
        return json.dumps(_texts(ranked, threshold), ensure_ascii=False, indent=1)
    if form == TEXT:
        return "".join(_lines(item, threshold, n_best=n_best, is_named=is_named) for item in ranked)
    rows = [row(item, threshold, n_best=n_best) for item in ranked]
    if form == JSON:
        return json.dumps(rows, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    return "".join(json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n" for item in rows)


def row(item: "Ranked", threshold: float | None, *, n_best: int) -> dict[str, Any]:
    """Return the answer to one question as JSON values.

    `answer` is null where there is none; then `score` is that of "no answer". Scores are in nats. `start` and `end` are
    characters of the context, null for written answers. `window` counts from 0, of `windows` that the context was cut
    into. `n_best` is there for more than one: the candidates by falling score, "no answer" not among them.
    """
    answer = item.answer(threshold)
    values: dict[str, Any] = {
        "id": item.question_id,
        "answer": None if answer is None else answer.text,
        "score": item.null_score if answer is None else answer.score,
        "start": None if answer is None else answer.start,
        "end": None if answer is None else answer.end,
        "window": None if answer is None else answer.window,
        "windows": item.windows,
        "null_score": item.null_score,
        "null_threshold": threshold,
    }
    if n_best > 1:
        values["n_best"] = [vars(candidate) for candidate in item.candidates if candidate.text]
    return values


def is_answered(item: "Ranked", threshold: float | None) -> bool:
    """Tell whether a question gets an answer other than "no answer"."""
    return item.answer(threshold) is not None


def _texts(ranked: "Sequence[Ranked]", threshold: float | None) -> dict[str, str]:
    answers = ((item.question_id, item.answer(threshold)) for item in ranked)
    return {name: "" if answer is None else answer.text for name, answer in answers}


def _lines(item: "Ranked", threshold: float | None, *, n_best: int, is_named: bool) -> str:
    answer = item.answer(threshold)
    name = f"{printable(item.question_id)}\t" if is_named else ""
    words = f"no answer (score {item.null_score:.2f})" if answer is None else _words(answer)
    lines = [f"{name}{words}"]
    if n_best > 1:
        offered = [candidate for candidate in item.candidates if candidate.text]
        lines += [f"  {place}. {_words(candidate)}" for place, candidate in enumerate(offered, start=1)]
        if answer is not None:
            lines.append(f"  no answer (score {item.null_score:.2f})")
    return "".join(f"{line}\n" for line in lines)


def _words(answer: "Candidate") -> str:
    text = printable(" ".join(answer.text.split()))
    place = "" if answer.start is None else f", characters {answer.start} to {answer.end}"
    return f"{text} (score {answer.score:.2f}{place})"
