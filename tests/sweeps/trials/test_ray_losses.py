"""Workers of a real sweep that are killed or hang: their trials resume from their checkpoints."""

import contextlib

import psutil
import pytest

from sweeps.nodes.ray_environment import RayTarget
from sweeps.run_folder import records
from sweeps.run_folder.layout import RECORDS_FILE
from sweeps.trials import ray_driver
from sweeps.trials.ray_driver import run_sweep
from tests.sweeps import strange_trials
from tests.sweeps.small_sweep import small_spec
from tests.sweeps.told import Told


class _Killer(Told):
    """Kills Ray's workers at the first reports, as the loss of a machine does."""

    def __init__(self, kills: int) -> None:
        super().__init__()
        self.kills = kills

    def trial_reported(self, *args) -> None:
        self.calls.append(("trial_reported", args))
        if len(self.named("trial_reported")) > self.kills:
            return
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("ray::Impl"):  # what runs trials; Ray has agents too
                    process.kill()


@pytest.mark.long
def test_a_trial_goes_on_from_its_checkpoint_after_its_worker_died_and_one_that_raises_does_not(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    """The report of a rung comes after its checkpoint: what was reported is never trained again."""
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    spec = small_spec(
        tmp_path,
        small_squad,
        scheduler={"name": "fifo", "options": {"at": [40, 80]}},
        budget={"trials": 2, "examples": 120, "concurrent": 1},
        space=[
            {"set": "model.family", "choice": ["bert"]},
            {"set": "methods", "choice": ["lora"]},
            {"set": "methods.lora.targets", "choice": ["attention", "no_such_set"]},
        ],
    )
    console = _Killer(kills=2)
    outcome = run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=console, tracker=Told())
    found = {item.trial_id: item for item in records.load(outcome.folder / RECORDS_FILE).records}
    assert {name: (item.status, item.starts) for name, item in found.items()} == {
        "t0000": ("ok", 3),
        "t0001": ("failed", 1),
    }
    points = [args[1]["examples_seen"] for args in console.named("trial_reported")]
    assert points == [point["examples_seen"] for point in found["t0000"].curve[:-1]]
    assert len(points) == len(set(points)) == 2
    assert "no_such_set" in found["t0001"].reason
    assert len({item.provenance["node"] for item in found.values()}) == 1
    assert len(found["t0000"].provenance["node"]) == 12


@pytest.mark.long
def test_a_trial_that_hangs_is_ended_and_goes_on_from_its_checkpoint(
    small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    monkeypatch.setattr(ray_driver, "run_trial", strange_trials.hangs_once)
    spec = small_spec(
        tmp_path,
        small_squad,
        scheduler={"name": "fifo", "options": {"at": [40, 80]}},
        budget={"trials": 1, "examples": 120, "hang_minutes": 1.0},
        space=[{"set": "model.family", "choice": ["bert"]}],
    )
    console = Told()
    outcome = run_sweep(spec, folder=tmp_path / "run", target=RayTarget(), console=console, tracker=Told())
    (record,) = records.load(outcome.folder / RECORDS_FILE).records
    assert (record.status, record.starts, record.examples_seen) == ("ok", 2, 120)
    points = [args[1]["examples_seen"] for args in console.named("trial_reported")]
    assert points == [point["examples_seen"] for point in record.curve[:-1]]
    (note,) = [args[0] for args in console.named("note") if "hang_minutes" in args[0]]
    assert note.startswith("t0000: it did nothing for more than 1 min (budget.hang_minutes) at ")
    assert note.endswith("(1 of 3 times); it resumes")
