"""How much memory of this machine's GPUs is in use before a sweep starts, as the driver's own tool says.

A trial next to somebody else's process is slower and may run out of memory, and its measurements would not be those of
its recipe. The tool is asked, not torch, because torch would hold a context on the GPU. The cap of each trial's own
share is in `sweeps/budget/gpu_cap.py`.
"""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass

TOOL = "nvidia-smi"
QUERY = ("--query-gpu=index,uuid,memory.used,memory.total", "--format=csv,noheader,nounits")  # memory in MiB
TOOL_SECONDS = 20.0
BUSY_SHARE = 0.1  # of a GPU's memory: more than a display and the driver hold
WAIT_SECONDS, LOOK_SECONDS = 30.0, 2.0  # a process that has just ended may hold its memory for a moment
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class GpuUse:
    """Memory of one GPU, in bytes."""

    index: int
    used_bytes: int
    total_bytes: int

    @property
    def is_busy(self) -> bool:
        """True when somebody computes there."""
        return self.used_bytes > BUSY_SHARE * self.total_bytes


def settled_use(*, wait_seconds: float = WAIT_SECONDS) -> tuple[GpuUse, ...]:
    """Return the use of the GPUs that this process may use, after waiting a while for busy ones to become free.

    Empty where the tool is missing, fails or says nothing that can be read: then nothing is known.
    """
    deadline = time.monotonic() + wait_seconds
    found = read_use()
    while any(gpu.is_busy for gpu in found) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        found = read_use()
    return found


def read_use() -> tuple[GpuUse, ...]:
    """Return the use of the GPUs that this process may use, now; empty as for `settled_use`."""
    tool = shutil.which(TOOL)
    if tool is None:
        return ()
    try:
        answer = subprocess.run(
            [tool, *QUERY], capture_output=True, text=True, timeout=TOOL_SECONDS, check=True
        )
        rows = [
            [item.strip() for item in line.split(",")] for line in answer.stdout.splitlines() if line.strip()
        ]
        found = [
            (uuid, GpuUse(int(index), int(used) * 2**20, int(total) * 2**20))
            for index, uuid, used, total in rows
        ]
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
    return tuple(gpu for uuid, gpu in found if _is_visible(gpu.index, uuid))


def _is_visible(index: int, uuid: str) -> bool:
    """Tell whether CUDA shows the GPU to this process: the variable names numbers or beginnings of UUIDs."""
    wanted = os.environ.get(VISIBLE)
    if wanted is None:
        return True
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    return any(name == str(index) or (not name.isdigit() and uuid.startswith(name)) for name in names)
