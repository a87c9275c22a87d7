"""`python -m qa_sweeps.reference > docs/python.md`: the page on the package, made from its docstrings."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import qa_sweeps

HEADER = """# Python

Made from the docstrings of `qa_sweeps` by `python -m qa_sweeps.reference`; change them there. A notebook that runs
these calls is in `docs/notebooks/quickstart.ipynb`."""
SECTIONS = {"Args": "Arguments", "Attributes": "Attributes", "Returns": "Returns", "Raises": "Raises"}


def markdown() -> str:
    """Return the whole of `docs/python.md`."""
    parts = [HEADER, _fenced(inspect.getdoc(qa_sweeps) or "")]
    functions = [name for name in qa_sweeps.__all__ if inspect.isfunction(getattr(qa_sweeps, name))]
    classes = [name for name in qa_sweeps.__all__ if inspect.isclass(getattr(qa_sweeps, name))]
    own = [name for name in classes if not issubclass(getattr(qa_sweeps, name), Exception)]
    errors = [name for name in classes if name not in own]
    for name in sorted(functions):
        parts += _described(f"qa_sweeps.{name}", getattr(qa_sweeps, name), "##")
    for name in own:
        parts += _class(name, getattr(qa_sweeps, name))
    parts.append("## Exceptions")
    parts.append("\n".join(f"- `{name}`: {inspect.getdoc(getattr(qa_sweeps, name))}" for name in errors))
    return "\n\n".join(parts) + "\n"


def _class(name: str, kind: type) -> Iterator[str]:
    yield f"## qa_sweeps.{name}"
    yield _text(inspect.getdoc(kind) or "")
    for member, value in vars(kind).items():
        if member.startswith("_"):
            continue
        if isinstance(value, property):
            yield f"### {name}.{member}"
            yield _text(inspect.getdoc(value) or "")
        elif inspect.isfunction(value):
            yield from _described(f"{name}.{member}", value, "###")


def _described(title: str, function: Callable[..., Any], level: str) -> Iterator[str]:
    yield f"{level} {title}"
    yield f"```python\n{_signature(title, function)}\n```"
    yield _text(inspect.getdoc(function) or "")


def _signature(title: str, function: Callable[..., Any]) -> str:
    """Return the call with a line for each parameter, where it has several."""
    found = inspect.signature(function)
    parameters = [item for name, item in found.parameters.items() if name != "self"]
    returned = _plain(inspect.formatannotation(found.return_annotation)).strip("'")
    lines: list[str] = []
    for item in parameters:
        if item.kind is item.KEYWORD_ONLY and "*" not in lines:
            lines.append("*")
        lines.append(_plain(str(item)))
    if len(lines) < 2:
        return f"{title}({', '.join(lines)}) -> {returned}"
    inside = "".join(f"    {line},\n" for line in lines)
    return f"{title}(\n{inside}) -> {returned}"


def _plain(text: str) -> str:
    """Return a parameter or a type without the modules of its names, and without quotes around a type."""
    return re.sub(r"collections\.abc\.|qa_sweeps\.\w+\.|typing\.", "", re.sub(r": '([^']*)'", r": \1", text))


def _fenced(text: str) -> str:
    """Return a text whose indented lines stand in fences."""
    return re.sub(
        r"(?:^    .*\n?)+", lambda found: f"```python\n{inspect.cleandoc(found[0])}\n```\n", text, flags=re.M
    ).rstrip()


def _text(docstring: str) -> str:
    """Return a docstring with its sections as lists."""
    parts: list[str] = []
    for block in docstring.split("\n\n"):
        head, _, rest = block.partition("\n")
        title = head.removesuffix(":")
        if head.endswith(":") and title in SECTIONS:
            lines = inspect.cleandoc(rest).splitlines()
            items = [
                re.sub(r"^([\w, ]+): ", r"- `\1`: ", line)
                if not line.startswith(" ")
                else f"  {line.strip()}"
                for line in lines
            ]
            parts.append("\n".join([f"**{SECTIONS[title]}**", "", *items]))
        else:
            parts.append(block)
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(markdown(), end="")
