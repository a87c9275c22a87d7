"""Random kills over a sweep on several raylets: no trial lost, none doubled, every score as if nothing had happened."""

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.cluster.several_raylets import Driver, killers, machines
from tests.sweeps.whole import Sweep, check_nothing_lost_or_doubled, tiny_recipes

KILLS = int(os.environ.get("QA_SWEEPS_CHAOS_KILLS", "100"))
TRIALS = max(8, KILLS)  # long enough for them
SHARES = {"worker": 40, "node": 20, "driver": 20, "mlflow": 10, "spill": 10}
UNHURRIED = 0.7  # share of the kills that wait for progress, without which a sweep would only ever start


def config(folder: Path, squad: Path) -> Path:
    values = {
        "name": "chaos",
        "seed": 11,
        "searcher": {"name": "random"},
        # No verdict depends on who reports first.
        "scheduler": {"name": "fifo", "options": {"at": [400, 800, 1200, 1600, 2000]}},
        "budget": {"trials": TRIALS, "examples": 2400, "concurrent": 2, "max_lost_workers": KILLS},
        **tiny_recipes(squad, batch_size=4),
        "space": [
            {"set": "model.family", "choice": ["bert", "distilbert", "lstm"]},
            {"set": "methods", "choice": ["full", "lora", "quantize"]},
            {"set": "train.learning_rate", "log_uniform": [0.001, 0.01]},
        ],
    }
    path = folder / "chaos.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_random_kills_lose_nothing_double_nothing_and_change_no_score(
    small_squad: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    options = ["--config", str(config(tmp_path, small_squad))]
    undisturbed = Sweep(tmp_path / "undisturbed", options, cache_dir)
    undisturbed.finish()

    rng = random.Random(KILLS)
    kills: Counter[str] = Counter()
    began = time.monotonic()
    lab = tmp_path / "lab"  # not beside the run folders, where the undisturbed sweep has its own MLflow
    lab.mkdir()
    with machines(lab, nodes=2) as (raylets, server, _):
        options += ["--tracking-uri", server.address]
        disturbed = Sweep(tmp_path / "disturbed", options, cache_dir)
        driver = Driver(disturbed, "--address", raylets.address)
        kill = killers(raylets, server, driver, rng)
        while kills.total() < KILLS:
            if rng.random() < UNHURRIED:
                driver.wait_for_progress(rng.randint(1, 2), seconds=300)
            time.sleep(rng.uniform(0.0, 4.0))
            assert not driver.has_ended(), f"after {kills}: {disturbed.output()}"
            kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
            kills[kind] += kill[kind]()
            print(f"{time.monotonic() - began:.0f} s: {kills.total()} kills, {driver.progress()} reports")
        driver.process.wait(timeout=3600)
        assert driver.process.returncode in (0, 3), disturbed.output()
        server.wait()
        check_mirror(server.address)
    check_nothing_lost_or_doubled(tmp_path / "disturbed", tmp_path / "undisturbed", TRIALS)
    print(f"{dict(kills)} in {time.monotonic() - began:.0f} s")


def check_mirror(address: str) -> None:
    """Every trial stands in MLflow once, ended, although the server was killed with the rest."""
    from mlflow import MlflowClient

    from sweeps.progress.mlflow_mirror import TRIAL_TAG

    client = MlflowClient(address)
    (experiment,) = [item for item in client.search_experiments() if item.name != "Default"]
    runs = client.search_runs([experiment.experiment_id], max_results=50000)
    trials = sorted(run.data.tags[TRIAL_TAG] for run in runs if TRIAL_TAG in run.data.tags)
    assert trials == [f"t{index:04d}" for index in range(TRIALS)]
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}
