"""Commands that the software prints, so that they work as printed, in the shell that started it.

Everything that prints a command makes it here. `make sweep` installs into `.venv`, which nobody has to activate: a
program that the shell does not find is then printed with its path. Nothing here runs a command.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

MODULES = {"qa-sweep": "sweeps.cli", "mlflow": "mlflow"}  # what `python -m` runs where no script is installed


def shell_command(program: str, *arguments: str | Path) -> str:
    """Return a command line of this environment's `program`, quoted for the shell and for the current folder.

    Args:
        program: a key of `MODULES`.
        arguments: as typed; each becomes one word.
    """
    return shlex.join([*_words(program), *map(str, arguments)])


def _words(program: str) -> list[str]:
    """Return the program's bare name where the shell finds this environment's, else its path, else `python -m`."""
    script = Path(sys.executable).with_name(program)
    if not os.access(script, os.X_OK):
        return [_from_here(Path(sys.executable)), "-m", MODULES[program]]
    found = shutil.which(program)
    if found is not None and os.path.samefile(found, script):
        return [program]
    return [_from_here(script)]


def _from_here(path: Path) -> str:
    """Return a path from the current folder where it lies below it, since a user reads that; else the whole path."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
