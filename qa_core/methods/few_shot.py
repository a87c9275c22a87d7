"""k-shot prompting: solved questions before each prompt, and no training at all.

The demonstrations are drawn from the train part by the trial's seed, with their paragraphs, and travel in the artifact.
They take room in every window: `data.max_length` must hold them beside question and context. The baseline is shots 0,
the prompt alone.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qa_core.data.layout import Prompting
from qa_core.errors import ConfigError
from qa_core.families.base import Family
from qa_core.methods.base import Method

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class FewShotOptions:
    """Options of `few_shot`."""

    shots: int = 3
    max_demonstration_tokens: int = 192  # of one; those on longer paragraphs are passed over

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, valid, allowed in (
            ("shots", self.shots >= 0, "0 or more"),
            ("max_demonstration_tokens", self.max_demonstration_tokens >= 1, "1 or more"),
        ):
            if not valid:
                raise ConfigError(
                    f"methods.few_shot.{name}: found {getattr(self, name)!r}; allowed: {allowed}"
                )


class FewShot(Method):
    """Prompting of a network that writes; its budget is 0 examples. Random weights of a preset answer nothing."""

    name = "few_shot"
    stage = 0
    needs = frozenset({"generates"})
    excludes = frozenset({"lora", "ia3", "qlora", "lora_int8", "static_prune", "distill"})  # they train
    trains = False
    Options = FewShotOptions

    def prepare_family(self, family: Family) -> None:
        """Ask for demonstrations; `qa_core/data/prepare.py` draws them."""
        family.prompting = Prompting(self.options.shots, self.options.max_demonstration_tokens)

    def attach(self, model: "nn.Module", family: Family) -> "nn.Module":
        """Freeze everything."""
        for parameter in model.parameters():
            parameter.requires_grad = False
        return model
