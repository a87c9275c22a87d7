"""The process that carries a sweep out for `qa_sweeps`, without a sweep: what it says at the end."""

from types import SimpleNamespace

import pytest

from qa_sweeps import child
from sweeps.commands import run
from tests.sweeps.from_scratch import FROM_SCRATCH


@pytest.mark.parametrize("ended_by", [None, "6 minutes are over"])
def test_a_sweep_that_ended_early_says_why_and_how_to_go_on(
    ended_by: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = SimpleNamespace(outcome=SimpleNamespace(ended_by=ended_by))
    monkeypatch.setattr(run, "carry_out", lambda *given, **named: done)
    places = {"address": None, "tracking_uri": None, "allow_mixed": False, "quiet": True}
    request = {"folder": "runs/a", "config": str(FROM_SCRATCH), "overrides": [], "scales": [], **places}
    assert child._carried_out(request) == {"ended_by": ended_by}
    said = "the sweep ended early: 6 minutes are over; qa_sweeps.resume('runs/a') goes on\n"
    assert capsys.readouterr().out == (said if ended_by else "")
