"""Which share of a GPU a trial is given: pure arithmetic on what its training is predicted to need.

Ray keeps shares apart as it does whole devices, but not their memory: `gpu_cap.py` caps each process at its share,
and a trial that needs more halves its micro-batch, as it does on a full device. The room that is left for what is not
predicted is an estimate: no GPU was at hand to measure it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from qa_core.config import RunConfig
from sweeps.spec.sections import SHARES

# Of the prediction: kernels of a GPU that need more, fragments that the CUDA allocator cannot use.
HEADROOM = 1.25
PROCESS_BYTES = 600_000_000  # of a process on a GPU beside its tensors: CUDA context and workspace of cuBLAS


@dataclass(frozen=True)
class GpuShare:
    """What a trial is given."""

    gpu_share: float  # of one device; above 1, so many devices
    predicted_bytes: int | None = None  # peak of its training; None: nobody asked, or it cannot be predicted


class GpuShares:
    """Gives each recipe its share.

    Args:
        device_bytes: memory of the smallest GPU that there is.
        training_bytes: returns what a recipe needs in training, or None; see `MemoryForecast.training_bytes`.
    """

    def __init__(self, device_bytes: int, training_bytes: Callable[[RunConfig], int | None]) -> None:
        self.device_bytes, self._training_bytes = device_bytes, training_bytes

    def __call__(self, recipe: RunConfig) -> GpuShare:
        """Return the share of a recipe; one for the CPU is given none."""
        if recipe.device == "cpu":
            return GpuShare(0.0)
        predicted = self._training_bytes(recipe)
        return GpuShare(share_of(predicted, self.device_bytes), predicted)


def share_of(predicted_bytes: int | None, device_bytes: int) -> float:
    """Return the smallest of `SHARES` that holds a process with such a peak; the whole device where none does.

    Args:
        predicted_bytes: None: unknown, and given the whole device.
    """
    if predicted_bytes is None:
        return 1.0
    needed = HEADROOM * predicted_bytes + PROCESS_BYTES
    return next((share for share in SHARES if needed <= share * device_bytes), 1.0)


def memory_fraction(share: float, device_bytes: int) -> float:
    """Return which fraction of the device's memory the tensors of a process may take that was given a share.

    The rest of the share is the process's own; on a small device it may be more than half of a share, which is then
    overdrawn.
    """
    return max(share / 2, share - PROCESS_BYTES / device_bytes)
