"""What a trial's process may take of its GPU: a cap at its share, and turns with the others on it.

Workers are reused, so every trial sets the cap that it needs and leaves none behind. On a CPU there is nothing to do.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from qa_core.turns import Turns
from sweeps.budget.gpu_shares import memory_fraction
from sweeps.budget.gpu_turns import DeviceTurns


@contextmanager
def on_share(gpu_share: float, device: str) -> Iterator[Turns]:
    """Yield the turns of a trial on its GPU, the process capped at its share meanwhile.

    Args:
        gpu_share: of one device; 1 or more is alone on it. With 0 the trial finds a GPU that Ray does not keep for it:
            it is not capped, and takes turns.
        device: of the recipe: auto, cpu or cuda.
    """
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        yield Turns()
        return
    if gpu_share >= 1:
        torch.cuda.set_per_process_memory_fraction(1.0)
        yield Turns()
        return
    with ExitStack() as ending:
        turns = DeviceTurns(
            device_folder(), settle=torch.cuda.synchronize, unbound=partial(_uncapped, gpu_share)
        )
        ending.callback(turns.close)
        ending.callback(torch.cuda.set_per_process_memory_fraction, 1.0)
        _cap(gpu_share)
        yield turns


def device_folder() -> Path:
    """Return where processes of this user on this machine meet that use the current GPU."""
    import torch

    index = torch.cuda.current_device()
    # Of two processes that see one device each, both call it 0: its own number tells devices apart.
    name = getattr(torch.cuda.get_device_properties(index), "uuid", None) or f"index-{index}"
    return Path(tempfile.gettempdir()) / f"qa-sweeps-gpu-{os.getuid()}" / str(name)


def _cap(gpu_share: float) -> None:
    import torch

    size = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    fraction = memory_fraction(gpu_share, size) if gpu_share > 0 else 1.0
    torch.cuda.set_per_process_memory_fraction(fraction)


@contextmanager
def _uncapped(gpu_share: float) -> Iterator[None]:
    """Lift the cap for a measurement, begun without what the allocator keeps in reserve."""
    import torch

    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0)
    try:
        yield
    finally:
        torch.cuda.empty_cache()
        _cap(gpu_share)
