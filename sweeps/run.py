"""The main job: `python sweeps/run.py` runs the quickstart; options are those of `qa-sweep run`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> int:
    """Run `qa-sweep run` with the arguments (None: those of this process) and return the exit code."""
    from sweeps.cli import main as command_line

    return command_line(["run", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    # As a script, this folder is first on the import path; the project's root must stand there instead.
    sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path or ".").resolve() != HERE)]
    sys.exit(main())
