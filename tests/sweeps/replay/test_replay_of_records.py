"""A sweep replayed from its own records gives its own verdicts, and those of a slow reading of the rule.

The sweeps have several batch sizes, so that trials step over their rungs by different amounts. One worker: with more,
live trials meet at the rungs in an order that no replay can know.
"""

import heapq
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from sweeps import registry
from sweeps.front import pareto
from sweeps.nodes.ray_environment import RayTarget
from sweeps.replay.curve_files import read_table, write_table
from sweeps.replay.curves import CurveTable, _curve
from sweeps.replay.simulate import recorded_space, replay
from sweeps.run_folder import journal, records
from sweeps.run_folder.layout import RECORDS_FILE, SPEC_FILE
from sweeps.run_folder.records import Record
from sweeps.schedulers.base import make_scheduler
from sweeps.searchers.base import make_searcher
from sweeps.spec.load import store_spec
from sweeps.spec.sections import SweepSpec
from sweeps.trials.driver import Driver
from sweeps.trials.ray_adapters import decisions_of
from sweeps.trials.ray_driver import run_sweep
from sweeps.trials.task import TrialTask
from tests.sweeps.curves import curve, spec_of
from tests.sweeps.schedulers.test_halving import goes_on_slowly
from tests.sweeps.told import Told
from tests.sweeps.toys import toy_space, toy_spec
from tests.sweeps.whole import tiny_recipes

BUDGET = 900
FIFO = {"name": "fifo", "options": {"at": [100, 200, 400, 800]}}
PARETO_ASHA = {"name": "pareto_asha", "options": {"grace_examples": 100, "eta": 2}}
WITHOUT_FLOOR = {"name": "pareto_asha", "options": {"grace_examples": 100, "eta": 3, "floor": "off"}}
STOPPING = {"name": "pareto_asha", "options": {"grace_examples": 100, "eta": 2, "floor": "stop"}}
SCHEDULERS = (FIFO, PARETO_ASHA, WITHOUT_FLOOR, STOPPING)
Verdict = tuple[str, str, int]  # trial, status, examples seen


def verdicts(folder: Path) -> list[Verdict]:
    return sorted((record.trial_id, record.status, record.examples_seen) for record in ended(folder))


def ended(folder: Path) -> list[Record]:
    """Return the records of a run; a trial that is left paused gets one like the others, with that status."""
    found = list(records.load(folder / RECORDS_FILE).records)
    for trial in journal.read(folder).trials:
        if trial.is_paused and trial.record is None:
            values = {
                **records.to_dict(found[0]),
                "trial_id": trial.trial_id,
                "status": "stopped",
                "reason": "paused",
                "assignment": trial.assignment,
                "config": trial.recipe,
                "curve": trial.curve,
                "examples_seen": trial.curve[-1]["examples_seen"],
                "forms": (),
            }
            record = records.Record(**values)
            object.__setattr__(record, "status", "paused")  # which no record has
            found.append(record)
    return found


def table_of(folder: Path, spec: SweepSpec) -> CurveTable:
    """Return all trials of a run as a table; one that did not finish gets an end, which its replay must not come to."""
    return CurveTable(
        spec,
        tuple(
            _curve(_finished(record, spec), spec.objectives, record.trial_id)
            for record in sorted(ended(folder), key=lambda record: record.trial_id)
        ),
    )


def _finished(record: Record, spec: SweepSpec) -> Record:
    if record.status == "ok":
        return record
    end = {**record.curve[-1], "examples_seen": spec.budget.examples}
    values = dict.fromkeys((objective.name for objective in spec.objectives), 1.0)
    return replace(record, status="stopped", curve=(*record.curve, end), objectives=values)


def replayed(table: CurveTable, scheduler: dict[str, Any]) -> list[Verdict]:
    """Return the verdicts of a replay on one worker that proposes the recipes in the order of the grid, by trial."""
    searcher = registry.searcher_class("grid")(
        recorded_space(table), table.spec.objectives, seed=0, options={}
    )
    made = make_scheduler(scheduler["name"], scheduler["options"])
    outcome = replay(table, searcher, made, workers=1)
    return sorted(
        (table.curves[trial.curve].trial_id, trial.status, trial.examples_seen) for trial in outcome.trials
    )


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


class Killed(Exception):
    """The driver's process is gone."""


def play(
    folder: Path,
    scheduler: dict[str, Any],
    *,
    kills: tuple[int, ...] = (),
    with_forms: bool = False,
    **changes: Any,
) -> SweepSpec:
    """Run a sweep whose trials report as `qa_core/training/train.py` lets them; returns its settings.

    Args:
        with_forms: trainings are stored in forms, as their reports say.
        kills: before the driver hears of these reports, counted over the whole sweep, it is killed and resumed.
        changes: of the budget.
    """
    folder.mkdir()
    values = toy_sweep(scheduler)
    values["budget"] |= changes
    spec, space = toy_spec(**values), toy_space(**values)
    store_spec(spec, folder)
    heard = iter(range(10**6))
    pending = list(kills)
    while True:
        searcher = make_searcher(spec, space)
        driver = Driver(
            spec,
            space=space,
            searcher=searcher,
            folder=folder,
            observers=(Told(),),
            past=journal.read(folder),
        )
        driver.settle()
        judge = decisions_of(driver)
        try:
            while (task := driver.propose()) is not None:
                driver.started(task.trial_id)
                task = replace(task, reports_forms=with_forms)
                _play_trial(driver, judge, task, heard=heard, kills=pending)
        except Killed:
            continue
        assert not driver.running
        assert driver.fault is None
        return spec


def _play_trial(
    driver: Driver, judge: Any, task: TrialTask, *, heard: Iterator[int], kills: list[int]
) -> None:
    reports = []
    trial = SimpleNamespace(trial_id=f"ray{task.trial_id}", config={"trial_id": task.trial_id})
    for report in _reports(task):
        reports.append(report)
        if report["examples_seen"] <= task.reported_examples:
            continue
        if kills and next(heard) == kills[0]:
            kills.pop(0)
            raise Killed
        if report["examples_seen"] == BUDGET:
            final = {**report, "final": True}
            judge.on_trial_result(None, trial, final)
            driver.ended(task.trial_id, {**final, "result": _result(task, reports)}, None)
            return
        if judge.on_trial_result(None, trial, report) == TrialScheduler.CONTINUE:
            driver.reported(task.trial_id, report, is_stopped=False)
            continue
        is_paused = driver.pauses(task.trial_id)
        driver.reported(task.trial_id, report, is_stopped=not is_paused, is_paused=is_paused)
        driver.ended(task.trial_id, {}, None)
        return


def _reports(task: TrialTask) -> Iterator[dict[str, Any]]:
    """Yield a report after each step that reaches a rung, and the one of the whole budget."""
    rng = np.random.default_rng(int(task.trial_id[1:]))
    pending, batch_size = list(task.recipe["train"]["rungs"]), task.recipe["train"]["batch_size"]
    for seen in range(batch_size, BUDGET, batch_size):
        if pending and seen >= pending[0]:
            pending = [rung for rung in pending if rung > seen]
            em = float(rng.integers(0, 60))
            learnt = {
                "selection_baseline": "no_answer",
                "selection_gain_percent": em - 20.0,
                "selection_gain_error_percent": 5.0,  # at the floor up to 30
                "train_loss": float(rng.integers(1, 9)),
            }
            report = {**_report(seen, em, float(rng.integers(1, 9))), **learnt}
            yield {**report, "forms": _forms(task)} if task.reports_forms else report
    yield _report(BUDGET, 50.0, 5.0)


def _forms(task: TrialTask) -> list[dict[str, Any]]:
    """Return the stored forms of a trial as its reports name them: several of the last kind, another number in each."""
    rng = np.random.default_rng([7, int(task.trial_id[1:])])
    found = []
    for number, kind in enumerate(["scored at rungs: float32", "int8", "nf4", "nf4"][: rng.integers(2, 5)]):
        memory = float(rng.integers(4, 9)) / 2**number
        costs = {
            name: item
            for name, item in _report(0, 0.0, memory).items()
            if "memory" in name or "bytes" in name
        }
        found.append({"label": f"form{number}", "kind": kind, **costs})
    return found


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
        "forms": [_made(form, place) for place, form in enumerate(_forms(task))]
        if task.reports_forms
        else (),
    }


def _made(form: dict[str, Any], place: int) -> dict[str, Any]:
    """Return what a form came to; of each training the third one fails."""
    is_ok = place != 2
    return {
        "label": form["label"],
        "settings": {"methods.quantize.bits": 2**place} if place else {},
        "status": "ok" if is_ok else "failed",
        "reason": None if is_ok else "RuntimeError: no kernel",
        "quality": {"em_percent": 50.0 - place} if is_ok else None,
        "cost": {"inference_peak_bytes": form["memory_mb"] * 1e6, "device": "toy"} if is_ok else None,
        "against_twin": None,
        "artifact": None,
    }


@pytest.mark.usefixtures("toy_registry")
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=["fifo", "pausing", "no-floor", "stopping"])
@pytest.mark.parametrize("total", [None, 9000])
def test_the_records_of_a_played_sweep_replay_to_its_own_verdicts(
    scheduler: dict[str, Any], total: int | None, tmp_path: Path
) -> None:
    spec = play(tmp_path / "run", scheduler, **({} if total is None else {"total_examples": total}))
    own = verdicts(tmp_path / "run")
    statuses = [status for _, status, _ in own]
    rungs = make_scheduler(scheduler["name"], scheduler["options"]).rungs(BUDGET)
    spent = sum(max(item for item in (0, *rungs, BUDGET) if item <= examples) for _, _, examples in own)
    assert len(own) == 36 if total is None else len(own) <= 36
    assert spent >= 9000 if total is None else spent < total + 890  # a step of 890 passes several rungs
    reached = {examples for _, status, examples in own if status == "stopped"}
    assert (len(reached) > 3) == (scheduler is not FIFO)
    pauses = scheduler["options"].get("floor", "pause") == "pause" and scheduler is not FIFO
    assert pauses == ("paused" in statuses) or total is not None
    assert "ok" in statuses
    assert replayed(table_of(tmp_path / "run", spec), scheduler) == own


@pytest.mark.usefixtures("toy_registry")
@pytest.mark.parametrize("scheduler", [PARETO_ASHA, WITHOUT_FLOOR], ids=["pausing", "no-floor"])
def test_a_played_sweep_with_forms_replays_to_its_own_verdicts_whatever_is_killed(
    scheduler: dict[str, Any], tmp_path: Path
) -> None:
    spec = play(tmp_path / "run", scheduler, with_forms=True)
    own = verdicts(tmp_path / "run")
    table = table_of(tmp_path / "run", spec)
    assert all(len(item.forms) >= 2 for item in table.curves)
    assert replayed(table, scheduler) == own
    unseen = [
        replace(item, forms=tuple(replace(form, kind=None) for form in item.forms)) for item in table.curves
    ]
    assert replayed(replace(table, curves=tuple(unseen)), scheduler) != own  # forms decided something
    play(tmp_path / "killed", scheduler, with_forms=True, kills=(0, 5, 13, 14, 30, 31))
    assert verdicts(tmp_path / "killed") == own


@pytest.mark.usefixtures("toy_registry")
def test_a_table_of_a_run_with_forms_has_a_point_for_each_that_was_made(tmp_path: Path) -> None:
    play(tmp_path / "whole", FIFO, with_forms=True)
    play(tmp_path / "halved", PARETO_ASHA, with_forms=True)
    table = CurveTable.from_run(tmp_path / "whole" / RECORDS_FILE, tmp_path / "whole" / SPEC_FILE)
    found = {record.trial_id: record for record in records.load(tmp_path / "whole" / RECORDS_FILE).records}
    for item in table.curves:
        record = found[item.trial_id]
        assert [form.label for form in item.forms] == [form.label for form in record.forms]
        assert [form.final for form in item.forms] == [form.objectives for form in record.forms]
        planned = {form["label"]: form for form in record.curve[0]["forms"]}
        for form in item.forms:
            assert form.kind == planned[form.label]["kind"]
            assert form.costs == {"memory_mb": planned[form.label]["memory_mb"]}
        after = item.seconds - item.train_seconds[-1]
        made = [form for form in record.forms if form.status == "ok"]
        assert item.forms[0].seconds == pytest.approx(after / (1 + len(made)))
    assert len(table.losses) == sum(form.status == "ok" for record in found.values() for form in record.forms)
    assert len(table.losses) == len(table.curve_of) > len(table.curves)
    with_failed = [item for item in table.curves if len(item.forms) > 2]
    assert with_failed
    assert all(item.forms[2].final is None for item in with_failed)
    assert table.hypervolume == pareto.hypervolume(table.losses, table.reference)

    write_table(table, tmp_path / "table.parquet")
    read = read_table(tmp_path / "table.parquet")
    assert read.curves == table.curves
    assert replayed(read, PARETO_ASHA) == verdicts(tmp_path / "halved")


@pytest.mark.usefixtures("toy_registry")
@pytest.mark.parametrize("total", [None, 9000])
def test_a_sweep_that_is_killed_at_any_report_decides_as_one_that_was_not(
    total: int | None, tmp_path: Path
) -> None:
    changes = {} if total is None else {"total_examples": total}
    play(tmp_path / "whole", PARETO_ASHA, **changes)
    expected = verdicts(tmp_path / "whole")
    for kills in ((0, 1, 5, 13, 14), tuple(range(3, 60, 9))):
        folder = tmp_path / f"killed{kills[0]}"
        play(folder, PARETO_ASHA, kills=kills, **changes)
        assert verdicts(folder) == expected, kills


@pytest.mark.usefixtures("toy_registry")
def test_curves_recorded_with_fifo_replay_to_the_verdicts_that_halving_gave(tmp_path: Path) -> None:
    play(tmp_path / "whole", FIFO)
    play(tmp_path / "halved", PARETO_ASHA)
    table = CurveTable.from_run(tmp_path / "whole" / RECORDS_FILE, tmp_path / "whole" / SPEC_FILE)
    assert replayed(table, PARETO_ASHA) == verdicts(tmp_path / "halved")


@pytest.mark.long
@pytest.mark.parametrize(
    ("forms", "sizes"),
    [
        # Without forms the rule is a part of that with them; sweeps that are played hold it in each default run.
        pytest.param({}, [8, 24, 56], id="alone", marks=pytest.mark.slow),
        pytest.param({"quantize": {"bits": [32, 8, 4]}}, [8, 24], id="forms"),
    ],
)
def test_the_records_of_live_sweeps_replay_to_their_own_verdicts(
    forms: dict[str, Any],
    sizes: list[int],
    small_squad: Path,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials = 4 * len(sizes)
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
            "budget": {"trials": trials, "examples": 200, "concurrent": 1},
            "forms": forms,
            "space": [
                {"set": "model.family", "choice": ["lstm", "bert"]},
                {"set": "train.batch_size", "choice": sizes},
                {"set": "train.learning_rate", "choice": [0.02, 0.0002]},
            ],
        }
        folder = tmp_path / scheduler["name"]
        spec = specs[scheduler["name"]] = SweepSpec.model_validate(values)
        run_sweep(spec, folder=folder, target=RayTarget(), console=Told(), tracker=Told())
        assert len(verdicts(folder)) == trials
        assert replayed(table_of(folder, spec), scheduler) == verdicts(folder)
    statuses = [status for _, status, _ in verdicts(tmp_path / "pareto_asha")]
    assert 0 < statuses.count("stopped") < trials
    whole = table_of(tmp_path / "fifo", specs["fifo"])
    for item in whole.curves if forms else ():
        assert {form.kind for form in item.forms} == {"nf4", "int8", "scored at rungs: float32"}
        assert all(
            form.final is None or form.final["memory_mb"] == form.costs["memory_mb"] for form in item.forms
        )
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


class SlowSweep:
    """The rule as it reads, on so many workers that take the recipes in turn; nothing is at the floor."""

    def __init__(self, table: CurveTable, rungs: list[int], eta: float, workers: int) -> None:
        self.table, self.rungs, self.eta, self.workers = table, rungs, eta, workers
        self.new = list(range(len(table.curves)))
        self.results: dict[int, dict[int, tuple[float, ...]]] = {rung: {} for rung in rungs}
        self.events: list[tuple[float, int, int]] = []  # second, recipe, number of its report
        self.paused: dict[int, int] = {}  # recipe -> number of its last report
        self.ended: dict[int, int] = {}  # recipe -> examples

    def run(self) -> dict[int, int]:
        """Return the examples at which each recipe ended."""
        now = 0.0
        while True:
            while len(self.events) < self.workers and (found := self._for_a_worker()) is not None:
                recipe, number = found
                times = self._times(recipe)
                second = now + times[number] - (times[number - 1] if number else 0.0)
                heapq.heappush(self.events, (second, recipe, number))
            if not self.events:
                return self.ended
            now, recipe, number = heapq.heappop(self.events)
            one = self.table.curves[recipe]
            if number == len(one.examples_seen) - 1:
                self.ended[recipe] = one.examples_seen[number]
                continue
            # Memory first: there the net within a layer begins.
            result = (one.rung_values["memory_mb"][number], -one.rung_values["em_percent"][number])
            self.results[self._rung(recipe, number)][recipe] = result
            self.paused[recipe] = number
            if len(self.results[self._rung(recipe, number)]) >= self.eta and self._goes_on(recipe):
                del self.paused[recipe]
                times = self._times(recipe)
                heapq.heappush(self.events, (now + times[number + 1] - times[number], recipe, number + 1))

    def _for_a_worker(self) -> tuple[int, int] | None:
        """Return the recipe that a free worker takes up and the number of its next report."""
        while True:
            ready = [recipe for recipe in sorted(self.paused) if self._is_ready(recipe)]
            beaten = [recipe for recipe in ready if not self._goes_on(recipe)]
            if beaten:
                one = self.table.curves[beaten[0]]
                self.ended[beaten[0]] = one.examples_seen[self.paused.pop(beaten[0])]
            elif ready:
                best = max(ready, key=lambda recipe: (self.paused[recipe], -recipe))
                return best, self.paused.pop(best) + 1
            else:
                return (self.new.pop(0), 0) if self.new else None

    def _is_ready(self, recipe: int) -> bool:
        number = self.paused[recipe]
        if len(self.results[self._rung(recipe, number)]) >= self.eta:
            return True
        below = [*(other - 1 for _, _, other in self.events), *self.paused.values()]
        return not self.new and min(below) >= number

    def _goes_on(self, recipe: int) -> bool:
        seen = dict(self.results[self._rung(recipe, self.paused[recipe])])
        own = seen.pop(recipe)
        return goes_on_slowly([*seen.values(), own], self.eta)

    def _rung(self, recipe: int, number: int) -> int:
        return max(rung for rung in self.rungs if rung <= self.table.curves[recipe].examples_seen[number])

    def _times(self, recipe: int) -> list[float]:
        one = self.table.curves[recipe]
        return [*one.train_seconds[:-1], one.seconds]


def test_a_replay_on_several_workers_equals_the_rule_read_slowly() -> None:
    for seed, workers, eta in product(range(6), (1, 2, 7), (2.0, 3.0)):
        table = random_table(np.random.default_rng(seed), 40)
        rungs = [round(100 * eta**power) for power in range(5) if 100 * eta**power < 2700]
        searcher = registry.searcher_class("grid")(
            recorded_space(table), table.spec.objectives, seed=0, options={}
        )
        scheduler = make_scheduler("pareto_asha", {"grace_examples": 100, "eta": eta})
        outcome = replay(table, searcher, scheduler, workers=workers)
        found = {trial.curve: trial.examples_seen for trial in outcome.trials}
        assert found == SlowSweep(table, rungs, eta, workers).run(), (seed, workers, eta)
        assert 3 < outcome.counts["stopped"] < 40


# What a sweep leaves at its end


def floored_table(rng: np.random.Generator, recipes: int) -> CurveTable:
    """Return curves with reports at 100, 300 and 900 of 2,700, of which many are at the floor."""
    table = random_table(rng, recipes)
    curves = []
    for one in table.curves:
        gains = tuple(float(value) - rng.integers(0, 12) for value in one.rung_values["em_percent"])
        losses = tuple(float(value) for value in rng.integers(1, 5, 4))
        extras = {
            "selection_gain_percent": gains,
            "selection_gain_error_percent": (1.0,) * 4,
            "train_loss": losses,
        }
        curves.append(replace(one, extras=extras))
    return replace(table, curves=tuple(curves))


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("floor", ["pause", "stop", "off"])
def test_no_trial_on_its_rungs_front_and_above_the_floor_is_stopped_or_left_paused(
    workers: int, floor: str
) -> None:
    rungs, held_back = (100, 300, 900), 0
    for seed in range(20):
        table = floored_table(np.random.default_rng(seed), 30)
        searcher = registry.searcher_class("random")(
            recorded_space(table), table.spec.objectives, seed=seed, options={}
        )
        scheduler = make_scheduler("pareto_asha", {"grace_examples": 100, "floor": floor})
        outcome = replay(table, searcher, scheduler, workers=workers)
        reached = {trial.curve: (trial.status, trial.examples_seen) for trial in outcome.trials}
        assert len(reached) == 30
        for number, rung in enumerate(rungs):
            there = [index for index, (_, seen) in reached.items() if seen >= rung]
            if not there:
                continue
            losses = [
                (
                    -table.curves[index].rung_values["em_percent"][number],
                    table.curves[index].rung_values["memory_mb"][number],
                )
                for index in there
            ]
            for index, is_on_front in zip(there, pareto.front_mask(np.array(losses)), strict=True):
                extras = table.curves[index].extras
                is_at_floor = (
                    floor != "off" and number > 0 and extras["selection_gain_percent"][number] <= 2.0
                )
                status, seen = reached[index]
                ended_here = status != "ok" and seen < (*rungs, 2700)[number + 1]
                held_back += ended_here and is_at_floor
                assert not (is_on_front and ended_here) or is_at_floor, (seed, index, rung)
        if floor != "stop":
            assert outcome.counts["ok"] >= 1
    assert (held_back > 100) == (floor != "off")
