"""A sweep whose driver is killed at any moment: nothing lost, nothing doubled, the same records up to timing."""

import json
import random
import signal
import time
from pathlib import Path

import pytest
import yaml

from sweeps.run_folder import journal, records
from tests.sweeps.whole import Sweep, check_nothing_lost_or_doubled, tiny_recipes

KILLS = 20


def small_config(tmp_path: Path, squad: Path) -> Path:
    values = {
        "name": "killed",
        "seed": 3,
        "searcher": {"name": "random"},
        "scheduler": {"name": "pareto_asha", "options": {"grace_examples": 60, "eta": 2}},
        "budget": {"trials": 6, "examples": 480, "concurrent": 1},
        **tiny_recipes(squad, batch_size=4),
        "space": [
            {"set": "model.family", "choice": ["bert", "lstm"]},
            {"set": "methods", "choice": ["full", "lora"]},
            {"set": "train.learning_rate", "log_uniform": [0.001, 0.01]},
            # One of these fails, and must be recorded as failed once.
            {
                "set": "methods.lora.targets",
                "choice": ["attention", "no_such_set"],
                "when": {"methods": "lora"},
            },
        ],
    }
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.slow  # six starts of a sweep: nine minutes beside other tests
@pytest.mark.timeout(1800)
def test_a_killed_sweep_goes_on_and_can_be_extended(small_squad, cache_dir, tmp_path):
    options = ["--config", str(small_config(tmp_path, small_squad))]
    undisturbed = Sweep(tmp_path / "undisturbed", options, cache_dir)
    undisturbed.finish()
    disturbed = Sweep(tmp_path / "disturbed", options, cache_dir)
    code, _ = disturbed.end_by(signal.SIGKILL, after_lines=6, then_seconds=0.2)
    assert code == -signal.SIGKILL
    code, output = disturbed.end_by(signal.SIGINT, after_lines=5, then_seconds=0.2)
    assert code == 130, output
    assert f"resume with: qa-sweep run --resume {tmp_path / 'disturbed'}" in output
    output = disturbed.finish()
    assert "ended before" in output
    check_nothing_lost_or_doubled(tmp_path / "disturbed", tmp_path / "undisturbed", 6)
    assert max(item.starts for item in records.load(tmp_path / "disturbed/records.jsonl").records) > 1

    for sweep in (undisturbed, disturbed):
        sweep.finish("--trials", "+2")
    check_nothing_lost_or_doubled(tmp_path / "disturbed", tmp_path / "undisturbed", 8)
    assert json.loads((tmp_path / "disturbed/spec.json").read_text())["budget"]["trials"] == 8


@pytest.mark.slow
def test_twenty_kills_at_random_moments_of_a_sweep_like_the_quickstart(cache_dir, tmp_path):
    """About half an hour on two cores. One trial at a time: what a rung has seen then depends on no clock."""
    options = ["--config", "quickstart", "--concurrent", "1"]
    undisturbed = Sweep(tmp_path / "undisturbed", options, cache_dir)
    began = time.monotonic()
    undisturbed.finish()
    seconds = time.monotonic() - began
    disturbed = Sweep(tmp_path / "disturbed", options, cache_dir)
    rng = random.Random(0)
    for _ in range(KILLS):
        # From before Ray is up to the middle of any trial; the moments spread over the whole sweep.
        pause = 8.0 + rng.uniform(0.0, 2 * seconds / KILLS)
        code, output = disturbed.end_by(signal.SIGKILL, after_lines=0, then_seconds=pause)
        assert code == -signal.SIGKILL, f"the sweep ended before it was killed: {output}"
    disturbed.finish()
    check_nothing_lost_or_doubled(tmp_path / "disturbed", tmp_path / "undisturbed", 24)


@pytest.mark.slow  # minutes; a played sweep that is killed at any report is held in test_replay_of_records.py
def test_a_sweep_that_pauses_ends_with_a_front_and_decides_the_same_when_it_was_killed(
    small_squad, cache_dir, tmp_path
):
    """Nothing is learnt at these rates: from the second rung on all are at the floor, and one goes on to its end."""
    values = {
        "name": "pausing",
        "seed": 5,
        "searcher": {"name": "random"},
        "scheduler": {"name": "pareto_asha", "options": {"grace_examples": 24, "eta": 2}},
        "budget": {"trials": 6, "examples": 240, "concurrent": 1},
        "forms": {"quantize": {"bits": [32, 8]}},
        **tiny_recipes(small_squad, batch_size=4),
        "space": [
            {"set": "model.family", "choice": ["bert", "lstm"]},
            {"set": "train.learning_rate", "log_uniform": [1e-6, 1e-5]},
        ],
    }
    path = tmp_path / "pausing.yaml"
    path.write_text(yaml.safe_dump(values))
    whole = Sweep(tmp_path / "whole", ["--config", str(path)], cache_dir)
    process = whole.start(*whole.options)
    assert process.wait(timeout=600) == 0, whole.output()
    assert "tells nothing yet" in whole.output()
    trials = {trial.trial_id: trial for trial in journal.read(tmp_path / "whole").trials}
    paused = [trial for trial in trials.values() if trial.is_paused and trial.record is None]
    statuses = [trial.record.status for trial in trials.values() if trial.record is not None]
    assert len(trials) == len(paused) + len(statuses) == 6
    assert paused
    assert statuses.count("ok") == 1
    assert all((tmp_path / f"whole/trials/{trial.trial_id}/checkpoint").is_dir() for trial in paused)
    assert f"{paused[0].trial_id} at {paused[0].curve[-1]['examples_seen']} examples" in whole.output()
    # One that paused went on from its checkpoint: its record has all of its reports, each once.
    (best,) = (trial for trial in trials.values() if trial.record and trial.record.status == "ok")
    seen = [point["examples_seen"] for point in best.record.curve]
    rungs = (24, 48, 96, 192, 240)
    assert [rung for rung, at in zip(rungs, seen, strict=True) if not rung <= at < rung + 4] == []
    assert [form.label for form in best.record.forms] == ["int8", "float32"]
    assert {form["label"] for form in best.record.curve[0]["forms"]} == {"int8", "float32"}

    killed = Sweep(tmp_path / "killed", ["--config", str(path)], cache_dir)
    code, output = killed.end_by(signal.SIGKILL, after_lines=10, then_seconds=0.1)
    assert code == -signal.SIGKILL, output
    killed.finish()
    check_nothing_lost_or_doubled(tmp_path / "killed", tmp_path / "whole", 6)
