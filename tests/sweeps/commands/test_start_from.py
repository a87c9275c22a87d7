"""`--start-from`: the recipes of a stored front come first, and a resume needs the other sweep no more."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from qa_core.errors import ConfigError, DataError
from qa_core.values import to_dict
from sweeps import cli
from sweeps.commands.options import read_spec, resumed_spec
from sweeps.commands.validate import remarks
from sweeps.run_folder import journal
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.records import append
from sweeps.searchers.base import make_searcher
from sweeps.space.compile import compile_space
from sweeps.spec.load import load_spec, store_spec, stored_spec
from sweeps.spec.sections import SweepSpec
from sweeps.trials.driver import Driver
from tests.sweeps.finished import record
from tests.sweeps.forms import stored, with_forms
from tests.sweeps.from_scratch import FROM_SCRATCH

SHARED = {"model.checkpoint.1": "micro", "methods": "full", "train.learning_rate.1": 2e-3}
LSTM = {
    "model.family": "lstm",
    **SHARED,
    "model.options.attention": "dot",
    "model.options.exact_match": False,
    "train.batch_size.2": 32,
}
RECIPES: Mapping[str, tuple[Mapping[str, Any], float, float]] = {  # EM and memory
    "t0": ({"model.family": "bert", **SHARED, "train.batch_size.1": 8}, 50.0, 20.0),
    "t1": (LSTM, 30.0, 5.0),
    "t2": ({**LSTM, "model.options.attention": "none"}, 29.0, 9.0),  # beaten
    "t3": ({"model.family": "t5", **SHARED, "train.batch_size.1": 8}, 70.0, 30.0),
}
FRONT = ["t3", "t0", "t1"]  # best first


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The folder of a sweep that has ended; t1 is stored in two forms, both on the front."""
    folder = tmp_path / "old"
    folder.mkdir()
    spec = load_spec(FROM_SCRATCH).with_references({"em_percent": 0, "memory_mb": 100})
    store_spec(spec, folder)
    space = compile_space(spec)
    for trial_id, (assignment, em, memory) in RECIPES.items():
        config = to_dict(space.to_run_config(assignment, seed=1))
        made = record(trial_id, em, memory, assignment=assignment, config=config)
        if trial_id == "t1":
            made = with_forms(made, stored("float32", em, memory), stored("int8", em - 1, memory / 4))
        append(RunFolder(folder).records, made)
    return folder


def begun(run_dir: Path, *settings: str) -> SweepSpec:
    return read_spec(str(FROM_SCRATCH), list(settings), start_from=run_dir)


def first(spec: SweepSpec) -> list[dict[str, Any]]:
    return spec.searcher.first


def test_the_recipes_of_a_front_come_first_the_best_in_front_each_once(run_dir: Path) -> None:
    spec = begun(run_dir)
    assert first(spec) == [RECIPES[trial][0] for trial in FRONT]
    assert remarks(spec) == [
        f"3 recipes of the front of {run_dir} are proposed first",
        "3 recipes before the searcher's own (searcher.first)",
    ]
    assert spec.where("budget", "trials").startswith(str(FROM_SCRATCH))
    space = compile_space(spec)
    searcher = make_searcher(spec, space)
    found = [proposal.assignment for _ in range(8) if (proposal := searcher.propose())]
    by_chance = make_searcher(load_spec(FROM_SCRATCH), space)
    drawn = [proposal.assignment for _ in range(8) if (proposal := by_chance.propose())]
    assert (found[:3], found[3:]) == (first(spec), drawn[3:])  # the others as they are without


def test_what_the_new_space_does_not_allow_is_said_one_by_one_and_left_out(run_dir: Path) -> None:
    spec = begun(
        run_dir, "space.model.family.choice=[lstm, mamba, bert]", "space.train.batch_size.1.value=16"
    )
    assert first(spec) == [LSTM]
    assert remarks(spec)[:3] == [
        f"1 recipe of the front of {run_dir} is proposed first",
        f"t3 of {run_dir} is not proposed: model.family: found 't5'; allowed: 'lstm', 'mamba', 'bert'",
        f"t0 of {run_dir} is not proposed: train.batch_size.1: found 8; allowed: 16",
    ]


def test_recipes_of_the_file_stay_in_front_and_a_small_budget_is_said(run_dir: Path) -> None:
    own = {**LSTM, "train.learning_rate.1": 3e-3}
    spec = begun(run_dir, f"searcher.first={json.dumps([own, LSTM])}", "budget.trials=2")
    assert first(spec) == [own, LSTM, RECIPES["t3"][0], RECIPES["t0"][0]]
    assert remarks(spec)[-1] == (
        "4 recipes before the searcher's own (searcher.first); budget.trials has room for 2 of them"
    )


def test_a_front_of_which_nothing_can_be_proposed_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        begun(run_dir, "space.model.family.choice=[mamba]")
    assert [line.split(": model.family")[0] for line in str(refused.value).splitlines()] == [
        f"--start-from {run_dir}: found no recipe that this sweep may propose: t3 of {run_dir} is not proposed",
        f"t0 of {run_dir} is not proposed",
        f"t1 of {run_dir} is not proposed",
    ]
    RunFolder(run_dir).records.unlink()
    append(RunFolder(run_dir).records, record("t0", 1.0, 1.0, status="failed", reason="x"))
    with pytest.raises(ConfigError, match="its front has no point"):
        begun(run_dir)
    with pytest.raises(DataError, match="no sweep had begun in it"):
        begun(tmp_path)


def test_validate_says_what_is_proposed_first(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", str(FROM_SCRATCH), "--start-from", str(run_dir)]
    assert cli.main(["validate", *options, "--set", "space.model.family.choice=[lstm]"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 recipe before the searcher's own (searcher.first)" in shown
    assert f"t0 of {run_dir} is not proposed" in shown
    assert cli.main(["validate", "--config", str(FROM_SCRATCH), "--start-from", f"{run_dir}-gone"]) == 2
    assert "old-gone" in capsys.readouterr().err


def test_a_sweep_that_began_with_a_front_goes_on_without_that_sweep(run_dir: Path, tmp_path: Path) -> None:
    def driver(name: str) -> Driver:
        """The driver of the sweep in a folder, as a resume makes it."""
        folder = tmp_path / name
        spec = stored_spec(folder)
        space = compile_space(spec)
        past = journal.read(folder)
        return Driver(
            spec, space=space, searcher=make_searcher(spec, space), folder=folder, observers=(), past=past
        )

    spec = begun(run_dir, "searcher.name=sobol").with_references({"em_percent": 0, "memory_mb": 100})
    shutil.rmtree(run_dir)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        store_spec(spec, tmp_path / name)
    whole = driver("whole")
    expected = [task.recipe for _ in range(7) if (task := whole.propose())]
    proposed = [whole.running[trial].proposal.assignment for trial in whole.running]
    assert proposed[:3] == first(spec)
    for started in (2, 3, 5):
        before = driver("cut")
        while len(before.running) < started:
            before.propose()
    after = driver("cut")
    again = [task.recipe for _ in range(7) if (task := after.propose())]
    assert again == expected
    with pytest.raises(ConfigError, match="--start-from: not with --resume"):
        resumed_spec(tmp_path / "cut", {"trials": None, "start_from": run_dir})
