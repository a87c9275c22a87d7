"""Low-rank adaptation: y = W x + (alpha / rank) B A dropout(x), with W frozen and B = 0 at the start.

Source: Hu et al. 2021, arXiv 2106.09685, section 4.1; rank-stabilised scaling alpha / sqrt(rank): Kalajdzievski 2023,
arXiv 2312.03732. The adapters are PEFT's; the number of modules they attach to is checked. On export they are merged
into W, so that the deployed model has the base's size and speed, or kept apart: base and adapter then lie side by side
in the artifact, and PEFT can load the adapter onto the base. Where transformers opens the base: `docs/artifacts.md`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from qa_core.families.base import Family
from qa_core.methods.adapter import (
    AdapterAlpha,
    AdapterDropout,
    AdapterRank,
    AdapterTargets,
    MergeableAdapter,
    target_names,
)
from qa_core.values import Setting, check_ranges

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LoraOptions:
    """Options of `lora`."""

    rank: AdapterRank = 8
    alpha: AdapterAlpha = 16.0
    dropout: AdapterDropout = 0.0
    rank_stabilised: Annotated[
        bool, Setting("true scales by alpha / sqrt(rank) instead of alpha / rank.")
    ] = False
    targets: AdapterTargets = "attention"
    also_train: Annotated[
        tuple[str, ...],
        Setting("Modules that are trained in full beside the head, each named by a dotted part of its name."),
    ] = ()
    merge: Annotated[
        bool,
        Setting(
            "true merges the adapters into the base at export; false keeps the two apart in the artifact."
        ),
    ] = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "methods.lora")


class Lora(MergeableAdapter):
    """LoRA on the family's named target modules; the head is trained in full."""

    name = "lora"
    needs = frozenset({"linear_layers"})
    Options = LoraOptions

    def attach(self, model: "nn.Module", family: Family) -> "nn.Module":
        """Freeze the model, add one adapter to every target module, leave the head trainable.

        Raises:
            ConfigError: the target set is unknown, a target's name matches no module, or what is to be trained in full
                cannot be kept apart.
        """
        from peft import LoraConfig

        from qa_core.models import adapters

        setting = "methods.lora.targets"
        names = target_names(model, family, self.options.targets, setting)
        layers = adapters.matching_layers(model, names, setting)
        settings: dict[str, Any] = {
            "r": self.options.rank,
            "lora_alpha": self.options.alpha,
            "lora_dropout": self.options.dropout,
            "use_rslora": self.options.rank_stabilised,
            "bias": "none",
        }
        model = adapters.attach(model, LoraConfig(target_modules=list(layers), **settings), layers, setting)
        in_full = (*family.head_modules, *self.options.also_train)
        adapters.train_adapters(model, in_full)
        if not self.options.merge:
            self._form = {"low_rank": layers, "rank": self.options.rank, "scale": self._scale}
            self._in_full = adapters.modules_in_full(model, in_full, "methods.lora.also_train")
            config = LoraConfig(target_modules=list(layers), modules_to_save=list(self._in_full), **settings)
            self._document = adapters.peft_document(config, family.checkpoint_name)
        return model

    @property
    def _scale(self) -> float:
        return self.options.alpha / self.options.rank ** (0.5 if self.options.rank_stabilised else 1.0)
