"""Ray glue of the pre-flight: a small task on each live node, pinned to it, before the first trial of a sweep.

What a node says is in `report.py`, what is made of it in `preflight.py`.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qa_core.config import RunConfig
from qa_core.data.cache import default_cache_dir
from qa_core.errors import ConfigError, counted
from sweeps.front.comparability import depends_on_machine
from sweeps.nodes import preflight, shared_folder
from sweeps.nodes.named_paths import named_paths
from sweeps.nodes.preflight import Preflight
from sweeps.nodes.ray_environment import NODE_DIGITS, RayTarget
from sweeps.nodes.report import NodeReport, Request, look
from sweeps.nodes.shared_folder import DRIVER, Exchange, Words
from sweeps.spec.sections import Resources, SweepSpec

REACH_SECONDS = 10.0
TIMEOUT_SECONDS = 120.0  # the first import of torch from a network file system takes its time
RUN_FOLDER, CACHE_FOLDER, SHARED_FOLDER = "run folder", "cache folder", "shared folder"
Node = Mapping[str, Any]  # of `ray.nodes()`


def check(spec: SweepSpec, folder: Path, *, target: RayTarget, note: Callable[[str], None]) -> None:
    """Look at every node before the first trial and store what was found in the sweep's folder.

    On one machine there is nothing to compare with: its disk and the recipes' files are looked at, in this process.

    Raises:
        ConfigError: names each node that cannot run trials, or that differs where `target` does not allow it.
        StorageError: the folder cannot be written.
    """
    started = time.perf_counter()
    plan = Preflight(
        allow_mixed=target.allow_mixed,
        wants_gpus=spec.resources.wants_gpus,
        device=str(spec.recipe.get("device", RunConfig.device)),
        by_machine=depends_on_machine(spec.objectives),
        paths=named_paths(spec),
        folders={RUN_FOLDER: str(folder), CACHE_FOLDER: str(default_cache_dir())},
    )
    wanted = wanted_by(spec.resources)
    if target.address is None and spec.resources.is_auto and spec.resources.gpu_memory_gb is None:
        # In a process of its own, which the task is: this one is to hold no context on the GPU.
        reports = ask_nodes(plan.request(looks_at_device=True), wanted=wanted)
        preflight.store(plan.settle(reports), folder)
        return
    if target.address is None:
        asked = NodeReport(ray.get_runtime_context().get_node_id()[:NODE_DIGITS], holds_trials=True)
        answer = look(asdict(plan.request(looks_at_device=False)))
        preflight.store(plan.settle([preflight.as_report(answer, asked)]), folder)
        return
    own = _own_report(plan.request(looks_at_device=False))
    with shared_folder.exchange(folder) as exchange:
        reports = ask_nodes(plan.request(looks_at_device=True), wanted=wanted, exchange=exchange)
    preflight.store(plan.settle([own, *reports]), folder)
    for difference in plan.findings([own, *reports]):
        note(f"warning: --allow-mixed: {difference.text}")
    able = sum(report.holds_trials for report in reports)
    seconds = time.perf_counter() - started
    note(f"pre-flight: {counted(len(reports), 'node')}, {able} of them can hold a trial, in {seconds:.1f} s")


def survey(shared: Path | None) -> list[NodeReport]:
    """Return what the driver and all nodes of the cluster say, without a sweep; a node with a GPU, where there is one,
    and a CPU counts as one that holds trials.

    Args:
        shared: a folder that every node should see; None: none is looked at.

    Raises:
        StorageError: the folder cannot be written.
    """
    folders = {CACHE_FOLDER: str(default_cache_dir())} | ({SHARED_FOLDER: str(shared)} if shared else {})
    wanted = {"CPU": 1.0, "GPU": 1.0 if any("GPU" in node["Resources"] for node in live_nodes()) else 0.0}
    request = Request(device=RunConfig.device, folders=folders)
    with shared_folder.exchange(shared.resolve()) if shared else nullcontext() as exchange:
        reports = ask_nodes(request, wanted=wanted, exchange=exchange)
    return [_own_report(replace(request, device=None)), *reports]


def ask_nodes(
    request: Request, *, wanted: Mapping[str, float], exchange: Exchange | None = None
) -> list[NodeReport]:
    """Ask every live node at once and return their reports, those without an answer in time included.

    Args:
        request: to the nodes that can hold a trial; the others are asked for their versions alone.
        wanted: resource -> how much of it a trial occupies.
        exchange: where words lie; None: storage is not looked at.
    """
    # One call for each process: a worker that has imported torch holds memory, and a context on the GPU.
    remote = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(look)
    asked: dict[Any, NodeReport] = {}
    for node in live_nodes():
        name, holds_trials = node["NodeID"][:NODE_DIGITS], can_hold(node, wanted)
        words = str(exchange.folder) if exchange is not None else None
        to_it = replace(request, words=words, node=name) if holds_trials else Request()
        pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        reference = remote.options(scheduling_strategy=pinned).remote(asdict(to_it))
        asked[reference] = NodeReport(name, holds_trials, address=node["NodeManagerAddress"])
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=TIMEOUT_SECONDS)
    reports = [
        _answer(reference, report, exchange) if reference in answered else _silent(reference, report)
        for reference, report in asked.items()
    ]
    # A node that Ray has given up meanwhile will run no trial: a sweep that goes on after its loss must not end by it.
    left = {node["NodeID"][:NODE_DIGITS] for node in live_nodes()}
    return [report for report in reports if report.failure is None or report.node in left]


def check_reachable(address: str) -> None:
    """Refuse the address of a cluster at which nobody listens, or that refuses our token; Ray waits there for minutes.

    Raises:
        ConfigError: nothing listens at HOST:PORT, or it wants another token. Other forms (`auto`) are Ray's to judge.
    """
    place = urlsplit(address if "//" in address else f"//{address}")
    try:
        if not (place.hostname and place.port):
            return
        socket.create_connection((place.hostname, place.port), timeout=REACH_SECONDS).close()
    except (OSError, ValueError) as error:  # a port above 65535
        raise ConfigError(f"--address: found {address!r}, where no Ray cluster answers: {error}") from error
    if place.scheme in ("", "tcp"):  # others, such as ray://, are no address of its control service
        _check_token(address, f"{place.hostname}:{place.port}")


def _check_token(address: str, service: str) -> None:
    from ray import _raylet  # Ray's public functions ask the same service, but lose why it refuses

    try:
        _raylet.GcsClient(address=service)  # type: ignore[attr-defined]
    except AuthenticationError as error:
        mode = os.environ.get("RAY_AUTH_MODE", "not set")
        raise ConfigError(
            f"--address: found {address!r}, a Ray cluster that refuses our token (RAY_AUTH_MODE is {mode}); allowed: "
            "RAY_AUTH_MODE=token, with the cluster's own token in ~/.ray/auth_token, in the file that "
            "RAY_AUTH_TOKEN_PATH names or in RAY_AUTH_TOKEN"
        ) from error
    except Exception as error:  # what listens there is no Ray, or another version of it
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"--address: found {address!r}, where no Ray cluster answers: {reason}") from error


def live_nodes() -> list[Node]:
    """Return the nodes that have joined and are not known to be dead."""
    return [node for node in ray.nodes() if node["Alive"]]


def wanted_by(resources: Resources) -> dict[str, float]:
    """Return resource -> how much of it a trial occupies, at least."""
    return {"CPU": resources.cpus_per_trial, "GPU": resources.least_gpus}


def can_hold(node: Node, wanted: Mapping[str, float]) -> bool:
    """Tell whether a node has what a trial occupies, by resource."""
    return all(node["Resources"].get(name, 0.0) >= amount for name, amount in wanted.items())


def _own_report(request: Request) -> NodeReport:
    """Return the report of this process, whose machine runs no trial by itself."""
    return preflight.as_report(look(asdict(request)), NodeReport(DRIVER, holds_trials=False))


def _answer(reference: Any, asked: NodeReport, exchange: Exchange | None) -> NodeReport:
    try:
        values = dict(ray.get(reference))
    except RayError as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        return replace(
            asked, failure=f"could not be looked at: {lines[-1] if lines else type(error).__name__}"
        )
    words = values.pop("words", None)
    report = preflight.as_report(values, asked)
    if exchange is None or words is None or report.failure is not None:
        return report
    return replace(report, storage_fault=exchange.fault_of(asked.node, Words(**words)))


def _silent(reference: Any, asked: NodeReport) -> NodeReport:
    ray.cancel(reference, force=True)
    return replace(asked, failure=f"did not answer within {TIMEOUT_SECONDS:g} s")
