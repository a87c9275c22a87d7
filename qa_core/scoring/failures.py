"""How an answer is wrong: exactly one outcome for each answer to a question.

Made for the probes (`probes.py`); the scores are `scores.py`'s and are not changed by anything here. Two kinds
of failure of older readers have no name, because this project's decoder cannot make them: a span that ends
before it starts (`reversed`), since only pairs in order are weighed, and text that was put together from tokens
and differs from the passage (`detokenisation`), since answers are cut out of it by offsets. What a generating
head writes and the passage does not say is `not_in_passage`. Standard library only.
"""

import re
from collections.abc import Iterable, Sequence

from qa_core.data.text import normalize_answer
from qa_core.schema import Example
from qa_core.scoring.scores import question_scores

# In the order in which `outcome` tries them; the last two columns of a report are the twins'.
OUTCOMES = (
    "correct",  # the exact match is 1
    "all_parts",  # of a question that asks for several spans: the answer holds them all
    "null",  # nothing, where there is an answer
    "over_long",  # it holds a whole gold answer and more
    "partial",  # a piece of a gold answer, or an overlap with one
    "not_in_passage",  # the passage does not say it
    "wrong_type",  # a date for a name, a name for a number, ...
    "wrong_sentence",  # the right type, from a sentence without gold answer
    "wrong_span",  # the right type and sentence
    "answered",  # something, where there is no answer
)
TYPES = ("time", "number", "name", "phrase")
SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*\s+")
LEADING_ARTICLE = re.compile(r"(a|an|the)\s+", re.IGNORECASE)
TIME = re.compile(
    r"(?<![\d.,:])(1\d|20)\d\d(?![\d:]|[.,]\d)"  # a year: a bare number from 1000 to 2099
    r"|\d:\d\d"
    r"|\b(january|february|april|june|july|august|september|october|november|december)\b"
    r"|\b(?-i:March|May)\b|\d\s+(march|may)\b"
    r"|\b(mon|tues|wednes|thurs|fri|satur|sun)day\b"
    r"|\b(noon|midnight|dawn|dusk|morning|evening|easter|christmas|century)\b|\b(?-i:BC|AD)\b"
    r"|\b(summer|autumn|winter)\b|\b(last|next|this) spring\b|\b(day|week|month|year) of\b"
    r"|\b(half|quarter) past\b",
    re.IGNORECASE,
)
NUMBER = re.compile(
    r"\d|\b(two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(thir|four|fif|six|seven|eigh|nine)teen"
    r"|(twen|thir|for|fif|six|seven|eigh|nine)ty|dozen|hundred|thousand|million|billion)\b",
    re.IGNORECASE,
)


def outcome(example: Example, text: str, *, needs_all: bool = False) -> str:
    """Return the one of `OUTCOMES` that an answer is, the first that fits.

    "Holds" and "a piece of" compare words after the scorer's normalisation, in one unbroken row. Where the
    answer's text stands several times in the passage, the place that speaks best for it counts: an answer is
    its text, as for the scorer.

    Args:
        example: the question, with its passage and golds; none means that it has no answer.
        text: the answer under the no-answer threshold, "" for none.
        needs_all: the golds are parts that are all asked for, not alternatives.
    """
    if question_scores([gold.text for gold in example.answers], text)[0]:
        return "correct"
    if example.is_impossible:
        return "answered"
    words = normalize_answer(text).split()
    golds = [normalize_answer(gold.text).split() for gold in example.answers]
    if needs_all and all(_holds(words, gold) for gold in golds):
        return "all_parts"
    if not words:
        return "null"
    if any(_holds(words, gold) for gold in golds):
        return "over_long"
    spans = [(gold.start, gold.start + len(gold.text)) for gold in example.answers]
    places = _places(example.context, text)
    if any(_holds(gold, words) for gold in golds) or any(_overlap(place, spans) for place in places):
        return "partial"
    if not places:
        return "not_in_passage"
    if answer_type(text) not in {answer_type(gold.text) for gold in example.answers}:
        return "wrong_type"
    is_near = any(_overlap(place, _sentences_of(example.context, spans)) for place in places)
    return "wrong_span" if is_near else "wrong_sentence"


def answer_type(text: str) -> str:
    """Return the one of `TYPES` that a text is, by its own words alone.

    time: a year (a bare number from 1000 to 2099), a time of the clock, or a word of the calendar or of the
    day. number: else, if it has a digit or a word for a number from two on. name: else, if more than half of
    its words, without a leading article, begin with an upper-case letter. phrase: all else. Coarse on purpose:
    a length of time is a number, and a capital at the start of a sentence counts like any other.
    """
    if TIME.search(text):
        return "time"
    if NUMBER.search(text):
        return "number"
    words = LEADING_ARTICLE.sub("", text.strip(), count=1).split()
    capitals = sum(word.lstrip("\"'“‘([")[:1].isupper() for word in words)
    return "name" if 2 * capitals > len(words) else "phrase"


def sentences(context: str) -> list[tuple[int, int]]:
    """Return the (start, end) of each sentence: up to a full stop, question or exclamation mark, closing quotes and
    brackets, and white space. An abbreviation before a space ends one too.
    """
    starts = [0, *(match.end() for match in SENTENCE_END.finditer(context) if match.end() < len(context))]
    return list(zip(starts, [*starts[1:], len(context)], strict=True))


def _sentences_of(context: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [sentence for sentence in sentences(context) if _overlap(sentence, spans)]


def _holds(words: Sequence[str], part: Sequence[str]) -> bool:
    """Tell whether the part, which has at least one word, is an unbroken row of the words."""
    width = len(part)
    return width > 0 and any(words[at : at + width] == part for at in range(len(words) - width + 1))


def _places(context: str, text: str) -> list[tuple[int, int]]:
    """Return where the text stands in the passage, case ignored: as whole words, else within words."""
    wanted = re.escape(text.strip())
    for pattern in (rf"(?<!\w){wanted}(?!\w)", wanted):
        found = [match.span() for match in re.finditer(pattern, context, re.IGNORECASE)]
        if found:
            return found
    return []


def _overlap(span: tuple[int, int], others: Iterable[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)
