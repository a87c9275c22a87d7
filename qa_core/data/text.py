"""Text as the official SQuAD scripts compare it."""

import re
import string
from functools import lru_cache

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII only: typographic quotes and dashes stay

REMEMBERED = (
    2**15
)  # texts: the golds of a data set come again at every rung, of every form and from every model


@lru_cache(REMEMBERED)
def normalize_answer(text: str) -> str:
    """Lower-case, delete ASCII punctuation, blank out articles, collapse white space, in this order."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())
