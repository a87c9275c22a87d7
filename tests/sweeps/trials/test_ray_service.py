"""How long Ray's own processes may take to start."""

import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from sweeps.trials import ray_service

services: Any = import_module("ray._private.services")


@pytest.fixture
def daemon() -> Any:
    """Return a process that stands for one of Ray's and waits until it is ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what Ray's question for its node finds, one after the other: an error is raised; the last one stays."""
    answers: list[Any] = []

    def get_node(*_: Any) -> Any:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(services, "get_node", get_node)
    return answers


def test_a_node_that_comes_late_is_waited_for(daemon: Any, node: list[Any]) -> None:
    own = services.get_node
    node[:] = [RuntimeError("not there"), RuntimeError("not there"), {"node_id": "7"}]

    with ray_service._patient({"raylet": daemon}):
        assert services.get_node("127.0.0.1:1", "7") == {"node_id": "7"}

    assert services.get_node is own


def test_a_node_whose_process_has_ended_is_not_waited_for(daemon: Any, node: list[Any]) -> None:
    node[:] = [RuntimeError("not there")]
    daemon.kill()
    daemon.wait()

    with ray_service._patient({"raylet": daemon}), pytest.raises(RuntimeError, match="not there"):
        services.get_node("127.0.0.1:1", "7")


def test_the_wait_for_a_node_has_an_end(
    daemon: Any, node: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_service, "START_SECONDS", 0.3)
    node[:] = [RuntimeError("not there")]

    with ray_service._patient({"raylet": daemon}), pytest.raises(RuntimeError, match="not there"):
        services.get_node("127.0.0.1:1", "7")
