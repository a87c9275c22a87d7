"""The front as a table: on the terminal, as CSV and as Parquet. Plots are in `plots.py`."""

import csv
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_core import files
from qa_core.errors import counted
from sweeps.run_folder.masking import printable
from sweeps.run_folder.model_id import ModelId

if TYPE_CHECKING:
    from rich.table import Table

from sweeps.front.result import FrontResult, columns, searched_paths


def table(result: FrontResult, tied: Container[ModelId] = ()) -> "Table":
    """Return the front as a terminal table: knee marked; below it baselines, what was left out, wrong predictions.

    Args:
        tied: points that are no better than the next smaller one as far as the questions tell; they are marked.
    """
    from rich.markup import escape
    from rich.table import Table

    front_table = Table(title=f"Front: {len(result.front)} of {result.counted_points}")
    for objective in result.objectives:
        heading = escape(
            f"{objective.name}\n[{objective.measured_unit}]"
        )  # narrow: 80 columns hold the recipe
        front_table.add_column(heading, justify="right")
    for name in ("trial", "recipe", ""):
        front_table.add_column(name, overflow="fold")
    for point in result.front:
        numbers = [format_value(point.values[objective.name]) for objective in result.objectives]
        words = [escape(printable(word)) for word in (str(point.id), point.recipe)]
        marks = ["knee"] * point.is_knee + ["tie"] * (point.id in tied)
        front_table.add_row(*numbers, *words, ", ".join(marks))
    if result.baselines and any(objective.name == "em_percent" for objective in result.objectives):
        front_table.add_section()
        for name, value in result.baselines.items():
            cells = [format_value(value) if item.name == "em_percent" else "" for item in result.objectives]
            front_table.add_row(*cells, "", f"baseline: {name}", style="dim")
    warning = None if result.warning is None else f"warning: {result.warning}"
    tie = "tie: no better than the next row, as far as the questions tell" if tied else None
    notes = (tie, summary(result), warning, result.prediction_note, result.device_note)
    front_table.caption = "\n".join(filter(None, notes))
    return front_table


def summary(result: FrontResult) -> str:
    """Return the hypervolume and how many trials, and how many stored forms of others, are not on the plot."""
    left_out = ", ".join(f"{count} {reason}" for reason, count in result.left_out.items())
    forms = ", ".join(f"{counted(count, 'form')} {reason}" for reason, count in result.forms_left_out.items())
    words = f"hypervolume {result.hypervolume:.4g}; not compared: {left_out or 'none'}"
    return f"{words}; {forms}" if forms else words


def words_against_twin(found: Mapping[str, Any]) -> str:
    """Return how much exact match a stored form lost or gained, with the interval where there is one."""
    return f"EM against the network as trained: {difference_words(found)}"


def difference_words(found: Mapping[str, Any]) -> str:
    """Return a difference in exact match with its interval, such as "-1.50 (-3.25 to +0.25)"."""
    low, high = found.get("low"), found.get("high")
    interval = "" if low is None or high is None else f" ({low:+.2f} to {high:+.2f})"
    return f"{found['em_difference_percent']:+.2f}{interval}"


def format_value(value: float) -> str:
    """Return a number for a table: two decimals, three digits when it is below 1, whole when it is large."""
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if 0 < abs(value) < 1 else f"{value:.2f}"


def write_csv(result: FrontResult, path: Path) -> None:
    """Write all trials that ended, by form where they have forms, the front first, with marks and settings."""
    with (
        files.written_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=columns(result))
        writer.writeheader()
        writer.writerows(result.rows())


def write_parquet(result: FrontResult, path: Path) -> None:
    """Write the same rows as `write_csv`, typed."""
    import pyarrow
    from pyarrow import parquet

    rows = result.rows()
    texts = ("trial_id", "form", "family", "head", "methods", "checkpoint", "artifact", "status", "left_out")
    flags = ("on_front", "is_knee")
    kinds: dict[str, Callable[[], Any]] = dict.fromkeys(columns(result), pyarrow.float64)
    kinds |= (
        dict.fromkeys(texts, pyarrow.string) | dict.fromkeys(flags, pyarrow.bool_) | {"seed": pyarrow.int64}
    )
    # A setting may be a number in one trial and a word in another: then all are written as text.
    for name in searched_paths(result):
        values = {type(row[name]) for row in rows if row[name] is not None}
        if values <= {bool}:
            kinds[name] = pyarrow.bool_
        elif not values <= {int, float}:
            kinds[name] = pyarrow.string
            rows = [{**row, name: None if row[name] is None else str(row[name])} for row in rows]
    schema = pyarrow.schema([(name, kinds[name]()) for name in columns(result)])
    with files.written_file(path) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), temporary)
