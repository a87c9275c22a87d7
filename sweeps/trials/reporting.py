"""What the report of a running sweep is made of, taken from its driver at one moment."""

from pathlib import Path

from sweeps.front.front import with_paused
from sweeps.report.snapshot import ENDED, INTERRUPTED, PAUSED, RUNNING, UNFINISHED, OpenTrial, Snapshot
from sweeps.trials.driver import Driver
from sweeps.trials.running import Running


def snapshot_of(driver: Driver, folder: Path, *, is_over: bool) -> Snapshot:
    """Return a sweep as it is now; any thread may ask.

    Args:
        driver: of the sweep.
        folder: of the sweep, as its user names it.
        is_over: no trial runs any more.
    """
    with driver.lock:
        records, front, ended_by = tuple(driver.records), driver.front, driver.ended_by
        running, paused = list(driver.running.values()), list(driver.paused.values())
        cut_short = [*(running if is_over else ()), *driver.cut_short]
    trials = [
        *(() if is_over else (_open(item, RUNNING) for item in running)),
        *(_open(item, PAUSED) for item in paused),
        *(_open(item, UNFINISHED) for item in cut_short),
    ]
    state = RUNNING if not is_over else ENDED if ended_by is None else INTERRUPTED
    return Snapshot(folder, driver.spec.as_dict(), records, with_paused(front, len(paused)), trials, state)


def _open(item: Running, state: str) -> OpenTrial:
    return OpenTrial(item.task.trial_id, state, item.task.recipe, item.proposal.assignment, tuple(item.curve))
