"""Random kills over a sweep on several raylets: no trial lost, none doubled, every score as if nothing had happened."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.run_folder import records
from sweeps.run_folder.layout import RECORDS_FILE
from tests.cluster.several_raylets import Driver, killers, machines
from tests.sweeps.whole import (
    Sweep,
    check_equal_as_far_as_both_went,
    check_nothing_lost_or_doubled,
    tiny_recipes,
)

KILLS = int(os.environ.get("QA_SWEEPS_CHAOS_KILLS", "100"))
SHARES = {"worker": 40, "node": 20, "driver": 20, "mlflow": 10, "spill": 10}
UNHURRIED = 0.7  # share of the kills that wait for progress, without which a sweep would only ever start


@dataclass(frozen=True)
class Case:
    """A sweep to be disturbed.

    Attributes:
        trials: enough for so many kills.
        changes: of the sweep's settings.
        workers: trials at a time, on two nodes.
        check: what must be equal of the disturbed sweep and the undisturbed one.
    """

    trials: int
    changes: Mapping[str, Any]
    workers: int = 2
    check: Callable[[Path, Path, int], None] = check_nothing_lost_or_doubled


PAUSING = {
    "scheduler": {"name": "pareto_asha", "options": {"grace_examples": 400, "eta": 2}},
    "forms": {"quantize": {"bits": [32, 8, 4], "embedding_bits": [32, 8]}},
    "space": [
        {"set": "model.family", "choice": ["bert", "distilbert", "lstm"]},
        {"set": "methods", "choice": ["full", "lora"]},
        {"set": "train.learning_rate", "log_uniform": [0.001, 0.01]},
    ],
}
CASES = {
    # No verdict depends on who reports first.
    "every-trial-to-its-end": Case(
        max(8, KILLS),
        {
            "scheduler": {"name": "fifo", "options": {"at": [400, 800, 1200, 1600, 2000]}},
            "space": [
                {"set": "model.family", "choice": ["bert", "distilbert", "lstm"]},
                {"set": "methods", "choice": ["full", "lora", "quantize"]},
                {"set": "train.learning_rate", "log_uniform": [0.001, 0.01]},
            ],
        },
    ),
    # With one worker the order of reports is that of the undisturbed sweep, and so are the verdicts.
    "forms-and-pauses-one-worker": Case(max(8, KILLS), PAUSING, workers=1),
    "forms-and-pauses-two-workers": Case(max(8, KILLS), PAUSING, check=check_equal_as_far_as_both_went),
}


def config(folder: Path, squad: Path, case: Case) -> Path:
    values = {
        "name": "chaos",
        "seed": 11,
        "searcher": {"name": "random"},
        "budget": {
            "trials": case.trials,
            "examples": 2400,
            "concurrent": case.workers,
            "max_lost_workers": KILLS,
        },
        **tiny_recipes(squad, batch_size=4),
        **case.changes,
    }
    path = folder / "chaos.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("name", list(CASES))
def test_random_kills_lose_nothing_double_nothing_and_change_no_score(
    name: str, small_squad: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    options = ["--config", str(config(tmp_path, small_squad, case))]
    undisturbed = Sweep(tmp_path / "undisturbed", options, cache_dir)
    undisturbed.finish()

    rng = random.Random(KILLS)
    kills: Counter[str] = Counter()
    began = time.monotonic()
    lab = tmp_path / "lab"  # not beside the run folders, where the undisturbed sweep has its own MLflow
    lab.mkdir()
    with machines(lab, nodes=2) as (raylets, server, _):
        disturbed = Sweep(tmp_path / "disturbed", options, cache_dir)
        # A sweep that goes on is told both again: a mirror's address may hold a password, which is not stored.
        driver = Driver(disturbed, "--address", raylets.address, "--tracking-uri", server.address)
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
        check_mirror(server.address, tmp_path / "disturbed", case.trials)
    case.check(tmp_path / "disturbed", tmp_path / "undisturbed", case.trials)
    print(f"{name}: {dict(kills)} in {time.monotonic() - began:.0f} s")


def check_mirror(address: str, folder: Path, trials: int) -> None:
    """Every trial and stored form stands in MLflow once, ended, although the server was killed with the rest."""
    from mlflow import MlflowClient

    from sweeps.progress.mlflow_runs import FORM_TAG, TRIAL_TAG

    client = MlflowClient(address)
    (experiment,) = [item for item in client.search_experiments() if item.name != "Default"]
    runs = client.search_runs([experiment.experiment_id], max_results=50000)
    mirrored = sorted(
        (run.data.tags[TRIAL_TAG], run.data.tags.get(FORM_TAG, ""))
        for run in runs
        if TRIAL_TAG in run.data.tags
    )
    found = records.load(folder / RECORDS_FILE).records
    forms = [
        (record.trial_id, form.label) for record in found for form in record.forms if form.status != "skipped"
    ]
    assert mirrored == sorted([*((f"t{index:04d}", "") for index in range(trials)), *forms])
    # KILLED: of trials that were stopped or are paused, and of forms that were skipped.
    has_verdicts = any(record.forms or record.status == "stopped" for record in found)
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", *(["KILLED"] if has_verdicts else [])}
