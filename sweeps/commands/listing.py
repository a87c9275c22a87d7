"""`list`: the sweeps of a folder, their state, and the best point of each."""

from pathlib import Path

from qa_core import files
from qa_core.errors import DataError, QaError, counted
from sweeps.commands.results import front_of
from sweeps.front.result import FrontResult
from sweeps.front.tables import format_value
from sweeps.report.snapshot import Snapshot, read_snapshot
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.masking import printable
from sweeps.run_folder.records import Loaded, load

UNREADABLE = "unreadable"


def show(folder: Path) -> int:
    """Print a row for each sweep in a folder, or for the folder itself where it is one.

    A sweep that cannot be read has a row too, with the reason below the table.

    Raises:
        DataError: the folder is none, or there is no sweep in it.
    """
    from rich.console import Console
    from rich.table import Table

    found = sweeps_in(folder)
    if not found:
        raise DataError(
            f"{folder}: found no sweep; allowed: the folder of a sweep, or one that holds such folders"
        )
    table = Table()
    for name in ("sweep", "state"):
        table.add_column(name, overflow="fold")
    for name in ("trials", "front", "hypervolume"):
        table.add_column(name, justify="right")
    table.add_column("best points", overflow="fold")
    problems = []
    for run_dir in found:
        try:
            table.add_row(printable(run_dir.name), *_cells(_snapshot(run_dir)))
        except QaError as error:
            table.add_row(printable(run_dir.name), UNREADABLE, "", "", "", "")
            problems.append(str(error))
    Console().print(table)
    for problem in problems:
        print(f"{UNREADABLE}: {printable(problem)}")
    return 0


def sweeps_in(folder: Path) -> list[Path]:
    """Return the folders of sweeps, by name; raises DataError where `folder` is none."""
    if not files.is_folder(folder):
        raise DataError(f"{folder}: found no folder; allowed: one that holds the folders of sweeps")
    if files.is_file(RunFolder(folder).spec):
        return [folder]
    inside = [folder / name for name in files.entries(folder)]
    return [path for path in inside if files.is_folder(path) and files.is_file(RunFolder(path).spec)]


def _snapshot(run_dir: Path) -> Snapshot:
    path = RunFolder(run_dir).records
    loaded = load(path) if files.is_there(path) else Loaded(())  # before the first trial has ended
    return read_snapshot(run_dir, loaded.records, front_of(run_dir, loaded))


def _cells(sweep: Snapshot) -> tuple[str, str, str, str, str]:
    result = sweep.result
    asked = (sweep.spec.get("budget") or {}).get("trials")
    failed = sum(record.status in ("failed", "oom") for record in sweep.records)
    trials = f"{len(sweep.records)} of {asked}" if asked is not None else str(len(sweep.records))
    trials += f", {failed} failed" if failed else ""
    volume = f"{result.hypervolume:.4g}" if result.points else ""
    return sweep.state, trials, counted(len(result.front), "point"), volume, _best(result)


def _best(result: FrontResult) -> str:
    """Return the ends of the front and its knee, each once."""
    front = result.front
    shown = {
        point.id: point for point in (*front[:1], *(item for item in front if item.is_knee), *front[-1:])
    }
    return "; ".join(
        " at ".join(
            f"{format_value(point.values[item.name])} {item.measured_unit}" for item in result.objectives
        )
        for point in shown.values()
    )
