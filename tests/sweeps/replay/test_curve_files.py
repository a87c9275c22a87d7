"""Curve tables as Parquet: what is written is read back; what is damaged or foreign is named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from qa_core.errors import DataError, StorageError
from sweeps.replay.curve_files import METADATA_KEY, described, read_table, write_table
from sweeps.replay.curves import CurveTable, RecordedForm, check_curve
from tests.sweeps.curves import curve, spec_of

SPACE = [
    {"set": "methods", "choice": ["full", "quantize"]},
    {"set": "methods.quantize.bits", "choice": [8, 16], "when": {"methods": "quantize"}},
    {"set": "train.learning_rate", "log_uniform": [1e-4, 1e-2]},
]


def table() -> CurveTable:
    curves = (
        curve({"methods": "full", "train.learning_rate": 0.1 / 3}, trial_id="a", seconds=30.0 + 1 / 7),
        curve({"methods": "quantize", "methods.quantize.bits": 8, "train.learning_rate": 2e-3}, trial_id="b"),
        curve(
            {"methods": "full", "train.learning_rate": 1e-3},
            trial_id="ü",
            examples_seen=(0,),
            train_seconds=(0.0,),
            rung_values={"em_percent": (1 / 3,), "memory_mb": (10.0,)},
        ),
    )
    curves = (
        replace(curves[0], assignment={"methods": "full", "train.learning_rate": 0.01 / 3}),
        *curves[1:],
    )
    return CurveTable(spec_of(SPACE), curves, {"stopped": 4}, {"packages": {"ray": "2"}, "device": "cpu"})


def test_a_table_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    write_table(table(), tmp_path / "folder" / "t.parquet")
    found = read_table(tmp_path / "folder" / "t.parquet")
    assert found == table()
    assert list(found.curves[1].assignment) == list(table().curves[1].assignment)
    assert type(found.curves[1].assignment["methods.quantize.bits"]) is int
    assert found.space.legal == table().space.legal


def test_what_a_scheduler_reads_beside_the_objectives_is_kept_where_it_was_recorded(tmp_path: Path) -> None:
    one = table()
    extras = {"selection_gain_percent": (1 / 3, None), "train_loss": (2.5, 0.1)}
    some = replace(one, curves=(replace(one.curves[0], extras=extras), *one.curves[1:]))
    write_table(some, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == some
    assert "report.train_loss" in parquet.read_schema(tmp_path / "t.parquet").names
    assert "report.selection_gain_error_percent" not in parquet.read_schema(tmp_path / "t.parquet").names


@pytest.mark.parametrize(
    "extras", [{"train_loss": (1.0,)}, {"train_loss": (1.0, float("nan"))}, {"f1": (1.0, 2.0)}]
)
def test_what_is_beside_the_objectives_is_checked(
    extras: dict[str, tuple[float, ...]], tmp_path: Path
) -> None:
    one = table()
    with pytest.raises(DataError, match=r"allowed: 2 finite numbers or null, of selection_gain_percent, "):
        check_curve(replace(one.curves[0], extras=extras), "here")


def test_a_flipped_byte_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rng = np.random.default_rng(0)  # random digits do not compress: a flip inside them decodes
    one = table().curves[0]
    whole = CurveTable(
        table().spec, tuple(replace(one, seconds=30.0 + seconds) for seconds in rng.random(200).tolist())
    )
    write_table(whole, path)
    written = path.read_bytes()
    refused = 0
    for place in range(4, len(written) - 8, 151):
        path.write_bytes(written[:place] + bytes([written[place] ^ 0x55]) + written[place + 1 :])
        error = refusal(path)
        if error is None:
            assert read_table(path) == whole  # in a part that nobody reads
        else:
            assert str(path) in error
            refused += 1
    assert refused > 20


def refusal(path: Path) -> str | None:
    try:
        read_table(path)
    except DataError as error:
        return str(error)
    return None


def test_changed_metadata_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(table(), path)
    data = parquet.read_table(path)
    metadata = dict(data.schema.metadata)
    metadata[METADATA_KEY] = metadata[METADATA_KEY].replace(b'"stopped": 4', b'"stopped": 3')
    assert metadata != data.schema.metadata
    parquet.write_table(data.replace_schema_metadata(metadata), path)
    with pytest.raises(DataError, match=r"t\.parquet: metadata: damaged"):
        read_table(path)


def form(label: str, **changes: Any) -> dict[str, Any]:
    values = {"label": label, "kind": "int8", "costs": {"memory_mb": 2.5}, "seconds": 0.5}
    return {**values, "final": {"em_percent": 100 / 3, "memory_mb": 2.5}, **changes}


def test_stored_forms_are_read_back_and_a_table_without_stays_of_the_first_version(tmp_path: Path) -> None:
    one = table()
    forms = (
        RecordedForm(**form("int8")),
        RecordedForm(**form("late", kind=None, costs={})),
        RecordedForm(**form("nf4", final=None)),
    )
    some = replace(one, curves=(replace(one.curves[0], forms=forms), *one.curves[1:]))
    write_table(some, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == some
    write_table(one, tmp_path / "u.parquet")
    versions = [
        json.loads(parquet.read_schema(tmp_path / name).metadata[METADATA_KEY])["schema_version"]
        for name in ("t.parquet", "u.parquet")
    ]
    assert versions == [2, 1]
    assert "forms" not in parquet.read_schema(tmp_path / "u.parquet").names


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        ("{", "forms: not JSON"),
        ("{}", "forms: found {}; allowed: a list"),
        ([form("a", speed=1)], "forms[0].speed: unknown field 'speed'"),
        ([form("a", costs={})], "forms: a: costs: found values of []; allowed: of ['memory_mb']"),
        ([form("a", final={"em_percent": 1.0})], "forms: a: final: found values of ['em_percent']"),
        ([form("a"), form("a")], "forms: found ['a', 'a']; allowed: each label once"),
        ([form("a", seconds=-1.0)], "forms: a: seconds: found -1.0"),
    ],
)
def test_forms_that_cannot_be_replayed_are_named(tmp_path: Path, forms: Any, expected: str) -> None:
    path = tmp_path / "t.parquet"
    one = table()
    has_forms = replace(one.curves[1], forms=(RecordedForm(**form("int8")),))
    write_table(replace(one, curves=(one.curves[0], has_forms, one.curves[2])), path)
    data = parquet.read_table(path)
    rows = data.to_pylist()
    rows[1]["forms"] = forms if isinstance(forms, str) else json.dumps(forms)
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=data.schema), path)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: row 1: {expected}")


@pytest.mark.parametrize("content", [b"", b"no Parquet at all"])
def test_another_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet: not a readable Parquet file"):
        read_table(path)
    with pytest.raises(DataError, match=r"gone\.parquet: not a readable Parquet file"):
        read_table(tmp_path / "gone.parquet")


def changed(
    path: Path, rows: Callable[[list[dict[str, Any]]], Any], about: dict[str, Any] | None = None
) -> None:
    """Write the table with other rows or metadata."""
    write_table(table(), path)
    data = parquet.read_table(path)
    found = data.to_pylist()
    rows(found)
    old = json.loads(data.schema.metadata[METADATA_KEY])
    schema = data.schema.with_metadata(described({**old, **(about or {})}))
    parquet.write_table(pyarrow.Table.from_pylist(found, schema=schema), path)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("assignment", "{", "assignment: not JSON"),
        ("assignment", "[1]", "assignment: found [1]; allowed: a mapping"),
        ("assignment", '{"methods": "full"}', "assignment: train.learning_rate: found nothing"),
        (
            "assignment",
            '{"methods": "full", "train.learning_rate": 0.5}',
            "assignment: train.learning_rate: found 0.5; allowed: numbers from 0.0001 to 0.01",
        ),
        (
            "assignment",
            '{"methods": "lora", "train.learning_rate": 0.005}',
            "assignment: methods: found 'lora'; allowed: 'full', 'quantize'",
        ),
        (
            "assignment",
            '{"methods": "full", "methods.quantize.bits": 8, "train.learning_rate": 0.005}',
            "assignment: methods.quantize.bits: found a value; allowed: none",
        ),
        ("examples_seen", [30, 10], "examples_seen: found (30, 10); allowed: rising"),
        ("examples_seen", [], "examples_seen: found (); allowed: rising"),
        ("examples_seen", [5, 15], "examples_seen: found a budget of 15; allowed: 30, or 0 of a recipe"),
        ("train_seconds", [3.0, 2.0], "train_seconds: found (3.0, 2.0); allowed: times that never fall"),
        ("train_seconds", [3.0], "train_seconds: found (3.0,); allowed: 2 finite numbers"),
        ("rung.em_percent", [1.0, float("nan")], "em_percent: found (1.0, nan); allowed: 2 finite numbers"),
        ("rung.em_percent", [1.0, None], "rung.em_percent: found [1.0, None]; allowed: no gaps"),
        ("final.memory_mb", float("inf"), "memory_mb: found inf"),
        ("final.memory_mb", None, "final.memory_mb: found None"),
        ("seconds", 29.0, "seconds: found 29.0; allowed: at least the 30.0 of training"),
    ],
)
def test_a_row_that_cannot_be_replayed_is_named(
    tmp_path: Path, field: str, value: Any, expected: str
) -> None:
    path = tmp_path / "t.parquet"
    changed(path, lambda rows: rows[1].update({field: value}))
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: row 1: {expected}")


def test_no_rows_another_version_and_missing_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    changed(path, lambda rows: rows.clear())
    with pytest.raises(DataError, match=r"t\.parquet: found no rows"):
        read_table(path)
    changed(path, len, {"schema_version": 3})
    with pytest.raises(DataError, match=r"metadata: schema_version: found 3; this version reads 1 and 2"):
        read_table(path)
    changed(path, len, {"schema_version": 2})
    with pytest.raises(DataError, match=r"column forms: found no such column; allowed: string"):
        read_table(path)
    changed(path, len, {"spec": {"name": "x"}})
    with pytest.raises(DataError, match=r"(?s)t\.parquet: metadata: spec: .*objectives"):
        read_table(path)
    changed(path, len, {"spec": spec_of(SPACE, recipe={"model": {"family": "elmo"}}).as_dict()})
    with pytest.raises(DataError, match=r"(?s)t\.parquet: metadata: spec: .*elmo"):
        read_table(path)


def test_a_parquet_file_of_something_else_and_a_missing_column_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"x": [1]}), path)
    with pytest.raises(DataError, match="this is not a curve table"):
        read_table(path)
    write_table(table(), path)
    parquet.write_table(parquet.read_table(path).drop_columns(["seconds"]), path)
    with pytest.raises(DataError, match=r"column seconds: found no such column; allowed: double"):
        read_table(path)


def test_a_folder_in_the_place_of_the_file_is_an_error_of_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        write_table(table(), tmp_path)
