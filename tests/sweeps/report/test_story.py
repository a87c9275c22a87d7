"""What the report says: each point once, exact values, exact hypervolume over time, nothing of users' questions."""

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sweeps.front.front import compute_front
from sweeps.report.answer_book import AnswerBook
from sweeps.report.columns import decoded
from sweeps.report.page import page
from sweeps.report.snapshot import ENDED, INTERRUPTED, RUNNING, Snapshot, read_snapshot
from sweeps.report.story import ShownExample, story
from sweeps.run_folder import journal
from sweeps.run_folder.records import Record, load
from sweeps.spec.objectives import Objective
from tests.sweeps.forms import stored, with_forms, without
from tests.sweeps.front.test_front import record
from tests.sweeps.report.made import SPEC, made_records, write_answers, write_run

OBJECTIVES = [Objective.model_validate(item) for item in SPEC["objectives"]]
MOST_BYTES = 1_000_000


def told(records: list[Record], folder: Path = Path("runs/x"), **changes: Any) -> dict[str, Any]:
    snapshot = Snapshot(folder, SPEC, records, compute_front(records, OBJECTIVES))
    return story(replace(snapshot, **changes), AnswerBook(folder), now=datetime(2026, 1, 1, tzinfo=UTC))


def rows_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = decoded(found["rows"]["columns"])
    assert len(rows) == found["rows"]["count"]
    return rows


def test_each_model_and_each_trial_without_one_is_a_row_once_with_its_values() -> None:
    records = made_records(60)
    found = told(records)
    rows = rows_of(found)
    assert Counter(row["trial"] for row in rows) == Counter(item.trial_id for item in records)
    result = compute_front(records, OBJECTIVES)
    points = {point.trial_id: point for point in result.points}
    for row in rows:
        assert (row["place"] in ("front", "behind")) == (row["trial"] in points)
        if row["trial"] in points:
            point = points[row["trial"]]
            assert (row["place"] == "front") == point.on_front
            assert (row["knee"] == "yes") == point.is_knee
            for name, value in point.values.items():
                assert row[name] == pytest.approx(value, rel=1e-5)
            assert row["set:train.learning_rate"] == pytest.approx(
                point.settings["train.learning_rate"], rel=1e-5
            )
            assert row["family"] == point.family
    assert [row["trial"] for row in rows if row["place"] == "front"] == [
        item.trial_id for item in result.front
    ]


def test_stopped_and_paused_trials_stand_at_their_last_rung_and_failed_ones_nowhere(tmp_path: Path) -> None:
    records = made_records(60)
    folder = write_run(tmp_path / "run", records, paused=2)
    loaded = load(folder / "records.jsonl").records
    snapshot = read_snapshot(folder, loaded, compute_front(loaded, OBJECTIVES))
    rows = {row["trial"]: row for row in rows_of(story(snapshot, AnswerBook(folder)))}
    assert len(rows) == 62
    kinds = {item.status for item in records}
    assert kinds == {"ok", "stopped", "failed"}
    for item in records:
        row = rows[item.trial_id]
        if item.status == "stopped":
            assert row["place"] == "rung"
            assert row["em_percent"] == pytest.approx(item.curve[-1]["selection_em_percent"], rel=1e-5)
            assert row["memory_mb"] == pytest.approx(item.curve[-1]["memory_mb"], rel=1e-5)
            assert row["latency_p50_ms"] is None  # no rung knows it
        elif item.status == "failed":
            assert (row["place"], row["em_percent"], row["why"]) == ("none", None, "failed")
    for paused in ("t0060", "t0061"):
        assert (rows[paused]["place"], rows[paused]["status"], rows[paused]["examples"]) == (
            "rung",
            "paused",
            2400,
        )


def test_stored_forms_are_rows_of_their_own_and_those_that_were_skipped_say_why() -> None:
    item = with_forms(
        record("t0", 60, 9),
        stored("float32", 60, 9),
        stored("int8+e8", 58, 3),
        without("nf4", "skipped", "a smaller form answers as well"),
    )
    found = told([item])
    rows = {row["form"]: row for row in rows_of(found)}
    assert list(rows) == ["float32", "int8+e8", "nf4"]
    assert (rows["int8+e8"]["bits"], rows["int8+e8"]["table_bits"], rows["int8+e8"]["em_percent"]) == (
        8,
        8,
        58,
    )
    assert (rows["float32"]["bits"], rows["float32"]["twin"]) == (32, None)
    assert rows["int8+e8"]["twin"] == "-1.50 (-3.25 to +0.25)"
    assert (rows["nf4"]["place"], rows["nf4"]["why"]) == ("none", "a smaller form answers as well")
    assert found["forms_left_out"] == {"skipped (a smaller form answers as well)": 1}


def test_intervals_by_article_and_ties_with_smaller_models_stand_at_the_points_of_the_front(
    tmp_path: Path,
) -> None:
    best, tied, worse = record("t0", 60, 9), record("t1", 59.5, 5), record("t2", 30, 2)
    for item, em in ((best, 60.0), (tied, 59.5), (worse, 30.0)):
        write_answers(tmp_path / "trials" / item.trial_id / "answers.parquet", em)
    rows = {row["trial"]: row for row in rows_of(told([best, tied, worse], tmp_path))}
    assert (rows["t0"]["tied"], rows["t1"]["tied"], rows["t2"]["tied"]) == ("t1", None, None)
    assert rows["t0"]["by"] == "10 articles"
    assert rows["t1"]["em_low"] < 59.5 < rows["t1"]["em_high"]
    damaged = tmp_path / "trials" / "t1" / "answers.parquet"
    damaged.write_bytes(b"no answers")
    rows = {row["trial"]: row for row in rows_of(told([best, tied, worse], tmp_path))}
    assert ("tied" in rows["t0"], rows["t1"]["em_low"]) == (False, None)


def test_the_hypervolume_grows_with_what_was_spent_and_ends_at_that_of_the_front() -> None:
    records = made_records(60)
    found = told(records)
    history = found["history"]
    volumes = [entry[3] for entry in history]
    assert volumes == sorted(volumes)
    assert (
        volumes[-1]
        == found["hypervolume"]
        == pytest.approx(compute_front(records, OBJECTIVES).hypervolume, rel=1e-5)
    )
    assert history[-1][0] == sum(item.examples_seen for item in records)
    assert history[-1][1] == pytest.approx(60 * 30 / 3600)
    assert history[-1][2] == pytest.approx((59 * 40 + 30) / 3600, rel=1e-4)
    first_point = next(item for item in records if item.status == "ok")
    ended = [item for item in records if item.trial_id <= first_point.trial_id]
    assert history[0] == [
        sum(item.examples_seen for item in ended),
        pytest.approx(len(ended) * 30 / 3600, rel=1e-4),
        pytest.approx((40 * (len(ended) - 1) + 30) / 3600, rel=1e-4),
        pytest.approx(compute_front([first_point], OBJECTIVES).hypervolume, rel=1e-5),
        first_point.trial_id,
    ]


def test_curves_hold_every_report_and_the_rungs() -> None:
    records = made_records(12)
    curves = told(records)["curves"]
    assert curves["rungs"] == [2400, 7200]
    drawn = {item["trial"]: item["points"] for item in curves["trials"]}
    for item in records:
        assert [point[0] for point in drawn[item.trial_id]] == [
            report["examples_seen"] for report in item.curve
        ]
        assert drawn[item.trial_id][0][1] == pytest.approx(item.curve[0]["selection_em_percent"], rel=1e-5)


def test_errors_are_grouped_and_an_export_is_offered_for_what_is_kept_alone() -> None:
    records = made_records(60)
    found = told(records)
    (failure,) = found["failures"]
    failed = [item.trial_id for item in records if item.status == "failed"]
    assert failure == {
        "status": "failed",
        "error": "ValueError: no loss",
        "count": len(failed),
        "first": failed[0],
    }
    assert {row["place"] for row in rows_of(found) if row["kept"]} == {"front"}
    assert found["export"] == ["qa-sweep export runs/x", "runs/x-model"]
    found = told(records, spec={**SPEC, "budget": {"keep_artifacts": "all"}})
    assert {row["place"] for row in rows_of(found) if row["kept"]} == {"front", "behind"}


def test_secrets_in_what_a_running_driver_holds_are_masked() -> None:
    item = replace(record("t0"), provenance={"command": "qa-sweep run --x hf_abcdefghijklmnop"})
    text = page(told([item]))
    assert "hf_abcdefghijklmnop" not in text
    assert "qa-sweep run --x ***" in text


def test_questions_of_the_data_stand_on_the_page_only_where_they_are_handed_in(tmp_path: Path) -> None:
    records = made_records(12)
    snapshot = Snapshot(tmp_path, SPEC, records, compute_front(records, OBJECTIVES))
    assert story(snapshot, AnswerBook(tmp_path))["examples"] == []
    shown = story(snapshot, AnswerBook(tmp_path), examples=[ShownExample("Who?", ("Ann",), {"t0": ""})])
    assert shown["examples"] == [{"question": "Who?", "golds": ["Ann"], "answers": {"t0": ""}}]


def test_scores_on_probes_are_read_from_beside_the_answers(tmp_path: Path) -> None:
    asked = told([record("t0", artifact="trials/t0/artifact")], tmp_path)
    assert asked["probes"] == []
    words = asked["ask_probes"].split()
    assert words[:2] == ["qa-sweep", "evaluate"]
    assert words[-1] == str(tmp_path / "trials" / "t0" / "probes.json")
    row = {"category": "pronoun_chain", "variant": "original", "items": 20}
    scores = {"em_percent": {"estimate": 45.0}, "f1_percent": {"estimate": 51.25}}
    Path(words[-1]).parent.mkdir(parents=True)
    Path(words[-1]).write_text(json.dumps({"probes": {"rows": [{**row, **scores}]}}))
    found = told([record("t0", artifact="trials/t0/artifact")], tmp_path)
    assert found["probes"] == [{"model": "t0", "rows": [["pronoun_chain", "original", 20, 45, 51.25]]}]
    Path(words[-1]).write_text("[]")
    assert told([record("t0")], tmp_path)["probes"] == []


def test_a_sweep_without_a_trial_and_one_with_a_single_objective_have_a_report() -> None:
    assert told([])["rows"]["count"] == 0
    snapshot = Snapshot(Path("x"), SPEC, made_records(9), compute_front(made_records(9), OBJECTIVES[:1]))
    assert story(snapshot, AnswerBook(Path("x")))["axes"][0]["name"] == "em_percent"


def test_the_state_of_a_folder_is_what_its_files_and_its_lock_say(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", made_records(3), paused=1)
    loaded = load(folder / "records.jsonl").records

    def state() -> str:
        return read_snapshot(folder, loaded, compute_front(loaded, OBJECTIVES)).state

    assert state() == ENDED  # a paused trial may wait for ever
    with journal.held(folder):
        assert state() == RUNNING
    assert state() == ENDED
    (folder / "pause").touch()
    assert state() == INTERRUPTED
    (folder / "pause").unlink()
    journal.Journal(folder).proposed("t0004", assignment={}, notes={}, recipe={})
    assert state() == INTERRUPTED


def test_the_page_of_a_thousand_trials_stays_below_one_megabyte() -> None:
    text = page(told(made_records(1000)))
    assert len(text.encode()) < MOST_BYTES
    (data,) = re.findall(r'id="story">(.*?)</script>', text, re.DOTALL)
    assert len(rows_of(json.loads(data))) == 1000


def test_the_page_has_rules_for_light_and_dark_for_narrow_screens_and_for_print() -> None:
    text = page(told(made_records(3)))
    assert '<meta name="color-scheme" content="light dark">' in text
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    light, dark = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    names = [
        re.findall(r"(--(?:c\d|paper|raised|ink|quiet|faint|line|grid|accent|mark|warn|good)): (#\w+)", part)
        for part in (light, dark)
    ]
    assert [name for name, _ in names[0]] == [name for name, _ in names[1]]
    assert len(names[0]) == 19
    assert all(one != other for one, other in zip(*names, strict=True))
    for rule in ("@media (prefers-color-scheme: dark)", "@media (max-width: 640px)", "@media print"):
        assert rule in text
