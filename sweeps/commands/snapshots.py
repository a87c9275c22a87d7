"""The folder of a sweep as reports read it."""

from pathlib import Path

from sweeps.commands.results import front_of, read_records
from sweeps.report.snapshot import Snapshot, read_snapshot


def snapshot_in(run_dir: Path) -> Snapshot:
    """Return a sweep's folder as its files tell it.

    Raises:
        DataError: it is not the folder of a sweep, no trial has ended, or its records cannot be read.
    """
    loaded = read_records(run_dir)
    return read_snapshot(run_dir, loaded.records, front_of(run_dir, loaded))
