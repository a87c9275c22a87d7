"""When a trial may use its device: hooks that keep trials on one device from disturbing each other's measurements.

`Turns` itself does nothing: it is for a trial alone on its device, or on a CPU. Trials that share a GPU use
`sweeps/budget/gpu_turns.py`.
"""

from contextlib import AbstractContextManager, nullcontext


class Turns:
    """The turns of a trial that is alone on its device."""

    def working(self) -> AbstractContextManager[None]:
        """Context manager: hold the device while computing."""
        return nullcontext()

    def resting(self) -> AbstractContextManager[None]:
        """Context manager inside `working`: release the device while waiting for another trial.

        Others can measure meanwhile. Code that computes inside needs a `working` of its own.
        """
        return nullcontext()

    def between_steps(self) -> None:
        """Let waiting trials measure; called after each training step."""

    def measuring(self) -> AbstractContextManager[None]:
        """Context manager inside `working`: hold the device alone for a measurement."""
        return nullcontext()


ALONE = Turns()
