"""`report`, `compare` and `list` as a user types them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sweeps import cli
from sweeps.commands import report
from sweeps.front.card import Example
from sweeps.run_folder import journal
from tests.sweeps.report.made import made_records, write_answers, write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs" / "first", made_records(12), spec={"seed": 1})
    write_run(tmp_path / "runs" / "second", made_records(20), spec={"seed": 2}, paused=1)
    return tmp_path / "runs"


def output_of(arguments: Sequence[object], capsys: pytest.CaptureFixture[str], *, code: int = 0) -> str:
    assert cli.main([str(item) for item in arguments]) == code
    shown = capsys.readouterr()
    return shown.out if code == 0 else shown.err


def test_report_writes_the_page_into_the_folder_or_where_it_is_told(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert output_of(["report", runs / "first"], capsys) == f"written: {runs / 'first' / 'report.html'}\n"
    text = (runs / "first" / "report.html").read_text(encoding="utf-8")
    assert '"trial"' in text
    assert '"examples":[]' in text
    assert output_of(["report", runs / "first", "--out", tmp_path / "new" / "x.html"], capsys)
    assert (tmp_path / "new" / "x.html").exists()


def test_report_shows_questions_only_with_examples(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for item in made_records(12):
        write_answers(runs / "first" / "trials" / item.trial_id / "answers.parquet", 50)
    shown = [Example("Who planted the secret orchard?", ("Ann",), "")]
    monkeypatch.setattr(report, "examples_of", lambda model, path: shown)
    page = runs / "first" / "report.html"
    output_of(["report", runs / "first"], capsys)
    assert "secret orchard" not in page.read_text(encoding="utf-8")
    output_of(["report", runs / "first", "--with-examples"], capsys)
    assert "secret orchard" in page.read_text(encoding="utf-8")


def test_compare_prints_both_fronts_and_writes_a_page(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = output_of(["compare", runs / "first", runs / "second"], capsys)
    for words in ("against first", "hypervolume +", "Settings that differ", "seed", "comparison.html"):
        assert words in shown
    assert '"kind":"comparison"' in (runs / "first" / "comparison.html").read_text(encoding="utf-8")


def test_compare_refuses_one_folder_and_leaves_no_page(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "two folders of sweeps or more" in output_of(["compare", runs / "first"], capsys, code=2)
    assert not (runs / "first" / "comparison.html").exists()


def test_list_shows_every_sweep_with_its_state_and_names_what_cannot_be_read(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    write_run(runs / "third", made_records(3))
    (runs / "third" / "records.jsonl").write_text("no json\n")
    write_run(runs / "early", [])
    (runs / "something else").mkdir()
    journal.Journal(runs / "first").proposed("t0012", assignment={}, notes={}, recipe={})
    with journal.held(runs / "early"):
        shown = output_of(["list", runs], capsys)
    lines = {line.split("│")[1].strip(): line for line in shown.splitlines() if line.startswith("│")}
    assert list(lines) == ["early", "first", "second", "third"]
    for name, state in (
        ("early", "running"),
        ("first", "interrupted"),
        ("second", "ended"),
        ("third", "unreadable"),
    ):
        assert state in lines[name]
    assert "20 of 24" in lines["second"]
    assert " MB" in lines["second"]
    assert "0 of 24" in lines["early"]
    assert f"unreadable: {runs / 'third' / 'records.jsonl'}:1" in shown


def test_list_refuses_a_folder_without_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "found no sweep" in output_of(["list", tmp_path], capsys, code=2)
    assert "found no folder" in output_of(["list", tmp_path / "absent"], capsys, code=2)
