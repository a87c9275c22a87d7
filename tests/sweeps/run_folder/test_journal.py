"""The journal: what is written is read back, what cannot be is named by file and line, one driver at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from qa_core.errors import DataError, StorageError
from sweeps.run_folder import journal, records
from sweeps.run_folder.journal import Journal
from sweeps.run_folder.layout import JOURNAL_FILE
from tests.sweeps.run_folder.test_records import record

PROGRESS = {"examples_seen": 30, "selection_em_percent": 1.5}


def _begun(folder: Path) -> Journal:
    log = Journal(folder)
    log.proposed("t0000", assignment={"a": 1}, notes={"generation": 3}, recipe={"seed": 5})
    log.started("t0000")
    log.proposed("t0001", assignment={"a": 2}, notes={}, recipe={"seed": 6})
    log.started("t0001")
    log.started("t0001")
    log.reported("t0001", PROGRESS, is_stopped=False)
    return log


def test_trials_come_back_in_order_with_curves_verdicts_and_records(tmp_path: Path) -> None:
    log = _begun(tmp_path)
    log.tracked("sqlite:///x", "run1")
    log.reported("t0001", {**PROGRESS, "examples_seen": 90}, is_stopped=True)
    records.append(tmp_path / "records.jsonl", record("t0000"))
    past = journal.read(tmp_path)
    first, second = past.trials
    assert (first.trial_id, first.assignment, first.notes, first.recipe) == (
        "t0000",
        {"a": 1},
        {"generation": 3},
        {"seed": 5},
    )
    assert (first.record, first.starts, first.curve, first.is_stopped) == (record("t0000"), 1, [], False)
    assert (second.record, second.starts, second.is_stopped) == (None, 2, True)
    assert [point["examples_seen"] for point in second.curve] == [30, 90]
    assert past.tracking == {"tracking_uri": "sqlite:///x", "parent_run_id": "run1"}


def test_a_trial_is_paused_from_its_report_until_a_worker_takes_it_up(tmp_path: Path) -> None:
    log = _begun(tmp_path)
    assert journal.count_paused(tmp_path) == 0
    log.reported("t0001", {**PROGRESS, "examples_seen": 90}, is_stopped=False, is_paused=True)
    assert [trial.is_paused for trial in journal.read(tmp_path).trials] == [False, True]
    assert journal.count_paused(tmp_path) == 1
    log.started("t0001")
    trial = journal.read(tmp_path).trials[1]
    assert (trial.is_paused, trial.is_stopped, trial.starts, len(trial.curve)) == (False, False, 3, 2)


def test_a_paused_trial_that_was_stopped_later_has_a_record_and_is_paused_no_more(tmp_path: Path) -> None:
    log = _begun(tmp_path)
    log.reported("t0001", {**PROGRESS, "examples_seen": 90}, is_stopped=False, is_paused=True)
    records.append(tmp_path / "records.jsonl", record("t0001"))
    assert journal.count_paused(tmp_path) == 0


def test_a_journal_that_knows_no_pause_is_read_as_before(tmp_path: Path) -> None:
    _begun(tmp_path)
    path = tmp_path / JOURNAL_FILE
    path.write_text(path.read_text().replace(', "is_paused": false', "").replace('"is_paused": false, ', ""))
    assert "is_paused" not in path.read_text()
    assert [trial.is_paused for trial in journal.read(tmp_path).trials] == [False, False]


def test_a_folder_whose_sweep_ended_before_its_first_trial_has_no_past(tmp_path: Path) -> None:
    assert journal.read(tmp_path) == journal.Past()


def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next(tmp_path: Path) -> None:
    log = _begun(tmp_path)
    path = tmp_path / JOURNAL_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "rep')
    past = journal.read(tmp_path)
    assert len(past.trials) == 2
    assert past.notes == (f"{path}:7: left out a last line that was torn while it was written",)
    log.started("t0000")
    assert path.read_bytes().startswith(whole)
    assert journal.read(tmp_path).trials[0].starts == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"event": "proposed", "trial_id": "t0000", "assignment": {}, "notes": {}, "recipe": {}}', "twice"),
        ('{"event": "proposed", "trial_id": "t2", "assignment": {}, "notes": {}}', "misses 'recipe'"),
        (
            '{"event": "proposed", "trial_id": "t2", "assignment": 3, "notes": {}, "recipe": {}}',
            "assignment: found 3; allowed: a mapping",
        ),
        ('{"event": "started", "trial_id": "t7"}', "misses 't7'"),
        ('{"event": "start", "trial_id": "t0000"}', "did you mean 'started'"),
        ("[1]", "expected a JSON object, found list"),
        ("{", "not a JSON line"),
        (
            '{"event": "reported", "trial_id": "t0000", "progress": {"loss": NaN}}',
            "every number must be finite",
        ),
    ],
)
def test_a_line_that_makes_no_sense_is_named(line: str, message: str, tmp_path: Path) -> None:
    _begun(tmp_path)
    with (tmp_path / JOURNAL_FILE).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"journal\.jsonl:7: ") as refusal:
        journal.read(tmp_path)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["t0000", "t0000"], "trial t0000 stands twice"), (["t0009"], "trial t0009 is not in the journal")],
)
def test_records_that_do_not_fit_the_journal_are_refused(
    names: list[str], message: str, tmp_path: Path
) -> None:
    _begun(tmp_path)
    for name in names:
        records.append(tmp_path / "records.jsonl", record(name))
    with pytest.raises(DataError, match=message):
        journal.read(tmp_path)


def test_records_without_a_journal_cannot_be_resumed(tmp_path: Path) -> None:
    records.append(tmp_path / "records.jsonl", record())
    with pytest.raises(DataError, match=r"it has no journal\.jsonl; allowed: `front` and .*--out"):
        journal.read(tmp_path)


def test_a_second_driver_is_refused_until_the_first_is_gone_even_if_it_was_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from sweeps.run_folder.journal import held\n"
        f"with held(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(StorageError, match="another process is running this sweep"),
            journal.held(tmp_path),
        ):
            pass
        other.kill()
        other.wait()
    with journal.held(tmp_path):
        pass
