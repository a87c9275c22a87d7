"""A sweep's folder: its front, its trials, plots and exports. How a sweep is run is in `qa_sweeps/running.py`."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

    from sweeps.front.result import FrontResult
    from sweeps.run_folder.records import Loaded

PLOT_HEIGHT = 520  # pixels in a notebook
OF_THE_FRONT = ("on_front", "status", "left_out")  # columns that are equal in all its rows


@dataclass(frozen=True)
class Plot:
    """An interactive plot, which a notebook shows.

    Attributes:
        path: of the HTML file, which needs no network.
    """

    path: Path

    def _repr_html_(self) -> str:
        page = escape(self.path.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" width="100%" height="{PLOT_HEIGHT}" style="border: 0"></iframe>'


@dataclass(frozen=True)
class Export:
    """A model that was copied out of a sweep; it can be given wherever a folder is.

    Attributes:
        folder: of the model.
        trial: id of its trial.
        form: label of its stored form; None where the trial has none.
        notes: by which rule it was chosen, and which smaller models are tied with it.
    """

    folder: Path
    trial: str
    form: str | None
    notes: tuple[str, ...]

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return "\n".join(self.notes)


class Sweep:
    """What lies in a sweep's folder, finished or running; each call reads it anew.

    Attributes:
        folder: of the sweep.
        ended_by: why this start of it ended before its budget was spent, such as "interrupted"; None where it did not,
            or where the sweep was only opened.
    """

    def __init__(self, folder: Path, *, ended_by: str | None = None) -> None:
        self.folder, self.ended_by = folder, ended_by

    def __repr__(self) -> str:
        ended = f", ended_by={self.ended_by!r}" if self.ended_by else ""
        return f"Sweep({str(self.folder)!r}{ended})"

    def _repr_html_(self) -> str:
        return f"{escape(repr(self))}{self.front().to_html(index=False)}"

    @property
    def counts(self) -> dict[str, int]:
        """How many trials ended in each status: ok, stopped, failed, oom."""
        counts: dict[str, int] = {}
        for record in self._records().records:
            counts[record.status] = counts.get(record.status, 0) + 1
        return counts

    def front(self) -> "pandas.DataFrame":
        """Return the models of the front, best exact match first, a row for each.

        Columns are `trial_id`, `form`, the objectives by their names in their units, what identifies the recipe, and
        the searched settings by their paths. Columns without any value are left out.

        Raises:
            DataError: no trial has ended yet, or the records cannot be read.
        """
        table = self.table()
        front = table[table["on_front"]].dropna(axis="columns", how="all")
        return front.drop(columns=[name for name in OF_THE_FRONT if name in front]).reset_index(drop=True)

    def table(self) -> "pandas.DataFrame":
        """Return all trials that ended, or their stored forms: the front, what is behind it, what is no point.

        `left_out` says why a row is no point. Otherwise as `front`, with all columns.
        """
        import pandas

        from sweeps.front.result import columns

        result = self._result()
        return pandas.DataFrame(result.rows(), columns=columns(result))

    def plot(self, to: str | os.PathLike[str] | None = None) -> Plot:
        """Write the report of the sweep, with its front; a notebook shows what is returned.

        Args:
            to: the HTML file to write; None: `report.html` in the sweep's folder.

        Raises:
            DataError: as `front`. StorageError: the file cannot be written.
        """
        from sweeps.commands.report import write
        from sweeps.commands.results import front_of
        from sweeps.report.snapshot import read_snapshot

        loaded = self._records()
        snapshot = read_snapshot(self.folder, loaded.records, front_of(self.folder, loaded))
        return Plot(write(snapshot, out=None if to is None else Path(to)))

    def export(
        self,
        *,
        to: str | os.PathLike[str],
        max_memory_mb: float | None = None,
        limits: Mapping[str, float] | None = None,
        min_em: float | None = None,
        trial: str | None = None,
        form: str | None = None,
        with_examples: bool = False,
    ) -> Export:
        """Copy one model, verified and with a card that says what it is. `qa_sweeps.load` opens it.

        Args:
            to: the folder to write; must not exist.
            max_memory_mb: take the best model that needs at most this for one window, in 10^6 bytes.
            limits: other upper limits on costs, such as {"artifact_bytes": 5e6}; all given limits apply.
            min_em: take the smallest model with at least this exact match, in percent.
            trial: id of a trial to take instead.
            form: label of the trial's stored form, where it has several.
            with_examples: show a few evaluation questions and answers on the card.

        Raises:
            ConfigError: neither a limit nor a trial is given, or nothing fits; the message names the smallest need.
            ArtifactError: the model is altered or does not load.
            DataError: the records, or the questions to show, cannot be read.
            StorageError: the folder exists or cannot be written.
        """
        from sweeps.commands.export import Choice, exported
        from sweeps.front.choosing import read_limits, read_min_em

        bounds = {**({} if max_memory_mb is None else {"memory_mb": max_memory_mb}), **(limits or {})}
        choice = Choice(
            read_limits([f"{name}={value}" for name, value in bounds.items()]),
            None if min_em is None else read_min_em(str(min_em)),
            trial,
            form,
        )
        folder = Path(to)
        found = exported(self.folder, self._records(), choice, to=folder, with_examples=with_examples)
        return Export(folder, found.point.trial_id, found.point.form, found.lines)

    def _records(self) -> "Loaded":
        from sweeps.commands.results import load_records

        loaded = load_records(self.folder)
        for note in loaded.notes:
            warnings.warn(note, stacklevel=3)
        return loaded

    def _result(self) -> "FrontResult":
        from sweeps.commands.results import front_of

        return front_of(self.folder, self._records())


def open_sweep(folder: str | os.PathLike[str]) -> Sweep:
    """Open the folder of a sweep, finished or running.

    Raises:
        DataError: it is not the folder of a sweep.
    """
    from sweeps.spec.load import stored_spec

    path = Path(folder)
    stored_spec(path)
    return Sweep(path)
