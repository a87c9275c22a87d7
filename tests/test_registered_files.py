"""Registries, the files of their folders and the tests of these agree; no file hides a module of another name."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.source_tree import Rule, Sources, files_in, parsed, planted, project_sources

# folder of one noun -> the file and the name of its registry, the least number of its names, and what the files share
REGISTRIES = {
    "qa_core/families": ("qa_core/registry.py", "FAMILIES", 5, "base heads"),
    "qa_core/methods": ("qa_core/registry.py", "METHODS", 8, "base adapter"),
    "sweeps/schedulers": ("sweeps/registry.py", "SCHEDULERS", 3, "base halving pausing ranks forms"),
    "sweeps/searchers": ("sweeps/registry.py", "SEARCHERS", 5, "base nsga2 encoding gaussian_process"),
}


def registered_files(sources: Sources, file: str, variable: str) -> dict[str, str]:
    """Return a registry, read from source: name -> the file its class lives in."""
    table: dict[str, str] = {}
    for node in parsed(sources[file]).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == variable for target in targets):
            table = ast.literal_eval(node.value)  # type: ignore[attr-defined]
    return {name: place.partition(":")[0].replace(".", "/") + ".py" for name, place in table.items()}


def registry_folder_and_tests_agree(sources: Sources) -> list[str]:
    broken = []
    for folder, (file, variable, _, shared) in REGISTRIES.items():
        registered = set(registered_files(sources, file, variable).values())
        not_registered = {f"{folder}/{name}.py" for name in ("__init__", *shared.split())}
        present = set(files_in(sources, folder)) - not_registered
        names = [Path(test).stem for test in files_in(sources, f"tests/{folder}")]
        tested = {f"{folder}/{name.removeprefix('test_')}.py" for name in names if name.startswith("test_")}
        tested -= not_registered
        broken += [f"{file}: registered, but there is no such file" for file in sorted(registered - present)]
        broken += [f"{file}: has no line in {variable}" for file in sorted(present - registered)]
        broken += [f"{file}: has no test file in tests/{folder}" for file in sorted(present - tested)]
        broken += [f"tests of {file}: there is no such file" for file in sorted(tested - present)]
    return broken


def no_name_hides_another_module(sources: Sources) -> list[str]:
    """`python sweeps/run.py` starts with `sweeps/` first on the import path."""
    installed = {name for name, owners in packages_distributions().items() if set(owners) != {"qa-sweeps"}}
    names = {file.split("/")[1] for file in files_in(sources, "sweeps") if file.count("/") <= 2}
    return [
        f"sweeps/{name}: hides the module {name.removesuffix('.py')}"
        for name in sorted(names)
        if name.removesuffix(".py") in sys.stdlib_module_names | installed
    ]


REGISTRY = "SCHEDULERS = {'gone': 'sweeps.schedulers.gone:Gone'}"
# rule, file of a planted violation, its text, a part of the message that must come
VIOLATIONS: list[tuple[Rule, str, str, str]] = [
    (registry_folder_and_tests_agree, "qa_core/methods/planted.py", "", "planted.py: has no line in METHODS"),
    (registry_folder_and_tests_agree, "sweeps/searchers/planted.py", "", "planted.py: has no test file"),
    (
        registry_folder_and_tests_agree,
        "tests/qa_core/families/test_planted.py",
        "",
        "planted.py: there is no",
    ),
    (registry_folder_and_tests_agree, "sweeps/registry.py", REGISTRY, "gone.py: registered, but there is no"),
    (no_name_hides_another_module, "sweeps/queue.py", "", "sweeps/queue.py: hides the module queue"),
    (no_name_hides_another_module, "sweeps/optuna/__init__.py", "", "sweeps/optuna: hides the module optuna"),
]


@pytest.mark.parametrize(
    "rule", [registry_folder_and_tests_agree, no_name_hides_another_module], ids=lambda rule: rule.__name__
)
def test_the_project_keeps_the_rule(rule: Rule) -> None:
    assert rule(project_sources()) == []


@pytest.mark.parametrize(
    ("rule", "file", "text", "message"),
    VIOLATIONS,
    ids=[f"{rule.__name__}-{file}" for rule, file, *_ in VIOLATIONS],
)
def test_the_rule_is_red_when_broken(rule: Rule, file: str, text: str, message: str) -> None:
    broken = rule(planted(file, text))
    assert any(message in place for place in broken), broken


@pytest.mark.parametrize("folder", REGISTRIES)
def test_every_registry_is_found(folder: str) -> None:
    file, variable, least, _ = REGISTRIES[folder]
    assert len(registered_files(project_sources(), file, variable)) >= least
