"""Text as the official SQuAD scripts compare it."""

import re
import string

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII only: typographic quotes and dashes stay


def normalize_answer(text: str) -> str:
    """Lower-case, delete ASCII punctuation, blank out articles, collapse white space, in this order."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())
