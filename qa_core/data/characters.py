"""Where an answer begins and ends among characters: what is trimmed from its ends, and what belongs to its last one.

White space and invisible format characters (U+FEFF, U+200B, U+200E) at the ends are no part of an answer. Combining
marks (Unicode category M, variation selectors among them), the vowels and finals of decomposed Hangul and the tags of
an emoji flag belong to the character before them, also where a tokenizer drops them and no token's offsets hold them.
A joiner right behind a virama changes how a syllable is written and stays (RFC 5892, appendix A.1 and A.2).
"""

import unicodedata
from functools import cache

import numpy as np

SPACE, FORMAT, JOINER, MARK, VIRAMA = 1, 2, 3, 4, 5  # kinds of characters; 0: all others
JOINERS = (0x200C, 0x200D)
VIRAMA_CLASS = 9  # canonical combining class
TAGS = range(0xE0020, 0xE0080)
HANGUL_PARTS = (range(0x1160, 0x1200), range(0xD7B0, 0xD7FC))
# Category Cf, and yet seen: signs that stand before or around the digits after them (Prepended_Concatenation_Mark).
VISIBLE = (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD)
# Planes 0 and 1, then U+E0000 to U+E0FFF: elsewhere no character is of a kind.
LAST, SPECIAL, SPECIAL_PLACES = 0x1FFFF, 0xE0000, 0x1000


def bare(text: str) -> str:
    """Return the text without white space and format characters at its ends."""
    start, end = bare_bounds(text)
    return text[start:end]


def bare_bounds(text: str) -> tuple[int, int]:
    """Return where the bare text starts and ends, in characters; (0, 0) where nothing is left."""
    if text.isascii():
        start = len(text) - len(text.lstrip())
        end = len(text.rstrip())
        return (start, end) if end > start else (0, 0)
    kept = np.flatnonzero(~_is_trimmed(_kinds(text)))
    return (int(kept[0]), int(kept[-1]) + 1) if len(kept) else (0, 0)


def bare_offsets(text: str, offsets: np.ndarray) -> np.ndarray:
    """Move a tokenizer's offsets, [tokens, 2] int32, to where answers may begin and end.

    Starts and ends go inwards past what is trimmed; ends then go outwards over marks that no token owns. A token
    without a character of its own becomes empty. Rising offsets stay rising.
    """
    kinds = _kinds(text)
    places = np.arange(len(kinds) + 1, dtype=np.int32)
    is_trimmed = _is_trimmed(kinds)
    # The nearest character at or after each place, and the end of the nearest one before it, that stays.
    following = np.minimum.accumulate(
        np.append(np.where(is_trimmed, len(kinds), places[:-1]), len(kinds))[::-1]
    )[::-1]
    preceding = np.maximum.accumulate(np.insert(np.where(is_trimmed, 0, places[1:]), 0, 0))
    starts = np.minimum(following[offsets[:, 0]], offsets[:, 1])
    ends = np.maximum(preceding[offsets[:, 1]], starts)
    if not text.isascii():
        reach = _reach(kinds, offsets)
        is_empty = starts == ends
        ends = reach[ends]
        starts = np.where(is_empty, ends, starts)
    return np.stack((starts, ends), axis=1).astype(np.int32)


def _reach(kinds: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return for each place the end of the unowned marks behind it; format characters may lie between them."""
    count = len(kinds)
    change = np.zeros(count + 1, np.int64)
    np.add.at(change, offsets[:, 0], 1)
    np.add.at(change, offsets[:, 1], -1)
    is_free = (np.cumsum(change)[:-1] == 0) & (kinds >= FORMAT)
    places = np.arange(count + 1)
    is_mark = is_free & (kinds >= MARK)
    last_mark_end = np.maximum.accumulate(np.insert(np.where(is_mark, places[1:], 0), 0, 0))
    run_end = np.minimum.accumulate(np.append(np.where(is_free, count, places[:-1]), count)[::-1])[::-1]
    return np.maximum(places, last_mark_end[run_end])


def _is_trimmed(kinds: np.ndarray) -> np.ndarray:
    return (kinds >= SPACE) & (kinds <= JOINER)


def _kinds(text: str) -> np.ndarray:
    """Return the kind of each character, [characters] uint8; a joiner behind a virama counts as a mark."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    places = np.where(
        (codes >= SPECIAL) & (codes < SPECIAL + SPECIAL_PLACES),
        codes - np.uint32(SPECIAL - LAST - 1),
        np.minimum(codes, LAST),
    )
    kinds = _kind_table()[places]
    if not text.isascii():
        kinds[1:][(kinds[1:] == JOINER) & (kinds[:-1] == VIRAMA)] = MARK
    return kinds


@cache
def _kind_table() -> np.ndarray:
    """Return the kind of each code up to `LAST` and, behind them, of those from `SPECIAL`."""
    table = np.zeros(LAST + 1 + SPECIAL_PLACES, np.uint8)
    for place, code in enumerate([*range(LAST + 1), *range(SPECIAL, SPECIAL + SPECIAL_PLACES)]):
        character = chr(code)
        category = unicodedata.category(character)
        if category in ("Mn", "Mc", "Me"):
            table[place] = VIRAMA if unicodedata.combining(character) == VIRAMA_CLASS else MARK
        elif category == "Cf":
            table[place] = FORMAT
        elif category in ("Zs", "Zl", "Zp", "Cc") and character.isspace():
            table[place] = SPACE
    table[list(VISIBLE)] = 0
    table[list(JOINERS)] = JOINER
    for part in HANGUL_PARTS:
        table[part] = MARK
    table[[code - SPECIAL + LAST + 1 for code in TAGS]] = MARK
    return table
