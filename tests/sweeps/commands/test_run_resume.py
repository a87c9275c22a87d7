"""`run --resume`: what a resumed sweep keeps, and what it refuses; Ray is tested elsewhere."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qa_core.values import to_dict
from sweeps import cli
from sweeps.checks import sweep as checks_of_a_sweep
from sweeps.checks.data import DataReport
from sweeps.commands import run
from sweeps.front.comparability import Machine
from sweeps.nodes.report import machine_here
from sweeps.progress.mlflow_store import default_tracking_uri
from sweeps.run_folder.journal import Journal, Past, PastTrial, held
from sweeps.run_folder.records import append
from sweeps.space.compile import compile_space
from sweeps.spec.load import load_spec, store_spec
from sweeps.spec.sections import SweepSpec
from tests.sweeps.commands.faked_run import run_with
from tests.sweeps.finished import RECORDS
from tests.sweeps.from_scratch import FROM_SCRATCH


def begun_sweep(folder: Path, tracking_uri: str | None = None) -> Path:
    """Return a folder with the settings of the quickstart and two trials of it, one ended."""
    folder.mkdir()
    spec = load_spec(FROM_SCRATCH)
    store_spec(spec.with_references({"em_percent": 25.0, "memory_mb": 3.5}), folder)
    log = Journal(folder)
    log.tracked(default_tracking_uri(folder) if tracking_uri is None else tracking_uri, "parent7")
    # The precision of the quickstart: on a CPU that computes in bfloat16, "auto" would be another one.
    recipe = {"model": {"family": "bert"}, "evaluation": {"precision": "float32"}}
    for trial_id in ("t0000", "t0001"):
        log.proposed(trial_id, assignment={}, notes={}, recipe=recipe)
    stopped = {"status": "stopped", "reason": "stopped by scheduler", "objectives": None}
    append(folder / "records.jsonl", replace(RECORDS[0], trial_id="t0001", **stopped))
    return folder


def test_a_resumed_sweep_keeps_its_settings_its_tracking_and_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begun_sweep(tmp_path / "a")
    more = ("--trials", "+6", "--concurrent", "1", "--max-disk-gb", "2.5", "--total-examples", "90000")
    code, tuner, tracker = run_with(monkeypatch, Counter(ok=3), "--resume", str(folder), *more)
    assert code == 0
    (call,) = tuner.calls
    assert (call["spec"].name, call["spec"].budget.trials, call["spec"].budget.concurrent) == (
        "quickstart",
        30,
        1,
    )
    assert call["spec"].budget.max_disk_gb == 2.5
    assert call["spec"].budget.total_examples == 90000
    assert call["resume"] is True
    assert [item.reference for item in call["spec"].objectives] == [25.0, 3.5]
    assert tracker.calls[0] == ("start", None, "parent7")
    shown = capsys.readouterr().out
    assert f"2 trials unfinished; resume with: qa-sweep run --resume {folder}" in shown
    assert "ended early" not in shown
    elsewhere = ("--resume", str(folder), "--tracking-uri", "http://x")
    assert run_with(monkeypatch, Counter(ok=3), *elsewhere)[2].calls[0] == ("start", "http://x")
    assert f"qa-sweep run --resume {folder} --tracking-uri http://x" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["server", "file"])
def test_an_address_that_only_the_folder_names_is_not_used_until_it_is_confirmed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder may be somebody else's: this user's token would go there, or a file of theirs would be written."""
    file = tmp_path / "theirs.db"
    uri = {"server": "https://elsewhere.example", "file": f"sqlite:///{file}"}[kind]
    file.write_bytes(b"precious")
    folder = begun_sweep(tmp_path / "a", uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    code, tuner, tracker = run_with(monkeypatch, Counter(ok=3), "--resume", str(folder))
    assert (code, tuner.calls, tracker.calls) == (2, [], [])
    shown = capsys.readouterr().err
    assert f"says that the sweep was mirrored to {uri}; allowed: that address, to go on there" in shown
    assert default_tracking_uri(folder) in shown
    confirmed = ("--resume", str(folder), "--tracking-uri", uri)
    assert run_with(monkeypatch, Counter(ok=3), *confirmed)[2].calls[0] == ("start", uri, "parent7")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    _, _, tracker = run_with(monkeypatch, Counter(ok=3), "--resume", str(folder))
    assert tracker.calls[0] == ("start", uri, "parent7")


def test_a_folder_that_has_moved_is_mirrored_beside_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun_sweep(tmp_path / "a", f"sqlite:///{tmp_path}/before/mlflow.db")
    _, _, tracker = run_with(monkeypatch, Counter(ok=3), "--resume", str(folder))
    assert tracker.calls[0] == ("start", None)


def test_a_torn_line_is_told_of_when_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its trial is scored again, which would otherwise have no visible reason."""
    folder = begun_sweep(tmp_path / "a")
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"event": "repo')
    run_with(monkeypatch, Counter(ok=3), "--resume", str(folder))
    shown = "".join(capsys.readouterr().out.split())
    assert "leftoutalastlinethatwastorn" in shown


def test_a_sweep_that_another_process_runs_is_refused_without_a_trace_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begun_sweep(tmp_path / "a")
    opened = []
    monkeypatch.setattr("sweeps.progress.mlflow_mirror.Tracker.open", lambda tracker: opened.append(tracker))
    monkeypatch.setattr(checks_of_a_sweep, "report_of", lambda spec, space, **others: DataReport())
    monkeypatch.setattr(run, "_check_past", lambda *past: None)
    with held(folder):
        assert cli.main(["run", "--resume", str(folder)]) == 2
    shown = capsys.readouterr()
    assert (opened, shown.err) == ([], f"error: {folder}: another process is running this sweep\n")
    assert "resume with" not in shown.out


def test_a_folder_in_which_nothing_had_begun_says_how_to_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `kill -9` leaves it in the first moments."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "driver.lock").touch()
    assert cli.main(["run", "--resume", str(tmp_path / "a")]) == 2
    assert f"no sweep had begun in it; start one there with --out {tmp_path / 'a'}" in capsys.readouterr().err
    assert cli.main(["run", "--resume", str(tmp_path / "none")]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_a_sweep_that_lost_its_settings_is_not_said_to_be_one_that_had_not_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new sweep would be refused in its folder."""
    for name in ("driver.lock", "journal.jsonl", "records.jsonl"):
        (tmp_path / name).touch()
    assert cli.main(["run", "--resume", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert "spec.json: settings of the sweep cannot be read: there are none" in shown
    assert "the file put back" in shown
    assert "start one" not in shown


def test_the_command_that_goes_on_allows_what_this_one_allowed(tmp_path: Path) -> None:
    for allow_mixed, ending in ((False, "a"), (True, "a --allow-mixed")):
        target = run.Target(tmp_path / "a", None, None, dashboard=False, allow_mixed=allow_mixed)
        assert run._resume_command(target).endswith(f"--resume {tmp_path / ending}")


def finished_sweep(folder: Path, **objective: Any) -> Path:
    """Return a folder of a sweep over its own copy of a SQuAD file, of which one trial has finished on this machine."""
    from qa_core.data.squad import load_table

    folder.mkdir()
    data = folder.parent / "dev.json"
    data.write_text((folder.parent / "squad.json").read_text())
    settings = [f"recipe.data.{part}={data}" for part in ("train", "evaluation")]
    spec = load_spec(FROM_SCRATCH, settings)
    spec = spec.with_references({"em_percent": 25.0, "memory_mb": 3.5})
    if objective:
        values = {**spec.as_dict(), "objectives": [objective], "scheduler": {"name": "fifo"}}
        spec = SweepSpec.model_validate(values)
    store_spec(spec, folder)
    space = compile_space(spec)
    recipe = to_dict(space.to_run_config(next(space.grid()), seed=0))
    Journal(folder).proposed("t0000", assignment={}, notes={}, recipe=recipe)
    (here,) = machine_here("cpu")
    cost = {"inference_peak_bytes": 1, "precision": "torch.float32", "protocol_version": protocol()}
    done = replace(
        RECORDS[0],
        trial_id="t0000",
        device=here.device,
        examples_seen=spec.budget.examples,
        budget_examples=spec.budget.examples,
        cost=cost,
        objectives={"em_percent": 1.0, "memory_mb": 1.0, "latency_p50_ms": 1.0},
        data={"evaluation": {"data_hash": load_table(str(data), split="dev").data_hash}},
    )
    append(folder / "records.jsonl", done)
    return data


def protocol() -> int:
    from qa_core.memory import protocol as cost

    return cost.PROTOCOL_VERSION


def test_a_sweep_whose_evaluation_file_was_edited_is_refused_before_ray_starts_and_stays_readable(
    small_squad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "squad.json").write_text(small_squad.read_text())
    data = finished_sweep(tmp_path / "a")
    more = ("--resume", str(tmp_path / "a"), "--trials", "+1")
    assert run_with(monkeypatch, Counter(ok=1), *more)[0] == 0
    data.write_text(data.read_text().replace("amber", "umber"))
    code, tuner, tracker = run_with(monkeypatch, Counter(ok=1), *more)
    assert (code, tuner.calls, tracker.calls) == (2, [], [])
    shown = capsys.readouterr().err
    assert "evaluation data: found " in shown
    assert "for 1 finished trial (t0000)" in shown
    assert "--allow-mixed" in shown
    code, tuner, _ = run_with(monkeypatch, Counter(ok=1), *more, "--allow-mixed")
    assert code == 0
    (differs,) = tuner.calls[0]["differs"]
    assert differs.startswith("evaluation data: found ")
    assert cli.main(["front", str(tmp_path / "a")]) == 0


@pytest.mark.parametrize(("objective", "code"), [("memory_mb", 0), ("latency_p50_ms", 2)])
def test_a_sweep_goes_on_on_another_cpu_unless_it_compares_times(
    objective: str,
    code: int,
    small_squad: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "squad.json").write_text(small_squad.read_text())
    finished_sweep(tmp_path / "a", name=objective, goal="min", reference=100)
    other = Machine("cpu: another model", computes_in_bfloat16=True)
    monkeypatch.setattr("sweeps.commands.run.machine_here", lambda device: (other,))
    ended, tuner, _ = run_with(monkeypatch, Counter(ok=1), "--resume", str(tmp_path / "a"))
    assert (ended, len(tuner.calls)) == (code, 1 if code == 0 else 0)
    assert ("device: found cpu: another model" in capsys.readouterr().err) == (code == 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--trials", "1"], "--trials: found 1; allowed: 2 or more, the trials that have started"),
        (["--concurrent", "0"], "budget.concurrent: found 0; allowed: 1 or more"),
        (["--max-disk-gb", "0"], "budget.max_disk_gb: found 0.0; allowed: a number above 0"),
        (["--total-examples", "5"], "total_examples: found 5; allowed: at least examples = "),
        (["--out", "elsewhere"], "--out: not with --resume"),
    ],
)
def test_a_sweep_cannot_be_resumed_as_another_one(
    changes: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = begun_sweep(tmp_path / "a")
    code, tuner, tracker = run_with(monkeypatch, Counter(ok=3), "--resume", str(folder), *changes)
    assert (code, tuner.calls, tracker.calls) == (2, [], [])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("objectives", [{}, {"memory_mb": 1.0}])
def test_a_finished_trial_without_an_objective_of_the_sweep_is_refused_with_both_and_a_way_on(
    objectives: dict[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = begun_sweep(tmp_path / "a")
    append(folder / "records.jsonl", replace(RECORDS[0], trial_id="t0000", objectives=objectives))
    code, tuner, tracker = run_with(monkeypatch, Counter(ok=3), "--resume", str(folder))
    assert (code, tuner.calls, tracker.calls) == (2, [], [])
    shown = capsys.readouterr().err
    assert f"trial t0000: objectives: found {', '.join(objectives) or 'none'}; em_percent" in shown
    assert "--out" in shown
    assert cli.main(["front", str(folder)]) == 0


def _spec_with(rates: list[float], trials: int = 4, examples: int = 64, **train: Any) -> SweepSpec:
    return SweepSpec.model_validate(
        {
            "name": "changed",
            "objectives": [{"name": "em_percent", "goal": "max", "reference": 0}],
            "searcher": {"name": "random"},
            "scheduler": {"name": "fifo"},
            "budget": {"trials": trials, "examples": examples},
            "recipe": {
                "model": {"family": "bert", "checkpoint": "micro"},
                "data": {"train": "sample"},
                "train": train,
            },
            "space": [{"set": "train.learning_rate", "choice": rates}],
        }
    )


def test_a_space_or_recipe_that_was_changed_before_a_resume_is_noted_with_its_trials() -> None:
    began = compile_space(_spec_with([0.001, 0.002]))
    trials = []
    for index, rate in enumerate((0.001, 0.002, 0.001)):
        (name,) = next(began.grid())
        recipe = to_dict(began.to_run_config({name: rate}, seed=index, rungs=[32]))
        trials.append(PastTrial(f"t000{index}", {name: rate}, {}, recipe))
    past = Past(tuple(trials))
    assert run.changed_space(began, past) == []
    longer = _spec_with([0.001, 0.002, 0.003], trials=9, examples=640)
    assert run.changed_space(compile_space(longer), past) == []
    (narrower,) = run.changed_space(compile_space(_spec_with([0.002])), past)
    assert narrower.startswith(
        "2 trials of 3 came from another space or recipe than spec.json now has (t0000, t0002; "
    )
    assert "train.learning_rate: found 0.001; allowed: " in narrower
    (other,) = run.changed_space(compile_space(_spec_with([0.001, 0.002], batch_size=4)), past)
    assert other.startswith("3 trials of 3 ")
    assert "other settings in train" in other
