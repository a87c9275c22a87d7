"""One YAML file is one complete sweep: its sections, with their types, defaults and ranges.

What a file must say beside that is checked in `load.py`; what an objective is, in `objectives.py`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from qa_core.values import Setting, shown
from sweeps.run_folder.trial_files import Kept
from sweeps.spec.objectives import AUTO, Objective, final_values
from sweeps.spec.section import Section
from sweeps.spec.source import DOMAIN_KEYS, Source, dotted, is_scalar

# Of a GPU. Powers of two: freed shares add up to larger ones, and workers are reused, which Ray does among equal
# shares.
SHARES: Final = (0.125, 0.25, 0.5, 1.0)
MOST_CHOICES = 10_000  # of one setting
EXACTLY = "is"  # {is: lora} in a condition on methods: this product and no other

# Settings of the recipe that the sweep itself decides.
DECIDED_BY_THE_SWEEP = {
    "train.budget_examples": "set budget.examples instead",
    "train.epochs": "a sweep's budget is budget.examples",
    "train.rungs": "the scheduler sets them",
    "seed": "set the top-level seed instead; each trial's seed derives from it",
}


class SearcherSpec(Section):
    """Which searcher proposes recipes, with its options."""

    name: Annotated[str, Setting("What proposes recipes.")]
    options: Annotated[
        dict[str, Any], Setting("The searcher's own options, below as searcher.options.NAME.")
    ] = Field(default_factory=dict)
    first: Annotated[
        list[dict[str, Any]],
        Setting(
            "Recipes that are proposed before the searcher's own: searched settings with their values, named as in "
            "the assignment of a record. --start-from adds those of another sweep's front."
        ),
    ] = Field(default_factory=list)


class SchedulerSpec(Section):
    """Which scheduler stops trials early, with its options."""

    name: Annotated[str, Setting("What stops trials early.")]
    options: Annotated[
        dict[str, Any], Setting("The scheduler's own options, below as scheduler.options.NAME.")
    ] = Field(default_factory=dict)


class Budget(Section):
    """How much the sweep may spend: trials, and `examples_seen` by each trial that is not stopped.

    With `examples: 0` nothing is trained: an artifact that `model.checkpoint` names is stored in other forms, and each
    is loaded back, scored and measured. There are no rungs then.
    """

    trials: Annotated[int, Setting("How many recipes are tried.", "trials", at_least=1)]
    examples: Annotated[
        int,
        Setting(
            "Training windows that a trial consumes unless it is stopped. 0 trains nothing: an artifact that "
            "model.checkpoint names is stored in other forms.",
            "windows",
            at_least=0,
        ),
    ]
    total_examples: Annotated[
        int | None,
        Setting(
            "Training windows that all trials consume together, each teacher once, before the sweep ends. null: no "
            "limit.",
            "windows",
            at_least=0,
        ),
    ] = None
    concurrent: Annotated[
        int | None, Setting("Trials at a time. null: as many as the resources hold.", "trials", at_least=1)
    ] = None
    time_minutes: Annotated[
        float | None,
        Setting(
            "After this time the sweep ends; running trials write checkpoints. null: no limit.",
            "minutes",
            above=0,
        ),
    ] = None
    max_memory_mb: Annotated[
        float | None,
        Setting(
            "Recipes whose deployed form needs more are not trained; as the objective memory_mb, for one window at a "
            "time. null: no limit.",
            "MB (10^6 bytes)",
            above=0,
        ),
    ] = None
    max_same_failures: Annotated[
        int, Setting("Consecutive trials that fail alike, after which the sweep ends.", "trials", at_least=1)
    ] = 5
    price_per_hour: Annotated[
        float | None,
        Setting(
            "Price of one worker machine, for the costs that the command plan shows. null: none are shown.",
            "any currency",
            above=0,
        ),
    ] = None
    max_lost_workers: Annotated[
        int,
        Setting(
            "How often a trial may resume from its checkpoint after its worker process died; lost nodes do not count.",
            "times",
            at_least=0,
        ),
    ] = 3
    hang_minutes: Annotated[
        float,
        Setting(
            "A trial that neither trains nor evaluates for this long hangs: its worker is ended. At most a year.",
            "minutes",
            above=0,
            at_most=525_600,
        ),
    ] = 30.0
    max_disk_gb: Annotated[
        float | None,
        Setting(
            "The sweep ends when all trials' files take more disk. null: no limit.",
            "GB (10^9 bytes)",
            above=0,
        ),
    ] = None
    keep_artifacts: Annotated[
        Kept,
        Setting("front removes the artifacts of trials that are beaten; all keeps every artifact."),
    ] = "front"

    @model_validator(mode="after")
    def _a_trial_fits_into_the_total(self) -> Self:
        if self.total_examples is not None and self.total_examples < self.examples:
            raise ValueError(
                f"total_examples: found {self.total_examples}; allowed: at least examples = {self.examples}, so that "
                "one trial can be trained to its end"
            )
        return self


class Resources(Section):
    """What one trial occupies; fractions share a device, `auto` gives each trial the share that it needs."""

    cpus_per_trial: Annotated[float, Setting("CPU cores of one trial.", "cores", above=0)] = 1.0
    gpus_per_trial: Annotated[
        Literal["auto"] | float,
        Setting(
            "GPUs of one trial; fractions share one. auto: 1/8, 1/4, 1/2 or all of a GPU, from the predicted memory of "
            "its training.",
            "GPUs",
            at_least=0,
        ),
    ] = 0.0
    gpu_memory_gb: Annotated[
        float | None,
        Setting(
            "Memory of the smallest GPU; only with gpus_per_trial auto. null: what the nodes report.",
            "GB (10^9 bytes)",
            above=0,
        ),
    ] = None

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

    path: Annotated[str, Setting("Dotted path of a recipe's setting, such as train.learning_rate.")] = Field(
        alias="set"
    )
    choice: Annotated[
        list[Any] | None, Setting("The values to choose from: text, numbers, true, false, null.")
    ] = None
    value: Annotated[
        Any,
        Setting(
            "One value, set wherever `when` holds: short for a choice of one. A value of every recipe stands under "
            "recipe instead."
        ),
    ] = Field(default=None, exclude=True)
    uniform: Annotated[list[float] | None, Setting("[low, high]: a number, evenly.")] = None
    log_uniform: Annotated[
        list[float] | None, Setting("[low, high]: a number above 0, evenly on the logarithmic scale.")
    ] = None
    int_range: Annotated[
        list[Annotated[int, Field(strict=True)]] | None,
        Setting("[low, high]: a whole number, both ends included."),
    ] = Field(default=None, alias="int")
    log: Annotated[bool, Setting("For int: true draws evenly on the logarithmic scale.")] = False
    when: Annotated[
        dict[str, Any],
        Setting(
            "Conditions, all of which must hold: path of an earlier choice -> a value or a list of values. For "
            "methods, lora holds for every product with lora, such as lora+quantize; {is: lora} holds for lora alone, "
            "and {is: [lora, lora+quantize]} for exactly these two."
        ),
    ] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _value_is_a_choice_of_one(cls, entry: Any) -> Any:
        """Read `value: X` as `choice: [X]`, so that a stored spec, and all that reads it, knows choices alone."""
        if not isinstance(entry, Mapping) or "value" not in entry:
            return entry
        if others := [name for name in DOMAIN_KEYS if name in entry and name != "value"]:
            raise ValueError(_one_domain(["value", *others]))
        if not entry.get("when"):
            raise ValueError("value: found without when; allowed: with a condition, else under recipe")
        rest = {name: item for name, item in entry.items() if name != "value"}
        return {**rest, "choice": [entry["value"]]}

    @field_validator("when")
    @classmethod
    def _conditions_are_lists(cls, when: dict[str, Any]) -> dict[str, Any]:
        return {path: _condition(path, value) for path, value in when.items()}

    @model_validator(mode="after")
    def _has_one_domain(self) -> Self:
        bounds = {"uniform": self.uniform, "log_uniform": self.log_uniform, "int": self.int_range}
        domains = {"choice": self.choice, **bounds}
        given = [name for name, value in domains.items() if value is not None]
        if len(given) != 1:
            raise ValueError(_one_domain(given))
        if self.choice is not None:
            _check_choices(self.choice)
        else:
            _check_bounds(given[0], bounds[given[0]] or [], log=self.log or given[0] == "log_uniform")
        if self.log and self.int_range is None:
            raise ValueError("log: only for `int`; a logarithmic float range is `log_uniform`")
        return self


class SweepSpec(Section):
    """A complete sweep. `recipe` holds nested `RunConfig` values that all trials share."""

    name: Annotated[
        str, Setting("Name of the sweep and of its run folder.", pattern="[A-Za-z0-9][A-Za-z0-9_.-]*")
    ]
    seed: Annotated[int, Setting("Seed of the sweep; each trial's derives from it.", at_least=0)] = 0
    objectives: Annotated[
        list[Objective], Field(min_length=1, max_length=4), Setting("What is optimised: 1 to 4 objectives.")
    ]
    searcher: SearcherSpec
    scheduler: SchedulerSpec
    budget: Budget
    resources: Resources = Resources()
    recipe: Annotated[
        dict[str, Any],
        Setting("Settings that all trials share: model, methods, data, train, evaluation, device."),
    ] = Field(default_factory=dict)
    forms: Annotated[
        dict[str, dict[str, list[Any]]],
        Setting(
            "Stored forms of each trained network: method -> option -> list of values, each legal combination once. "
            "quantize is added to every recipe that can take it; options of another method apply where a recipe has "
            "the method. Only options that act after training. None: each recipe is stored as it says."
        ),
    ] = Field(default_factory=dict)
    space: Annotated[
        list[SpaceEntry],
        Setting("Settings that are searched, in order; each with one domain and its conditions."),
    ] = Field(default_factory=list)
    target: Annotated[
        float | None,
        Setting(
            "How much exact match a smaller model must keep of the best network as trained: the smallest that does is "
            "named at the end. Also written as 99 %. null: none is named.",
            "%",
            above=0,
            at_most=100,
        ),
    ] = None

    _source: Source = PrivateAttr(default_factory=lambda: Source("spec", {}))
    _notes: tuple[str, ...] = PrivateAttr(default=())

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of how these settings came to be; not stored."""
        return self._notes

    @field_validator("objectives")
    @classmethod
    def _objectives_differ(cls, objectives: list[Objective]) -> list[Objective]:
        names = [objective.name for objective in objectives]
        if len(set(names)) != len(names):
            raise ValueError(f"an objective stands twice: {', '.join(names)}")
        return objectives

    @field_validator("target", mode="before")
    @classmethod
    def _target_in_percent(cls, written: Any) -> Any:
        if not (isinstance(written, str) and written.endswith("%")):
            return written
        try:
            return float(written.removesuffix("%"))
        except ValueError:
            return written

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

    def beginning_with(self, first: Sequence[Mapping[str, Any]], *, notes: Sequence[str]) -> Self:
        """Return the sweep with these recipes as its first ones, and notes on where they are from."""
        searcher = self.searcher.model_copy(update={"first": [dict(item) for item in first]})
        found = self.model_copy(update={"searcher": searcher})
        found._notes = (*self._notes, *notes)
        return found

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


def _one_domain(found: Sequence[str]) -> str:
    return f"expected exactly one of {', '.join(DOMAIN_KEYS)}, found {', '.join(found) or 'none'}"


def _condition(path: str, written: Any) -> tuple[Any, ...] | dict[str, tuple[Any, ...]]:
    """Return the values of a condition, in {"is": ...} where exactly these are meant; raises ValueError."""
    values = written
    if isinstance(written, Mapping):
        if list(written) != [EXACTLY]:
            raise ValueError(
                f"{path}: found {shown(written)}; allowed: a value, a list of values, or {{{EXACTLY}: ...}}"
            )
        values = written[EXACTLY]
    found = tuple(values) if isinstance(values, list | tuple) else (values,)
    if not found or not all(map(is_scalar, found)):
        raise ValueError(
            f"{path}: found {shown(written)}; allowed: text, numbers, true, false, null, or a list of these"
        )
    return {EXACTLY: found} if isinstance(written, Mapping) else found


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
