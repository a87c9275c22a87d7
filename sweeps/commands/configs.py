"""`configs`: the configurations that come with the package, each with its first comment and its scales."""

from itertools import takewhile
from pathlib import Path

from sweeps.commands.options import configs_folder
from sweeps.progress.console import COLUMNS, broken_lines
from sweeps.progress.shell_command import shell_command
from sweeps.spec.source import scale_names


def configs() -> int:
    """Print name, purpose and scales of each configuration."""
    for path in sorted(configs_folder().glob("*.yaml")):
        lines = [_purpose(path)]
        if scales := scale_names(path):
            lines.append(f"scales: {', '.join(scales)} (--scale NAME)")
        for line in broken_lines(path.stem, lines, COLUMNS):
            print(line)
    print(f"run one with: {shell_command('qa-sweep', 'run', '--config', 'NAME')}")
    return 0


def _purpose(path: Path) -> str:
    """Return the first sentence of the comment with which a file begins."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))
    return f"{comment.partition('. ')[0].rstrip('.')}."
