"""Families and methods that exist only for legality: small enough to count combinations by hand.

alpha: head span, has linear layers. beta: heads span and generate, has linear layers. gamma: head span, has
none. adapt needs linear layers. pack needs nothing. sole needs span output and stands alone.
"""

from dataclasses import dataclass

from qa_core.families.base import Family
from qa_core.methods.base import Claim, Method, Stage
from sweeps.space.compile import compile_space
from sweeps.space.space import Space
from sweeps.spec.sections import SweepSpec

FAMILIES = {name: f"{__name__}:{name.capitalize()}" for name in ("alpha", "beta", "gamma")}
METHODS = {name: f"{__name__}:{name.capitalize()}" for name in ("adapt", "pack", "sole")}

HEAD = {"name": "toy", "searcher": {"name": "random"}, "scheduler": {"name": "fifo"}}
OBJECTIVES = [
    {"name": "em_percent", "goal": "max", "reference": 0},
    {"name": "memory_mb", "goal": "min", "reference": 64},
]
SPACE = [
    {"set": "model.family", "choice": ["alpha", "beta", "gamma"]},
    {"set": "model.head", "choice": ["span", "generate"], "when": {"model.family": ["alpha", "beta"]}},
    {"set": "methods", "choice": ["full", "adapt", "pack", "adapt+pack", "sole"]},
    {"set": "train.learning_rate", "log_uniform": [1e-5, 1e-3], "when": {"methods": ["full", "sole"]}},
    {"set": "train.learning_rate", "log_uniform": [1e-3, 1e-1], "when": {"methods": ["adapt", "pack"]}},
    {"set": "methods.adapt.rank", "int": [2, 16], "log": True, "when": {"methods": "adapt"}},
    {"set": "train.batch_size", "choice": [8, 16]},
]


class Toy(Family):
    base_traits = frozenset({"linear_layers"})
    heads = ("span",)
    tokenizer_kind = "word"
    presets = {"tiny": {}}

    layout = build = architecture = restore = loss = adapter_targets = None  # type: ignore[assignment]


class Alpha(Toy):
    name = "alpha"


class Beta(Toy):
    name = "beta"
    heads = ("span", "generate")


class Gamma(Toy):
    name = "gamma"
    base_traits = frozenset({"recurrent"})


@dataclass(frozen=True)
class AdaptOptions:
    rank: int = 8
    targets: str = "all"


class Adapt(Method):
    name = "adapt"
    stage = Stage.ADAPTER
    needs = frozenset({"linear_layers"})
    claims = frozenset({Claim.TRAINED_WEIGHTS})
    Options = AdaptOptions


class Pack(Method):
    name = "pack"
    stage = Stage.STORAGE
    claims = frozenset({Claim.STORED_BASE})


class Sole(Method):
    name = "sole"
    stage = Stage.ADAPTER
    needs = frozenset({"span_output"})
    claims = frozenset({Claim.TRAINED_WEIGHTS, Claim.STORED_BASE})


def toy_spec(**changes: object) -> SweepSpec:
    values = {
        **HEAD,
        "objectives": OBJECTIVES,
        "budget": {"trials": 8, "examples": 900},
        "space": SPACE,
        **changes,
    }
    return SweepSpec.model_validate(values)


def toy_space(**changes: object) -> Space:
    return compile_space(toy_spec(**changes))
