"""What `COPY . .` takes into the image: the sources and what installs them, nothing of a user's checkout."""

import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def _expression(pattern: str) -> str:
    """Return the regular expression of a pattern: ** is any number of folders, * and ? stay within one name."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return "".join(parts.get(piece, re.escape(piece)) for piece in pieces)


def _in_image(path: str) -> bool:
    """Tell whether the build sees a file: the last pattern that matches it, or a folder above it, decides."""
    names = path.split("/")
    prefixes = ["/".join(names[:count]) for count in range(1, len(names) + 1)]
    is_ignored = False
    for line in (PROJECT / ".dockerignore").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            pattern = _expression(line.strip().lstrip("!").strip("/"))
            if any(re.fullmatch(pattern, prefix) for prefix in prefixes):
                is_ignored = not line.startswith("!")
    return not is_ignored


@pytest.mark.parametrize(
    "path",
    [
        ".venv/bin/python",
        ".git/config",
        ".env",
        "sweeps/.env",
        "cluster/.env.production",
        "runs/quickstart-20261130T000000Z/records.jsonl",
        "sweeps/runs/x/model.safetensors",
        "tests/conftest.py",
        ".hypothesis/examples/1",
        "qa_core/__pycache__/run.cpython-311.pyc",
        "qa_sweeps.egg-info/SOURCES.txt",
        "build/lib/qa_core/run.py",
        "credentials.json",
        "train.json.gz",
    ],
)
def test_environments_results_history_and_secrets_stay_out(path: str) -> None:
    assert not _in_image(path)


def test_everything_that_the_installation_needs_is_in() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "qa_core", "sweeps"], cwd=PROJECT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("this is no git checkout: nothing tells which sources are tracked")
    assert len(listed) > 100
    needed = [*listed, "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "cluster/setup.sh"]
    assert [path for path in needed if not _in_image(path)] == []


def test_the_image_takes_the_whole_context_so_that_the_list_decides() -> None:
    assert "COPY . .\n" in (PROJECT / "cluster" / "Dockerfile").read_text()
