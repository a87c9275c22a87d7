"""One YAML file is one complete sweep: its sections, with their types, defaults and ranges.

What a file must say beside that is checked in `load.py`; what an objective is, in `objectives.py`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from sweeps.run_folder.trial_files import Kept
from sweeps.spec.objectives import AUTO, Objective, final_values
from sweeps.spec.section import Section
from sweeps.spec.source import DOMAIN_KEYS, Source, dotted, is_scalar

# Of a GPU. Powers of two: freed shares add up to larger ones, and workers are reused, which Ray does among equal
# shares.
SHARES: Final = (0.125, 0.25, 0.5, 1.0)
MOST_CHOICES = 10_000  # of one setting

# Settings of the recipe that the sweep itself decides.
DECIDED_BY_THE_SWEEP = {
    "train.budget_examples": "set budget.examples instead",
    "train.epochs": "a sweep's budget is budget.examples",
    "train.rungs": "the scheduler sets them",
    "seed": "set the top-level seed instead; each trial's seed derives from it",
}

PositiveInt = Annotated[int, Field(strict=True, ge=1)]


class SearcherSpec(Section):
    """Which searcher proposes recipes, with its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class SchedulerSpec(Section):
    """Which scheduler stops trials early, with its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class Budget(Section):
    """How much the sweep may spend: trials, and `examples_seen` by each trial that is not stopped.

    With `examples: 0` nothing is trained: an artifact that `model.checkpoint` names is stored in other forms, and each
    is loaded back, scored and measured. There are no rungs then.
    """

    trials: PositiveInt
    examples: Annotated[int, Field(strict=True, ge=0)]
    concurrent: PositiveInt | None = None  # None: as many as the resources hold
    time_minutes: Annotated[float, Field(gt=0)] | None = None
    max_memory_mb: Annotated[float, Field(gt=0)] | None = (
        None  # of the objective `memory_mb`: one window at a time
    )
    max_same_failures: PositiveInt = 5  # consecutive trials that fail alike, after which the sweep ends
    price_per_hour: Annotated[float, Field(gt=0)] | None = (
        None  # of one worker machine, in any currency; for `plan`
    )
    # How often a trial may resume after its worker process dies; lost nodes do not count.
    max_lost_workers: Annotated[int, Field(strict=True, ge=0)] = 3
    # A trial without training or evaluation for this time hangs: its worker is ended. At most a year.
    hang_minutes: Annotated[float, Field(gt=0, le=525_600)] = 30.0
    max_disk_gb: Annotated[float, Field(gt=0)] | None = None  # 10^9 bytes, of all trials' files
    keep_artifacts: Kept = "front"  # see `trial_files.py`


class Resources(Section):
    """What one trial occupies; fractions share a device, `auto` gives each trial the share that it needs."""

    cpus_per_trial: Annotated[float, Field(gt=0)] = 1.0
    gpus_per_trial: float | Literal["auto"] = 0.0
    gpu_memory_gb: Annotated[float, Field(gt=0)] | None = None  # for `auto`; None: as the nodes say

    @field_validator("gpus_per_trial", mode="plain")
    @classmethod
    def _is_auto_or_a_number(cls, value: Any) -> float | str:
        if value == AUTO:
            return AUTO
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"found {value!r}; allowed: {AUTO}, or a number of at least 0")
        return float(value)

    @model_validator(mode="after")
    def _memory_is_for_auto(self) -> Self:
        if self.gpu_memory_gb is not None and not self.is_auto:
            raise ValueError(
                f"gpu_memory_gb: found {self.gpu_memory_gb:g} beside gpus_per_trial {self.gpus_per_trial:g}; allowed: "
                f"with gpus_per_trial {AUTO}"
            )
        return self

    @property
    def is_auto(self) -> bool:
        """True when each trial is given the share of a GPU that its training is predicted to need."""
        return self.gpus_per_trial == AUTO

    @property
    def least_gpus(self) -> float:
        """GPUs that a trial occupies, at least."""
        return SHARES[0] if self.gpus_per_trial == AUTO else float(self.gpus_per_trial)

    @property
    def wants_gpus(self) -> bool:
        """True when trials occupy GPUs."""
        return self.least_gpus > 0


class SpaceEntry(Section):
    """One searched setting: a dotted path of the recipe, one domain, and when it applies."""

    path: str = Field(alias="set")
    choice: list[Any] | None = None
    uniform: list[float] | None = None
    log_uniform: list[float] | None = None
    int_range: list[Annotated[int, Field(strict=True)]] | None = Field(default=None, alias="int")
    log: bool = False  # for `int`: even on the logarithmic scale
    when: dict[str, Any] = Field(default_factory=dict)

    @field_validator("when")
    @classmethod
    def _conditions_are_lists(cls, when: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
        return {path: tuple(value) if isinstance(value, list) else (value,) for path, value in when.items()}

    @model_validator(mode="after")
    def _has_one_domain(self) -> Self:
        bounds = {"uniform": self.uniform, "log_uniform": self.log_uniform, "int": self.int_range}
        domains = {"choice": self.choice, **bounds}
        given = [name for name, value in domains.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of {', '.join(DOMAIN_KEYS)}, found {', '.join(given) or 'none'}"
            )
        if self.choice is not None:
            _check_choices(self.choice)
        else:
            _check_bounds(given[0], bounds[given[0]] or [], log=self.log or given[0] == "log_uniform")
        if self.log and self.int_range is None:
            raise ValueError("log: only for `int`; a logarithmic float range is `log_uniform`")
        return self


class SweepSpec(Section):
    """A complete sweep. `recipe` holds nested `RunConfig` values that all trials share."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    seed: Annotated[int, Field(strict=True, ge=0)] = 0
    objectives: Annotated[list[Objective], Field(min_length=1, max_length=4)]
    searcher: SearcherSpec
    scheduler: SchedulerSpec
    budget: Budget
    resources: Resources = Resources()
    recipe: dict[str, Any] = Field(default_factory=dict)
    space: list[SpaceEntry] = Field(default_factory=list)

    _source: Source = PrivateAttr(default_factory=lambda: Source("spec", {}))

    @field_validator("objectives")
    @classmethod
    def _objectives_differ(cls, objectives: list[Objective]) -> list[Objective]:
        names = [objective.name for objective in objectives]
        if len(set(names)) != len(names):
            raise ValueError(f"an objective stands twice: {', '.join(names)}")
        return objectives

    def where(self, *location: str | int) -> str:
        """Return "file.yaml:12: space[2].when": the place and name of a setting, to begin an error with."""
        return f"{self._source.place(location)}: {dotted(location)}"

    def with_references(self, references: Mapping[str, float]) -> Self:
        """Return the sweep with these references for the objectives that are named."""
        objectives = [
            item.model_copy(update={"reference": references.get(item.name, item.reference)})
            for item in self.objectives
        ]
        return self.model_copy(update={"objectives": objectives})

    def measured_objectives(self, result: Mapping[str, Any]) -> dict[str, float]:
        """Return the objectives of a finished trial by name; raises DataError when one is missing.

        Args:
            result: a `RunResult` in its JSON form.
        """
        names = [objective.name for objective in self.objectives]
        return final_values(names, quality=result["quality"], cost=result["cost"])

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, overrides applied; `SweepSpec.model_validate` reads them back."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _check_choices(values: list[Any]) -> None:
    if not values:
        raise ValueError("choice: the list is empty")
    wrong = [value for value in values if not is_scalar(value)]
    if wrong:
        raise ValueError(f"choice: found {wrong[0]!r}; allowed: text, numbers, true, false, null")
    if len(values) > MOST_CHOICES:
        raise ValueError(f"choice: found {len(values)} values; allowed: at most {MOST_CHOICES}")
    seen: set[tuple[type, Any]] = set()
    for value in values:
        if (type(value), value) in seen:
            raise ValueError(f"choice: {value!r} stands twice")
        seen.add((type(value), value))


def _check_bounds(name: str, bounds: Sequence[float], *, log: bool) -> None:
    if len(bounds) != 2 or not all(map(math.isfinite, bounds)) or bounds[0] >= bounds[1]:
        raise ValueError(f"{name}: found {list(bounds)}; allowed: [low, high] with low < high")
    if log and bounds[0] <= 0:
        raise ValueError(f"{name}: found {list(bounds)}; a logarithmic range starts above 0")
