"""What a driver tells its searcher, and that this proposes the same wherever the sweep was killed."""

from pathlib import Path
from typing import Any

import pytest

from sweeps.run_folder import journal
from sweeps.schedulers.pausing import Verdict
from sweeps.searchers.base import Searcher
from sweeps.trials.driver import Driver
from tests.sweeps.trials.toy_driver import (
    begin,
    final_report,
    pausing_driver,
    report_at,
    rung_report,
    toy_driver,
)

pytestmark = pytest.mark.usefixtures("toy_registry")


def _searched(folder: Path, trials: int) -> Driver:
    """Return a driver whose searcher learns from reports."""
    searcher = {"name": "surrogate", "options": {"startup_trials": 3, "random_every": 4}}
    return pausing_driver(folder, trials=trials, searcher=searcher)


def _go_on(driver: Driver, events: int) -> list[tuple[str, Any]]:
    """Let one worker train until so many reports and ends are told; returns what it took up. EM hangs on the recipe."""
    taken = []
    while events > 0 and (task := driver.propose()) is not None:
        driver.started(task.trial_id)
        running = driver.running[task.trial_id]
        taken.append((task.trial_id, running.proposal.assignment))
        em = 10.0 * len(running.proposal.assignment["methods"]) + 7 * len(task.recipe["model"]["family"])
        verdict = Verdict.GO_ON
        for seen in [rung for rung in (104, 304) if rung > task.reported_examples]:
            if verdict is Verdict.GO_ON and events > 0:
                verdict = report_at(driver, task.trial_id, seen, em * seen / 900)
                events -= 1
        if verdict is Verdict.GO_ON and events > 0:
            final = final_report(Path(task.folder), em)
            final["result"]["curve"] = [rung_report(seen, em * seen / 900) for seen in (104, 304, 900)]
            driver.ended(task.trial_id, final, None)
            events -= 1
    return taken


def test_a_sweep_whose_searcher_learns_from_reports_proposes_the_same_wherever_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.searchers.surrogate.CANDIDATES", 32)
    monkeypatch.setattr("sweeps.searchers.gaussian_process.STEPS", 8)
    undisturbed = _go_on(_searched(tmp_path / "whole", 14), 1000)
    proposed = dict(undisturbed)
    assert list(proposed) == [f"t{number:04d}" for number in range(14)]
    by_chance = toy_driver(tmp_path / "random", budget={"trials": 14, "examples": 900})
    drawn = {
        task.trial_id: by_chance.running[task.trial_id].proposal
        for _ in range(14)
        if (task := by_chance.propose())
    }
    modelled = [drawn[name].assignment != proposed[name] for name in drawn]
    assert modelled[:3] == [False] * 3
    assert sum(modelled) >= 4  # most others are the model's
    for events in (1, 6, 11, 16, 20):
        folder = tmp_path / f"cut{events}"
        _go_on(_searched(folder, 14), events)
        after = _searched(folder, 14)
        _go_on(after, 1000)
        found = {trial.trial_id: trial.assignment for trial in journal.read(folder).trials}
        assert found == proposed
        assert [record.status for record in after.records].count("ok") >= 1


def test_a_searcher_is_told_of_each_report_when_it_comes_and_on_a_resume_of_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Searcher, "_observe", lambda self, *report: seen.append(report))
    before = pausing_driver(tmp_path / "run")
    for em in (60.0, 20.0):
        report_at(before, begin(before), 104, em)
    third = begin(before)
    before.reported(third, {**rung_report(104), "memory_mb": None}, is_stopped=False)
    expected = [(0, 104, [60.0, 8.0]), (1, 104, [20.0, 8.0]), (2, 104, [10.0, None])]
    assert seen == expected
    before.ended(third, final_report(tmp_path / "run/trials/t0002", 40.0), None)
    assert seen[3:] == [(2, 900, [40.0, 8.0])]
    seen.clear()
    pausing_driver(tmp_path / "run")
    # Of a trial that has ended, the record's curve; here that of the end alone.
    assert sorted(seen) == sorted([*expected[:2], (2, 900, [40.0, 8.0])])
