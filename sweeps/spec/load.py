"""One YAML file is one complete sweep: its typed form, read strictly.

`load_spec` checks names, types and ranges, and says file, line, nearest and allowed names when it refuses.
What the search space means for families and methods is checked by `sweeps/space/space.py`; what a recipe's settings
mean, by `qa_core/config.py`.
"""

import math
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from qa_core import files, registry
from qa_core.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainConfig, from_dict
from qa_core.errors import ConfigError, DataError, unknown
from sweeps.budget.gpu_shares import AUTO, SHARES
from sweeps.run_folder.masking import has_secret, masked_text
from sweeps.run_folder.trial_files import Kept
from sweeps.spec.objectives import MEASURES, RETIRED, WHY_RETIRED, final_values, measure
from sweeps.spec.source import DOMAIN_KEYS, Location, Source, dotted, entry_ids, is_scalar, read_source

MOST_CHOICES = 10_000  # of one setting
SPEC_FILE = "spec.json"  # in the sweep's folder: the settings that it runs with

# Settings of the recipe that the sweep itself decides.
DECIDED_BY_THE_SWEEP = {
    "train.budget_examples": "set budget.examples instead",
    "train.epochs": "a sweep's budget is budget.examples",
    "train.rungs": "the scheduler sets them",
    "seed": "set the top-level seed instead; each trial's seed derives from it",
}

RECIPE_SECTIONS: Mapping[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "train": TrainConfig,
    "evaluation": EvaluationConfig,
}

MOST = sys.float_info.max
PositiveInt = Annotated[int, Field(strict=True, ge=1)]
Scalar = str | int | float | bool | None


class _Section(BaseModel):
    """A part of the spec: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Objective(_Section):
    """One objective: which way is better, its unit, and from which value on it counts for the hypervolume."""

    name: str
    goal: Literal["min", "max"]
    reference: float | Literal["auto"] = AUTO  # a sweep finds a number for it first: `references.py`
    unit: str | None = None  # None: the unit it is measured in; a different one is refused

    @field_validator("reference", mode="plain")
    @classmethod
    def _is_auto_or_finite(cls, value: Any) -> float | str:
        if value == AUTO:
            return AUTO
        if isinstance(value, bool) or not isinstance(value, int | float) or not -MOST < value < MOST:
            raise ValueError(f"found {value!r}; allowed: {AUTO}, or a finite number")
        return float(value)

    @model_validator(mode="after")
    def _unit_is_the_measured_one(self) -> Self:
        if self.name not in MEASURES and self.name not in RETIRED:
            raise ValueError(unknown("objective", self.name, MEASURES))
        measured = measure(self.name).unit
        if self.unit is not None and self.unit != measured:
            raise ValueError(f"unit: found {self.unit!r}; {self.name} is measured in {measured!r}")
        return self

    @property
    def measured_unit(self) -> str:
        """The unit of its values."""
        return measure(self.name).unit

    @property
    def is_auto(self) -> bool:
        """True while the reference is to be found."""
        return self.reference == AUTO

    @property
    def worst(self) -> float:
        """The reference as a number, in the objective's unit; raises ConfigError while it is `auto`."""
        if self.reference == AUTO:
            raise ConfigError(f"objectives.{self.name}.reference: found {AUTO}; allowed here: a number")
        return float(self.reference)


class SearcherSpec(_Section):
    """Which searcher proposes recipes, with its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class SchedulerSpec(_Section):
    """Which scheduler stops trials early, with its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class Budget(_Section):
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
    max_same_failures: PositiveInt = 5  # so many trials in a row that fail alike end the sweep
    price_per_hour: Annotated[float, Field(gt=0)] | None = (
        None  # of one worker machine, in any currency; for `plan`
    )
    # So often a trial goes on from its checkpoint after its worker's process died; lost nodes do not count.
    max_lost_workers: Annotated[int, Field(strict=True, ge=0)] = 3
    # A trial that trains and evaluates nothing for so long hangs: its worker is ended. At most a year.
    hang_minutes: Annotated[float, Field(gt=0, le=525_600)] = 30.0
    max_disk_gb: Annotated[float, Field(gt=0)] | None = None  # 10^9 bytes, of all trials' files
    keep_artifacts: Kept = "front"  # see `trial_files.py`


class Resources(_Section):
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


class SpaceEntry(_Section):
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


class SweepSpec(_Section):
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


def load_spec(path: str | Path, overrides: Sequence[str] = (), *, scales: Sequence[str] = ()) -> SweepSpec:
    """Read a sweep from YAML.

    Args:
        path: the YAML file.
        overrides: "key=value" each, in order; the key is dotted (`budget.trials`, `recipe.data.train`,
            `objectives.memory_mb.reference`, `space.model.family.choice`), the value is read as YAML.
        scales: names under the file's `scales`, applied in order before the overrides.

    Raises:
        ConfigError: for the file, a key or a value, with its place, what was found and what is allowed.
    """
    source = read_source(path, overrides, scales)
    _check_texts(source.values, source, ())
    try:
        spec = SweepSpec.model_validate(source.values)
    except ValidationError as error:
        raise ConfigError("\n".join(_refusals(error, source))) from error
    spec._source = source
    _check_objectives(spec)
    _check_recipe(spec)
    _check_parts(spec)
    return spec


def stored_spec(folder: Path) -> SweepSpec:
    """Return the settings that a sweep's folder holds.

    Raises:
        DataError: there are none, or this version does not take them.
    """
    from sweeps.run_folder.journal import JOURNAL_FILE
    from sweeps.run_folder.records import RECORDS_FILE

    path = folder / SPEC_FILE
    if files.is_folder(folder) and not any(
        files.is_there(folder / name) for name in (SPEC_FILE, JOURNAL_FILE, RECORDS_FILE)
    ):  # such as after `kill -9` in the first moments
        raise DataError(f"{folder}: no sweep had begun in it; start one there with --out {folder}")
    if files.is_folder(folder) and not files.is_there(path):
        raise DataError(
            f"{path}: settings of the sweep cannot be read: there are none, and trials are on record; allowed: the "
            "file put back, or another sweep in another folder (--out)"
        )
    try:
        values = files.read_json(path, inside=folder)
        spec = SweepSpec.model_validate(values)
    except ValidationError as error:
        raise DataError("\n".join(_refusals(error, Source(str(path), values)))) from error
    except (DataError, ValueError, RecursionError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: settings of the sweep cannot be read: {reason}") from error
    spec._source = Source(str(path), values)
    _check_parts(spec)
    for index, objective in enumerate(spec.objectives):
        if objective.is_auto:  # a sweep stores numbers, and goes on with these
            place = f"{path}: objectives[{index}].reference"
            raise DataError(f"{place}: found {AUTO} or nothing; allowed: a number")
    return spec


def store_spec(spec: SweepSpec, folder: Path) -> None:
    """Write the settings into the sweep's folder; a crash in between leaves the former ones.

    Raises:
        StorageError: the folder cannot be written.
    """
    files.write_json(folder / SPEC_FILE, spec.as_dict(), indent=2)


def _check_texts(values: Any, source: Source, location: Location) -> None:
    """Refuse tokens, passwords and half characters: settings are stored and shown as they are, to be repeated."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            _check_texts(str(name), source, location)
            _check_texts(value, source, (*location, name))
    elif isinstance(values, list):
        for index, value in enumerate(values):
            _check_texts(value, source, (*location, index))
    elif isinstance(values, str) and any("\ud800" <= character <= "\udfff" for character in values):
        raise ConfigError(
            f"{source.place(location)}: {dotted(location)}: found {values!r}; allowed: no lone surrogates"
        )
    elif isinstance(values, str) and has_secret(values):
        raise ConfigError(
            f"{masked_text(source.place(location))}: {masked_text(dotted(location))}: found what looks like a token or "
            "password; allowed: settings without secrets, which are stored with every result. Libraries read theirs "
            "from the environment (HF_TOKEN, MLFLOW_TRACKING_PASSWORD)"
        )


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


def _check_objectives(spec: SweepSpec) -> None:
    """Refuse objectives that only folders of earlier versions may have."""
    for index, objective in enumerate(spec.objectives):
        if objective.name in RETIRED:
            raise ConfigError(
                f"{spec.where('objectives', index, 'name')}: {objective.name!r} is no objective any more: "
                f"{WHY_RETIRED[objective.name]}; allowed: {', '.join(sorted(MEASURES))}"
            )


def _check_recipe(spec: SweepSpec) -> None:
    """Check names and types of the shared settings; ranges may depend on searched ones, see `space`."""
    for setting, instead in DECIDED_BY_THE_SWEEP.items():
        section, _, name = setting.rpartition(".")
        values = spec.recipe.get(section) if section else spec.recipe
        if isinstance(values, Mapping) and name in values:
            raise ConfigError(f"{spec.where('recipe', *setting.split('.'))}: not allowed here; {instead}")
    model = spec.recipe.get("model", {})
    values = dict(spec.recipe)
    if isinstance(model, Mapping):  # the space may choose the family
        values["model"] = {"family": "", **model}
    known = {item.name: item for item in fields(RunConfig)}
    try:
        for name, value in values.items():
            if name not in known:
                raise ConfigError(f"{name}: {unknown('setting', name, known)}")
            if name in RECIPE_SECTIONS:
                from_dict(RECIPE_SECTIONS[name], value, path=name)
            elif name == "methods" and not isinstance(value, Mapping):
                raise ConfigError(f"{name}: expected a mapping of methods to their options, found {value!r}")
            elif name == "methods":
                _check_method_names(value)
    except ConfigError as error:
        location = ("recipe", *str(error).split(":", 1)[0].split("."))
        raise ConfigError(f"{spec._source.place(location)}: recipe.{error}") from error


def _check_method_names(methods: Mapping[str, Any]) -> None:
    """Refuse unknown methods here: where the space chooses among others, nothing else would look at them."""
    for name, options in methods.items():
        if name not in registry.METHODS:
            raise ConfigError(f"methods.{name}: {unknown('method', str(name), registry.METHODS)}")
        if options is not None and not isinstance(options, Mapping):
            raise ConfigError(f"methods.{name}: expected a mapping of options, found {options!r}")


def _check_parts(spec: SweepSpec) -> None:
    """Check references, the options of searcher and scheduler, and that the scheduler can see what it compares."""
    from sweeps.budget.references import why_a_number
    from sweeps.registry import scheduler_class, searcher_class

    for index, objective in enumerate(spec.objectives):
        if objective.is_auto and (why := why_a_number(objective)) is not None:
            place = spec.where("objectives", index, "reference")
            raise ConfigError(f"{place}: found {AUTO}, and {why}; allowed: a number")
    try:
        searcher_class(spec.searcher.name).check_options(spec.searcher.options)
    except ConfigError as error:
        raise _placed(spec, "searcher", error) from error
    try:
        scheduler = scheduler_class(spec.scheduler.name).from_options(spec.scheduler.options)
        scheduler.check(spec.objectives, spec.budget.examples)
    except ConfigError as error:
        raise _placed(spec, "scheduler", error) from error


def _placed(spec: SweepSpec, section: str, error: ConfigError) -> ConfigError:
    """Return the error with its place: that of the option it begins with, or of the section's name."""
    location = str(error).split(":", 1)[0].split(".")
    if location[0] == section:
        return ConfigError(f"{spec._source.place(location)}: {error}")
    return ConfigError(f"{spec.where(section, 'name')}: {error}")


def _refusals(error: ValidationError, source: Source) -> Iterator[str]:
    for item in error.errors():
        location: Location = tuple(part for part in item["loc"] if part not in ("function-after", "nullable"))
        name = dotted(location)
        if item["type"] == "extra_forbidden":
            text = f"{name}: {unknown('setting', str(location[-1]), _allowed_at(location[:-1]))}"
        elif item["type"] == "missing":
            text = f"{name}: missing, and it has no default"
        elif item["type"] == "value_error":
            text = f"{name}: {item['ctx']['error']}"
        else:
            text = f"{name}: {item['msg'][0].lower()}{item['msg'][1:]}, found {item['input']!r}"
        yield f"{source.place(location)}: {text}"


def _allowed_at(location: Location) -> list[str]:
    """Return the names that the section at `location` knows, as written in YAML."""
    section: type[BaseModel] = SweepSpec
    for part in location:
        if isinstance(part, str):
            section = next(inner for inner in _sections_of(_field(section, part).annotation))
    return [item.alias or name for name, item in section.model_fields.items()]


def _field(section: type[BaseModel], name: str) -> Any:
    return next(item for key, item in section.model_fields.items() if name in (key, item.alias))


def _sections_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for inner in typing.get_args(annotation):
        yield from _sections_of(inner)


__all__ = [
    "Budget",
    "Objective",
    "Resources",
    "SpaceEntry",
    "SweepSpec",
    "entry_ids",
    "load_spec",
    "store_spec",
    "stored_spec",
]
