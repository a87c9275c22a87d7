"""What a tokenizer from somebody else may not do: multiply text without bound, or end the process.

A tokenizer.json is data, but data that computes: its normaliser replaces text, its template repeats it, its regular
expressions search. Loading is in `tokenizers.py`.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.errors import ConfigError

MOST_GROWTH = (
    500  # characters out of one in; of published tokenizers at most 72: 18 by Unicode's forms, times 4
)
MOST_PIECES = 64  # of a template, which may repeat the text
UNICODE_GROWTH = 18  # of one character under NFKC and NFKD, U+FDFA
TRIE_SIZE_BYTES = 4  # at the start of a precompiled map: how long its index is, after which its texts stand


@contextmanager
def panics_refused() -> Iterator[None]:
    """Turn a panic of the tokenizer library, which is no `Exception` in Python, into a ConfigError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split()).rpartition(": ")[2]  # what it says last is the cause
        raise ConfigError(f"the tokenizer cannot be used: its library panicked: {reason}") from error


def check_files(folder: Path) -> None:
    """Look at the files of a folder from which a tokenizer is loaded, before a library reads them.

    Raises:
        DataError: one is no regular file, or too large.
    """
    for name in files.entries(folder):
        if name.endswith((".json", ".txt", ".model", ".jinja")):
            files.checked_file(folder / name, most_bytes=files.TOKENIZER_BYTES)


def check_growth(tokenizer: Any) -> None:
    """Refuse a fast tokenizer that makes far more text of a text; nothing is tokenised for that.

    Args:
        tokenizer: of transformers; one without a fast form is left alone.

    Raises:
        ConfigError: says by how much.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    growth = _growth(_state(backend.normalizer))
    if growth > MOST_GROWTH:
        raise ConfigError(
            f"the tokenizer's normalizer may make {growth:.3g} characters of one; allowed: at most {MOST_GROWTH}"
        )
    pieces = _pieces(_state(backend.post_processor))
    if pieces > MOST_PIECES:
        raise ConfigError(f"the tokenizer's template has {pieces} pieces; allowed: at most {MOST_PIECES}")


def _state(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())


def _growth(part: Any) -> float:
    """Return the most characters that a normalizer makes of one, as an upper bound."""
    if not isinstance(part, Mapping):
        return 1.0
    kind = part.get("type")
    if kind == "Sequence":
        product = 1.0
        forms = 1.0
        for inner in part.get("normalizers", []):
            if inner.get("type") in ("NFKC", "NFKD", "NFC", "NFD"):  # twice is as good as once
                forms = UNICODE_GROWTH
            else:
                product *= _growth(inner)
        return product * forms
    if kind in ("NFKC", "NFKD", "NFC", "NFD"):
        return UNICODE_GROWTH
    if kind == "Replace":
        pattern, length = part.get("pattern", {}), len(part.get("content", ""))
        if "String" in pattern:
            return max(1.0, length / max(1, len(pattern["String"])))
        return 1.0 + length  # an expression may match nothing, at each place
    if kind == "Prepend":
        return 1.0 + len(part.get("prepend", ""))
    if kind == "Precompiled":
        return _longest_text(part.get("precompiled_charsmap", ""))
    return 1.0


def _longest_text(charsmap: str) -> float:
    """Return the length of the longest text that a precompiled map of SentencePiece puts for a character."""
    content = base64.b64decode(charsmap)
    index = int.from_bytes(content[:TRIE_SIZE_BYTES], "little")
    texts = content[TRIE_SIZE_BYTES + index :].split(b"\0")
    return float(max(1, *(len(text.decode("utf-8", "replace")) for text in texts)))


def _pieces(part: Any) -> int:
    """Return how many pieces a template has; of several, one after the other, their product."""
    if not isinstance(part, Mapping):
        return 1
    if part.get("type") == "Sequence":
        product = 1
        for inner in part.get("processors", []):
            product *= max(1, _pieces(inner))
        return product
    if part.get("type") == "TemplateProcessing":
        added = sum(len(item.get("ids", [])) for item in part.get("special_tokens", {}).values())
        return max(len(part.get("single", [])), len(part.get("pair", [])), added)
    return 1
