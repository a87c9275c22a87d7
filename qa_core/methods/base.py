"""What a method is: something done to a model, through hooks that the training loop calls without naming it.

Order of the hooks in a trial: `prerequisite` and `provide` (another recipe's artifact, such as a teacher),
`prepare_family` (before the data is laid out), `attach` (the network exists), `progress` and `loss` (each step),
`deployed_form`, `export` and `own_folder` (training is over). An artifact carries each method's form, and
`artifact.load` hands it to `restore` (before the weights are read) and to `settle` (after).

Methods of one recipe act in the order of their `stage`, whatever the order in which the recipe names them: adapters
before masks, masks before quantisation.
"""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from qa_core.config import RunConfig, from_dict
from qa_core.families.base import Batch, Family, NoOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from qa_core.artifact import LoadedArtifact


@dataclass(frozen=True)
class ParameterGroup:
    """How the optimiser treats some parameters; None leaves a value to the recipe."""

    learning_rate: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True)
class OwnFolder:
    """Weights that ship in a folder of their own inside the artifact, in the layout of another library."""

    folder: str
    weights_file: str
    tensors: Mapping[str, str]  # name in the exported network -> name in the weights file
    documents: Mapping[str, Mapping[str, Any]]  # name of a file beside it -> its JSON


class Method(ABC):
    """One method with checked options. Subclasses import torch and peft inside their methods only."""

    name: ClassVar[str]
    stage: ClassVar[int]  # 0 the base is loaded in another form, 1 adapters, 2 masks, 3 losses, 4 storage
    needs: ClassVar[frozenset[str]] = frozenset()  # family traits it relies on
    excludes: ClassVar[frozenset[str]] = frozenset()  # methods it cannot stand beside
    trains: ClassVar[bool] = True  # False: the recipe trains nothing, its budget is 0 examples
    Options: ClassVar[type] = NoOptions

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def from_options(cls, values: Mapping[str, Any]) -> Self:
        """Check the options and build the method; raises ConfigError with the path of a wrong one."""
        return cls(from_dict(cls.Options, values or {}, path=f"methods.{cls.name}"))

    def prerequisite(self, config: RunConfig) -> RunConfig | None:
        """Return a recipe that must have been trained before this one; its artifact comes to `provide`."""
        return None

    def provide(self, artifact: "LoadedArtifact") -> None:  # noqa: B027 - most methods need nothing
        """Take the artifact of the recipe that `prerequisite` named."""

    def prepare_family(self, family: Family) -> None:  # noqa: B027
        """Change how windows are laid out, before any are made."""

    def attach(self, model: "nn.Module", family: Family) -> "nn.Module":
        """Change the network before training: add adapters, freeze weights. Returns the network to train."""
        return model

    def parameter_group(self, name: str) -> ParameterGroup | None:
        """Return how the optimiser treats the parameter of this name; None: like all others."""
        return None

    def progress(self, model: "nn.Module", share_done: float) -> None:  # noqa: B027
        """Follow the schedule: called before the first step, after each one, and after a resume.

        Args:
            share_done: the share of the budget that is spent, 0 to 1. The same share must give the same network.
        """

    def loss(
        self, task_loss: "Tensor", model: "nn.Module", batch: Batch, logits: "tuple[Tensor, ...]"
    ) -> "Tensor":
        """Return the loss to minimise, given the one so far and the family's logits of this forward pass."""
        return task_loss

    def deployed_form(self, model: "nn.Module") -> dict[str, Any] | None:
        """Return, as JSON values, what `restore` needs to read the exported weights; None when nothing.

        Called twice: on a plain network without memory, to plan the form before training, and on the trained one
        just before `export`. Shapes that training decides (how much each mask keeps) are planned as their mean.
        """
        return None

    def export(self, model: "nn.Module") -> "nn.Module":
        """Return the network in its deployed form: merged, packed, quantised. May consume the one passed in."""
        return model

    def own_folder(self, model: "nn.Module") -> OwnFolder | None:
        """Return which weights of the network, exported by all methods, ship in their own folder; None for none."""
        return None

    @classmethod
    def restore(cls, model: "nn.Module", form: Mapping[str, Any]) -> "nn.Module":
        """Reshape a freshly built network so that the exported weights fit it; on any device, meta included."""
        return model

    @classmethod
    def settle(cls, model: "nn.Module", form: Mapping[str, Any]) -> "nn.Module":
        """Turn a network whose weights have just been read into the one that answers, such as a dense one."""
        return model
