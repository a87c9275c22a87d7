"""The project's Python files as texts, and what the tests of its structure read in them.

A rule takes all sources and returns the places that break it, so that the same function judges the project and the
project with a planted violation: every rule is seen red.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("qa_core", "sweeps", "qa_sweeps")

Sources = Mapping[str, str]  # path, relative to the project -> text
Rule = Callable[[Sources], list[str]]


@cache
def project_sources() -> Sources:
    """Return every Python file of the packages, the benchmarks and the tests."""
    folders = [PROJECT / folder for folder in (*PACKAGES, "benchmarks", "tests")]
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return {file.relative_to(PROJECT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def planted(file: str, text: str) -> Sources:
    """Return the project's sources with a text appended to a file, or with a file more."""
    sources = project_sources()
    return {**sources, file: f"{sources.get(file, '')}\n{text}\n"}


def files_in(sources: Sources, *folders: str) -> list[str]:
    return [file for file in sources if file.startswith(tuple(f"{folder}/" for folder in folders))]


def module_of(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@cache  # by content: sources with a planted violation differ in one file
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def name_of(function: ast.expr) -> str:
    """Return the last part of a called name: "load" for `torch.load`."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def imports_of(sources: Sources, file: str) -> tuple[tuple[str, int], ...]:
    """Return each imported name with its line: "a.b" for `import a.b`; "a" and "a.b" for `from a import b`.

    Imports inside functions, those under TYPE_CHECKING and `import_module("name")` count as well.
    """
    return _imports_in(sources[file], tuple(file.split("/")[:-1]))


@cache
def _imports_in(text: str, package: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple(_found_imports(parsed(text), package))


def _found_imports(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and name_of(node.func) in ("import_module", "__import__"):
            named = node.args[0] if node.args else None
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield named.value, node.lineno


def forbidden_imports(sources: Sources, files: Iterable[str], packages: Iterable[str]) -> list[str]:
    return [
        f"{file}:{line}: imports {name}"
        for file in files
        for name, line in sorted(set(imports_of(sources, file)), key=lambda found: (found[1], found[0]))
        if any(name == package or name.startswith(f"{package}.") for package in packages)
    ]


@cache
def docstrings_in(text: str) -> tuple[tuple[str, int], ...]:
    """Return each docstring with the line of what it describes."""
    described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(parsed(text)) if isinstance(node, described)]
    found = ((ast.get_docstring(node), getattr(node, "lineno", 1)) for node in nodes)
    return tuple((docstring, line) for docstring, line in found if docstring)
