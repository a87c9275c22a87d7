"""Where an answer stands in its context, for data that give the text of answers alone.

The exact text is looked for first, then the text in other letter case, then with other white space. Where it occurs
several times, it is taken at its first place as whole words, or at its first place where it is never whole words.
Standard library only.
"""

import re
from dataclasses import dataclass

# How an answer was found, the first that finds any. The texts are for the user.
EXACT, OTHER_CASE, OTHER_SPACE = FOUND = ("exact", "in other letter case", "with other white space")
AMBIGUOUS, ABSENT = "at several places", "nowhere in their context"
NOT_WORD_BEFORE, NOT_WORD_AFTER = r"(?<!\w)", r"(?!\w)"


@dataclass(frozen=True)
class Place:
    """Where an answer was found.

    Attributes:
        start: in characters from 0.
        text: as the context has it, which differs from the text given in letter case and white space alone.
        how: one of `FOUND`.
        places: how many there are; the first was taken.
    """

    start: int
    text: str
    how: str
    places: int


def find_answer(text: str, context: str) -> Place | None:
    """Return where a text that is not blank stands in a context, white space around it aside; None: nowhere."""
    text = text.strip()
    exact = re.escape(text)
    loose = r"\s+".join(map(re.escape, text.split()))
    for how, pattern, flags in (
        (EXACT, exact, 0),
        (OTHER_CASE, exact, re.IGNORECASE),
        (OTHER_SPACE, loose, re.IGNORECASE),
    ):
        # An answer that begins or ends with a sign is bounded there by nothing.
        before = NOT_WORD_BEFORE if re.match(r"\w", text) else ""
        after = NOT_WORD_AFTER if re.search(r"\w\Z", text) else ""
        for bounded in (f"{before}{pattern}{after}", pattern):
            found = [match.span() for match in re.finditer(bounded, context, flags)]
            if found:
                start, end = found[0]
                return Place(start, context[start:end], how, len(found))
    return None
