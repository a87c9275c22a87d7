"""`confirm`: the recipes of a front run again with new seeds, and which of its points are tied."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core.errors import ConfigError
from sweeps import confirm as confirmation
from sweeps.commands import sweep
from sweeps.commands.results import read_front
from sweeps.confirm import Confirmed
from sweeps.records import RECORDS_FILE, load
from sweeps.spec import stored_spec

if TYPE_CHECKING:
    from qa_core.intervals import Interval


def confirm(run_dir: Path, *, seeds: int, target: sweep.Target) -> int:
    """Run every recipe of the front with so many new seeds and show what holds; what has run before stays.

    Args:
        run_dir: of the sweep; the confirming one goes into its folder `confirm`.
        target: where it runs; its folder is not read.

    Raises:
        ConfigError: the number of seeds is below 1.
        DataError: there is no front, or files cannot be read.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds: found {seeds}; allowed: 1 or more")
    spec, front = stored_spec(run_dir), read_front(run_dir)
    folder = run_dir / confirmation.FOLDER
    confirming = confirmation.plan(spec, front, load(run_dir / RECORDS_FILE).records, folder, seeds=seeds)
    here = replace(target, folder=folder)
    code = sweep.run(confirming, here, resume=True)
    show(confirmation.judge(front, load(folder / RECORDS_FILE).records, folder))
    return code


def show(confirmed: Sequence[Confirmed]) -> None:
    """Print one line for each point, the smallest first."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="The front with new seeds", caption="95 % intervals over seeds and questions")
    for name in ("trial", "recipe", "memory [MB]", "EM [%] that chose it", "EM [%] of new seeds"):
        table.add_column(name)
    table.add_column("mean and interval")
    table.add_column("over the next smaller")
    for item in confirmed:
        memory = "-" if item.memory_mb is None else f"{item.memory_mb[0]:.2f} to {item.memory_mb[1]:.2f}"
        gain = "-" if item.gain is None else _interval(item.gain)
        point = item.point
        table.add_row(
            point.trial_id,
            f"{point.family} {point.methods} {point.checkpoint}",
            memory,
            f"{point.values['em_percent']:.1f}" if "em_percent" in point.values else "-",
            ", ".join(f"{value:.1f}" for value in item.em_percents) or "none finished",
            "-" if item.em is None else _interval(item.em),
            f"{gain}; tied with {item.tied_with}" if item.tied_with else gain,
        )
    Console().print(table)


def _interval(interval: "Interval") -> str:
    return f"{interval.estimate:.1f} ({interval.low:.1f} to {interval.high:.1f})"
