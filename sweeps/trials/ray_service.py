"""Ray as a service: started on this machine or joined on a cluster, watched, and ended within a bounded time.

What runs on it is in `ray_driver.py` (trials) and `sweeps/nodes/survey.py` (the pre-flight).
"""

import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from qa_core.errors import ConfigError
from sweeps.nodes import survey
from sweeps.nodes.ray_environment import RayTarget
from sweeps.trials import signals
from sweeps.trials.guardian import Guardian

OBJECT_STORE_BYTES = 256 * 2**20
VITAL = ("gcs_server", "raylet")  # daemons without which no trial can run
START_SECONDS = 180.0  # for Ray's own processes on busy cores; Ray itself gives up after 30
END_SECONDS = 15.0  # for Ray's own way of ending; what is left then is killed
CLUSTER_LOOK_SECONDS, CLUSTER_MISSES = (
    10.0,
    3,
)  # so often in a row a cluster does not answer before it is given up


class RayService:
    """A Ray that has been started or joined."""

    def __init__(self, daemons: dict[str, subprocess.Popen[Any]], address: str | None) -> None:
        self._daemons = daemons  # of an embedded Ray
        self._address = address  # of a cluster: where its head answers
        self._misses = 0
        self._looked = time.monotonic()

    def fault(self) -> str | None:
        """Return why no trial can run any more, or None; a call now and then costs next to nothing."""
        dead = [name for name in VITAL if name in self._daemons and self._daemons[name].poll() is not None]
        if dead:
            return f"Ray on this machine has ended ({', '.join(dead)})"
        if self._address is None or time.monotonic() - self._looked < CLUSTER_LOOK_SECONDS:
            return None
        self._looked = time.monotonic()
        self._misses = 0 if _answers(self._address) else self._misses + 1
        if self._misses >= CLUSTER_MISSES:
            return f"the Ray cluster at {self._address} does not answer any more"
        return None


@contextmanager
def running(target: RayTarget, *, cpus: float) -> Iterator[RayService]:
    """Join the cluster at the address, or start a Ray on the loopback of this machine; leave or end it afterwards.

    Raises:
        ConfigError: no cluster answers at the address.
    """
    guardian = None if target.address else Guardian()
    with signals.raised():  # Ray sets a handler of its own, which is taken back with it
        try:
            service = start_ray(target, cpus=cpus, guardian=guardian)
            with signals.raised():
                yield service
        finally:
            try:
                # Not in this thread: it may wait for ever where Ray's daemons are dead or stopped.
                end = threading.Thread(target=ray.shutdown, name="end of Ray", daemon=True)
                end.start()
                end.join(END_SECONDS)
            finally:
                if guardian is not None:
                    guardian.end()


def start_ray(target: RayTarget, *, cpus: float, guardian: Guardian | None = None) -> RayService:
    """Join the cluster at the address, or start a Ray on the loopback of this machine without a dashboard.

    Args:
        target: an address, or none.
        cpus: of one trial.
        guardian: ends what is left of a Ray on this machine; without one, Ray's own means must do.

    Raises:
        ConfigError: no cluster answers at the address.
    """
    target.set_environment()
    # It logs the traceback of each failed trial, which stands in the record and which the console groups.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if target.address:
        survey.check_reachable(target.address)
        try:
            ray.init(address=target.address, **options)
        except (ConnectionError, AuthenticationError) as error:
            found = f"found {target.address!r}, where no Ray cluster answers: {error}"
            raise ConfigError(f"--address: {found}") from error
        return RayService({}, ray.get_runtime_context().gcs_address)
    with _own_sessions(guardian) as daemons, _patient(daemons):
        ray.init(
            address="local",  # a cluster that somebody else has started on this machine is not ours to join
            num_cpus=max(os.cpu_count() or 1, int(cpus)),
            include_dashboard=target.dashboard,
            _node_ip_address="127.0.0.1",
            object_store_memory=OBJECT_STORE_BYTES,
            **options,
        )
    return RayService(daemons, None)


@contextmanager
def _own_sessions(guardian: Guardian | None) -> Iterator[dict[str, subprocess.Popen[Any]]]:
    """Start Ray's daemons in sessions of their own within the block; yields them by the names of their programs.

    Signals to the driver's process group (Ctrl-C, Slurm, `timeout`) then leave them alone, so that trials can write
    checkpoints. Ray has no option for it; all of its daemons are started through one class.
    """
    services: Any = import_module("ray._private.services")
    daemons: dict[str, subprocess.Popen[Any]] = {}
    former: Any = services.ConsolePopen

    class OwnSession(former):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(command, **options, start_new_session=True)
            daemons[Path(command[0]).name] = self
            if guardian is not None:
                guardian.watch(self.pid)

    services.ConsolePopen = OwnSession
    try:
        yield daemons
    finally:
        services.ConsolePopen = former


@contextmanager
def _patient(daemons: Mapping[str, subprocess.Popen[Any]]) -> Iterator[None]:
    """Let Ray's processes take `START_SECONDS` to start within the block, as long as none of them has ended.

    Ray asks for its node until it is there, for 30 s, which no option changes; here each question waits instead.
    """
    services: Any = import_module("ray._private.services")
    former = services.get_node
    deadline = time.monotonic() + START_SECONDS

    def get_node(*arguments: Any, **options: Any) -> Any:
        while True:
            try:
                return former(*arguments, **options)
            except RuntimeError:
                has_ended = any(daemon.poll() is not None for daemon in daemons.values())
                if has_ended or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = former


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=survey.REACH_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True
