"""`run`: what is shown and returned at each kind of end; Ray is tested elsewhere."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from qa_core.errors import ConfigError
from sweeps.budget.memory import MemoryForecast
from sweeps.commands import run
from sweeps.nodes.ray_environment import RayTarget
from sweeps.spec.sections import SweepSpec
from tests.sweeps.commands import faked_run
from tests.sweeps.commands.faked_run import FakeTuner, run_with
from tests.sweeps.from_scratch import PROJECT, SMALL


def test_the_trials_get_the_space_and_the_forecast_of_the_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[MemoryForecast] = []
    of = MemoryForecast.of.__func__
    monkeypatch.setattr(MemoryForecast, "of", classmethod(lambda *given: made.append(of(*given)) or made[-1]))
    _, tuner, _ = run_with(monkeypatch, Counter(ok=3), "--out", str(tmp_path / "run"))
    assert len(made) == 1
    assert tuner.calls[0]["forecast"] is made[0]
    assert len(tuner.calls[0]["space"].legal) == 18


def test_a_sweep_ends_with_front_plots_and_next_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a run"
    arguments = ("--out", str(folder), "--address", "auto", "--tracking-uri", "http://x", "--dashboard")
    code, tuner, tracker = run_with(monkeypatch, Counter(ok=3, stopped=2), *arguments)
    assert code == 0
    assert tuner.calls[0]["folder"] == folder
    assert tuner.calls[0]["target"] == RayTarget("auto", True)
    assert [item.reference for item in tuner.calls[0]["spec"].objectives] == [9.5, 9.5]
    assert tracker.settings["objectives"][1]["reference"] == 9.5
    names = ["front.png", "front.csv", "front.parquet"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert all(path.stat().st_size > 0 for path in folder.iterdir())
    hypervolume = 40 * 80 + 10 * 15  # of t0 and t1 below memory 100, above exact match 0
    assert tracker.calls == [
        ("start", "http://x"),
        ("front", names, hypervolume, ["t0", "t1"], 77),
        ("finish", "finished"),
    ]
    shown = capsys.readouterr().out
    assert "em_percent: 9.5 %: as a test says" in shown
    assert "3 finished, 2 stopped" in shown
    assert "qa-sweep ui --tracking-uri sqlite:////somewhere/mlflow.db" in shown
    assert "  # then look at http://127.0.0.1:5000/#/experiments/7/runs?scatter" in shown
    assert f"qa-sweep export '{folder}' --max-memory-mb 20.0 --to '{folder}-model'" in shown
    assert f"qa-sweep predict '{folder}-model' --question 'Who ...?' --context ..." in shown


@pytest.mark.parametrize(("status", "code"), [("stopped", 0), ("failed", 3), ("oom", 3)])
def test_a_sweep_with_failed_trials_is_finished_with_exit_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    ended, _, tracker = run_with(monkeypatch, Counter({"ok": 3, status: 1}), "--out", str(tmp_path / "a"))
    assert ended == code
    assert tracker.calls[-1] == ("finish", "finished")


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [(KeyboardInterrupt(), 130, "interrupted"), (ConfigError("resources: too much"), 2, "failed")],
)
def test_a_sweep_that_does_not_end_says_so_and_closes_its_tracking(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    status: str,
) -> None:
    ended, _, tracker = run_with(monkeypatch, error, "--out", str(tmp_path / "a"))
    assert (ended, tracker.calls[-1]) == (code, ("finish", status))
    assert capsys.readouterr().err == {130: "interrupted\n", 2: "error: resources: too much\n"}[code]


def test_of_a_sweep_that_is_refused_and_left_no_folder_nothing_stays_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(FakeTuner):
        def run_sweep(self, spec: SweepSpec, *, folder: Path, **others: Any) -> Any:
            folder.rmdir()
            raise ConfigError("resources: too much")

    monkeypatch.setattr(faked_run, "FakeTuner", Refusing)
    code, _, tracker = run_with(monkeypatch, Counter(ok=1), "--out", str(tmp_path / "a"))
    assert (code, tracker.calls[1:]) == (2, [("withdraw",)])


def test_a_folder_that_holds_something_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "front.csv").write_text("precious")
    code, tuner, tracker = run_with(monkeypatch, Counter(ok=1), "--out", str(tmp_path))
    assert (code, tuner.calls, tracker.calls) == (2, [], [])
    assert f"{tmp_path}: exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("why", "code"), [("interrupted", 130), ("5 trials in a row failed alike: RuntimeError: x", 3)]
)
def test_a_sweep_that_ends_early_shows_its_front_and_how_to_go_on(
    why: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeTuner, "ended_by", why)
    ended, _, tracker = run_with(monkeypatch, Counter(ok=3, failed=5), "--out", str(tmp_path / "a"))
    assert (ended, tracker.calls[-1]) == (code, ("finish", "interrupted"))
    shown = capsys.readouterr().out
    assert f"the sweep ended early: {why}" in shown
    assert f"resume with: qa-sweep run --resume {tmp_path / 'a'}" in shown
    assert "Front: 2 of" in shown


@pytest.mark.parametrize(
    ("ends", "unfinished", "expected"),
    [
        (
            Counter(failed=5),
            0,
            "19 trials of the budget not begun; resume once the cause is mended with: ",
        ),
        (
            Counter(ok=3, failed=5),
            2,
            "2 trials unfinished and 14 trials of the budget not begun; resume with: ",
        ),
        (Counter(failed=24), 0, None),
    ],
)
def test_after_an_early_end_it_is_said_what_has_not_run_and_nothing_where_nothing_is_left(
    ends: Counter[str],
    unfinished: int,
    expected: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(FakeTuner, "ended_by", "5 trials in a row failed alike: RuntimeError: x")
    monkeypatch.setattr(FakeTuner, "unfinished", unfinished)
    assert run_with(monkeypatch, ends, "--out", str(tmp_path / "a"))[0] == 3
    shown = capsys.readouterr().out
    assert ("--resume" in shown) == (expected is not None)
    assert "0 trials" not in shown
    if expected is not None:
        assert f"{expected}qa-sweep run --resume {tmp_path / 'a'}" in shown


def test_a_sweep_with_paused_trials_is_done_and_says_which_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeTuner, "unfinished", 0)
    monkeypatch.setattr(FakeTuner, "paused", {"t0001": 604, "t0003": 1800})
    folder = tmp_path / "a"
    code, _, tracker = run_with(monkeypatch, Counter(ok=3, paused=2), "--out", str(folder))
    assert (code, tracker.calls[-1]) == (0, ("finish", "finished"))
    shown = capsys.readouterr().out
    assert "3 finished, 2 paused" in shown
    assert "paused, with their checkpoints: t0001 at 604 examples, t0003 at 1800 examples" in shown
    assert f"more trials may let them go on: qa-sweep run --resume {folder} --trials +N" in shown
    assert "resume with" not in shown

    monkeypatch.setattr(FakeTuner, "ended_by", "budget.time_minutes: 3 min are over")
    code, _, _ = run_with(monkeypatch, Counter(ok=22, paused=2), "--out", str(tmp_path / "b"))
    shown = capsys.readouterr().out
    assert f"2 trials paused; resume with: qa-sweep run --resume {tmp_path / 'b'}" in shown
    assert "--trials +N" not in shown


def test_a_dry_run_shows_the_plan_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, tuner, _ = run_with(monkeypatch, Counter(), "--dry-run", "--out", str(tmp_path / "a"), *SMALL)
    assert (code, tuner.calls) == (0, [])
    assert "rungs at examples:" in capsys.readouterr().out
    assert not (tmp_path / "a").exists()


def test_the_default_folder_names_the_sweep_and_the_time_in_utc() -> None:
    name = run.default_folder("quick").name
    assert run.default_folder("quick").parent == Path("runs")
    assert name.startswith("quick-20")
    assert name.endswith("Z")
    assert len(name) == len("quick-20260101T000000Z")


@pytest.mark.parametrize("start_in", [PROJECT, Path("/")])
def test_run_py_works_as_a_script_from_any_folder(start_in: Path) -> None:
    command = [sys.executable, str(PROJECT / "sweeps" / "run.py"), "--dry-run", *SMALL]
    done = subprocess.run(command, cwd=start_in, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("quickstart: ")


def test_run_py_takes_its_own_folder_off_the_import_path() -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(PROJECT / 'sweeps' / 'run.py')!r}, '--dry-run', *{SMALL}]\n"
        f"sys.path.insert(0, {str(PROJECT / 'sweeps')!r})\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(end.code, [path for path in sys.path if path.rstrip('/').endswith('/sweeps')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
