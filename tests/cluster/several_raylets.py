"""A Ray cluster of several raylets on one machine, an MLflow server and a sweep's driver: all can be killed."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from sweeps.run_folder.layout import JOURNAL_FILE, RECORDS_FILE
from tests.sweeps.whole import Sweep

STORE_BYTES = 80 * 2**20  # the least that Ray takes, so that a few puts spill
START_SECONDS = 120
# Fills the store of the head, so that objects are spilt and restored for as long as it runs.
HOG = """
import sys, time
import numpy, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
while True:
    kept = [ray.put(numpy.full(30 * 2**20, number, dtype=numpy.uint8)) for number in range(5)]
    for number, reference in enumerate(kept):
        assert ray.get(reference)[0] == number
    time.sleep(0.2)
"""


class Processes:
    """Starts processes in groups of their own, so that each can be killed with all that it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[Any]] = {}

    def start(self, name: str, command: list[str], **environment: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                env=os.environ | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> bool:
        """Kill the group; False if its first process had ended by itself."""
        process = self.running.pop(name)
        was_alive = process.poll() is None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        return was_alive

    def close(self) -> None:
        for name in list(self.running):
            self.kill(name)


class MlflowServer:
    """MLflow on a port of the loopback with a SQLite store, which outlives its kills."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        folder = processes.folder
        self._command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
        self._command += ["--artifacts-destination", str(folder / "mlflow-artifacts")]

    def start(self) -> None:
        self._processes.start("mlflow", self._command, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(urllib.error.URLError, TimeoutError, ConnectionError):
                urllib.request.urlopen(f"{self.address}/health", timeout=2).close()
                return
            time.sleep(0.5)
        raise AssertionError((self._processes.folder / "mlflow.log").read_text()[-4000:])

    def kill(self) -> bool:
        was_alive = self._processes.kill("mlflow")
        self.start()
        return was_alive


class Raylets:
    """A head that runs no trials, and nodes with one CPU each."""

    def __init__(self, nodes: int) -> None:
        from ray.cluster_utils import Cluster

        common = {"object_store_memory": STORE_BYTES, "node_ip_address": "127.0.0.1"}
        self._common = common
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **common}
        )
        self.nodes: list[Any] = []
        for _ in range(nodes):
            self._add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def _add(self) -> None:
        self.nodes.append(self._cluster.add_node(num_cpus=1, **self._common))

    def kill_node(self, rng: random.Random) -> bool:
        """Kill a node with all its workers, as a machine that is taken away, and add a new one."""
        node = self.nodes.pop(rng.randrange(len(self.nodes)))
        raylet = node.all_processes["raylet"][0].process.pid
        workers = _descendants(raylet)
        self._cluster.remove_node(node, allow_graceful=False)
        for worker in workers:
            with suppress(psutil.Error):
                worker.kill()
        self._add()
        return True

    def kill_worker(self, rng: random.Random) -> bool:
        """Kill a process that runs a trial; False if there is none."""
        return _kill_one(self._workers("ImplicitFunc"), rng)

    def kill_spiller(self, rng: random.Random) -> bool:
        """Kill a process that spills objects to disk or restores them; False if there is none."""
        return _kill_one(self._workers("SpillWorker", "RestoreWorker"), rng)

    def close(self) -> None:
        self._cluster.shutdown()

    def _workers(self, *names: str) -> list[psutil.Process]:
        found = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                title = " ".join(process.cmdline())
                if title.startswith("ray::") and any(name in title for name in names):
                    found.append(process)
        return found


def _descendants(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def _kill_one(processes: list[psutil.Process], rng: random.Random) -> bool:
    if not processes:
        return False
    with suppress(psutil.Error):
        rng.choice(processes).kill()
        return True
    return False


class Driver:
    """A sweep on the cluster, whose driver is started again each time that it is killed."""

    def __init__(self, sweep: Sweep, *options: str) -> None:
        self.sweep, self.options = sweep, options
        self.process = sweep.start(*options)

    def kill(self) -> bool:
        was_alive = self.process.poll() is None
        self.process.kill()
        self.process.wait(timeout=60)
        self.process = self.sweep.start(*self.options)
        return was_alive

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def progress(self) -> int:
        """Return how many reports and records there are: what no kill may undo."""
        lines = 0
        for name, wanted in ((JOURNAL_FILE, b'"reported"'), (RECORDS_FILE, b"\n")):
            path = self.sweep.folder / name
            lines += path.read_bytes().count(wanted) if path.exists() else 0
        return lines

    def wait_for_progress(self, steps: int, seconds: float) -> None:
        wanted, deadline = self.progress() + steps, time.monotonic() + seconds
        while not self.has_ended() and self.progress() < wanted and time.monotonic() < deadline:
            time.sleep(0.1)


@contextmanager
def machines(folder: Path, nodes: int) -> Iterator[tuple[Raylets, MlflowServer, Processes]]:
    """Start a cluster and MLflow; whatever happens, all of it is gone afterwards."""
    processes = Processes(folder)
    raylets = Raylets(nodes)
    try:
        server = MlflowServer(processes)
        server.start()
        server.wait()
        processes.start("hog", [sys.executable, "-c", HOG, raylets.address])
        yield raylets, server, processes
    finally:
        processes.close()
        raylets.close()


def killers(
    raylets: Raylets, server: MlflowServer, driver: Driver, rng: random.Random
) -> Mapping[str, Callable[[], bool]]:
    """Return what can be killed, by name: each kills one and says whether there was one."""
    return {
        "worker": lambda: raylets.kill_worker(rng),
        "node": lambda: raylets.kill_node(rng),
        "driver": driver.kill,
        "mlflow": server.kill,
        "spill": lambda: raylets.kill_spiller(rng),
    }
