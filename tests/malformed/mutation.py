"""Seeded damage to valid inputs: bytes that are flipped, cut or moved, and JSON whose parts are exchanged."""

import copy
import json
import random
from typing import Any

VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    float("inf"),
    float("nan"),
    "",
    " ",
    "x",
    "\ud800",
    "../../x",
    "a\0b",
    [],
    [None],
    {},
    {"a": 1},
    [[[[]]]],
]
LONGEST_RUN = 16  # bytes that one damage touches


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return the data with one to three places damaged."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        place, length = rng.randrange(len(changed) + 1), rng.randint(1, LONGEST_RUN)
        kind = rng.choice(("flip", "cut", "end", "insert", "zero", "repeat"))
        if kind == "flip" and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del changed[place : place + length]
        elif kind == "end":
            del changed[place:]
        elif kind == "insert":
            changed[place:place] = rng.randbytes(length)
        elif kind == "zero":
            changed[place : place + length] = bytes(length)
        else:
            changed[place:place] = changed[place : place + length]
    return bytes(changed)


def damaged_json(document: Any, rng: random.Random) -> Any:
    """Return a copy with one to three parts replaced, taken away, doubled or exchanged for another part."""
    document = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(document))
        if not places:
            return document
        target, key = rng.choice(places)
        kind = rng.choice(("replace", "remove", "rename", "double", "exchange"))
        if kind == "remove":
            del target[key]
        elif kind == "rename" and isinstance(target, dict):
            target[rng.choice((f"{key}x", str(key)[:-1], "", "__class__"))] = target.pop(key)
        elif kind == "double" and isinstance(target, list):
            target.insert(key, copy.deepcopy(target[key]))
        elif kind == "exchange":
            other, name = rng.choice(places)
            target[key] = copy.deepcopy(other[name])
        else:
            target[key] = copy.deepcopy(rng.choice(VALUES))
    return document


def as_json(document: Any) -> bytes:
    """Return the document in ASCII: lone surrogates as escapes, NaN and infinity as Python writes them."""
    return json.dumps(document).encode()


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a document."""
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    else:
        return []
    found: list[tuple[Any, Any]] = []
    for key, value in items:
        found.append((document, key))
        found += _places(value)
    return found
