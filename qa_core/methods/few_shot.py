"""k-shot prompting: solved questions before each prompt, and no training at all.

The demonstrations are drawn from the train part by the trial's seed, with their paragraphs, and travel in the artifact.
They take room in every window: `data.max_length` must hold them beside question and context. The baseline is shots 0,
the prompt alone.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from qa_core.data.layout import Prompting
from qa_core.families.base import Family
from qa_core.methods.base import Claim, Method, Stage
from qa_core.values import Setting, check_ranges

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class FewShotOptions:
    """Options of `few_shot`."""

    shots: Annotated[
        int, Setting("Solved examples that stand before each question.", "examples", at_least=0)
    ] = 3
    max_demonstration_tokens: Annotated[
        int,
        Setting(
            "Longest example; questions on longer paragraphs are not taken as examples.", "tokens", at_least=1
        ),
    ] = 192

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "methods.few_shot")


class FewShot(Method):
    """Prompting of a network that writes; its budget is 0 examples. Random weights of a preset answer nothing."""

    name = "few_shot"
    stage = Stage.BASE
    needs = frozenset({"generates"})
    claims = frozenset({Claim.TRAINED_WEIGHTS, Claim.LOSS})  # there are none
    trains = False
    Options = FewShotOptions

    def prepare_family(self, family: Family) -> Family:
        """Ask for demonstrations; `qa_core/data/prepare.py` draws them."""
        return family.with_prompting(Prompting(self.options.shots, self.options.max_demonstration_tokens))

    def attach(self, model: "nn.Module", family: Family) -> "nn.Module":
        """Freeze everything."""
        for parameter in model.parameters():
            parameter.requires_grad = False
        return model
