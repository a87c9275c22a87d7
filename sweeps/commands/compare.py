"""`compare`: the fronts of several sweeps over each other, as tables and as a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core import files
from sweeps.commands.snapshots import snapshot_in
from sweeps.front.points import Point
from sweeps.front.tables import format_value
from sweeps.report.answer_book import AnswerBook
from sweeps.report.comparison import Comparison, Difference
from sweeps.report.comparison import compare as compared
from sweeps.report.comparison_story import comparison_story
from sweeps.report.page import write_page
from sweeps.run_folder.masking import printable

if TYPE_CHECKING:
    from rich.table import Table

COMPARISON_FILE = "comparison.html"
MOST_SHOWN = 8  # new points in a line


def compare(run_dirs: Sequence[Path], *, out: Path | None) -> int:
    """Print how sweeps compare with the first, and write the page.

    Args:
        run_dirs: folders of the sweeps.
        out: the page; None for `comparison.html` in the first folder.

    Raises:
        ConfigError: they cannot be compared.
        DataError: a folder cannot be read.
        StorageError: the page cannot be written.
    """
    from rich.console import Console

    found = compared(
        [snapshot_in(run_dir) for run_dir in run_dirs], [AnswerBook(run_dir) for run_dir in run_dirs]
    )
    path = run_dirs[0] / COMPARISON_FILE if out is None else out
    console = Console()
    console.print(volumes(found))
    for label, difference in zip(found.labels[1:], found.differences, strict=True):
        print(
            f"{printable(label)} against {printable(found.labels[0])}: {difference_lines(difference, found)}"
        )
    if found.settings:
        console.print(settings(found))
    files.make_folder(path.parent)
    write_page(comparison_story(found), path)
    print(f"written: {path}")
    return 0


def volumes(found: Comparison) -> "Table":
    """Return a row for each sweep: its front and its hypervolume."""
    from rich.table import Table

    from_where = ", ".join(f"{item.name} {format_value(item.worst)}" for item in found.objectives)
    shown = Table(title="Fronts", caption=f"hypervolume from {from_where}, in the objectives' units")
    for name in ("sweep", "state"):
        shown.add_column(name, overflow="fold")
    for name in ("trials", "points", "front", "hypervolume"):
        shown.add_column(name, justify="right")
    for place, sweep in enumerate(found.sweeps):
        shown.add_row(
            printable(found.labels[place]),
            sweep.state,
            str(len(sweep.records) + len(sweep.open_trials)),
            str(len(sweep.result.points)),
            str(len(sweep.result.front)),
            f"{found.hypervolumes[place]:.4g}",
        )
    return shown


def settings(found: Comparison) -> "Table":
    """Return the settings in which the sweeps differ."""
    from rich.table import Table

    shown = Table(title="Settings that differ")
    for name in ("setting", *found.labels):
        shown.add_column(printable(name), overflow="fold")
    for row in found.settings:
        shown.add_row(*(printable(word) or "-" for word in row))
    return shown


def difference_lines(found: Difference, comparison: Comparison) -> str:
    """Return the difference in hypervolume with its interval, and the new and the lost points."""
    interval = found.interval
    words = f"({found.why_no_interval})"
    if interval is not None:
        verdict = "tied" if interval.holds_zero else "larger" if found.hypervolume > 0 else "smaller"
        words = (
            f"({interval.low:+.4g} to {interval.high:+.4g}, {100 * interval.confidence:.0f} % interval by "
            f"{interval.unit}): {verdict}"
        )
    lines = [f"hypervolume {found.hypervolume:+.4g} {words}"]
    lines += [f"  new: {_named(found.new, comparison)}"] if found.new else []
    lines += [f"  lost: {_named(found.lost, comparison)}"] if found.lost else []
    return "\n".join(lines)


def _named(points: Sequence[Point], comparison: Comparison) -> str:
    shown = [
        f"{point.id} ({', '.join(format_value(point.values[item.name]) for item in comparison.objectives)})"
        for point in points[:MOST_SHOWN]
    ]
    more = len(points) - len(shown)
    return printable(", ".join(shown) + (f" and {more} more" if more else ""))
