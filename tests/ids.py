"""Ids of parametrised tests that a shell takes as they are printed: letters, digits and a few signs.

`tests/conftest.py` names by `plain` what has no id of its own, and refuses to run a test whose id is `strange`.
"""

import re
from collections.abc import Iterable, Iterator

LONGEST = 60
_PLAIN = re.compile(r"[A-Za-z0-9_.,:=+/-]*")
_SCALARS = (str, int, float, bool, type(None))


def plain(value: object, name: str = "") -> str | None:
    """Return the id of a parameter's value, or None where pytest's own is plain.

    Signs that a shell reads become dashes. A mapping is written as dotted names with their values. What is then
    empty, and a lambda, has the parameter's name; pytest numbers equal ids.
    """
    if isinstance(value, str | bytes):
        return _without_signs(value if isinstance(value, str) else value.decode("latin-1")) or name
    if isinstance(value, re.Pattern):
        return _without_signs(str(value.pattern)) or name
    if isinstance(value, dict | list | tuple) and value and _is_of_scalars(value):
        between = "," if isinstance(value, dict) else "-"
        return between.join(_written(value))[:LONGEST].rstrip("-,") or name
    if getattr(value, "__name__", "") == "<lambda>":
        return name
    return None


def strange(node_ids: Iterable[str]) -> list[str]:
    """Return the node ids whose part in brackets has another sign than those of `plain`."""
    return [item for item in node_ids if not _PLAIN.fullmatch(item.partition("[")[2].removesuffix("]"))]


def _without_signs(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=+/]+", "-", text).strip("-")[:LONGEST].rstrip("-")


def _is_of_scalars(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_of_scalars, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_of_scalars, value))
    return isinstance(value, _SCALARS)


def _written(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _written(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple) and value:
        for item in value:
            yield from _written(item, path)
    else:
        text = "" if isinstance(value, dict | list | tuple) else _without_signs(str(value))
        yield f"{_without_signs(path)}={text}".strip("=")
