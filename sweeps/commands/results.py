"""`front` and `export`: what a sweep found, read from its records."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core import files
from qa_core.errors import ConfigError, DataError, StorageError, unknown
from sweeps.front import choosing
from sweeps.front.front import compute_front, with_paused
from sweeps.front.points import Point
from sweeps.front.result import FrontResult
from sweeps.front.tables import table, words_against_twin, write_csv
from sweeps.run_folder import journal
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.masking import printable
from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.records import load
from sweeps.spec.objectives import measure

if TYPE_CHECKING:
    from sweeps.run_folder.records import Loaded
    from sweeps.spec.objectives import Objective


def front(run_dir: Path, *, csv: Path | None, html: Path | None) -> int:
    """Print the front of a sweep; write the points as CSV and the plot as HTML where asked."""
    from rich.console import Console

    result = read_front(run_dir)
    Console().print(table(result))
    if csv is not None:
        _write(csv, lambda: write_csv(result, csv))
    if html is not None:
        from sweeps.front.plots import write_html

        _write(html, lambda: write_html(result, html))
    return 0


def export(
    run_dir: Path, *, limits: Mapping[str, float], trial: str | None, form: str | None, to: Path
) -> int:
    """Copy the best artifact within limits, or a named one, verified and loaded before it is copied and verified after.

    Args:
        limits: upper bounds on costs, by objective; see `sweeps/front/choosing.py`.
        trial: whose artifact is copied, in place of the best one; None for that.
        form: label of the trial's stored form; None where it has none, or one alone.

    Raises:
        ConfigError: neither limits nor a trial are given, or both; no finished trial fits, and the message names the
            smallest need; or there is no such trial or form.
        ArtifactError: the artifact is altered or does not load.
        StorageError: the target exists or cannot be written.
    """
    if bool(limits) == (trial is not None):
        found = "neither a limit nor a trial" if trial is None else "limits and a trial"
        raise ConfigError(
            f"export: found {found}; allowed: --max-memory-mb MB, --max FIELD=VALUE (several), or --trial ID"
        )
    if form is not None and trial is None:
        raise ConfigError(f"--form: found {form!r} without --trial; allowed: together with --trial ID")
    result = read_front(run_dir)
    if trial is None:
        best, rule = _best(result, run_dir, limits)
    else:
        best, rule = _named(result, trial, form), f"the {'form' if form else 'trial'} that was asked for"
    if best.artifact is None:
        raise DataError(f"{RunFolder(run_dir).records}: trial {best.id} does not say where its artifact is")
    if files.is_there(to):
        raise StorageError(f"{to}: exists already; choose a new folder")
    from qa_core.artifact import artifact

    source = artifact_folder(run_dir, best.id, best.artifact)
    if not files.is_folder(source):
        raise DataError(
            f"{source}: the artifact of trial {best.id} is not there; its recipe is in the records"
        )
    artifact.load(source)
    artifact.copy(source, to)
    values = ", ".join(f"{item.name} {best.values[item.name]:.2f}" for item in result.objectives)
    print(f"{rule}: trial {best.id}")
    print(f"{to}: {best.family} {best.methods} {best.checkpoint}, {values}")
    if facts := [f"{path}={value}" for path, value in best.form_settings.items()]:
        against = [words_against_twin(best.against_twin)] if best.against_twin else []
        print(f"form {best.form}: {'; '.join([', '.join(facts), *against])}")
    return 0


def artifact_folder(run_dir: Path, model: ModelId, named: str) -> Path:
    """Return the folder that a record names, there or not; raises DataError when it is not in the sweep's folder."""
    folder = run_dir / named
    if not folder.resolve().is_relative_to(run_dir.resolve()):
        raise DataError(
            f"{RunFolder(run_dir).records}: trial {model}: artifact: found {named!r}; allowed: a folder of the "
            "sweep's folder"
        )
    return folder


def _named(result: FrontResult, trial: str, form: str | None) -> Point:
    """Return the point of a trial, and of one of its stored forms; raises ConfigError where there is none."""
    points = {point.id: point for points in (result.points, *result.apart) for point in points}
    mine = {model.form: point for model, point in points.items() if model.trial_id == trial}
    beside = {point.form: point for point in result.others if point.trial_id == trial}
    if not mine and beside and all(beside):
        whys = "; ".join(f"{label} {_why(point)}" for label, point in beside.items())
        raise ConfigError(f"--trial: found {trial!r}, of which no stored form is a model: {whys}")
    if not mine:
        raise ConfigError(
            f"--trial: {unknown('finished trial', trial, {model.trial_id for model in points})}"
        )
    if form in mine:
        return mine[form]
    labels = [label for label in mine if label is not None]
    if form is None and len(labels) == 1:
        return mine[labels[0]]
    if form is None:
        raise ConfigError(
            f"--form: found none, and trial {trial} has {len(labels)} stored forms; allowed: {', '.join(labels)}"
        )
    if form in beside:
        why = _why(beside[form])
        raise ConfigError(
            f"--form: found {form!r}, which is no model: {why}; allowed: {', '.join(labels) or 'none'}"
        )
    raise ConfigError(f"--form: {unknown(f'stored form of trial {trial}', form, labels)}")


def _why(point: Point) -> str:
    """Return why a stored form is no point."""
    return str(point.left_out) if point.status == "ok" else f"{point.status}: {point.left_out}"


def _best(result: FrontResult, run_dir: Path, limits: Mapping[str, float]) -> tuple[Point, str]:
    """Return the best point within limits whose artifact is there, and the rule by which it was chosen."""
    fitting = choosing.within(result, limits)
    if not fitting:
        raise ConfigError(choosing.refusal(result, limits))
    given = ", ".join(f"{name} <= {limit:g} {measure(name).unit}" for name, limit in limits.items())
    quality = choosing.objective_of_quality(result.objectives)
    rule = f"best {quality.name} with {given}, of {len(fitting)} that fit"
    best = fitting[0]
    for point in fitting:
        if point.artifact is None or files.is_there(artifact_folder(run_dir, point.id, point.artifact)):
            if point is not best:
                print(
                    f"note: trial {best.id} is better ({quality.name} {best.values[quality.name]:.2f}), and its "
                    "artifact was removed (budget.keep_artifacts: all keeps them)"
                )
            return point, rule
    return best, rule


def read_front(run_dir: Path) -> FrontResult:
    """Compute the front of a sweep's folder from its records and its stored objectives.

    Raises:
        DataError: it is not the folder of a sweep, or its records cannot be read or compared.
    """
    loaded = _load(run_dir)
    for note in loaded.notes:
        print(f"note: {printable(note)}")
    objectives = _objectives(RunFolder(run_dir).spec)
    try:
        return with_paused(compute_front(loaded.records, objectives), journal.count_paused(run_dir))
    except DataError as error:
        raise DataError(f"{RunFolder(run_dir).records}: {error}") from error


def _load(run_dir: Path) -> "Loaded":
    path = RunFolder(run_dir).records
    if files.is_folder(run_dir) and files.is_there(RunFolder(run_dir).spec) and not files.is_there(path):
        raise DataError(
            f"{path}: cannot be read: there is none, as before the first trial of a sweep has ended; allowed: `front` "
            "and `export` after that (`run --resume` resumes a sweep that has ended)"
        )
    return load(path)


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


def _write(path: Path, write: Callable[[], None]) -> None:
    files.make_folder(path.parent)
    write()
    print(f"written: {path}")
