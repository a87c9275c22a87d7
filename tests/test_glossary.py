"""The words of docs/architecture.md against the names of the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("qa_core", "sweeps", "qa_sweeps")
# Names that modules once had, and what they are called now.
RETIRED = {
    "answers": "predict",
    "cost": "protocol",
    "device_turns": "gpu_turns",
    "endings": "running",
    "estimate": "hours",
    "evaluation": "evaluate",
    "forecast": "memory",
    "form_memory": "forms",
    "gpu_memory": "gpu_cap",
    "layers": "ranks",
    "legality": "compile",
    "lines": "json_lines",
    "nets": "ranks",
    "place": "ray_environment",
    "placement": "gpu_shares",
    "planning": "validate",
    "predicted_memory": "shapes",
    "rungs": "halving",
    "shared_storage": "shared_folder",
    "spec_source": "source",
    "tracking": "mlflow_mirror",
    "trial": "worker",
    "tuner": "ray_driver",
    "window_layout": "chunks",
}


def glossary(text: str) -> list[tuple[str, str, str]]:
    """Return the rows of the glossary: word, dotted name that defines it, file."""
    section = text.split("## Glossary", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    found = []
    for row in rows:
        word, _, place = (cell.strip() for cell in row.strip("|").split("|"))
        match = re.fullmatch(r"`([\w.]+)` in `([\w/]+\.py)`", place)
        assert match, f"{row}: the last column is not `Name` in `path`"
        found.append((word, *match.groups()))
    return found


def names_in(tree: ast.Module) -> Iterator[str]:
    """Yield the public classes and functions of a module, and fields and methods as Class.name."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                    yield f"{node.name}.{inner.target.id}"
                elif isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}"


def faults_of_glossary(root: Path, text: str) -> list[str]:
    faults = []
    for word, name, file in glossary(text):
        if not (root / file).is_file():
            faults.append(f"{word}: there is no {file}")
        elif name not in names_in(ast.parse((root / file).read_text(encoding="utf-8"))):
            faults.append(f"{word}: {file} has no {name}")
        elif not all(part in name.replace("_", "").lower() for part in word.split()):
            faults.append(f"{word}: is not in the name {name}")
    return faults


def retired_modules(root: Path) -> list[str]:
    files = (
        file.relative_to(root) for package in PACKAGES for file in sorted((root / package).rglob("*.py"))
    )
    return [f"{file}: call it {RETIRED[file.stem]}" for file in files if file.stem in RETIRED]


TEXT = (PROJECT / "docs/architecture.md").read_text(encoding="utf-8")


def test_each_word_of_the_glossary_is_in_the_name_that_defines_it() -> None:
    words = [word for word, *_ in glossary(TEXT)]
    assert len(words) == len(set(words)) == 36
    assert faults_of_glossary(PROJECT, TEXT) == []


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("`SweepSpec.recipe` in `sweeps/gone.py`", "recipe: there is no sweeps/gone.py"),
        ("`SweepSpec.menu` in `sweeps/spec/sections.py`", "sections.py has no SweepSpec.menu"),
        ("`SweepSpec.seed` in `sweeps/spec/sections.py`", "recipe: is not in the name SweepSpec.seed"),
    ],
)
def test_a_definition_that_is_not_there_is_found(place: str, message: str) -> None:
    text = TEXT.replace("`SweepSpec.recipe` in `sweeps/spec/sections.py`", place)
    assert text != TEXT
    assert message in "\n".join(faults_of_glossary(PROJECT, text))


def test_no_module_has_a_retired_name(tmp_path: Path) -> None:
    assert retired_modules(PROJECT) == []
    (tmp_path / "sweeps/trials").mkdir(parents=True)
    (tmp_path / "sweeps/trials/tuner.py").touch()
    assert retired_modules(tmp_path) == ["sweeps/trials/tuner.py: call it ray_driver"]


def test_the_picture_of_the_house_names_every_package() -> None:
    picture = TEXT.split("## The house", 1)[1].split("```")[1]
    named = set(re.findall(r"\w+", picture))
    packages = {
        folder.name
        for package in PACKAGES
        for folder in (PROJECT / package).iterdir()
        if (folder / "__init__.py").is_file()
    }
    assert len(packages) > 15
    assert packages - named == set()
