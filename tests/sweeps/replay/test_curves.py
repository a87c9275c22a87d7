"""Curve tables from a run's folder: what counts, what is left out, what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qa_core.errors import DataError
from sweeps.replay.curves import CurveTable, RecordedForm, shortened
from sweeps.run_folder.records import Record, append
from tests.sweeps.curves import curve, spec_of
from tests.sweeps.forms import stored, with_forms, without

SPACE = [{"set": "train.learning_rate", "log_uniform": [1e-4, 1e-2]}]


def point(examples: int, em_percent: float, seconds: float) -> dict[str, Any]:
    return {
        "examples_seen": examples,
        "budget_examples": 30,
        "train_loss": 1.0,
        "train_seconds": seconds,
        "selection_em_percent": em_percent,
        "selection_f1_percent": em_percent + 1,
        "memory_mb": 7.5,
    }


def record(trial_id: str, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "trial_id": trial_id,
        "status": "ok",
        "reason": None,
        "seed": 7,
        "assignment": {"train.learning_rate": 0.003},
        "config": {"model": {"family": "lstm", "checkpoint": "micro"}, "methods": {}},
        "examples_seen": 30,
        "budget_examples": 30,
        "curve": (point(10, 12.5, 4.0), point(30, 30.0, 11.0)),
        "device": "cpu: some processor",
        "started_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T03:05:05+00:00",
        "seconds": 15.0,
        "objectives": {"em_percent": 28.0, "memory_mb": 7.25},
        "quality": {"em_percent": 28.0},
        "data": {"evaluation": {"data_hash": "0123456789abcdef"}},
        "provenance": {"packages": {"ray": "2"}, "command": "run.py --data somewhere"},
    }
    return Record(**{**values, **changes})


def run_folder(folder: Path, *found: Record) -> tuple[Path, Path]:
    for item in found:
        append(folder / "records.jsonl", item)
    (folder / "spec.json").write_text(json.dumps(spec_of(SPACE).as_dict()))
    return folder / "records.jsonl", folder / "spec.json"


def test_finished_trials_become_curves_and_the_others_are_counted(tmp_path: Path) -> None:
    stopped = record(
        "t1", status="stopped", reason="rung", objectives=None, curve=(point(10, 1.0, 4.0),), examples_seen=10
    )
    failed = record("t2", status="failed", reason="boom", objectives=None, curve=(), examples_seen=0)
    table = CurveTable.from_run(*run_folder(tmp_path, record("t0"), stopped, failed, record("t3", curve=())))
    (found,) = table.curves
    assert found.trial_id == "t0"
    assert found.examples_seen == (10, 30)
    assert found.train_seconds == (4.0, 11.0)
    assert found.rung_values == {"em_percent": (12.5, 30.0), "memory_mb": (7.5, 7.5)}
    assert (found.final, found.seconds) == ({"em_percent": 28.0, "memory_mb": 7.25}, 15.0)
    assert table.left_out == {"failed": 1, "stopped": 1, "without a curve": 1}
    assert table.total_examples == 30
    assert table.hypervolume == pytest.approx(28.0 * (100 - 7.25))
    assert table.provenance["packages"] == {"ray": "2"}
    assert table.provenance["evaluation_hash"] == "0123456789abcdef"
    assert "command" not in table.provenance


def test_the_curve_of_a_trial_with_forms_is_that_of_its_twin_and_its_points_are_the_forms(
    tmp_path: Path,
) -> None:
    plain = CurveTable.from_run(*run_folder(tmp_path, record("t0"), record("t1")))
    (tmp_path / "records.jsonl").unlink()
    with_some = with_forms(record("t0"), stored("int8", 99.0, 1.0))
    with_none = with_forms(record("t1"), without("int8", "failed", "boom"))
    table = CurveTable.from_run(*run_folder(tmp_path, with_some, with_none))
    assert [curve.trial_id for curve in table.curves] == ["t0", "t1"]
    assert tuple(replace(curve, forms=()) for curve in table.curves) == plain.curves
    assert table.left_out == plain.left_out
    values = {"em_percent": 99.0, "memory_mb": 1.0}
    # Of a version whose reports named no forms: no kind. 4 s beside training, for the twin and one form.
    assert table.curves[0].forms == (RecordedForm("int8", final=values, seconds=2.0),)
    assert table.curves[1].forms == (RecordedForm("int8", seconds=4.0),)
    assert table.losses.tolist() == [[-99.0, 1.0]]
    assert table.curve_of.tolist() == [0]
    assert table.losses_of([1]).shape == (0, 2)


def test_a_table_has_its_curves_in_the_order_of_proposals_not_of_ends(tmp_path: Path) -> None:
    table = CurveTable.from_run(*run_folder(tmp_path, record("t2"), record("t0"), record("t1")))
    assert [item.trial_id for item in table.curves] == ["t0", "t1", "t2"]


def test_reports_of_the_first_protocol_that_lack_bytes_take_those_of_the_artifact(tmp_path: Path) -> None:
    append(
        tmp_path / "records.jsonl", record("t0000", objectives={"em_percent": 28.0, "artifact_bytes": 9000.0})
    )
    settings = spec_of(SPACE).as_dict()
    settings["objectives"][1] = {"name": "artifact_bytes", "goal": "min", "reference": 10**6}
    (tmp_path / "spec.json").write_text(json.dumps(settings))
    table = CurveTable.from_run(tmp_path / "records.jsonl", tmp_path / "spec.json")
    assert table.curves[0].rung_values["artifact_bytes"] == (9000.0, 9000.0)


def test_a_recipe_that_trains_nothing_has_a_curve_of_no_examples(tmp_path: Path) -> None:
    untrained = record("t1", examples_seen=0, budget_examples=0, curve=(point(0, 3.0, 0.0),))
    table = CurveTable.from_run(*run_folder(tmp_path, record("t0"), untrained))
    assert [item.budget_examples for item in table.curves] == [30, 0]
    assert table.total_examples == 30


def test_a_table_has_the_largest_group_that_can_be_compared_and_counts_the_rest(tmp_path: Path) -> None:
    other = record("t1", device="cuda: other")
    table = CurveTable.from_run(*run_folder(tmp_path, record("t0"), other, record("t2")))
    assert [item.trial_id for item in table.curves] == ["t0", "t2"]
    ((reason, count),) = table.left_out.items()
    assert "device" in reason
    assert count == 1


def test_a_run_without_full_curves_is_refused_with_the_reasons(tmp_path: Path) -> None:
    paths = run_folder(tmp_path, record("t1", status="stopped", reason="rung", objectives=None))
    with pytest.raises(DataError, match=r"records\.jsonl: no trial has a full curve \(1 stopped\)"):
        CurveTable.from_run(*paths)


def test_a_curve_with_a_gap_is_refused_with_trial_point_and_field(tmp_path: Path) -> None:
    torn = {**point(30, 30.0, 11.0), "train_seconds": None}
    paths = run_folder(tmp_path, record("t0", curve=(point(10, 12.5, 4.0), torn)))
    with pytest.raises(DataError, match=r"trial t0: curve\[1\]\.train_seconds: found nothing"):
        CurveTable.from_run(*paths)


def test_a_run_without_settings_is_refused(tmp_path: Path) -> None:
    records_path, spec_path = run_folder(tmp_path, record("t0"))
    spec_path.unlink()
    with pytest.raises(DataError, match=r"spec\.json: the sweep's settings cannot be read"):
        CurveTable.from_run(records_path, spec_path)


def test_absolute_paths_keep_their_last_part_wherever_they_stand() -> None:
    values = {
        "data": {"train": "/home/somebody/train.json", "window": "384/128"},
        "checkpoint": ["C:\\models\\bert", "org/name", 3, None, True],
    }
    assert shortened(values) == {
        "data": {"train": "train.json", "window": "384/128"},
        "checkpoint": ["bert", "org/name", 3, None, True],
    }


def test_a_rung_is_reported_by_the_first_step_that_reaches_it() -> None:
    found = curve({}, examples_seen=(32, 64, 96, 128), train_seconds=(1.0, 2.0, 3.0, 4.0))
    assert found.report_at(32, 90) == 0
    assert found.report_at(33, 90) == 1  # up to a batch later
    assert found.report_at(65, 97) == 2
    assert found.report_at(65, 96) is None  # the next rung is reached by the same step, and counts
    assert found.report_at(97, 128) is None  # the whole budget ends the trial without a verdict
    assert found.report_at(129, 200) is None
