"""When a trial may use its device: the hooks by which trials that share one keep out of each other's measurements.

`Turns` itself is for a trial that has its device to itself, or runs on a CPU, where it changes nothing. Trials that
share a GPU take turns by `sweeps/budget/gpu_turns.py`.
"""

from contextlib import AbstractContextManager, nullcontext


class Turns:
    """A device that nobody else uses."""

    def working(self) -> AbstractContextManager[None]:
        """Return what stands around all that computes on the device."""
        return nullcontext()

    def resting(self) -> AbstractContextManager[None]:
        """Return what stands, inside `working`, around a wait for another trial: others may measure meanwhile.

        What computes in there says so by a `working` of its own.
        """
        return nullcontext()

    def between_steps(self) -> None:
        """Let those measure who wait for it; called after each step of training."""

    def measuring(self) -> AbstractContextManager[None]:
        """Return what stands, inside `working`, around a measurement: nobody else computes on the device meanwhile."""
        return nullcontext()


ALONE = Turns()
