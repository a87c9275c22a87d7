"""What one node of a cluster says of itself before it runs a trial. Runs on that node; knows nothing of Ray.

`preflight.py` compares the reports of all nodes; `survey.py` fetches them.
"""

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qa_core.errors import ConfigError
from sweeps.front.comparability import Machine
from sweeps.nodes.gpu_use import GpuUse, settled_use
from sweeps.nodes.named_paths import fingerprint
from sweeps.nodes.shared_folder import Words, answer
from sweeps.run_folder import provenance

PROJECT_SOURCE = "project source"  # among the versions: equal where the same code runs
# Importing one tells whether its CUDA part fits torch and the driver; without a device that says nothing.
CUDA_KERNELS = ("mamba_ssm", "causal_conv1d", "bitsandbytes")
LOOK_SECONDS = 120.0  # the first import of torch from a network file system takes its time
DRIVER_ONLY = ("mlflow", "optuna")  # packages that compute nothing on a node


@dataclass(frozen=True)
class Request:
    """What a node is asked, as plain values."""

    device: str | None = (
        None  # the recipes' `device`; None: devices are not looked at, and torch is not imported
    )
    paths: tuple[str, ...] = ()  # that recipes name, see `named_paths`
    folders: Mapping[str, str] = field(
        default_factory=dict
    )  # what it is -> a folder whose disk is written to
    wants_gpus: bool = False  # trials occupy GPUs, so their use is looked at
    words: str | None = None  # the folder of `shared_storage.exchange`
    node: str | None = None  # under which name the node leaves its word there


@dataclass(frozen=True)
class Gpu:
    """One device as torch sees it."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class NodeReport:
    """One node, or the driver. None: not asked, or, with a failure, not answered."""

    node: str
    holds_trials: bool  # its resources are enough for one; others need not have devices, data or disk
    failure: str | None = None  # why there is no answer
    address: str | None = None  # for messages; not stored
    versions: Mapping[str, str | None] = field(default_factory=dict)  # python, packages, the project's source
    commit: str | None = None
    device: str | None = None  # what a trial there would name as its device
    bfloat16: bool | None = None  # whether it computes in it under precision "auto"
    gpus: tuple[Gpu, ...] | None = None
    kernels: Mapping[str, bool] | None = None  # None where there is no GPU
    gpu_use: tuple[GpuUse, ...] = ()  # before the first trial; empty where nothing is known
    free_bytes: Mapping[str, int] = field(default_factory=dict)  # what is written -> free where it is written
    paths: Mapping[str, str | None] = field(default_factory=dict)  # path -> fingerprint; None: not there
    working_folder: str | None = None
    storage_fault: str | None = None  # set by the driver, from what it and the node saw

    @property
    def label(self) -> str:
        """How messages name it."""
        name = self.node if self.node == "driver" else f"node {self.node}"
        return f"{name} ({self.address})" if self.address else name


def look(request_values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a node is asked for, as plain values: fields of `NodeReport`, and `words` where words are exchanged.

    Args:
        request_values: fields of `Request`.
    """
    request = Request(**request_values)
    found: dict[str, Any] = {
        "versions": {
            "python": platform.python_version(),
            **provenance.package_versions(),
            PROJECT_SOURCE: provenance.source_hash(),
        },
        "commit": provenance.git_state(provenance.PROJECT_FOLDER)["commit"],
        "free_bytes": {name: _free_bytes(Path(folder)) for name, folder in request.folders.items()},
        "paths": {path: fingerprint(path) for path in request.paths},
        "working_folder": os.getcwd(),
    }
    if request.wants_gpus:
        found["gpu_use"] = [asdict(gpu) for gpu in settled_use()]
    if request.device is not None:
        found |= _devices(request.device)
    if request.words is not None:
        words: Words = answer(Path(request.words), str(request.node))
        found["words"] = asdict(words)
    return found


def device_here(wanted: str) -> Mapping[str, Any]:
    """Return `device` and `bfloat16` of a trial on this machine, as in `NodeReport`.

    A GPU is looked at in a process of its own: this one is to hold no context on it.

    Raises:
        ConfigError: the device is not present.
    """
    from qa_core.hardware import choose_device

    if choose_device(wanted).type == "cpu":
        return _devices("cpu")
    code = f"import json; from {__name__} import _devices; print(json.dumps(_devices({wanted!r})))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=LOOK_SECONDS
    )
    if done.returncode:
        raise ConfigError(f"device: the GPU could not be looked at: {done.stderr.strip().splitlines()[-1:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def machine_here(device: str) -> tuple[Machine, ...]:
    """Return this machine as it runs recipes with that `device`; raises ConfigError where it has none."""
    found = device_here(device)
    return (Machine(found["device"], found["bfloat16"]),)


def _devices(wanted: str) -> dict[str, Any]:
    import torch

    from qa_core.hardware import autocast_dtype, describe_device

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
    device = torch.device("cuda" if gpus and wanted != "cpu" else "cpu")
    return {
        "device": describe_device(device),
        "bfloat16": autocast_dtype("auto", device) is not None,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
        "kernels": {name: _can_be_imported(name) for name in CUDA_KERNELS} if gpus else None,
    }


def _can_be_imported(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:  # a library built for another torch fails in its own way
        return False
    return True


def _free_bytes(folder: Path) -> int:
    """Return the free bytes where a folder is or would be made."""
    there = next(item for item in (folder, *folder.resolve().parents) if item.exists())
    return shutil.disk_usage(there).free
