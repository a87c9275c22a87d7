"""What a method is: something done to a model, through hooks that the training loop calls without naming it.

Order of the hooks in a trial: `prerequisite` (names another recipe's artifact, such as a teacher), `prepare_family`
(before the data is laid out), `attach` (the network exists), `provide` (its deployed form fits the memory budget, the
other recipe is trained), `progress`, `watch` and `loss` (each step), `deployed_form` and `export` (on a copy at each
rung, see `qa_core/training/deployment.py`, and when training is over), `own_folder`. An artifact carries each method's
form, and `artifact.load` hands it to `restore` (before the weights are read) and to `settle` (after).

Methods of one recipe act in the order of their `stage`, whatever the order in which the recipe names them: adapters
before masks, masks before quantisation. In `loss`, what mixes with the task's loss comes before penalties, which are
added to the mixture.
"""

from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from qa_core.artifact.manifest import OwnFolder
from qa_core.config import RunConfig
from qa_core.errors import ConfigError
from qa_core.families.base import Batch, Family, NoOptions
from qa_core.values import from_dict

if TYPE_CHECKING:
    from torch import Tensor, nn

    from qa_core.artifact.loaded import LoadedArtifact


class Stage(IntEnum):
    """When a method acts among the methods of a recipe."""

    BASE = 0  # the base is loaded in another form, or prompted
    ADAPTER = 1
    LOSS = 2  # mixed with the task's
    MASK = 3
    STORAGE = 4


class Claim(StrEnum):
    """What one method of a recipe alone can decide; two that claim the same cannot be combined."""

    TRAINED_WEIGHTS = "which weights are trained"
    LOSS = "the loss"
    STORED_BASE = "how the base is stored"


@dataclass(frozen=True)
class ParameterGroup:
    """How the optimiser treats some parameters; None leaves a value to the recipe."""

    learning_rate: float | None = None
    weight_decay: float | None = None


class Method(ABC):
    """One method with checked options. Subclasses import torch and peft inside their methods only."""

    name: ClassVar[str]
    stage: ClassVar[Stage]
    needs: ClassVar[frozenset[str]] = frozenset()  # family traits it relies on
    claims: ClassVar[frozenset[Claim]] = frozenset()
    # Options that act on the trained network: one training can be stored with several values of them.
    after_training: ClassVar[frozenset[str]] = frozenset()
    is_addable_after_training: ClassVar[bool] = False  # True: a form may have it where its recipe has not
    is_never_smaller: ClassVar[bool] = False  # True: without it the stored network would need no more memory
    trains: ClassVar[bool] = True  # False: the recipe trains nothing, its budget is 0 examples
    Options: ClassVar[type] = NoOptions

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    def answers_as_trained(self) -> bool:
        """Whether the exported network computes what the one in training does, but for the rounding of float32.

        If one method of a recipe says no, the scores of a rung are of a copy in the deployed form.
        """
        return True

    @property
    def rounding(self) -> str | None:
        """What the stored form does to the values of weights, in a word such as "int8"; None: it keeps them.

        Layout, such as merged or packed, is no part of it. `qa_core/form_kinds.py` says what it decides.
        """
        return None

    def form_words(self, options: Iterable[str]) -> str:
        """Return what tells a stored form with these options from others, as a part of its label.

        Args:
            options: names from `after_training` that the sweep lists.
        """
        return "-".join(f"{name}-{getattr(self.options, name)}" for name in options)

    @classmethod
    def from_options(cls, values: Mapping[str, Any]) -> Self:
        """Check the options and build the method; raises ConfigError with the path of a wrong one."""
        return cls(from_dict(cls.Options, values or {}, path=f"methods.{cls.name}"))

    def prerequisite(self, config: RunConfig) -> RunConfig | Path | None:
        """Return a recipe that must have been trained before this one, or the folder of an artifact; None: nothing.

        Its artifact comes to `provide`; it must read the same windows, which `qa_core/prerequisites.py` checks.

        Raises:
            ConfigError: the options make no recipe. IllegalCombination: its head is another.
        """
        return None

    def prepare_family(self, family: Family) -> Family:
        """Return the family as this method wants it, before any window is laid out."""
        return family

    def attach(self, model: "nn.Module", family: Family) -> "nn.Module":
        """Change the network before training: add adapters, freeze weights. Returns the network to train."""
        return model

    def provide(self, artifact: "LoadedArtifact", model: "nn.Module", family: Family) -> "nn.Module":
        """Take the artifact that `prerequisite` named, on the CPU. Returns the network to train, on its own device.

        The network may have gained parts that only training needs; `export` takes them away.
        """
        return model

    def companions(self) -> "Sequence[nn.Module]":
        """Return the networks that training needs beside its own: their memory counts as training's."""
        return ()

    def parameter_group(self, name: str) -> ParameterGroup | None:
        """Return how the optimiser treats the parameter of this name; None: like all others."""
        return None

    def progress(self, model: "nn.Module", share_done: float) -> None:  # noqa: B027
        """Follow the schedule: called before the first step, after each one, and after a resume.

        Args:
            share_done: the share of the budget that is spent, 0 to 1. The same share must give the same network.
        """

    def watch(self, model: "nn.Module") -> AbstractContextManager[None]:
        """Return what stands around each training forward pass, such as hooks that catch hidden states for `loss`."""
        return nullcontext()

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

    def export(self, model: "nn.Module", *, borrowed: bool = False) -> "nn.Module":
        """Return the network in its deployed form: merged, packed, quantised. May consume the one passed in.

        Args:
            borrowed: the tensors belong to a network that goes on training, and so does this method. Modules may be
                replaced, no tensor may be written to, and a float matrix that would be a copy is a `DerivedMatrix`.
                On the meta device the form is planned.
        """
        return model

    def stored_anew(
        self, model: "nn.Module", form: Mapping[str, Any] | None
    ) -> "tuple[nn.Module, Mapping[str, Any] | None]":
        """Bring a network that was stored with other options of `after_training` into this method's form.

        Args:
            model: restored and not settled; may be consumed.
            form: what `restore` read it by; None where the options gave no form.

        Returns:
            The network as this method's `export` would have left it, and its form.

        Raises:
            ConfigError: what is stored does not hold what these options need; the training would.
        """
        raise ConfigError(
            f"methods.{self.name}: found an artifact that is stored with other options; allowed: those of its recipe, "
            "or another training"
        )

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
