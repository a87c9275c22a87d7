"""Adapters: put beside the layers that they change by PEFT for training, and what becomes of them afterwards.

In training the adapted layers are PEFT's. In an artifact that keeps base and adapter apart they are `LowRankLinear`
and `ScaledLinear`, which need no PEFT, stand around any layer with a weight (a `StoredLinear` too) and compute what
PEFT's do. `peft_folder` and `peft_document` say how such an adapter is written so that PEFT reads it.

Dimensions: B batch, L tokens, R rows (outputs), C columns (inputs), K rank of an adapter.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qa_core.errors import ConfigError
from qa_core.models.stored.base import StoredLinear, set_module
from qa_core.models.stored.derived import DerivedMatrix

PEFT_PREFIX = "base_model.model."  # of every tensor's name in PEFT's files
ADAPTER_NAME = "default"  # PEFT's own; here a model never has a second one


class LowRankLinear(nn.Module):
    """A layer plus a low-rank update: base(x) + scale B A x, with A [K, C] and B [R, K].

    A and B are plain parameters, not layers: what quantises the layers of a network leaves them as they are.
    """

    def __init__(self, base_layer: Any, *, rank: int, scale: float) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.lora_A = nn.Parameter(torch.zeros(rank, self.in_features))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank))
        self.scale = scale

    @property
    def weight(self) -> Tensor:
        """The weight [R, C] of the base: networks look at its dtype."""
        return self.base_layer.weight

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., R] of inputs [..., C]."""
        outputs = self.base_layer(inputs)
        update = F.linear(F.linear(inputs.to(self.lora_A.dtype), self.lora_A), self.lora_B)
        return (outputs + update * self.scale).to(outputs.dtype)


class ScaledLinear(nn.Module):
    """A layer whose inputs (scale [1, C]) or outputs, bias included (scale [R, 1]), are scaled one by one."""

    def __init__(self, base_layer: Any, *, scales_inputs: bool) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.scales_inputs = scales_inputs
        shape = (1, self.in_features) if scales_inputs else (self.out_features, 1)
        self.ia3_l = nn.Parameter(torch.ones(shape))

    @property
    def weight(self) -> Tensor:
        """The weight [R, C] of the base: networks look at its dtype."""
        return self.base_layer.weight

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., R] of inputs [..., C]."""
        scale = self.ia3_l.flatten()
        if self.scales_inputs:
            return self.base_layer((inputs * scale).to(inputs.dtype))
        outputs = self.base_layer(inputs)
        return (outputs * scale).to(outputs.dtype)


def matching_layers(model: nn.Module, suffixes: Sequence[str], setting: str) -> list[str]:
    """Return, sorted, the dotted names of the modules that end in one of the suffixes.

    Raises:
        ConfigError: a suffix ends no name; `setting` names the setting at fault.
    """
    names = [name for name, _ in model.named_modules()]
    matches = {
        suffix: [name for name in names if name == suffix or name.endswith(f".{suffix}")]
        for suffix in suffixes
    }
    silent = [suffix for suffix, found in matches.items() if not found]
    if silent:
        raise ConfigError(f"{setting}: no module of the model is named {', '.join(silent)}")
    return sorted({name for found in matches.values() for name in found})


def layers_with_roles(model: nn.Module, roles: Any, wanted: Sequence[str], setting: str) -> list[str]:
    """Return, sorted, the dotted names of the Linear layers that have one of the wanted roles.

    Args:
        roles: the family's `LinearRoles`: role -> ends of names. Of several ends that match, the longest counts.

    Raises:
        ConfigError: there is no layer of a wanted role; `setting` names the setting at fault.
    """
    role_of = {end: role for role, ends in vars(roles).items() for end in ends}
    found: dict[str, list[str]] = {role: [] for role in wanted}
    for name, module in model.named_modules():
        ends = [end for end in role_of if name == end or name.endswith(f".{end}")]
        if ends and isinstance(module, nn.Linear):
            role = role_of[max(ends, key=len)]
            if role in found:
                found[role].append(name)
    silent = [role for role, names in found.items() if not names]
    if silent:
        raise ConfigError(f"{setting}: the model has no layers that are {', '.join(silent)}")
    return sorted(name for names in found.values() for name in names)


def attach(model: nn.Module, config: Any, expected: Iterable[str], setting: str) -> nn.Module:
    """Let PEFT put adapters of `config` into the model and check that exactly the expected layers have one.

    Raises:
        ConfigError: PEFT attached to other layers; `setting` names the setting at fault.
    """
    from peft import inject_adapter_in_model

    model = inject_adapter_in_model(config, model)
    attached = sorted(name for name, _ in adapted_layers(model))
    if attached != sorted(expected):
        raise ConfigError(f"{setting}: attached to {attached}, expected {sorted(expected)}")
    return model


def adapted_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Return name and module of every layer that PEFT has put an adapter beside."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


def train_adapters(model: nn.Module, in_full: Collection[str]) -> None:
    """Let gradients reach the adapters and every parameter with a dotted part of its name in `in_full`, no other."""
    adapters = {id(item) for _, layer in adapted_layers(model) for item in adapter_parameters(layer).values()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad = id(parameter) in adapters or bool(set(name.split(".")) & set(in_full))


def adapter_parameters(layer: Any) -> dict[str, nn.Parameter]:
    """Return the parameters of a layer's adapter by their names in `LowRankLinear` or `ScaledLinear`."""
    found = {}
    for name in layer.adapter_layer_names:
        held = getattr(layer, name)
        if ADAPTER_NAME in held:
            item = held[ADAPTER_NAME]
            found[name] = item if isinstance(item, nn.Parameter) else item.weight
    return found


def merge(model: nn.Module, *, borrowed: bool = False) -> nn.Module:
    """Fold every adapter into the weight of its layer and leave plain layers, all of them trainable again.

    Args:
        borrowed: nothing is written to, and merged matrices are made when they are used: see `Method.export`.
    """
    for name, layer in adapted_layers(model):
        set_module(model, name, _merged(layer, borrowed=borrowed))
    return without_peft(model, borrowed=borrowed)


def _merged(layer: Any, *, borrowed: bool) -> nn.Module:
    """Return the layer that PEFT's `merge` would leave: W + scale B A, or W scaled by rows (and bias) or columns."""
    base = layer.get_base_layer()
    sources = {"weight": base.weight, **adapter_parameters(layer)}
    scaling: float = layer.scaling[ADAPTER_NAME] if "lora_A" in sources else 1.0
    bias = base.bias

    def weight(*, weight: Tensor, **adapter: Tensor) -> Tensor:
        if "lora_A" in adapter:
            return weight + (adapter["lora_B"] @ adapter["lora_A"]) * scaling
        return weight * adapter["ia3_l"]

    with torch.no_grad():
        if "ia3_l" in sources and not layer.is_feedforward and bias is not None:
            bias = nn.Parameter(bias * sources["ia3_l"].view(-1))
        if borrowed:
            return StoredLinear(DerivedMatrix(tuple(base.weight.shape), weight, sources), bias)
        base.weight, base.bias = nn.Parameter(weight(**sources)), bias
    return base


def separate(model: nn.Module, form: Mapping[str, Any], *, borrowed: bool = False) -> nn.Module:
    """Put the layers of `form` (see `with_adapters`) in the place of PEFT's, with the values trained there."""
    trained = dict(adapted_layers(model))
    for name, layer in trained.items():
        set_module(model, name, layer.get_base_layer())
    model = with_adapters(model, form)
    for name, layer in trained.items():
        separated = model.get_submodule(name)
        for attribute, parameter in adapter_parameters(layer).items():
            setattr(separated, attribute, nn.Parameter(parameter.detach()))
    return without_peft(model, borrowed=borrowed)


def with_adapters(model: nn.Module, form: Mapping[str, Any]) -> nn.Module:
    """Put an adapter that changes nothing beside each layer named in a form; on any device, meta included.

    Args:
        form: "low_rank" (names of layers) with "rank" and "scale"; "scaled_inputs" and "scaled_outputs" (names).
    """
    for name in form.get("low_rank", ()):
        base = model.get_submodule(name)
        set_module(model, name, LowRankLinear(base, rank=form["rank"], scale=form["scale"]))
    for name in form.get("scaled_inputs", ()):
        set_module(model, name, ScaledLinear(model.get_submodule(name), scales_inputs=True))
    for name in form.get("scaled_outputs", ()):
        set_module(model, name, ScaledLinear(model.get_submodule(name), scales_inputs=False))
    return model


def without_peft(model: nn.Module, *, borrowed: bool = False) -> nn.Module:
    """Drop what PEFT notes on a model, and the freezing unless it is borrowed: what is left is a plain network."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and not borrowed:
            parameter.requires_grad = True
    for leftover in ("peft_config", "active_adapter"):
        if hasattr(model, leftover):
            delattr(model, leftover)
    return model


def modules_in_full(model: nn.Module, parts: Collection[str], setting: str) -> list[str]:
    """Return the outermost modules whose last name is in `parts`, for an adapter that is kept apart from its base.

    Raises:
        ConfigError: something that `parts` lets train is no whole module without adapters, so that PEFT could not
            store it beside the adapter; `setting` names the setting at fault.
    """
    found: list[str] = []
    for name, _ in model.named_modules():
        if name.rpartition(".")[2] in parts and not _is_below(name, found):
            found.append(name)
    adapted = [name for name, _ in adapted_layers(model)]
    for name, _ in model.named_parameters():
        if set(name.split(".")) & set(parts) and (not _is_below(name, found) or _is_below(name, adapted)):
            raise ConfigError(
                f"{setting}: {name!r} would be trained in full; allowed where the adapter is kept apart from its "
                "base: names of whole modules without an adapter in them"
            )
    return found


def peft_folder(model: nn.Module, in_full: Collection[str], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an `OwnFolder` that PEFT reads: all adapters and the modules trained in full."""
    tensors: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, LowRankLinear):
            tensors |= {
                f"{name}.{side}": f"{PEFT_PREFIX}{name}.{side}.weight" for side in ("lora_A", "lora_B")
            }
        elif isinstance(module, ScaledLinear):
            tensors[f"{name}.ia3_l"] = f"{PEFT_PREFIX}{name}.ia3_l"
    for name, _ in model.named_parameters():
        if _is_below(name, list(in_full)):
            tensors[name] = PEFT_PREFIX + name
    return {
        "folder": "adapter",
        "weights_file": "adapter_model.safetensors",
        "tensors": tensors,
        "documents": {"adapter_config.json": document},
    }


def peft_document(config: Any, checkpoint: str | None) -> dict[str, Any]:
    """Return what PEFT's `adapter_config.json` says, as JSON values, for loading in evaluation mode."""
    values = {**config.to_dict(), "inference_mode": True, "base_model_name_or_path": checkpoint}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}


def _is_below(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)
