"""`doctor`: what this machine, or each node of a cluster, offers a sweep, and what would disturb it."""

import importlib.util
import ipaddress
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core import files
from qa_core.data.cache import default_cache_dir
from qa_core.errors import StorageError

if TYPE_CHECKING:
    from rich.table import Table

    from sweeps.nodes.report import NodeReport

SERVERS = ("gcs_server", "raylet", "/ray/", "mlflow")  # in the command line of a process
KERNELS = ("mamba_ssm", "causal_conv1d", "bitsandbytes", "kernels")
LITTLE_SPACE_BYTES = 2 * 10**9


def doctor() -> int:
    """Print one line for each fact; lines that start with "warning" say what to do. Always returns 0."""
    for line in (*_versions(), *_devices(), *_threads(), *_space(), *_listeners()):
        print(line)
    return 0


def cluster(address: str, shared: Path | None) -> int:
    """Print a table of the cluster's nodes, and a line that starts with "warning" for what sets them apart.

    Args:
        address: of the Ray cluster.
        shared: a folder that every node should see; None: none is looked at.

    Returns 2 where a sweep would be refused, else 0.

    Raises:
        ConfigError: no cluster answers. StorageError: the shared folder cannot be written.
    """
    from rich.console import Console

    from sweeps.nodes.preflight import compare
    from sweeps.nodes.ray_environment import RayTarget

    target = RayTarget(address)
    target.set_environment()  # before Ray is imported
    from sweeps.trials.ray_driver import survey

    reports = survey(target, shared=shared)
    wants_gpus = any(report.gpus for report in reports)
    Console().print(node_table(reports))
    findings = compare(reports, wants_gpus=wants_gpus)
    for finding in findings:
        print(f"warning: {finding.text}")
    return 2 if findings else 0


def node_table(reports: "Sequence[NodeReport]") -> "Table":
    """Return one row for each node: what it runs, what it has, whether it holds trials."""
    from rich.markup import escape
    from rich.table import Table

    from sweeps.nodes.report import PROJECT_SOURCE

    table = Table(title="Nodes of the cluster")
    for name in ("node", "trials", "python", "ray", "torch", "project", "device", "GPUs", "kernels", "free"):
        table.add_column(name)
    for report in reports:
        versions, gpus = report.versions, report.gpus or ()
        memory = f"{len(gpus)} x {_gigabytes(gpus[0].memory_bytes)}" if gpus else "-"
        kernels = ", ".join(name for name, usable in (report.kernels or {}).items() if usable)
        free = ", ".join(f"{what} {_gigabytes(count)}" for what, count in report.free_bytes.items())
        cells = [report.label, "yes" if report.holds_trials else "no"]
        cells += [versions.get(name) or "-" for name in ("python", "ray", "torch", PROJECT_SOURCE)]
        cells += [report.failure or report.device or "-", memory, kernels or "-", free or "-"]
        table.add_row(*map(escape, cells))
    return table


def _versions() -> Iterator[str]:
    from sweeps.run_folder.provenance import collect

    facts = collect()
    yield f"system: {facts['system']}, Python {facts['python']}"
    hardware = facts["hardware"]
    yield f"cpu: {hardware['cpu']}, {hardware['cores']} cores, {_gigabytes(hardware['memory_bytes'])} memory"
    for name, found in facts["packages"].items():
        yield f"package: {name} {found or 'not installed'}"


def _devices() -> Iterator[str]:
    import torch

    from qa_core.hardware import autocast_dtype

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    for name in names or ["none; trials run on the CPU"]:
        yield f"gpu: {name}"
    device = torch.device("cuda" if names else "cpu")
    yield f"precision auto on {device.type}: {autocast_dtype('auto', device) or torch.float32}"
    for name in KERNELS:
        installed = importlib.util.find_spec(name) is not None
        yield f"kernels: {name} {'installed' if installed else 'not installed'}"
    if not names and importlib.util.find_spec("mamba_ssm") is not None:
        yield "warning: mamba_ssm is installed and its kernels need CUDA, which is absent"


def _threads() -> Iterator[str]:
    import torch

    named = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    shown = ", ".join(f"{name}={value or 'unset'}" for name, value in named.items())
    yield f"threads: torch {torch.get_num_threads()} of {os.cpu_count()} cores, {shown}"
    if named["OMP_NUM_THREADS"] is None:
        yield "threads: in a sweep each trial has resources.cpus_per_trial, whatever this process has"


def _space() -> Iterator[str]:
    # What each stands for raises where there is none: no current folder, no home.
    places: dict[str, Callable[[], Path]] = {
        "runs": Path.cwd,
        "temporary files": lambda: Path(tempfile.gettempdir()),
        "cache": default_cache_dir,
    }
    if Path("/dev/shm").is_dir():
        places["shared memory"] = lambda: Path("/dev/shm")  # Ray keeps its objects there
    for name, place in places.items():
        try:
            path = files.check_writable(place(), is_made=False)
            free = shutil.disk_usage(path).free
        except (OSError, StorageError) as error:
            yield f"warning: no space for {name}: {error}"
            continue
        yield f"space: {name} ({path}): {_gigabytes(free)} free"
        if free < LITTLE_SPACE_BYTES:
            needed = _gigabytes(LITTLE_SPACE_BYTES)
            yield f"warning: little space for {name} in {path}; a sweep may need {needed}"


def _listeners() -> Iterator[str]:
    """Tell which servers of Ray or MLflow other machines can reach: Ray runs whatever it is sent."""
    import psutil

    found = False
    for process in psutil.process_iter(["name", "cmdline"]):
        try:
            command = " ".join(process.info["cmdline"] or [])
            if not any(server in command for server in SERVERS):
                continue
            open_ports = sorted(
                item.laddr.port
                for item in process.net_connections(kind="tcp")
                if item.status == psutil.CONN_LISTEN and not is_loopback(item.laddr.ip)
            )
        except psutil.Error:  # it ended meanwhile, or belongs to somebody else
            continue
        if open_ports:
            found = True
            server = f"{process.info['name']} (process {process.pid})"
            yield f"warning: {server} listens beyond the loopback: {', '.join(map(str, open_ports))}"
    if found:
        yield "warning: keep Ray's token authentication on, and close these ports to other machines"
    else:
        yield "listeners: no server of Ray or MLflow can be reached from other machines"
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        yield "warning: RAY_AUTH_MODE=disabled: anybody who reaches Ray's ports can run code here"


def is_loopback(address: str) -> bool:
    """Tell whether only this machine reaches an address; IPv4 may come as ::ffff:127.0.0.1, as of Ray's servers."""
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _gigabytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e9:.1f} GB"
