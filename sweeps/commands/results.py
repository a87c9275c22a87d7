"""`front`: what a sweep found, read from its records. What is taken from it is in `export.py`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core import files
from qa_core.errors import ConfigError, DataError
from sweeps.front.front import compute_front, with_paused
from sweeps.front.points import Point
from sweeps.front.result import FrontResult
from sweeps.front.tables import table, write_csv
from sweeps.front.ties import answers_of
from sweeps.run_folder import journal
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.masking import printable
from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.records import load

if TYPE_CHECKING:
    from sweeps.run_folder.records import Loaded
    from sweeps.spec.objectives import Objective


def front(run_dir: Path, *, csv: Path | None, target: str | None = None) -> int:
    """Print the front of a sweep and what it says; write the points as CSV where asked."""
    result = read_front(run_dir)
    show_front(result, run_dir, keep_percent=_target(run_dir, target))
    if csv is not None:
        files.make_folder(csv.parent)
        write_csv(result, csv)
        print(f"written: {csv}")
    return 0


def show_front(result: FrontResult, run_dir: Path, *, keep_percent: float | None) -> None:
    """Print the front of a sweep's folder as a table, with ties marked, and what it says in sentences.

    Where a file of answers is damaged, the table is printed without them, and a note.
    """
    from rich.console import Console
    from rich.padding import Padding

    from sweeps.front import findings

    console = Console()

    def answers(point: Point) -> Path:
        return answers_of(run_dir, point)

    try:
        tied = findings.tied_with_smaller(findings.steps(result, answers))
        said = findings.sentences(result, answers, keep_percent=keep_percent)
    except DataError as error:
        tied, said = frozenset(), [f"note: ties are not known: {error}"]
    console.print(table(result, tied=tied))
    for sentence in said:
        console.print(Padding(printable(sentence), (0, 0, 0, 2)), markup=False, highlight=False)


def artifact_folder(run_dir: Path, model: ModelId, named: str) -> Path:
    """Return the folder that a record names, there or not; raises DataError when it is not in the sweep's folder."""
    folder = run_dir / named
    if not folder.resolve().is_relative_to(run_dir.resolve()):
        raise DataError(
            f"{RunFolder(run_dir).records}: trial {model}: artifact: found {named!r}; allowed: a folder of the "
            "sweep's folder"
        )
    return folder


def read_front(run_dir: Path) -> FrontResult:
    """Compute the front of a sweep's folder from its records and its stored objectives.

    Raises:
        DataError: it is not the folder of a sweep, or its records cannot be read or compared.
    """
    return front_of(run_dir, read_records(run_dir))


def read_records(run_dir: Path) -> "Loaded":
    """Return the records of a sweep's folder and print what is odd about them; raises DataError as `read_front`."""
    loaded = load_records(run_dir)
    for note in loaded.notes:
        print(f"note: {printable(note)}")
    return loaded


def front_of(run_dir: Path, loaded: "Loaded") -> FrontResult:
    """Return the front of the records of a sweep's folder; raises DataError as `read_front`."""
    objectives = _objectives(RunFolder(run_dir).spec)
    try:
        return with_paused(compute_front(loaded.records, objectives), journal.count_paused(run_dir))
    except DataError as error:
        raise DataError(f"{RunFolder(run_dir).records}: {error}") from error


def load_records(run_dir: Path) -> "Loaded":
    """Return the records of a sweep's folder with notes on what is odd; raises DataError as `read_front`."""
    path = RunFolder(run_dir).records
    if files.is_folder(run_dir) and files.is_there(RunFolder(run_dir).spec) and not files.is_there(path):
        raise DataError(
            f"{path}: cannot be read: there is none, as before the first trial of a sweep has ended; allowed: `front` "
            "and `export` after that (`run --resume` resumes a sweep that has ended)"
        )
    return load(path)


def _target(run_dir: Path, given: str | None) -> float | None:
    """Return the share of exact match to keep, in percent: as given, or that of the stored sweep, if it has one.

    Raises:
        ConfigError: what is given is no number above 0 and up to 100.
    """
    if given is None:
        spec = RunFolder(run_dir).spec
        stored = files.read_object(spec, inside=run_dir).get("target")
        return stored if isinstance(stored, int | float) else None
    try:
        value = float(given.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 < value <= 100:
        raise ConfigError(f"--target: found {given!r}; allowed: a number above 0 and up to 100, in %")
    return value


def _objectives(path: Path) -> "list[Objective]":
    from pydantic import ValidationError

    from sweeps.spec.load import why_refused
    from sweeps.spec.objectives import Objective

    try:
        found = [
            Objective.model_validate(item)
            for item in files.read_object(path, inside=path.parent)["objectives"]
        ]
    except ValidationError as error:
        problem = error.errors()[0]
        name = "".join(f"{part}: " for part in problem["loc"])
        reason = f"{name}{why_refused(problem)}"
        raise DataError(f"{path}: objectives of the sweep cannot be read: {reason}") from error
    except KeyError as error:
        raise DataError(f"{path}: objectives: found none; allowed: at least one, each once") from error
    except (DataError, ValueError, TypeError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: objectives of the sweep cannot be read: {reason}") from error
    if not found or len({objective.name for objective in found}) < len(found):
        names = [objective.name for objective in found]
        raise DataError(f"{path}: objectives: found {names}; allowed: at least one, each once")
    return found
