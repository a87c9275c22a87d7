"""How long questions, contexts and answers are, in words and in tokens."""

from typing import TYPE_CHECKING, Any

import numpy as np

from qa_core.data.selection import select_questions

if TYPE_CHECKING:
    from qa_core.data.table import QaTable

MOST_QUESTIONS = 2000  # that are drawn and split into tokens, on as many contexts or fewer
DRAW_SEED = 13
SHARE_PERCENT = 95


def word_lines(table: "QaTable") -> list[str]:
    """Return a line each about the words of questions, contexts and answers; words are what white space separates."""
    texts = {
        "questions": table.rows.column("question").to_pylist(),
        "contexts": table.contexts.to_pylist(),
        "answers": [text for texts in table.rows.column("answer_texts").to_pylist() for text in texts],
    }
    return [
        f"{name}: {in_words(np.array([len(text.split()) for text in found]))}"
        for name, found in texts.items()
        if found
    ]


def in_tokens(table: "QaTable", tokenizer: Any) -> np.ndarray:
    """Return the tokens of each question with its whole context, special tokens aside, [questions drawn]."""
    drawn = select_questions(table, MOST_QUESTIONS, seed=DRAW_SEED)
    questions, contexts = (
        np.array([len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]])
        for texts in (drawn.rows.column("question").to_pylist(), drawn.contexts.to_pylist())
    )
    return questions + contexts[drawn.context_index]


def answers_in_tokens(table: "QaTable", tokenizer: Any) -> list[int]:
    """Return the tokens of the shortest answer of each question that has one, of the questions that are drawn."""
    drawn = select_questions(table, MOST_QUESTIONS, seed=DRAW_SEED)
    texts = [min(found, key=len) for found in drawn.rows.column("answer_texts").to_pylist() if found]
    if not texts:
        return []
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]


def in_words(lengths: np.ndarray, *, over: int | None = None, setting: str = "") -> str:
    """Return the middle, the length that 95 % do not exceed, and the longest.

    Args:
        lengths: [N], N > 0.
        over: also tell the share above this length.
        setting: the name of `over`.
    """
    middle, most = np.percentile(lengths, [50, SHARE_PERCENT], method="inverted_cdf")
    text = f"{middle} in the middle, {SHARE_PERCENT} % up to {most}, longest {lengths.max()}"
    if over is None:
        return text
    return f"{text}; {100.0 * float((lengths > over).mean()):.0f} % above {setting} = {over}"
