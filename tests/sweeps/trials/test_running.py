"""Why a trial without a result ended, where several things could be said of it."""

import json
from pathlib import Path

import pytest

from sweeps.run_folder.layout import OUTCOME_FILE
from sweeps.searchers.base import Proposal
from sweeps.spec.sections import Budget
from sweeps.trials.running import Running, died_too_often, ending_of
from sweeps.trials.task import TrialTask
from sweeps.trials.watchdog import Hang


def _running(folder: Path, *, is_stopped: bool = False) -> Running:
    task = TrialTask(trial_id="t0000", recipe={}, folder=str(folder), cache_dir="", threads=1)
    return Running(task, Proposal(0, {}), curve=[{"examples_seen": 40}], is_stopped=is_stopped)


@pytest.mark.parametrize(
    ("note", "error", "is_stopped", "expected"),
    [
        (None, None, False, None),
        (None, None, True, ("stopped", "stopped by scheduler 'asha' at 40 examples")),
        (None, "Traceback\n  x\nValueError: y\n", True, ("failed", "ValueError: y")),
        (None, " \n", False, ("failed", "the worker died without a message")),
        ("paused", "Traceback\nPaused: z", False, None),  # how Ray tells of it
        ("oom", "Traceback\nOutOfMemoryError: z", True, ("oom", "its own words")),
    ],
)
def test_the_note_of_the_trial_itself_comes_before_rays_and_that_before_the_schedulers_verdict(
    tmp_path: Path,
    note: str | None,
    error: str | None,
    is_stopped: bool,
    expected: tuple[str, str] | None,
) -> None:
    if note is not None:
        values = {"status": note, "reason": "its own words", "traceback": None}
        (tmp_path / OUTCOME_FILE).write_text(json.dumps(values))
    found = ending_of(_running(tmp_path, is_stopped=is_stopped), error, scheduler="asha")
    assert (found and (found["status"], found["reason"])) == expected


def test_of_a_trial_that_hung_too_often_the_stacks_are_kept_and_the_last_line_is_the_reason() -> None:
    budget = Budget(trials=1, examples=1, hang_minutes=2, max_lost_workers=0)
    lines = died_too_often(
        "what Ray says", Hang("train.py:9, in train", "stack 1\nstack 2\n"), budget
    ).splitlines()
    assert lines[:2] == ["stack 1", "stack 2"]
    assert lines[2].startswith(
        "it did nothing for more than 2 min (budget.hang_minutes) at train.py:9, in train, after 0"
    )
    assert died_too_often("what Ray says\n", None, budget).splitlines()[0] == "what Ray says"
