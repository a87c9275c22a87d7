"""Ray glue: places the trials of a sweep on workers and turns what they report into records.

`run_sweep` reads top to bottom. `Driver` owns the state of a sweep: what was proposed, what was reported, the records
and the front. `_Proposals` and `_Events` are the two thin objects through which Ray Tune talks to it. What a trial
does on its worker is in `trial.py`.
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher as RaySearcher

from qa_core.config import to_dict
from qa_core.errors import ConfigError, StorageError
from qa_core.seeding import derive_seed
from sweeps import provenance, records, registry
from sweeps.front import FrontResult, compute_front
from sweeps.place import Place, default_cache_dir
from sweeps.records import Record
from sweeps.searchers.base import Proposal, Searcher
from sweeps.space import Space, compile_space
from sweeps.spec import SweepSpec
from sweeps.trial import TrialTask, as_values, read_outcome, run_trial

RECORDS_FILE, SPEC_FILE = "records.jsonl", "spec.json"


@dataclass(frozen=True)
class SweepOutcome:
    """What a finished sweep leaves: its folder, how many trials ended how, the front, the wall-clock."""

    folder: Path
    counts: Mapping[str, int]
    front: FrontResult
    seconds: float


@dataclass
class _Running:
    """One trial between its proposal and its record."""

    task: TrialTask
    proposal: Proposal
    started: float = field(default_factory=time.time)
    curve: list[dict[str, Any]] = field(default_factory=list)


class Driver:
    """The state of one sweep on the driver. Every event ends in the console, the tracker and `records.jsonl`."""

    def __init__(
        self, spec: SweepSpec, *, space: Space, searcher: Searcher, folder: Path, console: Any, tracker: Any
    ) -> None:
        self.spec, self.space, self.searcher = spec, space, searcher
        # Absolute: a worker's current folder is not the driver's.
        self.folder, self.console, self.tracker = folder.resolve(), console, tracker
        self.scheduler = registry.make_scheduler(spec.scheduler.name, spec.scheduler.options)
        self.rungs = self.scheduler.rungs(spec.budget.examples)
        self.records: list[Record] = []
        self.running: dict[str, _Running] = {}
        self.provenance = provenance.collect()
        self.front = compute_front([], spec.objectives)
        self._proposed = 0

    def propose(self) -> TrialTask | None:
        """Return the next trial to run, or None when the searcher has no more."""
        proposal = self.searcher.propose()
        if proposal is None:
            return None
        trial_id = f"t{self._proposed:04d}"
        self._proposed += 1
        recipe = self.space.to_run_config(
            proposal.assignment, seed=derive_seed(self.spec.seed, trial_id) % 2**31, rungs=self.rungs
        )
        task = TrialTask(
            trial_id=trial_id,
            recipe=to_dict(recipe),
            folder=str(self.folder / "trials" / trial_id),
            cache_dir=str(default_cache_dir()),
            threads=max(1, int(self.spec.resources.cpus_per_trial)),
            objectives=tuple(objective.name for objective in self.spec.objectives),
            max_memory_mb=self.spec.budget.max_memory_mb,
        )
        self.running[trial_id] = _Running(task, proposal)
        return task

    def started(self, trial_id: str) -> None:
        """Note that a worker took the trial up."""
        running = self.running[trial_id]
        running.started = time.time()
        self.tracker.trial_started(trial_id)
        self.console.trial_started(trial_id, self.space.label(running.proposal.assignment))

    def reported(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Note a rung; the final report is left to `ended`."""
        if metrics.get("final") or trial_id not in self.running:
            return
        keys = ("examples_seen", "budget_examples", "train_loss", "train_seconds", "memory_mb")
        scores = ("selection_em_percent", "selection_f1_percent")
        progress = {key: metrics[key] for key in (*keys, *scores)}
        self.running[trial_id].curve.append(progress)
        self.tracker.log_progress(trial_id, progress)
        self.console.trial_reported(trial_id, progress)

    def ended(self, trial_id: str, metrics: Mapping[str, Any], error: str | None) -> None:
        """Turn a trial's end into its record, tell the searcher the truth, and renew the front."""
        running = self.running.pop(trial_id, None)
        if running is None:
            return
        record = self._record(running, metrics, error)
        self.records.append(record)
        records.append(self.folder / RECORDS_FILE, record)
        values = None
        if record.objectives is not None:
            values = [record.objectives[objective.name] for objective in self.spec.objectives]
        self.searcher.tell(running.proposal.id, record.status, values)
        self.console.trial_ended(records.to_dict(record))
        self.tracker.log_trial(records.to_dict(record))
        if record.status == "ok":
            self._renew_front()

    def counts(self) -> Counter[str]:
        """Return how many trials ended in each status."""
        return Counter(record.status for record in self.records)

    def _renew_front(self) -> None:
        before = {point.trial_id for point in self.front.front}
        self.front = compute_front(self.records, self.spec.objectives)
        now = {point.trial_id for point in self.front.front}
        self.tracker.log_metric("hypervolume", self.front.hypervolume, step=len(self.records))
        if now != before:
            rows = [row for row in self.front.rows() if row["on_front"]]
            self.console.front_changed(rows, self.front.hypervolume)

    def _record(self, running: _Running, metrics: Mapping[str, Any], error: str | None) -> Record:
        task = running.task
        result = metrics.get("result") if metrics.get("final") and error is None else None
        ended = {"status": "ok", "reason": None, "traceback": None}
        if result is None:
            ended = self._ending(running, error)
        finished = time.time()
        curve = list(result["curve"]) if result else running.curve
        return Record(
            trial_id=task.trial_id,
            status=str(ended["status"]),
            reason=ended["reason"],
            traceback=ended["traceback"],
            seed=task.recipe["seed"],
            assignment=running.proposal.assignment,
            config=dict(task.recipe),
            examples_seen=curve[-1]["examples_seen"] if curve else 0,
            # A recipe that trains nothing has a budget of 0, whatever the sweep allows.
            budget_examples=curve[-1]["budget_examples"] if result else self.spec.budget.examples,
            curve=curve,
            objectives=self.spec.measured_objectives(result) if result else None,
            quality=result["quality"] if result else None,
            cost=result["cost"] if result else None,
            cross_domain=result["cross_domain"] if result else {},
            data=result["data"] if result else {},
            prerequisites=result["prerequisites"] if result else {},
            device=result["cost"]["device"] if result else None,
            artifact=_relative(result["artifact"], self.folder) if result else None,
            started_at=_utc(running.started),
            finished_at=_utc(finished),
            seconds=finished - running.started,
            provenance={**self.provenance, "left_over_bytes": metrics.get("left_over_bytes")},
        )

    def _ending(self, running: _Running, error: str | None) -> dict[str, Any]:
        outcome = read_outcome(Path(running.task.folder))
        if outcome is not None:
            return outcome
        if error is not None:
            reason = error.strip().splitlines()[-1] if error.strip() else "the worker died without a message"
            return {"status": "failed", "reason": reason, "traceback": error}
        reached = running.curve[-1]["examples_seen"] if running.curve else 0
        reason = f"stopped by scheduler {self.spec.scheduler.name!r} at {reached} examples"
        return {"status": "stopped", "reason": reason, "traceback": None}


class _Proposals(RaySearcher):
    """Ray asks here for the next trial."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.driver = driver

    def suggest(self, trial_id: str) -> Any:
        task = self.driver.propose()
        return RaySearcher.FINISHED if task is None else as_values(task)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Ignored: `_Events` tells the searcher, with the true status."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the state is rebuilt from `records.jsonl`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the state is rebuilt from `records.jsonl`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles its tuner into the run folder; nothing of ours is read back from there


class _Events(tune.Callback):
    """Ray tells here what happens to trials."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.driver.started(trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.driver.reported(trial.config["trial_id"], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.driver.ended(trial.config["trial_id"], trial.last_result or {}, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_error()
        self.driver.ended(trial.config["trial_id"], trial.last_result or {}, str(error))


def run_sweep(spec: SweepSpec, *, folder: Path, place: Place, console: Any, tracker: Any) -> SweepOutcome:
    """Run every trial of a sweep and return its front.

    Args:
        folder: the sweep's own folder; created, and refused if it holds anything.
        console, tracker: told of each event; see `console.py` and `tracking.py`.

    Raises:
        ConfigError: the space is empty, or the machine cannot give one trial what it asks for.
        StorageError: the folder exists already.
    """
    started = time.perf_counter()
    space = compile_space(spec)
    create_run_folder(folder)
    (folder / SPEC_FILE).write_text(json.dumps(spec.as_dict(), indent=2))
    searcher = registry.make_searcher(spec, space)
    driver = Driver(spec, space=space, searcher=searcher, folder=folder, console=console, tracker=tracker)
    start_ray(place, cpus=spec.resources.cpus_per_trial)
    try:
        concurrent = concurrent_trials(spec)
        console.start(spec.name, spec.budget.trials, folder)
        _fit(spec, driver, concurrent=concurrent)
    finally:
        ray.shutdown()
    front = compute_front(driver.records, spec.objectives)
    return SweepOutcome(folder, driver.counts(), front, time.perf_counter() - started)


def _fit(spec: SweepSpec, driver: Driver, *, concurrent: int) -> None:
    resources = {"cpu": spec.resources.cpus_per_trial, "gpu": spec.resources.gpus_per_trial}
    minutes = spec.budget.time_minutes
    tuner = tune.Tuner(
        tune.with_resources(run_trial, resources),
        tune_config=tune.TuneConfig(
            search_alg=_Proposals(driver),
            scheduler=driver.scheduler.ray_scheduler(spec.objectives, spec.budget.examples),
            num_samples=spec.budget.trials,
            max_concurrent_trials=concurrent,
            time_budget_s=None if minutes is None else minutes * 60,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(driver.folder),
            callbacks=[_Events(driver)],
            verbose=0,
        ),
    )
    tuner.fit()


def start_ray(place: Place, *, cpus: float) -> None:
    """Join the cluster at the address, or start a Ray on the loopback of this machine without a dashboard."""
    place.set_environment()
    # It logs the traceback of each failed trial, which stands in the record and which the console groups.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if place.address:
        ray.init(address=place.address, **options)
        return
    ray.init(
        num_cpus=max(os.cpu_count() or 1, int(cpus)),
        include_dashboard=place.dashboard,
        _node_ip_address="127.0.0.1",
        object_store_memory=256 * 2**20,
        **options,
    )


def concurrent_trials(spec: SweepSpec) -> int:
    """Return how many trials run at a time.

    Raises:
        ConfigError: the resources cannot hold a single trial; Ray would wait for ever.
    """
    offered = ray.cluster_resources()
    fits = []
    for resource, key, wanted in (
        ("CPU", "cpus_per_trial", spec.resources.cpus_per_trial),
        ("GPU", "gpus_per_trial", spec.resources.gpus_per_trial),
    ):
        if wanted > 0:
            have = offered.get(resource, 0.0)
            if have < wanted:
                raise ConfigError(
                    f"resources.{key}: found {wanted}; allowed: at most {have:g}, all that there is"
                )
            fits.append(int(have / wanted))
    return min([*fits, spec.budget.concurrent or fits[0]])


def create_run_folder(folder: Path) -> None:
    """Create the sweep's folder.

    Raises:
        StorageError: it holds something already, or it cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder}: exists already; choose another folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made: {error}") from error


def _relative(path: str, folder: Path) -> str:
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
