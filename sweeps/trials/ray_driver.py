"""Ray glue: places the trials of a sweep on workers and passes on what happens to them.

`run_sweep` reads top to bottom. The state of a sweep is the driver's (`driver.py`); the objects through which Ray Tune
talks to it are in `ray_adapters.py`. What a trial does on its worker is in `worker.py`.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune

from qa_core import files
from qa_core.data.cache import default_cache_dir
from qa_core.errors import ConfigError, counted
from sweeps.budget.gpu_shares import GpuShares
from sweeps.budget.memory import MemoryForecast
from sweeps.front import comparability
from sweeps.front.front import with_paused
from sweeps.front.points import finished
from sweeps.front.result import FrontResult
from sweeps.nodes import preflight
from sweeps.nodes import survey as nodes
from sweeps.nodes.preflight import least_gpu_bytes
from sweeps.nodes.ray_environment import RayTarget
from sweeps.nodes.report import NodeReport
from sweeps.progress.mlflow_mirror import Tracker
from sweeps.progress.observer import Console
from sweeps.progress.shell_command import shell_command
from sweeps.report.live import LiveReport
from sweeps.run_folder import journal, records
from sweeps.run_folder.journal import held
from sweeps.run_folder.layout import (
    DRIVER_LOCK,
    ERROR_FILE,
    JOURNAL_FILE,
    PREFLIGHT_FILE,
    RAY_FOLDER,
    REPORT_FILE,
    SPEC_FILE,
    RunFolder,
)
from sweeps.searchers.base import Forecast, Searcher, make_searcher
from sweeps.space.compile import compile_space
from sweeps.space.space import Assignment, Space
from sweeps.spec.load import store_spec
from sweeps.spec.objectives import PREDICTED
from sweeps.spec.sections import AUTO, SweepSpec
from sweeps.trials import ray_service, signals
from sweeps.trials.driver import Driver
from sweeps.trials.faults import as_fault
from sweeps.trials.ray_adapters import Ending, Events, Proposals, Room, decisions_of
from sweeps.trials.reporting import snapshot_of
from sweeps.trials.supervision import Supervisor
from sweeps.trials.worker import run_trial


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep leaves: its folder, how many trials ended how, the front, the wall-clock of this start."""

    folder: Path
    counts: Mapping[str, int]
    unfinished: int  # trials that were cut short; they go on when the sweep is resumed
    ended_by: str | None  # why it ended before its budget was spent
    front: FrontResult
    spent_examples: int
    seconds: float
    paused: Mapping[str, int] = field(default_factory=dict)  # trial -> examples seen, of those that may go on


def run_sweep(
    spec: SweepSpec,
    *,
    folder: Path,
    target: RayTarget,
    console: Console,
    tracker: Tracker,
    resume: bool = False,
    differs: Sequence[str] = (),
    space: Space | None = None,
    forecast: MemoryForecast | None = None,
) -> SweepOutcome:
    """Run the trials of a sweep that have not run yet and return its front.

    Args:
        folder: the sweep's own folder; of a new sweep it is created, and refused if it holds anything.
        console, tracker: told of each event; see `sweeps/progress/observer.py` and `sweeps/progress/mlflow_mirror.py`.
            The tracker is opened here.
        resume: continue the sweep in the folder.
        differs: in what its trials do not compare with those that have finished, which is allowed; records say so.
        space, forecast: of the spec, from whoever checked it; None: made here.

    Raises:
        ConfigError: the space is empty, the machine cannot give one trial what it asks for, or a node cannot run
            its trials. Where no trial has begun yet, a new sweep leaves no folder.
        StorageError: the folder exists already, another process runs this sweep, or the disk is full; what was written
            until then can be read and resumed.
        DataError: the files of a sweep that is resumed cannot be read.
        SweepFault: the program or Ray failed; see `faults.py`.
    """
    started = time.perf_counter()
    space = space or compile_space(spec)
    forecast = forecast or MemoryForecast.of(spec)
    if not resume:
        create_run_folder(folder)
    is_beside = not resume and not tracker.may_refuse
    with (
        _withdrawn_if_refused(folder, is_new=not resume),
        held(folder),
        # Not before: another process may run this sweep, and be mirrored there.
        _opening(tracker, is_beside=is_beside) as opened,
    ):
        # Again, where it was checked before: until the lock was taken, another process may have gone on with it.
        past = journal.read(folder) if resume else None
        store_spec(spec, folder)
        searcher = make_searcher(
            spec, space, admits=_admission(spec, space, forecast), forecast=_known(spec, space, forecast)
        )
        report = LiveReport(folder, console.note)
        observers = (tracker, console, report)
        driver = Driver(spec, space=space, searcher=searcher, folder=folder, observers=observers, past=past)
        driver.mark_mixed(differs)

        def note_mirror() -> None:
            opened()
            if tracker.parent_run_id is not None:
                driver.journal.tracked(tracker.tracking_uri, tracker.parent_run_id)

        if not is_beside:
            note_mirror()
        if resume:
            tracker.catch_up(
                [records.to_dict(record) for record in driver.records],
                {trial_id: item.curve for trial_id, item in driver.paused.items()},
            )
        console.start(
            spec.name,
            spec.budget.trials,
            folder,
            ended=len(driver.records),
            minutes=spec.budget.time_minutes,
        )
        console.note(f"report, kept up to date: {report.path}")
        with report.kept(lambda is_over: snapshot_of(driver, folder, is_over=is_over)):
            driver.settle()
            if driver.has_work():
                _run_trials(spec, driver, forecast, target, before_first=note_mirror if is_beside else None)
        _tell_refused(searcher, driver)
        if (spent := driver.spent_note()) is not None:
            driver.note(spent)
    ended_by_fault = driver.fault or driver.refused
    if ended_by_fault is not None:
        raise ended_by_fault
    paused = {trial_id: item.examples_seen for trial_id, item in driver.paused.items()}
    return SweepOutcome(
        folder,
        driver.counts(),
        driver.unfinished(),
        driver.ended_by,
        with_paused(driver.front, len(paused)),
        driver.spent_examples,
        time.perf_counter() - started,
        paused,
    )


@contextmanager
def _withdrawn_if_refused(folder: Path, *, is_new: bool) -> Iterator[None]:
    """Leave nothing of a new sweep that is refused before its first trial: the same command finds its folder free."""
    try:
        yield
    except ConfigError:
        if is_new and not journal.read(folder).trials:
            for name in (SPEC_FILE, JOURNAL_FILE, PREFLIGHT_FILE, ERROR_FILE, REPORT_FILE, DRIVER_LOCK):
                (folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # somebody else's file is in it
                folder.rmdir()
        raise


def _admission(
    spec: SweepSpec, space: Space, forecast: MemoryForecast
) -> Callable[[Assignment], bool] | None:
    """Return what tells whether a recipe is predicted to fit the memory budget; None without a budget."""
    if spec.budget.max_memory_mb is None:
        return None
    return lambda assignment: forecast.admits(space.to_run_config(assignment, seed=0))


def _known(spec: SweepSpec, space: Space, forecast: MemoryForecast) -> Forecast:
    """Return what says which objectives of a recipe are known before it starts; see `Searcher`."""
    names = [objective.name for objective in spec.objectives if objective.name in PREDICTED]

    def of_assignment(assignment: Assignment) -> list[dict[str, float]]:
        known = []
        for stored in forecast.stored(space.to_run_config(assignment, seed=0)):
            found = {name: forecast.predict(stored, name) for name in names}
            known.append({name: value for name, value in found.items() if value is not None})
        return known

    return of_assignment


def _tell_refused(searcher: Searcher, driver: Driver) -> None:
    """Say how many recipes were refused; raise ConfigError where nothing else came up."""
    if not searcher.refused:
        return
    limit = driver.spec.budget.max_memory_mb
    if not driver.records and not driver.unfinished() and not driver.paused:
        raise ConfigError(
            f"budget.max_memory_mb: found {limit:g}; allowed: enough for a recipe of the space; "
            f"{searcher.refused} that came up are predicted to need more; {shell_command('qa-sweep', 'plan')} "
            "with the sweep's options shows how much"
        )
    driver.note(
        f"{counted(searcher.refused, 'recipe')} came up that {'is' if searcher.refused == 1 else 'are'} predicted to "
        f"need more than {limit:g} MB; none was started"
    )


@contextmanager
def _opening(tracker: Tracker, *, is_beside: bool) -> Iterator[Callable[[], None]]:
    """Open the tracker, or begin to while other work goes on: imports and new tables take seconds.

    Yields what waits until it is open. The end of the block waits too: a tracker that is opened can be finished.
    """
    if not is_beside:
        tracker.open()
        yield lambda: None
        return
    work = threading.Thread(target=tracker.open, name="opening of MLflow", daemon=True)
    work.start()
    try:
        yield work.join
    finally:
        work.join()


def _run_trials(
    spec: SweepSpec,
    driver: Driver,
    forecast: MemoryForecast,
    target: RayTarget,
    *,
    before_first: Callable[[], None] | None = None,
) -> None:
    try:
        with ray_service.running(target, cpus=spec.resources.cpus_per_trial) as service:
            concurrent = concurrent_trials(spec, is_cluster=target.address is not None)
            nodes.check(spec, driver.folder, target=target, note=driver.note)
            if target.address is not None:
                driver.mark_mixed(_check_terms(spec, driver, target))
            if spec.resources.is_auto:
                driver.gpu_share_of = _gpu_shares(spec, forecast, driver.folder)
            if before_first is not None:
                before_first()
            room = None if target.address is None else Room(driver, nodes.wanted_by(spec.resources))
            with signals.noted() as requests:
                watch = Supervisor(driver, service, requests, minutes=spec.budget.time_minutes)
                work = threading.Thread(
                    target=_fit,
                    args=(spec, driver),
                    kwargs={"concurrent": concurrent, "look": watch.look, "room": room},
                    name="Ray Tune",
                    daemon=True,
                )
                work.start()
                watch.wait(work)
    finally:
        # Pickles, and errors word for word: nothing that should lie in a folder that is handed on.
        files.remove_folder(RunFolder(driver.folder).ray, inside=driver.folder)


def _check_terms(spec: SweepSpec, driver: Driver, target: RayTarget) -> tuple[str, ...]:
    """Refuse trials that would not compare with those that have finished, on the nodes that are there."""
    done = finished(driver.records, spec.objectives)
    reports = [report for report in preflight.read(driver.folder).nodes if report.holds_trials]
    machines = {comparability.Machine(str(report.device), bool(report.bfloat16)) for report in reports}
    return comparability.check(
        done,
        comparability.recipes_to_run(driver.space, journal.read(driver.folder), spec.budget.trials),
        spec.objectives,
        machines=(lambda device: sorted(machines, key=str)) if machines else comparability.recorded(done),
        cache_dir=default_cache_dir(),
        allow_mixed=target.allow_mixed,
        note=driver.note,
    )


def _gpu_shares(spec: SweepSpec, forecast: MemoryForecast, folder: Path) -> GpuShares:
    """Return what gives each trial its share of a GPU.

    Raises:
        ConfigError: nobody says how much memory a GPU has.
    """
    named = spec.resources.gpu_memory_gb
    size = least_gpu_bytes(folder) if named is None else int(named * 1e9)
    if size is None:
        raise ConfigError(
            "resources.gpu_memory_gb: found none, and no node that holds trials reports a GPU; allowed: the memory of "
            f"the smallest GPU in 10^9 bytes, with gpus_per_trial {AUTO}"
        )
    return GpuShares(size, forecast.training_bytes)


def resources_of(cpus: float) -> Callable[[Mapping[str, Any]], tune.PlacementGroupFactory]:
    """Return the function by which Ray asks what a trial occupies.

    That is the share of its own task, see `sweeps/budget/gpu_shares.py`.
    """

    def of_task(task_values: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([{"CPU": cpus, "GPU": task_values["gpu_share"]}])

    return of_task


def _fit(
    spec: SweepSpec, driver: Driver, *, concurrent: int, look: Callable[[], None], room: Room | None
) -> None:
    """Run Ray's loop until the sweep is over; what it raises ends the sweep, see `faults.py`."""
    try:
        files.remove_folder(RunFolder(driver.folder).ray, inside=driver.folder)  # of an earlier start
        tuner = tune.Tuner(
            tune.with_resources(run_trial, resources_of(spec.resources.cpus_per_trial)),
            tune_config=tune.TuneConfig(
                search_alg=Proposals(driver),
                scheduler=decisions_of(driver),
                num_samples=-1,  # the driver says when there are no more
                max_concurrent_trials=concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=RAY_FOLDER,
                storage_path=str(driver.folder),
                callbacks=[Events(driver, look)],
                stop=Ending(driver, room),
                verbose=0,
            ),
        )
        tuner.fit()
    except Exception as error:  # Ray's own too, such as of a note that the full disk does not take
        with driver.lock:
            if not driver.is_closed:
                driver.fail(as_fault(error, driver.folder))


def survey(target: RayTarget, *, shared: Path | None) -> list[NodeReport]:
    """Join a cluster, ask all of its nodes and leave it again; see `nodes.survey`."""
    with ray_service.running(target, cpus=0):
        return nodes.survey(shared)


def concurrent_trials(spec: SweepSpec, *, is_cluster: bool = False) -> int:
    """Return how many trials run at a time.

    On a cluster `budget.concurrent` is taken as it stands: nodes that the autoscaler adds are not there yet. Under
    `auto` as many as there are smallest shares: Ray starts those for which there is room.

    Raises:
        ConfigError: the resources cannot hold a single trial; Ray would wait for ever.
    """
    if is_cluster and spec.budget.concurrent is not None:
        return spec.budget.concurrent
    offered = ray.cluster_resources()
    fits = []
    for resource, key, wanted in (
        ("CPU", "cpus_per_trial", spec.resources.cpus_per_trial),
        ("GPU", "gpus_per_trial", spec.resources.least_gpus),
    ):
        if wanted > 0:
            have = offered.get(resource, 0.0)
            if have < wanted:
                more = "; budget.concurrent says that the cluster will add nodes" if is_cluster else ""
                found = getattr(spec.resources, key)
                raise ConfigError(
                    f"resources.{key}: found {found}; allowed: at most {have:g}, all that there is{more}"
                )
            fits.append(int(have / wanted))
    return min([*fits, spec.budget.concurrent or fits[0]])


def create_run_folder(folder: Path) -> None:
    """Create the sweep's folder.

    Raises:
        StorageError: it holds something already, or it cannot be made.
    """
    journal.check_free(folder)
    files.make_folder(folder)
