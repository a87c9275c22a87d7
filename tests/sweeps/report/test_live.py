"""The report of a running sweep: written soon after an event, rarely, whole, and never the sweep's concern."""

import threading
import time
from pathlib import Path

import pytest

from sweeps.front.front import compute_front
from sweeps.report import live
from sweeps.report.live import LiveReport
from sweeps.report.snapshot import ENDED, RUNNING, Snapshot
from sweeps.run_folder.records import to_dict
from tests.sweeps.report.made import SPEC, made_records
from tests.sweeps.report.test_story import OBJECTIVES

PATIENCE_SECONDS = 20.0


def wait_until(holds: object, path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if path.exists() and str(holds) in path.read_text(encoding="utf-8"):
            return
        time.sleep(0.02)
    raise AssertionError(f"{holds} does not stand in {path}")


def test_a_page_follows_an_event_while_the_sweep_runs_and_once_more_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LEAST_SECONDS", 0.01)
    records = made_records(3)

    def look(is_over: bool) -> Snapshot:
        shown = records[:1] if not is_over else records
        return Snapshot(
            tmp_path, SPEC, shown, compute_front(shown, OBJECTIVES), (), ENDED if is_over else RUNNING
        )

    report = LiveReport(tmp_path, pytest.fail)
    with report.kept(look):
        assert not (tmp_path / "report.html").exists()
        report.trial_ended(to_dict(records[0]))
        wait_until('"state":"running"', tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '"state":"ended"' in text
    assert "t0002" in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_many_events_make_few_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []
    monkeypatch.setattr(live, "LEAST_SECONDS", 0.3)
    monkeypatch.setattr(live, "write_page", lambda told, path: pages.append(threading.current_thread().name))
    report = LiveReport(tmp_path, pytest.fail)
    empty = Snapshot(tmp_path, SPEC, (), compute_front([], OBJECTIVES))
    with report.kept(lambda is_over: empty):
        for _ in range(100):
            report.trial_started("t0", "")
            time.sleep(0.005)
    assert 2 <= len(pages) <= 5
    assert pages[-1] == threading.current_thread().name


def test_an_event_waits_for_no_page(tmp_path: Path) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def look(is_over: bool) -> Snapshot:
        begun.set()
        assert goes_on.wait(PATIENCE_SECONDS)
        return Snapshot(tmp_path, SPEC, (), compute_front([], OBJECTIVES))

    report = LiveReport(tmp_path, pytest.fail)
    with report.kept(look):
        report.trial_started("t0", "")
        assert begun.wait(PATIENCE_SECONDS)
        report.trial_reported("t0", {})  # returns though the page is not written
        assert not (tmp_path / "report.html").exists()
        goes_on.set()


def test_a_report_that_cannot_be_written_is_told_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LEAST_SECONDS", 0.01)
    told: list[str] = []

    def look(is_over: bool) -> Snapshot:
        raise KeyError("what nobody thought of")

    report = LiveReport(tmp_path, told.append)
    with report.kept(look):
        report.trial_started("t0", "")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not told and time.monotonic() < deadline:
            time.sleep(0.02)
        report.trial_started("t1", "")
    assert told == ["report.html is not up to date: KeyError: 'what nobody thought of'"]


def test_the_last_page_is_written_though_the_sweep_ends_with_an_error(tmp_path: Path) -> None:
    report = LiveReport(tmp_path, pytest.fail)
    empty = Snapshot(tmp_path, SPEC, (), compute_front([], OBJECTIVES))
    with pytest.raises(OSError, match="disk"), report.kept(lambda is_over: empty):
        raise OSError("disk")
    assert (tmp_path / "report.html").exists()
