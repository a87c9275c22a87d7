"""A sweep replayed from its own records gives its own verdicts, and those of a slow reading of the rule.

The sweeps have several batch sizes, so that trials step over their rungs by different amounts. One worker: with more,
live trials meet at the rungs in an order that no replay can know.
"""

import heapq
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from sweeps import registry
from sweeps.nodes.ray_environment import RayTarget
from sweeps.replay.curves import CurveTable, _curve
from sweeps.replay.simulate import SimulatedTrial, recorded_space, replay
from sweeps.run_folder import records
from sweeps.run_folder.layout import RECORDS_FILE, SPEC_FILE
from sweeps.run_folder.records import Record
from sweeps.schedulers.base import make_scheduler
from sweeps.searchers.base import make_searcher
from sweeps.spec.load import store_spec
from sweeps.spec.sections import SweepSpec
from sweeps.trials.driver import Driver
from sweeps.trials.ray_driver import run_sweep
from sweeps.trials.task import TrialTask
from tests.sweeps.curves import curve, spec_of
from tests.sweeps.schedulers.test_halving import goes_on_slowly
from tests.sweeps.toys import toy_space, toy_spec
from tests.sweeps.trials.test_ray_driver import _Told
from tests.sweeps.whole import tiny_recipes

BUDGET = 900
FIFO = {"name": "fifo", "options": {"at": [100, 200, 400, 800]}}
PARETO_ASHA = {"name": "pareto_asha", "options": {"grace_examples": 100, "eta": 2}}
Verdict = tuple[str, str, int]  # trial, status, examples seen


def verdicts(folder: Path) -> list[Verdict]:
    found = records.load(folder / RECORDS_FILE).records
    return [(record.trial_id, record.status, record.examples_seen) for record in found]


def table_of(folder: Path, spec: SweepSpec) -> CurveTable:
    """Return all trials of a run as a table; a stopped one gets an end, which its replay must not come to."""
    return CurveTable(
        spec,
        tuple(
            _curve(_finished(record, spec), spec.objectives, record.trial_id)
            for record in records.load(folder / RECORDS_FILE).records
        ),
    )


def _finished(record: Record, spec: SweepSpec) -> Record:
    if record.status == "ok":
        return record
    end = {**record.curve[-1], "examples_seen": spec.budget.examples}
    values = dict.fromkeys((objective.name for objective in spec.objectives), 1.0)
    return replace(record, curve=(*record.curve, end), objectives=values)


def replayed(table: CurveTable, scheduler: dict[str, Any]) -> list[Verdict]:
    """Return the verdicts of a replay on one worker that proposes the recipes in the order of the grid."""
    searcher = registry.searcher_class("grid")(
        recorded_space(table), table.spec.objectives, seed=0, options={}
    )
    made = make_scheduler(scheduler["name"], scheduler["options"])
    outcome = replay(table, searcher, made, workers=1)
    return [
        (table.curves[trial.curve].trial_id, trial.status, trial.examples_seen) for trial in outcome.trials
    ]


# A driver and a scheduler that are asked as Ray asks them; training is played


def toy_sweep(scheduler: dict[str, Any]) -> dict[str, Any]:
    return {
        "searcher": {"name": "grid"},
        "scheduler": scheduler,
        "budget": {"trials": 36, "examples": BUDGET},
        "space": [
            {"set": "model.family", "choice": ["alpha", "gamma"]},
            {"set": "train.batch_size", "choice": [8, 24, 56, 136, 250, 890]},
            {"set": "train.learning_rate", "choice": [1e-4, 1e-3, 1e-2]},
        ],
    }


def play(folder: Path, scheduler: dict[str, Any]) -> SweepSpec:
    """Run a sweep whose trials report as `qa_core/training/train.py` lets them; returns its settings."""
    folder.mkdir()
    spec, space = toy_spec(**toy_sweep(scheduler)), toy_space(**toy_sweep(scheduler))
    store_spec(spec, folder)
    searcher = make_searcher(spec, space)
    driver = Driver(spec, space=space, searcher=searcher, folder=folder, observers=(_Told(),))
    judge = driver.scheduler.ray_scheduler(spec.objectives, BUDGET)
    while (task := driver.propose()) is not None:
        driver.started(task.trial_id)
        _play_trial(driver, judge, task)
    return spec


def _play_trial(driver: Driver, judge: Any, task: TrialTask) -> None:
    reports = []
    for report in _reports(task):
        reports.append(report)
        if report["examples_seen"] == BUDGET:
            driver.ended(task.trial_id, {**report, "final": True, "result": _result(task, reports)}, None)
            return
        decision = judge.on_trial_result(None, SimulatedTrial(task.trial_id), report)
        driver.reported(task.trial_id, report, is_stopped=decision == TrialScheduler.STOP)
        if decision == TrialScheduler.STOP:
            driver.ended(task.trial_id, {}, None)
            return


def _reports(task: TrialTask) -> Iterator[dict[str, Any]]:
    """Yield a report after each step that reaches a rung, and the one of the whole budget."""
    rng = np.random.default_rng(int(task.trial_id[1:]))
    pending, batch_size = list(task.recipe["train"]["rungs"]), task.recipe["train"]["batch_size"]
    for seen in range(batch_size, BUDGET, batch_size):
        if pending and seen >= pending[0]:
            pending = [rung for rung in pending if rung > seen]
            yield _report(seen, float(rng.integers(0, 60)), float(rng.integers(1, 9)))
    yield _report(BUDGET, 50.0, 5.0)


def _report(seen: int, em: float, memory_mb: float) -> dict[str, Any]:
    return {
        "examples_seen": seen,
        "budget_examples": BUDGET,
        "train_loss": 1.0,
        "train_seconds": seen / 100,
        "selection_em_percent": em,
        "selection_f1_percent": em,
        "memory_mb": memory_mb,
        "memory_batch8_mb": 2 * memory_mb,
        "inference_peak_bytes": int(memory_mb * 1e6),
        "weights_bytes": int(memory_mb * 1e6),
        "artifact_bytes": int(memory_mb * 1e6),
        "final": False,
    }


def _result(task: TrialTask, reports: list[dict[str, Any]]) -> dict[str, Any]:
    last = reports[-1]
    return {
        "quality": {"em_percent": last["selection_em_percent"]},
        "cost": {"inference_peak_bytes": last["memory_mb"] * 1e6, "device": "toy"},
        "curve": reports,
        "cross_domain": {},
        "prerequisites": {},
        "data": {"evaluation": {"data_hash": "toy"}},
        "artifact": str(Path(task.folder) / "artifact"),
    }


@pytest.mark.usefixtures("toy_registry")
@pytest.mark.parametrize("scheduler", [FIFO, PARETO_ASHA], ids=lambda item: item["name"])
def test_the_records_of_a_played_sweep_replay_to_its_own_verdicts(
    scheduler: dict[str, Any], tmp_path: Path
) -> None:
    spec = play(tmp_path / "run", scheduler)
    own = verdicts(tmp_path / "run")
    assert len(own) == 36
    reached = {examples for _, status, examples in own if status == "stopped"}
    assert len(reached) > 3 if scheduler is PARETO_ASHA else not reached
    assert replayed(table_of(tmp_path / "run", spec), scheduler) == own


@pytest.mark.usefixtures("toy_registry")
def test_curves_recorded_with_fifo_replay_to_the_verdicts_that_halving_gave(tmp_path: Path) -> None:
    play(tmp_path / "whole", FIFO)
    play(tmp_path / "halved", PARETO_ASHA)
    table = CurveTable.from_run(tmp_path / "whole" / RECORDS_FILE, tmp_path / "whole" / SPEC_FILE)
    assert replayed(table, PARETO_ASHA) == verdicts(tmp_path / "halved")


@pytest.mark.long
def test_the_records_of_live_sweeps_replay_to_their_own_verdicts(
    small_squad: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    halving = {"name": "pareto_asha", "options": {"grace_examples": 30, "eta": 2}}
    fifo = {"name": "fifo", "options": {"at": [30, 60, 120]}}
    shared = tiny_recipes(small_squad, batch_size=8)
    del shared["recipe"]["train"]["batch_size"]  # searched
    specs = {}
    for scheduler in (fifo, halving):
        values = {
            "name": "live",
            **shared,
            "searcher": {"name": "grid"},
            "scheduler": scheduler,
            "budget": {"trials": 12, "examples": 200, "concurrent": 1},
            "space": [
                {"set": "model.family", "choice": ["lstm", "bert"]},
                {"set": "train.batch_size", "choice": [8, 24, 56]},
                {"set": "train.learning_rate", "choice": [0.02, 0.0002]},
            ],
        }
        folder = tmp_path / scheduler["name"]
        spec = specs[scheduler["name"]] = SweepSpec.model_validate(values)
        run_sweep(spec, folder=folder, target=RayTarget(), observers=(_Told(),))
        assert len(verdicts(folder)) == 12
        assert replayed(table_of(folder, spec), scheduler) == verdicts(folder)
    statuses = [status for _, status, _ in verdicts(tmp_path / "pareto_asha")]
    assert 0 < statuses.count("stopped") < 12
    whole = table_of(tmp_path / "fifo", specs["fifo"])
    assert replayed(whole, halving) == verdicts(tmp_path / "pareto_asha")


# The rule, read slowly


def random_table(rng: np.random.Generator, recipes: int) -> CurveTable:
    """Return curves that report up to 31 examples after 100, 300 and 900 of 2,700, many of them alike."""
    rates = [0.001 * (1 + index) for index in range(recipes)]
    curves = []
    for index, rate in enumerate(rates):
        late = int(rng.integers(0, 32))
        memory = float(rng.integers(1, 8))
        values = (*rng.integers(0, 12, 3).astype(float), 50.0)
        curves.append(
            curve(
                {"train.learning_rate": rate},
                trial_id=f"r{index}",
                examples_seen=(100 + late, 300 + late, 900 + late, 2700),
                train_seconds=tuple(np.cumsum(rng.random(4) + 0.1).tolist()),
                rung_values={"em_percent": values, "memory_mb": (memory,) * 4},
                final={"em_percent": 50.0, "memory_mb": memory},
                seconds=10.0,
            )
        )
    changes = {"budget": {"trials": recipes, "examples": 2700}}
    return CurveTable(spec_of([{"set": "train.learning_rate", "choice": rates}], **changes), tuple(curves))


def slow_replay(table: CurveTable, rungs: list[int], eta: float, workers: int) -> list[tuple[int, int]]:
    """Return (recipe, examples at which it ended) in the order of ends: the recipes in turn on so many workers."""
    waiting = list(range(len(table.curves)))
    results: dict[int, list[tuple[float, ...]]] = {rung: [] for rung in rungs}
    events: list[tuple[float, int, int, int]] = []  # second, order of starts, recipe, number of its report
    started: dict[int, float] = {}
    ended: list[tuple[int, int]] = []
    order = 0
    now = 0.0
    while waiting or events:
        while waiting and len(events) < workers:
            recipe = waiting.pop(0)
            started[recipe] = now
            heapq.heappush(events, (now + table.curves[recipe].train_seconds[0], order, recipe, 0))
            order += 1
        now, _, recipe, number = heapq.heappop(events)
        one = table.curves[recipe]
        seen = one.examples_seen[number]
        is_last = number == len(one.examples_seen) - 1
        if not is_last:
            rung = max(rung for rung in rungs if rung <= seen)
            # Memory first: there the net within a layer begins.
            result = (one.rung_values["memory_mb"][number], -one.rung_values["em_percent"][number])
            results[rung].append(result)
            if goes_on_slowly(results[rung], eta):
                is_next_last = number + 1 == len(one.examples_seen) - 1
                second = one.seconds if is_next_last else one.train_seconds[number + 1]
                heapq.heappush(events, (started[recipe] + second, order, recipe, number + 1))
                order += 1
                continue
        ended.append((recipe, seen))
    return ended


def test_a_replay_on_several_workers_equals_the_rule_read_slowly() -> None:
    for seed, workers, eta in product(range(6), (1, 2, 7), (2.0, 3.0)):
        table = random_table(np.random.default_rng(seed), 40)
        rungs = [round(100 * eta**power) for power in range(5) if 100 * eta**power < 2700]
        searcher = registry.searcher_class("grid")(
            recorded_space(table), table.spec.objectives, seed=0, options={}
        )
        scheduler = make_scheduler("pareto_asha", {"grace_examples": 100, "eta": eta})
        outcome = replay(table, searcher, scheduler, workers=workers)
        found = [(trial.curve, trial.examples_seen) for trial in outcome.trials]
        assert found == slow_replay(table, rungs, eta, workers), (seed, workers, eta)
        assert 3 < outcome.counts["stopped"] < 40
