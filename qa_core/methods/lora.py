"""Low-rank adaptation: y = W x + (alpha / rank) B A dropout(x), with W frozen and B = 0 at the start.

Source: Hu et al. 2021, arXiv 2106.09685, section 4.1; rank-stabilised scaling alpha / sqrt(rank): Kalajdzievski 2023,
arXiv 2312.03732. The adapters are PEFT's; the number of modules they attach to is checked, and they are merged into W
on export, so that the deployed model has the base's size and speed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qa_core.errors import ConfigError, unknown
from qa_core.families.base import Family
from qa_core.methods.base import Method

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LoraOptions:
    """Options of `lora`."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rank_stabilised: bool = False
    targets: str = "attention"  # a named set of the family's adapter targets
    also_train: tuple[
        str, ...
    ] = ()  # modules trained in full beside the head, by a dotted part of their name

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, valid, allowed in (
            ("rank", self.rank >= 1, "1 or more"),
            ("alpha", self.alpha > 0, "a number above 0"),
            ("dropout", 0 <= self.dropout < 1, "0 <= share < 1"),
        ):
            if not valid:
                raise ConfigError(f"methods.lora.{name}: found {getattr(self, name)!r}; allowed: {allowed}")


class Lora(Method):
    """LoRA on the family's named target modules; the head is trained in full."""

    name = "lora"
    stage = 1
    needs = frozenset({"linear_layers"})
    Options = LoraOptions

    def attach(self, model: "nn.Module", family: Family) -> "nn.Module":
        """Freeze the model, add one adapter to every target module, leave the head trainable.

        Raises:
            ConfigError: the target set is unknown, or a target's name matches no module.
        """
        from peft import LoraConfig, inject_adapter_in_model

        target_sets = family.adapter_targets()
        if self.options.targets not in target_sets:
            raise ConfigError(
                f"methods.lora.targets: {unknown('target set', self.options.targets, target_sets)}"
            )
        suffixes = target_sets[self.options.targets]
        expected = _matching_modules(model, suffixes)
        adapters = LoraConfig(
            r=self.options.rank,
            lora_alpha=self.options.alpha,
            lora_dropout=self.options.dropout,
            use_rslora=self.options.rank_stabilised,
            target_modules=list(suffixes),
            bias="none",
        )
        model = inject_adapter_in_model(adapters, model)
        attached = [name for name, _ in _adapted_modules(model)]
        if sorted(attached) != sorted(expected):
            raise ConfigError(f"methods.lora.targets: attached to {attached}, expected {expected}")
        trained_in_full = (*family.head_modules, *self.options.also_train)
        for name, parameter in model.named_parameters():
            in_full = set(name.split(".")) & set(trained_in_full)
            parameter.requires_grad = bool(in_full) or ".lora_" in name
        return model

    def export(self, model: "nn.Module") -> "nn.Module":
        """Merge W + (alpha / rank) B A into each target and drop the adapters."""
        for name, layer in list(_adapted_modules(model)):
            layer.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, layer.get_base_layer())
        for parameter in model.parameters():
            parameter.requires_grad = True
        for leftover in ("peft_config", "active_adapter"):
            if hasattr(model, leftover):
                delattr(model, leftover)
        return model


def _matching_modules(model: "nn.Module", suffixes: tuple[str, ...]) -> list[str]:
    names = [name for name, _ in model.named_modules()]
    matches = {
        suffix: [name for name in names if name == suffix or name.endswith(f".{suffix}")]
        for suffix in suffixes
    }
    silent = [suffix for suffix, found in matches.items() if not found]
    if silent:
        raise ConfigError(f"methods.lora.targets: no module of the model is named {', '.join(silent)}")
    return sorted({name for found in matches.values() for name in found})


def _adapted_modules(model: "nn.Module") -> list[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
