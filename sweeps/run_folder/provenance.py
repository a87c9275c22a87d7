"""What a result needs to be rebuilt: versions, commit, hardware and command, without names of hosts.

Reads package metadata only; nothing heavy is imported. What a trial adds (recipe, seed, data hash) stands in
its record, see `sweeps/run_folder/records.py`.
"""

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sweeps.run_folder.masking import masked

PACKAGES = (
    "qa-sweeps",
    "accelerate",
    "bitsandbytes",
    "causal-conv1d",
    "datasets",
    "mamba-ssm",
    "mlflow",
    "numpy",
    "optuna",
    "peft",
    "pyarrow",
    "ray",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)
PROJECT_FOLDER = Path(__file__).resolve().parents[2]  # holds the packages
SOURCE_FOLDERS = ("qa_core", "sweeps")
SOURCE_KINDS = ("*.py", "*.safetensors")


def collect(arguments: Sequence[str] | None = None, *, gpus: Sequence[str] = ()) -> dict[str, Any]:
    """Return JSON values that say how to repeat what this process does.

    Args:
        arguments: the command line, program first; None for this process's own.
        gpus: names of the GPUs, from whoever has imported torch.
    """
    return {
        "packages": package_versions(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "git": git_state(PROJECT_FOLDER),
        "hardware": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "memory_bytes": memory_bytes(),
            "gpus": list(gpus),
        },
        "command": command_line(sys.argv if arguments is None else arguments),
    }


def package_versions() -> dict[str, str | None]:
    """Return the version of each package that can change a result; None where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def git_state(folder: Path) -> dict[str, Any]:
    """Return the commit and whether tracked files differ from it; None and a reason outside a checkout."""
    try:
        root = _git(folder, "rev-parse", "--show-toplevel")
        if Path(root).resolve() != folder.resolve():  # installed into an environment inside another checkout
            return {"commit": None, "is_dirty": None, "reason": "the package does not run from its checkout"}
        is_dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
        return {"commit": _git(folder, "rev-parse", "HEAD"), "is_dirty": is_dirty, "reason": None}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "is_dirty": None, "reason": "no git, or not in a git checkout"}


def source_hash(folder: Path = PROJECT_FOLDER) -> str:
    """Return the first 12 hex digits of a SHA-256 over the project's source files and networks.

    It is equal where the same code runs and starts from the same weights.
    """
    digest = hashlib.sha256()
    for package in SOURCE_FOLDERS:
        for path in sorted(item for kind in SOURCE_KINDS for item in (folder / package).rglob(kind)):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def command_line(arguments: Sequence[str]) -> str:
    """Return the command as one would type it again from the current folder, secrets masked.

    A script of the project that was started from elsewhere is shown as from the project's folder.
    """
    program, *rest = arguments or [""]
    path = Path(program)
    if path.suffix == ".py":
        near = [folder for folder in (Path.cwd(), PROJECT_FOLDER) if path.is_relative_to(folder)]
        shown = path.relative_to(near[0]) if near else path
        words = ["python", shown.name if shown.is_absolute() else str(shown)]
    else:
        words = [path.name]
    return shlex.join([*words, *masked(rest)])


def cpu_model() -> str | None:
    """Return the processor's name, or None where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or None
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1) if match else platform.processor() or None


def memory_bytes() -> int | None:
    """Return the machine's physical memory, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
