"""Names of families and methods, where they live, and which of them go together.

Adding one is one file and one line here. Classes are imported when they are asked for; their files import torch only
inside functions, so that a sweep can be checked without it.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from qa_core.errors import ConfigError, IllegalCombination, unknown

if TYPE_CHECKING:
    from qa_core.config import RunConfig
    from qa_core.families.base import Family
    from qa_core.methods.base import Method

FAMILIES = {
    "bert": "qa_core.families.bert:Bert",
    "distilbert": "qa_core.families.distilbert:DistilBert",
    "lstm": "qa_core.families.lstm:Lstm",
    "mamba": "qa_core.families.mamba:Mamba",
    "t5": "qa_core.families.t5:T5",
}

METHODS = {
    "distill": "qa_core.methods.distill:Distill",
    "few_shot": "qa_core.methods.few_shot:FewShot",
    "ia3": "qa_core.methods.ia3:Ia3",
    "lora": "qa_core.methods.lora:Lora",
    "lora_int8": "qa_core.methods.qlora:LoraInt8",
    "qlora": "qa_core.methods.qlora:Qlora",
    "quantize": "qa_core.methods.quantize:Quantize",
    "static_prune": "qa_core.methods.static_prune:StaticPrune",
}


def family_class(name: str) -> type["Family"]:
    """Return the family's class; raises ConfigError with the nearest name when there is none."""
    return load(FAMILIES, "family", name)


def method_class(name: str) -> type["Method"]:
    """Return the method's class; raises ConfigError with the nearest name when there is none."""
    return load(METHODS, "method", name)


def make_family(config: "RunConfig") -> "Family":
    """Build the family object of a recipe, its options checked."""
    return family_class(config.model.family)(config.model)


def make_methods(config: "RunConfig") -> list["Method"]:
    """Build the method objects of a recipe in the order in which they act, their options checked.

    Raises:
        ConfigError: an option is wrong, or the recipe that a method needs trained before is.
    """
    methods = [method_class(name).from_options(options) for name, options in config.methods.items()]
    for method in methods:
        method.prerequisite(config)
    return sorted(methods, key=lambda method: method.stage)


def assemble(config: "RunConfig") -> tuple["Family", list["Method"]]:
    """Return family and methods of a recipe, checked to go together; the family is as its methods want it.

    Raises:
        ConfigError, IllegalCombination: as `make_family`, `make_methods` and `check_combination`.
    """
    family, methods = make_family(config), make_methods(config)
    check_combination(family, methods)
    for method in methods:
        family = method.prepare_family(family)
    return family, methods


def check_combination(family: "Family", methods: Iterable["Method"]) -> None:
    """Refuse a recipe whose methods need what its family, head or other methods do not give.

    Raises:
        IllegalCombination: names the family, the method, what is missing and what the family has.
    """
    methods = list(methods)
    traits = family.traits
    for method in methods:
        missing = method.needs - traits
        if missing:
            raise IllegalCombination(
                f"method {method.name!r} needs {', '.join(sorted(missing))}, which family {family.name!r} with head "
                f"{family.head!r} lacks (it has: {', '.join(sorted(traits))})"
            )
        for other in methods:
            shared = method.claims & other.claims
            if other is not method and shared:
                raise IllegalCombination(
                    f"method {method.name!r} cannot be combined with {other.name}: both decide "
                    f"{' and '.join(sorted(shared))}"
                )


def load(table: Mapping[str, str], kind: str, name: str) -> Any:
    """Return what a table of "module:Class" names; raises ConfigError with the nearest name when there is none.

    Args:
        kind: what the table holds, for the message.
    """
    if name not in table:
        raise ConfigError(unknown(kind, name, table))
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
