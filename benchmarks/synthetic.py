"""Curve tables that are computed instead of recorded: any size, and a front that is known.

No claim that they are real. They have what makes early stopping on two objectives hard: small models that learn at
once and saturate, large ones that start late, so that curves cross; a learning rate that is right for one family and
wrong for another, and a low one that only looks bad; options that exist for some methods alone; families of different
memory.

A recipe's final EM is a ceiling, set by its structure (family, size, method and the method's options), less penalties
for learning rate, batch size and weight decay. The penalties are a sum of separate terms, so the best recipe of a
structure is the one with the least of each, and the front is that of the structures' best: `known_front`. Its EM after
n examples is `final * s(n) / s(budget)` with `s(n) = n^h / (n^h + tau^h)`: it saturates after tau examples, and starts
the later the larger h is; the option `crossing` scales both. Noise is added to each report and to the final value;
memory is exact. With stored forms, each training is stored in the bits of FORM_BITS, and what each loses at the end
has the noise of a final value of its own.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qa_core.form_kinds import AS_SCORED
from sweeps.replay.curves import Curve, CurveTable, RecordedForm
from sweeps.space.compile import compile_space
from sweeps.space.paths import METHODS_PATH, method_names
from sweeps.space.space import Space
from sweeps.spec.sections import SweepSpec

BUDGET = 27_000
REPORTS = tuple(BUDGET // 27 * part for part in (1, 2, 3, 4, 6, 9, 12, 18, 27))
MEMORY_REFERENCE_MB = 385.0  # 1.1 times the largest model

BITS_ID, DENSITY_ID, RANK_ID = "methods.quantize.bits", "methods.static_prune.density", "methods.lora.rank"


@dataclass(frozen=True)
class SyntheticFamily:
    """How a family of models learns."""

    memory_mb: float  # of the smallest size
    ceiling: float  # EM of the largest size, in percent
    saturation: float  # tau of the smallest size, as a share of the budget
    lateness: float  # h
    best_rate: float  # power of ten


FAMILIES: Mapping[str, SyntheticFamily] = {
    "lstm": SyntheticFamily(6.0, 62.0, 0.03, 1.0, -2.6),
    "distilbert": SyntheticFamily(22.0, 76.0, 0.08, 1.4, -3.4),
    "mamba": SyntheticFamily(30.0, 70.0, 0.12, 1.6, -3.0),
    "bert": SyntheticFamily(40.0, 84.0, 0.15, 1.8, -3.8),
    "t5": SyntheticFamily(70.0, 86.0, 0.22, 2.2, -3.2),
}
RECURRENT = ("lstm", "mamba")  # with fewer methods
SIZES: Mapping[str, tuple[float, float]] = {  # factor of memory, share of the family's ceiling
    "micro": (1.0, 0.72),
    "tiny": (2.2, 0.88),
    "mini": (5.0, 1.0),
}
BITS: Mapping[int, tuple[float, float]] = {
    16: (0.55, 0.2),
    8: (0.35, 1.0),
    4: (0.24, 4.0),
}  # of memory, EM lost
FORM_BITS: Mapping[int, tuple[str, float, float]] = {  # label, of memory, EM lost
    32: ("float32", 1.0, 0.0),
    16: ("bfloat16", 0.5, 0.1),
    8: ("int8", 0.25, 0.5),
    4: ("nf4", 0.125, 2.0),
}
UNROUNDED = 32  # bits
SCORING = 0.05  # seconds to make and score an artifact, as a share of training
DENSITIES: Mapping[float, tuple[float, float]] = {0.5: (0.62, 1.5), 0.25: (0.42, 4.0), 0.1: (0.30, 9.0)}
RANKS: Mapping[int, tuple[float, float]] = {
    4: (3.0, 0.7),
    16: (1.5, 0.8),
    64: (0.8, 0.9),
}  # EM lost, factor of tau
BATCH_SIZES: Mapping[int, float] = {8: 0.0, 16: 0.4, 32: 1.5}
WEIGHT_DECAYS: Mapping[float, float] = {0.0: 0.3, 0.01: 0.0, 0.1: 1.1, 0.3: 3.0}
LORA_RATE_SHIFT = 0.7  # LoRA wants a higher learning rate, in powers of ten
RATE_PENALTY = 16.0  # EM lost at one power of ten from the best learning rate; it grows as the square


@dataclass(frozen=True)
class SyntheticOptions:
    """How large and how noisy a table is."""

    families: int = 5  # the first so many of FAMILIES
    learning_rates: int = 4  # evenly spaced on the logarithm
    batch_sizes: int = 1  # the first so many of BATCH_SIZES
    weight_decays: int = 1  # the first so many of WEIGHT_DECAYS
    crossing: float = 0.3  # scales each family's saturation, and its lateness above 1
    rung_noise: float = 1.0  # standard deviation of EM at a rung, in points
    final_noise: float = 0.3
    forms: bool = False  # bits are stored forms of one training instead of a recipe's setting
    seed: int = 0

    @property
    def rates(self) -> list[float]:
        """The learning rates, three digits each."""
        return [float(f"{rate:.3g}") for rate in np.geomspace(2e-4, 5e-3, self.learning_rates)]

    @property
    def sizes(self) -> list[int]:
        """The batch sizes."""
        return list(BATCH_SIZES)[: self.batch_sizes]

    @property
    def decays(self) -> list[float]:
        """The weight decays."""
        return list(WEIGHT_DECAYS)[: self.weight_decays]


SCALES: Mapping[str, SyntheticOptions] = {
    "hundred": SyntheticOptions(families=3, learning_rates=2),
    "hundreds": SyntheticOptions(learning_rates=2),
    "thousand": SyntheticOptions(learning_rates=5, batch_sizes=2),
    "ten-thousand": SyntheticOptions(learning_rates=7, batch_sizes=2, weight_decays=4),
}


def synthetic_table(options: SyntheticOptions) -> CurveTable:
    """Return the table of every recipe of the space, in the order of its grid."""
    spec = synthetic_spec(options)
    rng = np.random.default_rng([options.seed, options.learning_rates])
    space = compile_space(spec)
    curves = tuple(
        _curve(f"s{index:05d}", assignment, options, rng) for index, assignment in enumerate(space.grid())
    )
    return CurveTable(
        spec, curves, provenance={"generator": "benchmarks/synthetic.py", "options": asdict(options)}
    )


def synthetic_spec(options: SyntheticOptions) -> SweepSpec:
    """Return the sweep that a table pretends to be of."""
    families = list(FAMILIES)[: options.families]
    with_linear = [name for name in families if name not in RECURRENT]
    recurrent = [name for name in families if name in RECURRENT]
    products: tuple[tuple[list[str], list[str]], ...] = (
        (["full", "lora", "quantize", "lora+quantize", "static_prune"], with_linear),
        (["full", "quantize"], recurrent),
    )
    if options.forms:
        products = ((["full", "lora", "static_prune"], with_linear), (["full"], recurrent))
    bits = {"set": BITS_ID, "choice": list(BITS), "when": {"methods": "quantize"}}
    values = {
        "name": "synthetic",
        "objectives": [
            {"name": "em_percent", "goal": "max", "reference": 0},
            {"name": "memory_mb", "goal": "min", "reference": MEMORY_REFERENCE_MB},
        ],
        "searcher": {"name": "random"},
        "scheduler": {"name": "pareto_asha", "options": {"grace_examples": REPORTS[0]}},
        "budget": {"trials": 1000, "examples": BUDGET},
        "forms": {"quantize": {"bits": list(FORM_BITS)}} if options.forms else {},
        "space": [
            {"set": "model.family", "choice": families},
            *(
                {"set": "methods", "choice": methods, "when": {"model.family": members}}
                for methods, members in products
                if members
            ),
            {"set": "model.checkpoint", "choice": list(SIZES)},
            *([] if options.forms else [bits]),
            {"set": DENSITY_ID, "choice": list(DENSITIES), "when": {"methods": "static_prune"}},
            {"set": RANK_ID, "choice": list(RANKS), "when": {"methods": "lora"}},
            {"set": "train.learning_rate", "choice": options.rates},
            {"set": "train.batch_size", "choice": options.sizes},
            {"set": "train.weight_decay", "choice": options.decays},
        ],
    }
    return SweepSpec.model_validate(values)


def known_front(space: Space, options: SyntheticOptions) -> list[tuple[float, float]]:
    """Return the noise-free front as (EM, memory), by memory: of each structure's best, those that none beats."""
    best: dict[float, float] = {}  # memory -> EM
    for assignment in space.legal:
        for inner in _method_options(assignment):
            structure = {**assignment, **inner}
            em_percent = max(0.0, _ceiling(structure) - _least_penalty(structure, options))
            whole = memory_mb(structure)
            for _, ratio, lost in FORM_BITS.values() if options.forms else [("", 1.0, 0.0)]:
                memory = round(whole * ratio, 3)
                best[memory] = max(best.get(memory, 0.0), em_percent - lost)
    front: list[tuple[float, float]] = []
    for memory, em_percent in sorted(best.items()):
        if not front or em_percent > front[-1][0]:
            front.append((em_percent, memory))
    return front


def memory_mb(assignment: Mapping[str, Any]) -> float:
    """Return the memory of a recipe; adapters are merged and take none."""
    factor = SIZES[assignment["model.checkpoint"]][0] * _bits(assignment)[0] * _density(assignment)[0]
    return round(FAMILIES[assignment["model.family"]].memory_mb * factor, 3)


def final_em(assignment: Mapping[str, Any]) -> float:
    """Return the noise-free EM after the whole budget, in percent."""
    penalty = _rate_penalty(assignment, assignment["train.learning_rate"])
    penalty += BATCH_SIZES[assignment["train.batch_size"]] + WEIGHT_DECAYS[assignment["train.weight_decay"]]
    return max(0.0, _ceiling(assignment) - penalty)


def learnt_share(assignment: Mapping[str, Any], examples: float, *, crossing: float) -> float:
    """Return the share of the final EM that is there after so many examples."""
    family = FAMILIES[assignment["model.family"]]
    above_best = math.log10(assignment["train.learning_rate"]) - _best_rate(assignment)
    lateness = 1.0 + crossing * (family.lateness - 1.0)
    tau = BUDGET * crossing * family.saturation * SIZES[assignment["model.checkpoint"]][0] ** 0.4
    tau *= _rank(assignment)[1] * 10 ** (-0.35 * above_best)
    share, whole = (at**lateness / (at**lateness + tau**lateness) for at in (examples, BUDGET))
    return share / whole


def _curve(
    trial_id: str, assignment: dict[str, Any], options: SyntheticOptions, rng: np.random.Generator
) -> Curve:
    final, memory = final_em(assignment), memory_mb(assignment)
    clean = np.array([final * learnt_share(assignment, seen, crossing=options.crossing) for seen in REPORTS])
    noisy = np.clip(clean + options.rung_noise * rng.standard_normal(len(REPORTS)), 0.0, 100.0)
    full_size = FAMILIES[assignment["model.family"]].memory_mb * SIZES[assignment["model.checkpoint"]][0]
    seconds = tuple(1e-3 * seen * full_size**0.6 for seen in REPORTS)
    last = float(np.clip(final + options.final_noise * rng.standard_normal(), 0.0, 100.0))
    forms = _forms(last, memory, seconds[-1], options, rng) if options.forms else ()
    return Curve(
        trial_id=trial_id,
        seed=options.seed,
        assignment=assignment,
        examples_seen=REPORTS,
        train_seconds=seconds,
        rung_values={"em_percent": tuple(noisy.tolist()), "memory_mb": (memory,) * len(REPORTS)},
        final={"em_percent": last, "memory_mb": memory},
        seconds=seconds[-1] * (1 + SCORING * max(1, len(forms))),
        forms=forms,
    )


def _forms(
    em_percent: float, memory: float, seconds: float, options: SyntheticOptions, rng: np.random.Generator
) -> tuple[RecordedForm, ...]:
    """Return the stored forms of a training; the twin is float32."""
    found = []
    for bits, (label, ratio, lost) in FORM_BITS.items():
        noise = 0.0 if bits == UNROUNDED else options.final_noise * rng.standard_normal()
        size = round(memory * ratio, 3)
        kind = f"{AS_SCORED}{label}" if bits == UNROUNDED else label
        final = {"em_percent": float(np.clip(em_percent - lost + noise, 0.0, 100.0)), "memory_mb": size}
        found.append(RecordedForm(label, kind, {"memory_mb": size}, final, SCORING * seconds))
    return tuple(found)


def _method_options(assignment: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the options of the methods of a structural assignment."""
    chosen = {name for identity, value in assignment.items() for name in _methods_in(identity, value)}
    grids = {BITS_ID: ("quantize", BITS), DENSITY_ID: ("static_prune", DENSITIES), RANK_ID: ("lora", RANKS)}
    active = {identity: values for identity, (method, values) in grids.items() if method in chosen}
    for values in itertools.product(*active.values()):
        yield dict(zip(active, values, strict=True))


def _methods_in(identity: str, value: Any) -> tuple[str, ...]:
    return method_names(value) if identity.partition(".")[0] == METHODS_PATH else ()


def _ceiling(assignment: Mapping[str, Any]) -> float:
    ceiling = FAMILIES[assignment["model.family"]].ceiling * SIZES[assignment["model.checkpoint"]][1]
    return ceiling - _bits(assignment)[1] - _density(assignment)[1] - _rank(assignment)[0]


def _bits(assignment: Mapping[str, Any]) -> tuple[float, float]:
    return BITS[assignment[BITS_ID]] if BITS_ID in assignment else (1.0, 0.0)


def _density(assignment: Mapping[str, Any]) -> tuple[float, float]:
    return DENSITIES[assignment[DENSITY_ID]] if DENSITY_ID in assignment else (1.0, 0.0)


def _rank(assignment: Mapping[str, Any]) -> tuple[float, float]:
    return RANKS[assignment[RANK_ID]] if RANK_ID in assignment else (0.0, 1.0)


def _best_rate(assignment: Mapping[str, Any]) -> float:
    shift = LORA_RATE_SHIFT if RANK_ID in assignment else 0.0
    return FAMILIES[assignment["model.family"]].best_rate + shift


def _rate_penalty(assignment: Mapping[str, Any], rate: float) -> float:
    return RATE_PENALTY * (math.log10(rate) - _best_rate(assignment)) ** 2


def _least_penalty(assignment: Mapping[str, Any], options: SyntheticOptions) -> float:
    return (
        min(_rate_penalty(assignment, rate) for rate in options.rates)
        + min(BATCH_SIZES[size] for size in options.sizes)
        + min(WEIGHT_DECAYS[decay] for decay in options.decays)
    )
