"""What Ray Tune calls: thin objects through which it asks the driver and tells it what happens.

`Proposals` hands out trials, `Events` passes on what becomes of them, `Ending` says when everything must end, and
`decisions_of` is the sweep's scheduler. None of them has a state that Ray could save.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher as RaySearcher

from qa_core.errors import ConfigError
from sweeps.nodes import survey as nodes
from sweeps.nodes.preflight import NodeRefused
from sweeps.schedulers.pausing import Verdict, judge_of
from sweeps.trials.driver import Driver
from sweeps.trials.faults import as_fault
from sweeps.trials.task import as_values, unpacked

PROCESS_DIED = (
    "its worker process has died"  # of Ray's note where neither the node nor the network is to blame
)
RAISED = '\n  File "'  # of a traceback: in Ray's note of an exception; a worker that died has none
DECISIONS = (  # of Ray's schedulers: the methods that Ray calls
    "on_trial_add",
    "on_trial_result",
    "on_trial_complete",
    "on_trial_error",
    "on_trial_remove",
    "choose_trial_to_run",
)
Value = TypeVar("Value")
ROOM_MINUTES = 20.0  # for a cluster to add its first node that can hold a trial: clouds take 3 to 10
ROOM_LOOK_SECONDS = 5.0


class Proposals(RaySearcher):
    """Ray asks here for the next trial."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.driver = driver

    def suggest(self, trial_id: str) -> Any:
        """Return the next task, None to be asked again, or that there are no more."""
        task = told(self.driver, self.driver.propose)
        if task is not None:
            return as_values(task)
        # Ray asks again after None: a running trial may lose its worker, and is then proposed once more.
        is_over = self.driver.ended_by is not None or not self.driver.running
        return RaySearcher.FINISHED if is_over else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Ignored: `Events` tells the searcher, with the true status."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        """Accept any: the space and the objectives are the sweep's own."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the state is rebuilt from `records.jsonl`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the state is rebuilt from `records.jsonl`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles its tuner into the run folder; nothing of ours is read back from there


class Events(tune.Callback):
    """Ray tells here what happens to trials; between two of its steps it lets the supervisor look."""

    def __init__(self, driver: Driver, look: Callable[[], None] = lambda: None) -> None:
        self.driver, self.look = driver, look

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Let the supervisor look, and close the sweep once nothing runs and it is to end."""
        told(self.driver, self.look)
        if self.driver.ended_by is not None and not any(trial.status == Trial.RUNNING for trial in trials):
            self.driver.is_closed = True  # what Ray has not started would keep its loop waiting

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a worker took the trial up."""
        told(self.driver, self.driver.started, trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass on a report and the verdict of the scheduler."""
        # Ray asks the scheduler first and marks a result that ends its trial: one that pauses ends for Ray too.
        told(self.driver, self._reported, trial.config["trial_id"], result, bool(result.get("done")))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a trial ended."""
        told(self.driver, self._ended, trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a trial failed, or lost its worker."""
        told(self.driver, self._failed, trial)

    def _reported(self, trial_id: str, result: dict[str, Any], is_done: bool) -> None:
        is_paused = is_done and self.driver.pauses(trial_id)
        is_stopped = is_done and not is_paused
        self.driver.reported(trial_id, result, is_stopped=is_stopped, is_paused=is_paused)

    def _failed(self, trial: Any) -> None:
        error = _error_of(trial)
        if (why := _refusal_in(error)) is not None:
            self.driver.refuse(why)
        elif RAISED in error:
            self._ended(trial, error)
        else:
            self.driver.lost(trial.config["trial_id"], error, is_own=PROCESS_DIED in error)
            _shrink(trial)

    def _ended(self, trial: Any, error: str | None) -> None:
        self.driver.ended(trial.config["trial_id"], unpacked(trial.last_result or {}), error)
        _shrink(trial)


def _shrink(trial: Any) -> None:
    """Drop what Ray keeps of an ended trial for ever: its result, and statistics of every number it reported.

    Ray only writes them into its own state, which is never read back; without this the driver grows by 0.1 MB a trial.
    The statistics have no public name: a Ray that keeps none, or elsewhere, is left as it is.
    """
    (trial.last_result or {}).pop("result", None)
    metadata: Any = getattr(trial, "run_metadata", None)
    for name in ("metric_analysis", "metric_n_steps"):
        if isinstance(kept := getattr(metadata, name, None), dict):
            kept.clear()
    if hasattr(metadata, "invalidate_cache"):
        metadata.invalidate_cache()


def _refusal_in(error: str) -> str | None:
    """Return why a node refused a trial, or None: nothing else of it may have reached the driver's disk."""
    _, name, why = error.rpartition(f"{NodeRefused.__name__}: ")
    return why.strip() if name else None


def _error_of(trial: Any) -> str:
    """Return Ray's note of a trial's error, where it stands before Ray has copied it into the run folder."""
    note = Path(trial.error_file or "")
    return note.read_text() if note.is_file() else ""


class Ending(tune.Stopper):
    """Ray asks here whether everything must end at once."""

    def __init__(self, driver: Driver, room: "Room | None" = None) -> None:
        self.driver, self.room = driver, room

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Stop no single trial: the scheduler's verdicts do that."""
        return False

    def stop_all(self) -> bool:
        """Tell whether everything must end now."""
        if self.room is not None:
            told(self.driver, self.room.look)
        return self.driver.is_closed

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Room:
    """Waits for the first node of a cluster that can hold a trial: one without any may be about to grow, or never will.

    Args:
        driver: told when the wait is over in vain.
        wanted: resource -> how much of it a trial occupies.
    """

    def __init__(self, driver: Driver, wanted: Mapping[str, float]) -> None:
        self._driver, self._wanted = driver, wanted
        self._since = self._looked = time.monotonic()
        self._is_there = self._can_be_held()
        if not self._is_there:
            driver.note(
                f"no node of the cluster can hold a trial ({self._words()}); waiting for it to add one, at most "
                f"{ROOM_MINUTES:g} min"
            )

    def look(self) -> None:
        """Look at the nodes, every few seconds while there is no room.

        Raises:
            ConfigError: there has been none for too long.
        """
        now = time.monotonic()
        if self._is_there or now - self._looked < ROOM_LOOK_SECONDS:
            return
        self._looked, self._is_there = now, self._can_be_held()
        if not self._is_there and now - self._since > 60 * ROOM_MINUTES:
            raise ConfigError(
                f"resources: found {self._words()} for each trial, which no node of the cluster has offered for "
                f"{ROOM_MINUTES:g} min; allowed: what one of its nodes has. Trials that ended are kept, others resume "
                "with --resume"
            )

    def _can_be_held(self) -> bool:
        return any(nodes.can_hold(node, self._wanted) for node in nodes.live_nodes())

    def _words(self) -> str:
        return ", ".join(f"{amount:g} {name}" for name, amount in self._wanted.items() if amount)


def told(driver: Driver, event: Callable[..., Value], *args: Any, **named: Any) -> Value | None:
    """Tell the driver of an event; None once it takes nothing in, to which the event may lead by a fault.

    Ray loses what its callbacks raise, or fails a trial by it: the driver ends the sweep instead.
    """
    with driver.lock:
        if driver.is_closed:
            return None
        try:
            return event(*args, **named)
        except Exception as error:
            driver.fail(as_fault(error, driver.folder))
            return None


def decisions_of(driver: Driver) -> TrialScheduler:
    """Return the sweep's scheduler; what its decisions raise ends the sweep.

    The driver has the last word on a trial that would go on or pause: see `Driver.judged`.
    """
    spec = driver.spec
    scheduler = driver.scheduler.ray_scheduler(
        spec.objectives, spec.budget.examples, history=driver.history()
    )
    driver.judge = judge_of(scheduler)
    decide = scheduler.on_trial_result

    def judged(tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = decide(tune_controller, trial, result)
        if result.get("final"):
            return decision
        trial_id = trial.config["trial_id"]
        verdict = Verdict.GO_ON if decision == TrialScheduler.CONTINUE else Verdict.STOP
        verdict = getattr(scheduler, "verdicts", {}).get(trial_id, verdict)
        goes_on = driver.judged(trial_id, result, verdict) is Verdict.GO_ON
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    scheduler.on_trial_result = judged  # type: ignore[method-assign]
    for name in DECISIONS:
        setattr(scheduler, name, _Decision(driver, getattr(scheduler, name)))
    return scheduler


class _Decision:
    """One method of a Ray scheduler."""

    def __init__(self, driver: Driver, decide: Callable[..., Any]) -> None:
        self.driver, self.decide = driver, decide

    def __call__(self, *args: Any) -> Any:
        return told(self.driver, self.decide, *args)

    def __getstate__(self) -> dict[str, Any]:
        return {}
