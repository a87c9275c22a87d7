"""Printed commands run as they are, in a shell that does or does not find the environment's programs."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.progress.shell_command import MODULES, shell_command

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment's folder of programs below the current folder, with a qa-sweep that says what it was given."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    script = programs / "qa-sweep"
    script.write_text('#!/bin/sh\nprintf "%s|" ours "$@"\n')
    script.chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return programs


def _said(command: str) -> str:
    return subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout


def test_a_program_that_the_shell_does_not_find_is_named_with_its_path_from_here(environment: Path) -> None:
    command = shell_command("qa-sweep", "run", "--resume", Path("runs/my sweep"))
    assert command == ".venv/bin/qa-sweep run --resume 'runs/my sweep'"
    assert _said(command) == "ours|run|--resume|runs/my sweep|"


def test_from_another_folder_the_path_is_whole(
    environment: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    command = shell_command("qa-sweep", "doctor")
    assert command == f"{environment}/qa-sweep doctor"
    assert _said(command) == "ours|doctor|"


def test_in_an_activated_environment_its_name_is_enough(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{environment}:/usr/bin:/bin")
    assert shell_command("qa-sweep", "doctor") == "qa-sweep doctor"


def test_another_environments_program_of_the_same_name_is_not_taken(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "qa-sweep").write_text("#!/bin/sh\necho theirs\n")
    (other / "qa-sweep").chmod(0o755)
    monkeypatch.setenv("PATH", f"{other}:/usr/bin:/bin")
    assert _said(shell_command("qa-sweep", "doctor")) == "ours|doctor|"


def test_where_no_script_is_installed_python_runs_the_module(environment: Path) -> None:
    (environment / "qa-sweep").unlink()
    assert shell_command("qa-sweep", "doctor") == ".venv/bin/python -m sweeps.cli doctor"
    assert shell_command("mlflow", "ui") == ".venv/bin/python -m mlflow ui"


def test_every_program_can_be_run_as_a_module() -> None:
    assert MODULES == {"qa-sweep": "sweeps.cli", "mlflow": "mlflow"}
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", MODULES["qa-sweep"], "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "export" in done.stdout
    assert importlib.util.find_spec(f"{MODULES['mlflow']}.__main__") is not None


def _texts_in_code(file: Path) -> Iterator[str]:
    """Yield every text of a source file but docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


def test_no_message_spells_a_command_by_itself() -> None:
    """A name alone is what `shell_command` takes; a name with a word behind it would be a command."""
    spelled = re.compile(r"\bqa-sweep [a-z]|\bmlflow (ui|server)\b|\bpython -m \w")
    files = sorted((PROJECT / "sweeps").rglob("*.py"))
    assert len(files) > 50
    found = [
        f"{file.relative_to(PROJECT)}: {text}"
        for file in files
        for text in _texts_in_code(file)
        if spelled.search(text)
    ]
    assert found == []
    assert spelled.search("go on with: qa-sweep run --resume X")
