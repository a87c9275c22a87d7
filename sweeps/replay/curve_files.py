"""Curve tables as Parquet: one compressed file that describes itself.

One row is one curve. Settings, versions and what was left out stand as JSON in the file's metadata; assignments are
JSON text, since each combination has other parameters. Pages carry checksums and the metadata a digest, so that a
damaged file is noticed. Stored forms stand in a column of JSON text, where some curve has any.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_core import files
from qa_core.errors import ConfigError, DataError
from qa_core.values import convert
from sweeps.replay.curves import (
    EXTRAS,
    Curve,
    CurveTable,
    RecordedForm,
    check_curve,
    parse_spec,
    rung_objectives,
)
from sweeps.replay.recorded import check_assignment, structure
from sweeps.space.space import Space
from sweeps.spec.objectives import is_cost
from sweeps.spec.sections import SweepSpec

if TYPE_CHECKING:
    import pyarrow

SCHEMA_VERSION = 2  # with stored forms
WITHOUT_FORMS = 1  # still written, so that earlier versions read what they understand
FORMS_COLUMN = "forms"
METADATA_KEY = b"qa_sweeps.curves"
DIGEST_KEY = b"qa_sweeps.curves.sha256"


def write_table(table: CurveTable, path: Path) -> None:
    """Write the table, over a file that is there.

    Raises:
        StorageError: the file cannot be written.
    """
    from pyarrow import Table, parquet

    has_forms = any(curve.forms for curve in table.curves)
    about = {
        "schema_version": SCHEMA_VERSION if has_forms else WITHOUT_FORMS,
        "spec": table.spec.as_dict(),
        "left_out": dict(table.left_out),
        "provenance": dict(table.provenance),
    }
    schema = _schema(table.spec).with_metadata(described(about))
    rows = [_row(curve) for curve in table.curves]
    for name in EXTRAS:  # a column where some curve has it
        if any(name in curve.extras for curve in table.curves):
            schema = schema.append(_extra(name))
    if has_forms:
        schema = schema.append(_forms_column())
    files.make_folder(path.parent)
    with files.written_file(path) as temporary:
        parquet.write_table(
            Table.from_pylist(rows, schema=schema), temporary, compression="zstd", write_page_checksum=True
        )


def read_table(path: Path) -> CurveTable:
    """Read a table and check all of it.

    Raises:
        DataError: the file is missing, damaged, of another schema version or no curve table; or a row holds what
            replay cannot use. The message names file, row (counted from 0) and field.
    """
    from pyarrow import ArrowException, parquet

    try:
        with files.opened(path, most_bytes=files.DATA_BYTES) as file:
            data = parquet.read_table(file, page_checksum_verification=True)
        names = data.schema.names
        rows = data.to_pylist()
    except (DataError, ValueError, ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error
    about = _about(data.schema.metadata or {}, path)
    try:
        spec = parse_spec(about["spec"])
    except (ValueError, ConfigError) as error:
        raise DataError(f"{path}: metadata: spec: {error}") from error
    expected = [*_schema(spec), *(_extra(name) for name in EXTRAS if f"report.{name}" in names)]
    if about["schema_version"] != WITHOUT_FORMS:
        expected.append(_forms_column())
    for field in expected:
        found = data.schema.field(field.name).type if field.name in names else "no such column"
        if found != field.type:
            raise DataError(f"{path}: column {field.name}: found {found}; allowed: {field.type}")
    if not rows:
        raise DataError(f"{path}: found no rows; allowed: one at least")
    curves = tuple(_curve(row, spec, f"{path}: row {number}") for number, row in enumerate(rows))
    table = CurveTable(spec, curves, about["left_out"], about["provenance"])
    _check_recipes(table, path)
    return table


def described(about: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return the file's metadata with their digest."""
    text = json.dumps(about, sort_keys=True, allow_nan=False).encode()
    return {METADATA_KEY: text, DIGEST_KEY: hashlib.sha256(text).hexdigest().encode()}


def _schema(spec: SweepSpec) -> "pyarrow.Schema":
    import pyarrow

    numbers = pyarrow.list_(pyarrow.float64())
    return pyarrow.schema(
        [
            ("trial_id", pyarrow.string()),
            ("seed", pyarrow.int64()),
            ("assignment", pyarrow.string()),
            ("examples_seen", pyarrow.list_(pyarrow.int64())),
            ("train_seconds", numbers),
            *((f"rung.{name}", numbers) for name in rung_objectives(spec.objectives)),
            *((f"final.{objective.name}", pyarrow.float64()) for objective in spec.objectives),
            ("seconds", pyarrow.float64()),
        ]
    )


def _extra(name: str) -> "pyarrow.Field":
    """Return the column of a field of reports that not every table has; its values may be null."""
    import pyarrow

    return pyarrow.field(f"report.{name}", pyarrow.list_(pyarrow.float64()))


def _forms_column() -> "pyarrow.Field":
    import pyarrow

    return pyarrow.field(FORMS_COLUMN, pyarrow.string())


def _row(curve: Curve) -> dict[str, Any]:
    return {
        "trial_id": curve.trial_id,
        "seed": curve.seed,
        "assignment": json.dumps(curve.assignment, allow_nan=False),
        "examples_seen": curve.examples_seen,
        "train_seconds": curve.train_seconds,
        **{f"rung.{name}": values for name, values in curve.rung_values.items()},
        **{f"final.{name}": value for name, value in curve.final.items()},
        "seconds": curve.seconds,
        **{f"report.{name}": values for name, values in curve.extras.items()},
        FORMS_COLUMN: json.dumps([asdict(form) for form in curve.forms], allow_nan=False),
    }


def _about(metadata: Mapping[bytes, bytes], path: Path) -> dict[str, Any]:
    found = metadata.get(METADATA_KEY)
    if found is None:
        raise DataError(f"{path}: metadata: found no {METADATA_KEY.decode()}; this is not a curve table")
    if metadata.get(DIGEST_KEY) != hashlib.sha256(found).hexdigest().encode():
        raise DataError(f"{path}: metadata: damaged; they do not have the digest that was written with them")
    try:
        about = files.parse_json(found.decode("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: metadata: not JSON: {error}") from error
    version = about.get("schema_version") if isinstance(about, Mapping) else None
    if version not in (WITHOUT_FORMS, SCHEMA_VERSION) or isinstance(version, bool):
        raise DataError(
            f"{path}: metadata: schema_version: found {version!r}; this version reads {WITHOUT_FORMS} and "
            f"{SCHEMA_VERSION}"
        )
    try:
        for name in ("spec", "left_out", "provenance"):
            convert(dict, about.get(name), name, strict=True)
    except ConfigError as error:
        raise DataError(f"{path}: metadata: {error}") from error
    return dict(about)


def _curve(row: Mapping[str, Any], spec: SweepSpec, place: str) -> Curve:
    extras = {name: row[f"report.{name}"] for name in EXTRAS if row.get(f"report.{name}") is not None}
    for name, value in row.items():
        if name.startswith("report."):
            continue
        if value is None or (isinstance(value, list) and None in value):
            raise DataError(f"{place}: {name}: found {value!r}; allowed: no gaps")
    try:
        assignment = convert(dict, files.parse_json(row["assignment"]), "assignment", strict=True)
    except ValueError as error:
        raise DataError(f"{place}: assignment: not JSON: {error}") from error
    except ConfigError as error:
        raise DataError(f"{place}: {error}") from error
    forms = _forms(row.get(FORMS_COLUMN, "[]"), spec, place)
    curve = Curve(
        trial_id=row["trial_id"],
        seed=row["seed"],
        assignment=assignment,
        examples_seen=tuple(row["examples_seen"]),
        train_seconds=tuple(row["train_seconds"]),
        rung_values={name: tuple(row[f"rung.{name}"]) for name in rung_objectives(spec.objectives)},
        final={objective.name: row[f"final.{objective.name}"] for objective in spec.objectives},
        seconds=row["seconds"],
        extras={name: tuple(values) for name, values in extras.items()},
        forms=forms,
    )
    check_curve(curve, place)
    return curve


def _forms(text: str, spec: SweepSpec, place: str) -> tuple[RecordedForm, ...]:
    """Return the forms of a row; `check_curve` looks at their numbers."""
    try:
        forms = convert(list[RecordedForm], files.parse_json(text), FORMS_COLUMN, strict=True)
    except ValueError as error:
        raise DataError(f"{place}: {FORMS_COLUMN}: not JSON: {error}") from error
    except ConfigError as error:
        raise DataError(f"{place}: {error}") from error
    costs = {name for name in rung_objectives(spec.objectives) if is_cost(name)}
    finals = {objective.name for objective in spec.objectives}
    for form in forms:
        for field, found, wanted in (
            ("costs", set(form.costs), costs if form.kind is not None else set()),
            ("final", None if form.final is None else set(form.final), finals),
        ):
            if found is not None and found != wanted:
                raise DataError(
                    f"{place}: {FORMS_COLUMN}: {form.label}: {field}: found values of {sorted(found)}; "
                    f"allowed: of {sorted(wanted)}"
                )
    return tuple(forms)


def _check_recipes(table: CurveTable, path: Path) -> None:
    space, budget = _space(table, path), table.spec.budget.examples
    combinations = {structure(space, item) for item in space.legal}
    for number, curve in enumerate(table.curves):
        if 0 < curve.budget_examples < budget:
            raise DataError(
                f"{path}: row {number}: examples_seen: found a budget of {curve.budget_examples}; allowed: "
                f"{budget}, or 0 of a recipe that trains nothing"
            )
        try:
            check_assignment(space, curve.assignment, combinations)
        except DataError as error:
            raise DataError(f"{path}: row {number}: {error}") from error


def _space(table: CurveTable, path: Path) -> Space:
    try:
        return table.space
    except ConfigError as error:
        raise DataError(f"{path}: metadata: spec: {error}") from error
