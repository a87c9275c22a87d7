"""How the driver is told of Ray's errors, and how long a cluster is waited for; without Ray."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from qa_core.errors import ConfigError
from sweeps.nodes import survey
from sweeps.trials import ray_adapters, ray_driver
from sweeps.trials.ray_adapters import Events, Room
from tests.sweeps.told import Told


@pytest.mark.parametrize(
    ("note", "told", "details"),
    [
        (
            "The actor died unexpectedly before finishing this task.\n\tpid: 7\nThe actor is dead because its worker "
            "process has died. Worker exit type: SYSTEM_ERROR\n",
            "lost",
            {"is_own": True},
        ),
        (
            "The actor 4105 is unavailable: RPC error: Socket closed rpc_code: 14.\n",
            "lost",
            {"is_own": False},
        ),
        (
            'ray::ImplicitFunc.train() (pid=7)\n  File "trial.py", line 3, in run_trial\nStorageError: held\n',
            "ended",
            {},
        ),
    ],
)
def test_a_worker_that_died_is_told_from_a_trial_that_raised_and_from_a_lost_node(
    note: str, told: str, details: dict[str, bool], tmp_path: Path
) -> None:
    (tmp_path / "error.txt").write_text(f"Failure # 1 (occurred at noon)\n{note}")
    trial = SimpleNamespace(
        error_file=str(tmp_path / "error.txt"), config={"trial_id": "t3"}, last_result=None
    )
    driver = MagicMock(is_closed=False, lock=contextlib.nullcontext())
    Events(driver).on_trial_error(1, [], trial)
    ((name, args, found),) = driver.mock_calls
    assert (name, args[0], found) == (told, "t3", details)
    assert note in args[-1]


def test_the_refusal_of_a_node_is_told_from_a_trial_that_raised(tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text(
        'Failure # 1 (occurred at noon)\nray::ImplicitFunc.train() (pid=7)\n  File "trial.py", line 3, in run_trial\n'
        "sweeps.nodes.preflight.NodeRefused: node ab joined this sweep\n  and sees no data\n"
    )
    trial = SimpleNamespace(
        error_file=str(tmp_path / "error.txt"), config={"trial_id": "t3"}, last_result=None
    )
    driver = Told()
    Events(driver).on_trial_error(1, [], trial)
    assert driver.calls == [("refuse", ("node ab joined this sweep\n  and sees no data",))]


class _Nodes:
    """Stands for the nodes of a cluster, and for the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.resources: dict[str, float] = {"CPU": 4.0}
        self.now = 0.0
        monkeypatch.setattr(survey, "live_nodes", lambda: [{"Resources": self.resources}])
        monkeypatch.setattr(ray_driver.time, "monotonic", lambda: self.now)


def test_a_cluster_that_never_offers_what_a_trial_asks_for_is_waited_for_with_a_word_and_for_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, driver = _Nodes(monkeypatch), Told()
    room = Room(driver, {"CPU": 1.0, "GPU": 1.0})
    (note,) = driver.named("note")
    assert note[0].startswith(
        "no node of the cluster can hold a trial (1 CPU, 1 GPU); waiting for it to add one"
    )
    cluster.now = 60 * ray_adapters.ROOM_MINUTES - 1
    room.look()
    cluster.now += 30
    with pytest.raises(
        ConfigError, match=r"resources: found 1 CPU, 1 GPU for each trial, which no node .* --resume"
    ):
        room.look()


def test_a_cluster_that_grows_or_has_room_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, driver = _Nodes(monkeypatch), Told()
    room = Room(driver, {"CPU": 1.0, "GPU": 1.0})
    cluster.resources["GPU"], cluster.now = 1.0, 600.0
    room.look()
    cluster.resources, cluster.now = {}, 60 * ray_adapters.ROOM_MINUTES + 600  # between two nodes
    room.look()
    driver = Told()
    Room(driver, {"CPU": 0.0, "GPU": 0.0})
    assert driver.named("note") == []
