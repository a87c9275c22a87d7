"""Secrets in text that is stored or shown: known token shapes, named secrets and passwords in addresses become `***`.

What is only told (records, notes of failures, tracebacks, the console, MLflow) is masked. What decides what a sweep
does (its settings) is never altered: a setting that holds a secret is refused, see `has_secret`. `printable` is for
text of others that a terminal shows. Standard library only.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, unquote_plus

MASK = "***"
JOINERS = "\u200c\u200d"
TOKEN_SHAPES = re.compile(
    r"\b(hf_[A-Za-z0-9]{8,}"
    r"|gh[pousr]_[A-Za-z0-9]{8,}|github_pat_[A-Za-z0-9_]{8,}|glpat-[\w-]{8,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{12,}"
    # With a digit, for words like "sk-translated" in names of files.
    r"|(?<![\w.-])sk-(?=[\w-]*\d)[A-Za-z0-9_-]{16,}"
    r"|xox[abprs]-[\w-]{8,}|dapi[0-9a-f]{16,})"
)
BEARER = re.compile(r"(?i)(\bbearer\s+)\S+")
# Alone before an "@" may be a token, but not in the address of a database.
NO_DATABASE = r"(?<!sql://)(?<!sql\+psycopg://)(?<!sql\+psycopg2://)"
# A password may hold "/" and "@"; of a word with "://...:...@" too much is masked rather than too little.
URL_PASSWORD = re.compile(rf"(://)(?:[^/@\s:]*:[^\s]*|{NO_DATABASE}[^/@\s]+)@")
SECRET_KEYS = "token|secret|passw|passphrase|pwd|api[_-]?key|access[_-]?key|signature|credential"
SECRET_OF_QUERY = rf"([?&;][\w.-]*(?:{SECRET_KEYS})[\w.-]*=)"
URL_SECRET = re.compile(rf"(?i){SECRET_OF_QUERY}[^&\s'\"#]+")
# The same in a text that is known to be one address: there a secret ends at no space and no quote.
ADDRESS_PASSWORD = re.compile(rf"(?s)(://)(?:[^/@:]*:(.*)|{NO_DATABASE}([^/@]+))@")
ADDRESS_SECRET = re.compile(rf"(?is){SECRET_OF_QUERY}([^&]+)")
SHORTEST_PART = 4  # characters of a piece of a password that is masked wherever it stands
# From the start of a word alone: else a long word is searched once from each of its signs.
NAMED_SECRET = re.compile(r"(?i)((?<![\w.-])[\w.-]*(?:password|passwd|secret|token|api[_-]?key)[\w.-]*=)(.+)")
# In running text fewer names, since "tokens=30" and "secret" are words of it too.
SECRET_NAME = r"[\w-]*(?:password|passwd|api[_-]?key|(?:access|auth|hub|bearer)[_-]?token)['\"]?\s*"
# Before a colon no path: "/etc/passwd: exists already" is no secret.
SECRET_IN_TEXT = re.compile(
    rf"(?i)((?<![\w-]){SECRET_NAME}=\s*|(?<![\w/\\-]){SECRET_NAME}:\s*)"
    r"('[^']*'|\"[^\"]*\"|[^\s,;)}\]]+)"
)
SECRET_FLAG = re.compile(r"(?i)--?[\w-]*(?:password|passwd|secret|token|api[_-]?key)$|bearer$")
NOT_SECRET = re.compile(r"(?i)token(?:s|izer|s_per\w*)\b|batch_tokens|micro_batch_tokens|max\w*_tokens")


def masked_text(text: str) -> str:
    """Return text with the secrets in it masked; text without any comes back as it is."""
    text = TOKEN_SHAPES.sub(MASK, text)
    text = BEARER.sub(rf"\g<1>{MASK}", text)
    text = URL_PASSWORD.sub(rf"\g<1>{MASK}@", text)
    text = URL_SECRET.sub(rf"\g<1>{MASK}", text)
    return SECRET_IN_TEXT.sub(rf"\g<1>{MASK}", text)


def masked_address(address: str) -> str:
    """Return an address with its secrets masked, whatever signs they have; `masked_text` ends one at a space."""
    address = ADDRESS_PASSWORD.sub(rf"\g<1>{MASK}@", address)
    return masked_text(ADDRESS_SECRET.sub(rf"\g<1>{MASK}", address))


def masked_about(address: str, text: str) -> str:
    """Return what a library says of an address, with its secrets masked and what may have become of them.

    A library shows a secret unquoted, or, where it takes the address otherwise than was meant, a part of it: the end of
    a password for a host, say.
    """
    secrets = [found for match in ADDRESS_PASSWORD.finditer(address) for found in match.groups()[1:] if found]
    secrets += [match.group(2) for match in ADDRESS_SECRET.finditer(address)]
    shown = {form for secret in secrets for form in (secret, unquote(secret), unquote_plus(secret))}
    parts = {part for form in shown for part in (form, *re.split(r"[/@:?#&=\s]", form))}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= SHORTEST_PART:
            text = text.replace(part, MASK)
    return masked_text(text)


def masked_values(values: Any) -> Any:
    """Return JSON values with every text in them masked, names of entries included."""
    if isinstance(values, str):
        return masked_text(values)
    if isinstance(values, Mapping):
        return {masked_text(str(name)): masked_values(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [masked_values(value) for value in values]
    return values


def masked(arguments: Sequence[str]) -> list[str]:
    """Return a command line's arguments with secrets masked; more names count as secret here than in running text."""
    words = []
    for index, word in enumerate(arguments):
        if index and SECRET_FLAG.search(arguments[index - 1]):
            words.append(MASK)
            continue
        word = TOKEN_SHAPES.sub(MASK, word)
        word = BEARER.sub(rf"\g<1>{MASK}", word)
        word = ADDRESS_PASSWORD.sub(rf"\g<1>{MASK}@", word)
        word = ADDRESS_SECRET.sub(rf"\g<1>{MASK}", word)
        if not NOT_SECRET.search(word.partition("=")[0]):
            word = NAMED_SECRET.sub(rf"\g<1>{MASK}", word)
        words.append(word)
    return words


def has_secret(text: str) -> bool:
    """Tell whether a setting holds the shape of a token, or an address with a password."""
    return bool(TOKEN_SHAPES.search(text) or URL_PASSWORD.search(text) or URL_SECRET.search(text))


def printable(text: str) -> str:
    """Return text for a terminal, in one line: control characters and half characters as escapes like `\\x1b`.

    Spaces of all widths stay, and the joiners that some scripts and emoji need.
    """
    return "".join(
        sign
        if sign.isprintable() or unicodedata.category(sign) == "Zs" or sign in JOINERS
        else sign.encode("unicode_escape").decode()
        for sign in text
    )
