"""`records.jsonl`: what is written is read back; what is torn, broken or foreign is named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from qa_core.errors import DataError, StorageError
from sweeps.run_folder.records import Record, StoredForm, append, load, protocol_version, to_dict


def record(trial_id: str = "t0000", **changes: Any) -> Record:
    values: dict[str, Any] = {
        "trial_id": trial_id,
        "status": "ok",
        "reason": None,
        "seed": 7,
        "assignment": {"model.family": "bert", "train.learning_rate.1": 0.003},
        "config": {"model": {"family": "bert", "checkpoint": "tiny"}, "methods": {}},
        "examples_seen": 900,
        "budget_examples": 900,
        "curve": ({"examples_seen": 300, "selection_em_percent": 12.5},),
        "device": "cpu: some processor",
        "started_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T03:05:05+00:00",
        "seconds": 60.0,
        "objectives": {"em_percent": 41.5, "memory_mb": 7.25},
        "quality": {"em_percent": 41.5},
        "cost": {"inference_peak_bytes": 7_250_000},
        "data": {"evaluation": {"data_hash": "0123456789abcdef"}},
        "artifact": "trials/t0000/artifact",
        "provenance": {"git": {"commit": None}},
    }
    return Record(**{**values, **changes})


def test_records_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    reason = "rung 300 – schlechter\nals 2/3"
    stopped = record("t0001", status="stopped", reason=reason, objectives=None, artifact=None)
    append(path, record())
    append(path, stopped)
    loaded = load(path)
    assert [to_dict(item) for item in loaded.records] == [to_dict(record()), to_dict(stopped)]
    assert loaded.records[1] == stopped
    assert loaded.notes == ()
    assert path.read_text(encoding="utf-8").count("\n") == 2


def test_the_version_of_the_protocol_is_read_and_a_record_that_names_none_is_of_the_first(
    tmp_path: Path,
) -> None:
    path = tmp_path / "records.jsonl"
    append(path, record())
    append(path, record("t0001", cost={"inference_peak_bytes": 7_250_000, "protocol_version": 2}))
    append(path, record("t0002", status="failed", reason="x", objectives=None, cost=None))
    assert [protocol_version(item) for item in load(path).records] == [1, 2, 1]


def test_a_record_from_before_cross_domain_sets_is_read_with_none(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    old = to_dict(record())
    del old["cross_domain"]
    path.write_text(json.dumps(old) + "\n")
    (found,) = load(path).records
    assert (found.cross_domain, found) == ({}, record())
    abroad = {"x.json": {"data_hash": "abc", "quality": {"em_percent": 3.0}}}
    append(path, record("t0001", cross_domain=abroad))
    assert load(path).records[1].cross_domain == abroad


def test_a_torn_last_line_is_left_out_with_a_note_and_cut_by_the_next_append(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append(path, record("t0000"))
    whole = path.read_bytes()
    for length in (1, len(whole) // 2, len(whole) - 1):  # even when only the newline is missing
        path.write_bytes(whole + whole[:length])
        loaded = load(path)
        assert [item.trial_id for item in loaded.records] == ["t0000"]
        assert loaded.notes[0].startswith(f"{path}:2: left out")
    append(path, record("t0001"))
    assert [item.trial_id for item in load(path).records] == ["t0000", "t0001"]
    assert load(path).notes == ()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{not json", "not a JSON line"),
        ("", "not a JSON line"),
        ("[1]", "expected a JSON object, found list"),
        ('{"schema_version": 99}', "schema_version: found 99; this version reads 1 and 2"),
        ("{}", "schema_version: found None"),
        ('{"schema_version": 1, "trail_id": "t"}', "did you mean 'trial_id'"),
        ('{"schema_version": 1, "trial_id": "t"}', "missing"),
        ('{"schema_version": 1, "seconds": NaN}', "found NaN"),
        ("\x00\x00", "not a JSON line"),
    ],
)
def test_a_broken_line_is_refused_with_file_and_line(tmp_path: Path, line: str, expected: str) -> None:
    path = tmp_path / "records.jsonl"
    append(path, record())
    with path.open("a") as file:
        file.write(f"{line}\n")
    append(path, record("t0002"))
    with pytest.raises(DataError, match=expected) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}:2: ")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object()])
def test_a_value_that_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path: Path, bad: object) -> None:
    path = tmp_path / "records.jsonl"
    append(path, record())
    before = path.read_bytes()
    with pytest.raises(DataError, match="t0001"):
        append(path, record("t0001", quality={"em_percent": bad}))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "done"}, "unknown status 'done'"),
        ({"objectives": None}, "needs objectives"),
        ({"examples_seen": 899}, "899 of 900"),
        ({"status": "failed", "reason": None}, "needs a reason"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        record(**changes)


def test_a_missing_file_and_an_unwritable_place_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        load(tmp_path / "absent.jsonl")
    with pytest.raises(StorageError, match="no-such-folder"):
        append(tmp_path / "no-such-folder" / "records.jsonl", record())


def test_each_line_is_one_json_object_with_its_schema_version(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append(path, record())
    assert json.loads(path.read_text())["schema_version"] == 2


def form(label: str = "int8", **changes: Any) -> StoredForm:
    values: dict[str, Any] = {
        "label": label,
        "settings": {"methods.quantize.bits": 8},
        "status": "ok",
        "objectives": {"em_percent": 40.0, "memory_mb": 2.5},
        "quality": {"em_percent": 40.0},
        "cost": {"inference_peak_bytes": 2_500_000},
        "against_twin": {"em_difference_percent": -1.5, "low": None, "high": None},
        "artifact": f"trials/t0000/forms/{label}/artifact",
    }
    return StoredForm(**{**values, **changes})


def test_stored_forms_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    skipped = form("nf4", status="skipped", reason="over budget", objectives=None, artifact=None)
    whole = record(forms=(form(), skipped, form("float32", settings={}, against_twin=None)))
    append(path, whole)
    assert load(path).records == (whole,)


def test_a_record_of_the_first_version_is_read_as_it_is_and_has_no_forms(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    old = {**to_dict(record()), "schema_version": 1}
    del old["forms"]
    path.write_text(json.dumps(old) + "\n")
    before = path.read_bytes()
    append(path, record("t0001", forms=[form()]))
    first, second = load(path).records
    assert (first.schema_version, tuple(first.forms)) == (1, ())
    assert (second.schema_version, [item.label for item in second.forms]) == (2, ["int8"])
    assert path.read_bytes().startswith(before)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"label": "../x"}, "label: found '../x'"),
        ({"label": "+e8"}, "no sign at the start"),
        ({"status": "oom"}, "unknown status 'oom'"),
        ({"objectives": None}, "needs objectives"),
        ({"status": "failed"}, "needs a reason"),
    ],
)
def test_a_form_that_contradicts_itself_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=re.escape(expected)):
        form(**changes)


def test_two_forms_of_one_label_are_refused() -> None:
    with pytest.raises(DataError, match=r"t0000: forms: found .* allowed: each label once"):
        record(forms=(form(), form()))


def test_a_form_that_cannot_be_read_is_named_by_line_and_place(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    values = to_dict(record(forms=(form(),)))
    values["forms"][0]["settings"] = 8
    path.write_text(json.dumps(values) + "\n")
    with pytest.raises(DataError, match=r"records.jsonl:1: forms\[0\].settings: found 8"):
        load(path)
