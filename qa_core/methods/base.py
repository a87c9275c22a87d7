"""What a method is: something done to a model, through hooks that the training loop calls without naming it.

Order of the hooks in a trial: `load_options` (before the network is built), `attach` (the network exists),
`loss` (each forward pass), `after_step` (each optimiser step), `export` (training is over). An artifact that needs
the method to be read again carries `deployed_form()`, and `artifact.load` hands it back to `restore`.
"""

from abc import ABC
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from qa_core.config import from_dict
from qa_core.families.base import Batch, Family, NoOptions

if TYPE_CHECKING:
    from torch import Tensor, nn


class Method(ABC):
    """One method with checked options. Subclasses import torch and peft inside their methods only."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()  # family traits it relies on
    excludes: ClassVar[frozenset[str]] = frozenset()  # methods it cannot stand beside
    Options: ClassVar[type] = NoOptions

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def from_options(cls, values: Mapping[str, Any]) -> Self:
        """Check the options and build the method; raises ConfigError with the path of a wrong one."""
        return cls(from_dict(cls.Options, values or {}, path=f"methods.{cls.name}"))

    def load_options(self) -> dict[str, Any]:
        """Return keyword arguments for `Family.build`, such as a quantisation of the frozen base."""
        return {}

    def attach(self, model: "nn.Module", family: Family) -> "nn.Module":
        """Change the network before training: add adapters, freeze weights. Returns the network to train."""
        return model

    def loss(self, task_loss: "Tensor", model: "nn.Module", batch: Batch) -> "Tensor":
        """Return the loss to minimise, given the family's own."""
        return task_loss

    def after_step(self, model: "nn.Module", share_done: float) -> None:  # noqa: B027 - most methods do nothing
        """React to an optimiser step; `share_done` is the share of the budget spent, 0 to 1."""

    def export(self, model: "nn.Module") -> "nn.Module":
        """Return the network in its deployed form: merged, packed, quantised. May consume the one passed in."""
        return model

    def deployed_form(self) -> dict[str, Any] | None:
        """Return, as JSON values, what `restore` needs to read the exported weights; None when nothing."""
        return None

    @classmethod
    def restore(cls, model: "nn.Module", form: Mapping[str, Any]) -> "nn.Module":
        """Reshape a freshly built network so that the exported weights fit it."""
        return model
