"""`front` and `export`: what a sweep found, read from its records."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core import files
from qa_core.errors import ConfigError, DataError, StorageError
from sweeps.front import FrontResult, best_under, compute_front, table, write_csv
from sweeps.masking import printable
from sweeps.records import RECORDS_FILE, load
from sweeps.spec import SPEC_FILE

if TYPE_CHECKING:
    from sweeps.spec import Objective


def front(run_dir: Path, *, csv: Path | None, html: Path | None) -> int:
    """Print the front of a sweep; write the points as CSV and the plot as HTML where asked."""
    from rich.console import Console

    result = read_front(run_dir)
    Console().print(table(result))
    if csv is not None:
        _write(csv, lambda: write_csv(result, csv))
    if html is not None:
        from sweeps.plots import write_html

        _write(html, lambda: write_html(result, html))
    return 0


def export(run_dir: Path, *, max_memory_mb: float, to: Path) -> int:
    """Copy the best artifact within the budget, verified and loaded before it is copied and verified after.

    Raises:
        ConfigError: no finished trial fits; the message names the smallest.
        ArtifactError: the artifact is altered or does not load.
        StorageError: the target exists or cannot be written.
    """
    result = read_front(run_dir)
    best = best_under(result, max_memory_mb)
    if best is None:
        sizes = [point.memory_mb for point in result.points if point.memory_mb is not None]
        smallest = f"the smallest of {len(sizes)} needs {min(sizes):.1f} MB" if sizes else "there is none yet"
        raise ConfigError(f"--max-memory-mb: found {max_memory_mb:g}; no finished trial fits, {smallest}")
    if best.artifact is None:
        raise DataError(f"{run_dir / RECORDS_FILE}: trial {best.trial_id} does not say where its artifact is")
    if files.is_there(to):
        raise StorageError(f"{to}: exists already; choose a new folder")
    from qa_core import artifact

    source = artifact_folder(run_dir, best.trial_id, best.artifact)
    if not files.is_folder(source):
        raise DataError(
            f"{source}: the artifact of trial {best.trial_id} is not there; its recipe is in the records"
        )
    artifact.load(source)
    artifact.copy(source, to)
    values = ", ".join(f"{item.name} {best.values[item.name]:.2f}" for item in result.objectives)
    print(f"{to}: trial {best.trial_id}, {best.family} {best.methods} {best.checkpoint}, {values}")
    return 0


def artifact_folder(run_dir: Path, trial_id: str, named: str) -> Path:
    """Return the folder that a record names, there or not; raises DataError when it is not in the sweep's folder."""
    folder = run_dir / named
    if not folder.resolve().is_relative_to(run_dir.resolve()):
        raise DataError(
            f"{run_dir / RECORDS_FILE}: trial {trial_id}: artifact: found {named!r}; allowed: a folder of the sweep's "
            "folder"
        )
    return folder


def read_front(run_dir: Path) -> FrontResult:
    """Compute the front of a sweep's folder from its records and its stored objectives.

    Raises:
        DataError: it is not the folder of a sweep, or its records cannot be read or compared.
    """
    loaded = load(run_dir / RECORDS_FILE)
    for note in loaded.notes:
        print(f"note: {printable(note)}")
    objectives = _objectives(run_dir / SPEC_FILE)
    try:
        return compute_front(loaded.records, objectives)
    except DataError as error:
        raise DataError(f"{run_dir / RECORDS_FILE}: {error}") from error


def _objectives(path: Path) -> "list[Objective]":
    from pydantic import ValidationError

    from sweeps.spec import Objective

    try:
        found = [
            Objective.model_validate(item)
            for item in files.read_object(path, inside=path.parent)["objectives"]
        ]
    except (DataError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(f"{path}: objectives of the sweep cannot be read: {error}") from error
    if not found or len({objective.name for objective in found}) < len(found):
        names = [objective.name for objective in found]
        raise DataError(f"{path}: objectives: found {names}; allowed: at least one, each once")
    return found


def _write(path: Path, write: Callable[[], None]) -> None:
    files.make_folder(path.parent)
    write()
    print(f"written: {path}")
