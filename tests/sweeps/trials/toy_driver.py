"""A driver of the toy families and methods without Ray, and what its trials report."""

from pathlib import Path
from typing import Any

from sweeps.run_folder import journal
from sweeps.schedulers.pausing import Verdict
from sweeps.searchers.base import make_searcher
from sweeps.trials.driver import Driver
from tests.sweeps.told import Told
from tests.sweeps.toys import toy_space, toy_spec


def toy_driver(folder: Path, **changes: Any) -> Driver:
    folder.mkdir(exist_ok=True)
    scheduler = {"name": "pareto_asha", "options": {"grace_examples": 100, "eta": 3}}
    spec, space = toy_spec(scheduler=scheduler, **changes), toy_space()
    past = journal.read(folder)
    return Driver(
        spec,
        space=space,
        searcher=make_searcher(spec, space),
        folder=folder,
        observers=(Told(),),
        past=past,
    )


def trial_with_files(driver: Driver, em: float) -> Path:
    """Run a trial to its end; returns its folder, which has what a worker leaves."""
    task = driver.propose()
    driver.started(task.trial_id)
    folder = Path(task.folder)
    for name in ("checkpoint", "artifact", ".checkpoint.17.tmp"):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").write_bytes(bytes(1000))
    (folder / "answers.parquet").write_bytes(bytes(10))
    driver.ended(task.trial_id, final_report(folder, em), None)
    return folder


def rung_report(examples_seen: int, em: float = 10.0) -> dict[str, Any]:
    return {
        "examples_seen": examples_seen,
        "budget_examples": 900,
        "train_loss": 1.0,
        "train_seconds": 1.0,
        "selection_em_percent": em,
        "selection_f1_percent": em,
        "memory_mb": 8.0,
        "memory_batch8_mb": 9.0,
        "inference_peak_bytes": 8_000_000,
        "weights_bytes": 5_000_000,
        "artifact_bytes": 6_000_000,
        "final": False,
    }


def final_report(folder: Path, em: float) -> dict[str, Any]:
    result = {
        "quality": {"em_percent": em},
        "cost": {"inference_peak_bytes": 8e6, "device": "toy"},
        "curve": [rung_report(900, em)],
        "cross_domain": {},
        "prerequisites": {},
        "data": {"evaluation": {"data_hash": "toy"}},
        "artifact": str(folder / "artifact"),
    }
    return {**rung_report(900, em), "final": True, "result": result}


def fail(driver: Driver, error: str) -> None:
    task = driver.propose()
    assert task is not None
    driver.started(task.trial_id)
    driver.ended(task.trial_id, {}, error)


def pausing_driver(folder: Path, *, searcher: Any = None, **budget: Any) -> Driver:
    """Return a driver whose reports are judged, at rungs 100 and 300."""
    named = {} if searcher is None else {"searcher": searcher}
    return toy_driver(folder, budget={"trials": 4, "examples": 900, **budget}, **named)


def report_at(
    driver: Driver, trial_id: str, seen: int, em: float, *, gain: float = 50.0, loss: float = 1.0
) -> Verdict:
    """Report as Ray does: the scheduler, then the driver's word, then the report, then the end."""
    learnt = {
        "selection_baseline": "no_answer",
        "selection_gain_percent": gain,
        "selection_gain_error_percent": 1.0,
        "train_loss": loss,
    }
    report = {**rung_report(seen, em), **learnt}
    verdict = driver.judged(trial_id, report, driver.judge.verdict(trial_id, report))
    assert driver.pauses(trial_id) == (verdict is Verdict.PAUSE)
    stops = {"is_stopped": verdict is Verdict.STOP, "is_paused": verdict is Verdict.PAUSE}
    driver.reported(trial_id, report, **stops)
    if verdict is not Verdict.GO_ON:
        driver.ended(trial_id, {}, None)
    return verdict


def begin(driver: Driver) -> str:
    task = driver.propose()
    driver.started(task.trial_id)
    (Path(task.folder) / "checkpoint").mkdir(parents=True, exist_ok=True)
    (Path(task.folder) / "checkpoint" / "weights").write_bytes(bytes(1000))
    return task.trial_id
