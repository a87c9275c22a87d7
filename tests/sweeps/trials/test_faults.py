"""Whatever a callback of Ray or Ray itself raises ends the sweep with its cause, exit code 2 and the way on."""

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from qa_core.errors import DataError, StorageError
from sweeps import cli
from sweeps.run_folder import records
from sweeps.run_folder.layout import FAULT_FILE, RECORDS_FILE
from sweeps.trials import faults
from sweeps.trials.driver import Driver
from sweeps.trials.faults import SweepFault, as_fault
from sweeps.trials.ray_adapters import DECISIONS, Ending, Events, Proposals, decisions_of
from tests.sweeps.whole import tiny_recipes

TRIAL = SimpleNamespace(config={"trial_id": "t0"}, last_result={}, error_file=None)
EVENTS: dict[str, Callable[[Any], Any]] = {
    "propose": lambda driver: Proposals(driver).suggest("1"),
    "started": lambda driver: Events(driver).on_trial_start(1, [], TRIAL),
    "reported": lambda driver: Events(driver).on_trial_result(1, [], TRIAL, {}),
    "ended": lambda driver: Events(driver).on_trial_complete(1, [], TRIAL),
    "lost": lambda driver: Events(driver).on_trial_error(1, [], TRIAL),
}


def failing_driver(folder: Path, **attributes: Any) -> Any:
    driver = MagicMock(fault=None, is_closed=False, folder=folder, **attributes)
    driver.fail = lambda fault: Driver.fail(driver, fault)
    return driver


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (KeyError("em_percent"), SweepFault),
        (DataError("trials with different evaluation data cannot be compared"), DataError),
        (OSError(errno.EBADMSG, os.strerror(errno.EBADMSG), "/run/records.jsonl"), StorageError),
    ],
)
def test_an_exception_in_any_event_ends_the_sweep_and_silences_later_ones(
    event: str, error: Exception, fault: type[Exception], tmp_path: Path
) -> None:
    driver = failing_driver(tmp_path)
    getattr(driver, event).side_effect = error
    assert EVENTS[event](driver) in (None, "FINISHED")
    assert type(driver.fault) is fault
    assert str(error) in str(driver.fault) or error.strerror in str(driver.fault)
    assert Ending(driver).stop_all()
    driver.reset_mock()
    for later in EVENTS.values():
        later(driver)
    assert [name for name, _, _ in driver.mock_calls if name in EVENTS] == []


@pytest.mark.parametrize("decision", DECISIONS)
def test_an_exception_in_any_decision_of_a_scheduler_ends_the_sweep(decision: str, tmp_path: Path) -> None:
    def fails(*args: Any) -> None:
        raise ZeroDivisionError("division by zero")

    driver = failing_driver(tmp_path)
    driver.scheduler.ray_scheduler.return_value = SimpleNamespace(
        **{name: fails if name == decision else print for name in DECISIONS}
    )
    arguments = ("a", TRIAL, {})[: 3 if decision == "on_trial_result" else 2]
    assert getattr(decisions_of(driver), decision)(*arguments) is None
    assert isinstance(driver.fault, SweepFault)
    assert "ZeroDivisionError: division by zero (test_faults.py:" in str(driver.fault)
    assert "in fails" in (tmp_path / FAULT_FILE).read_text()


def chained(*errors: BaseException) -> BaseException:
    """Return the last error, raised while the one before it was handled, and so on."""
    for before, after in itertools.pairwise(errors):
        after.__context__ = before
    return errors[-1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EROFS, errno.EDQUOT])
def test_a_fault_of_the_storage_is_found_below_what_ray_makes_of_it(number: int, tmp_path: Path) -> None:
    found = as_fault(
        chained(OSError(number, os.strerror(number)), RuntimeError("Traceback (most recent ...")), tmp_path
    )
    assert type(found) is StorageError
    assert str(found) == f"{tmp_path}: {os.strerror(number)}"


def test_a_pickle_that_a_full_disk_has_cut_is_told_as_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(as_fault(EOFError("Ran out of input"), tmp_path), SweepFault)
    monkeypatch.setattr(faults.shutil, "disk_usage", lambda folder: SimpleNamespace(free=4096))
    found = as_fault(EOFError("Ran out of input"), tmp_path)
    assert (type(found), str(found)) == (StorageError, f"{tmp_path}: No space left on device")


def test_a_fault_of_the_network_is_not_told_as_one_of_the_storage(tmp_path: Path) -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused with password=hunter22")
    found = as_fault(refused, tmp_path)
    assert isinstance(found, SweepFault)
    assert "password=***" in str(found)
    assert "hunter22" not in (tmp_path / FAULT_FILE).read_text()


def test_a_traceback_that_the_disk_does_not_take_is_part_of_the_message(tmp_path: Path) -> None:
    found = as_fault(KeyError("x"), tmp_path / "gone")
    assert str(found).splitlines()[0] == (
        "the program failed: KeyError: 'x'; its traceback could not be stored:"
    )


@pytest.mark.long
def test_a_sweep_whose_front_cannot_be_renewed_ends_at_once_and_goes_on_once_it_can(
    small_squad: Path,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(cache_dir))
    values = {
        "name": "small",
        "searcher": {"name": "random"},
        "scheduler": {"name": "fifo", "options": {"reports": 1}},
        "budget": {"trials": 2, "examples": 40, "concurrent": 1},
        **tiny_recipes(small_squad, batch_size=8),
        "space": [{"set": "train.learning_rate", "choice": [0.002, 0.004]}],
    }
    values["recipe"]["model"]["family"] = "bert"
    config, run = tmp_path / "small.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(values))

    def fails(driver: Driver, **told: object) -> None:
        raise DataError("trials with different evaluation data cannot be compared")

    with monkeypatch.context() as patch:
        patch.setattr(Driver, "_renew_front", fails)
        assert cli.main(["run", "--config", str(config), "--out", str(run)]) == 2
    shown = capsys.readouterr()
    assert shown.err.endswith("\nerror: trials with different evaluation data cannot be compared\n")
    assert f"qa-sweep run --resume {run}" in shown.out
    assert "t0001" not in shown.out
    assert cli.main(["run", "--resume", str(run)]) == 0
    found = records.load(run / RECORDS_FILE).records
    assert [(item.trial_id, item.status) for item in found] == [(f"t000{index}", "ok") for index in range(2)]
