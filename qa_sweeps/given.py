"""Tables in memory as files that a recipe can name, so that a record of the sweep can be rebuilt from its folder.

A table is checked as a file is and written into the sweep's folder as `data/ROLE-HASH.parquet`, ROLE being train or
evaluation and HASH the beginning of its data hash.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.errors import ConfigError
from sweeps.run_folder.layout import RunFolder

HASH_CHARACTERS = 16
TRAIN, EVALUATION = "train", "evaluation"


def is_named(source: Any) -> bool:
    """Tell whether a source is a path, a hub name or `sample`, and not a table."""
    return isinstance(source, str | os.PathLike)


def settings_of(
    train: Any,
    evaluation: Any,
    columns: Mapping[str, str] | None,
    *,
    folder: Path,
    skip_bad_examples: bool,
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that name the sources, tables written first, and lines on what was guessed of tables.

    Args:
        train, evaluation: a source by its name, a table, or None for that of the configuration.
        columns: field -> column, of those with unusual names.
        folder: of the sweep.
        skip_bad_examples: leave malformed questions of tables out.

    Raises:
        DataError: a table is malformed.
        ConfigError: columns are named for a table and for a source beside it.
        StorageError: a table cannot be written.
    """
    given = {TRAIN: train, EVALUATION: evaluation}
    named = [role for role, source in given.items() if source is not None and is_named(source)]
    tables = [role for role, source in given.items() if source is not None and not is_named(source)]
    if columns and named and tables:
        raise ConfigError(
            f"columns: found together with {tables[0]} as a table and {named[0]} by name; allowed: both as tables, or "
            "both by name"
        )
    settings: dict[str, Any] = {f"recipe.data.{role}": os.fspath(given[role]) for role in named}
    if columns and not tables:
        settings["recipe.data.columns"] = dict(columns)
    notes: list[str] = []
    for role in tables:
        path, lines = _written(given[role], role, columns, folder=folder, skip=skip_bad_examples)
        settings[f"recipe.data.{role}"] = str(path)
        notes += lines
    if TRAIN in tables:
        settings["recipe.data.columns"] = {}
    return settings, notes


def withdraw(folder: Path) -> None:
    """Remove the tables of a sweep that was refused before it began."""
    place = RunFolder(folder)
    if files.is_there(place.spec) or files.is_there(place.journal):
        return
    for path in place.data.glob("*.parquet"):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # somebody else's files are there
        place.data.rmdir()
        folder.rmdir()


def _written(
    table: Any, role: str, columns: Mapping[str, str] | None, *, folder: Path, skip: bool
) -> tuple[Path, list[str]]:
    from qa_core.data.objects import read_object, write_table
    from sweeps.checks.data import remarks

    found = read_object(table, source=role, columns=columns, skip_bad_examples=skip)
    path = RunFolder(folder).data.resolve() / f"{role}-{found.data_hash[:HASH_CHARACTERS]}.parquet"
    files.make_folder(path.parent)
    write_table(found, path)
    lines = [f"{role}: {len(found)} questions, data hash {found.data_hash}, written to {path}"]
    return path, [*lines, *(f"{role}: {line}" for line in remarks(found.reading))]
