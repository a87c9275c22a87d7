"""From a YAML file, or from the file that a sweep's folder holds, to a checked spec.

`load_spec` checks names, types and ranges, and says file, line, nearest and allowed names when it refuses.
What the search space means for families and methods is checked by `sweeps/space/space.py`; what a recipe's settings
mean, by `qa_core/config.py`.
"""

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from qa_core import files, registry
from qa_core.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainConfig
from qa_core.errors import ConfigError, DataError, unknown
from qa_core.values import convert, from_dict, hints_of, shown, split
from sweeps import registry as parts
from sweeps.run_folder.layout import JOURNAL_FILE, RECORDS_FILE, SPEC_FILE, RunFolder
from sweeps.run_folder.masking import has_secret, masked_text
from sweeps.spec.objectives import MEASURES, RETIRED, WHY_RETIRED, why_a_number
from sweeps.spec.sections import AUTO, DECIDED_BY_THE_SWEEP, SweepSpec
from sweeps.spec.source import Location, Source, dotted, overridden, read_source, source_of

UNKNOWN_SETTING = re.compile(r"unknown setting '(?P<name>\w+)'(; did you mean '[^']*'\?)?")
MOST_PLACES = 3  # that a refusal names
RECIPE_SECTIONS: Mapping[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "train": TrainConfig,
    "evaluation": EvaluationConfig,
}


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
    return _checked(read_source(path, overrides, scales))


def spec_of(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, scales: Sequence[str] = ()
) -> SweepSpec:
    """Return the sweep of settings that stand in no file; otherwise as `load_spec`.

    Args:
        values: what a YAML file holds, as nested mappings and lists of plain values.
    """
    return _checked(source_of(values, overrides, scales))


def _checked(source: Source) -> SweepSpec:
    _check_texts(source.values, source, ())
    try:
        spec = SweepSpec.model_validate(source.values)
    except ValidationError as error:
        raise ConfigError("\n".join(_refusals(error, source))) from error
    spec._source = source
    _check_objectives(spec)
    _check_recipe(spec)
    _check_forms(spec)
    _check_parts(spec)
    return spec


def stored_spec(folder: Path) -> SweepSpec:
    """Return the settings that a sweep's folder holds.

    Raises:
        DataError: there are none, or this version does not take them.
    """
    path = RunFolder(folder).spec
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


def forms_to_add(spec: SweepSpec, overrides: Sequence[str]) -> SweepSpec:
    """Return a stored sweep with these lists of stored forms in place of its own.

    Args:
        overrides: "forms.METHOD.OPTION=[...]" each, or "forms={...}".

    Raises:
        ConfigError: another setting is named, none is, or a list is refused.
    """
    values = {name: item for name, item in spec.as_dict().items() if name != "forms"}
    source = overridden(values, overrides)
    for key, override in source.overrides.items():
        if key[0] != "forms":
            raise ConfigError(f"{override}: found {dotted(key)}; allowed: forms.METHOD.OPTION=[...]")
    if not source.overrides:
        raise ConfigError("--set: found none; allowed: --set forms.METHOD.OPTION=[...], once or more often")
    try:
        found = SweepSpec.model_validate(source.values)
    except ValidationError as error:
        raise ConfigError("\n".join(_refusals(error, source))) from error
    found._source = source
    _check_forms(found)
    return found


def store_spec(spec: SweepSpec, folder: Path) -> None:
    """Write the settings into the sweep's folder; a crash in between leaves the former ones.

    Raises:
        StorageError: the folder cannot be written.
    """
    files.write_json(RunFolder(folder).spec, spec.as_dict(), indent=2)


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
        raise ConfigError(f"{spec._source.place(location)}: recipe.{_with_place(str(error))}") from error


def _check_method_names(methods: Mapping[str, Any]) -> None:
    """Refuse unknown methods here: where the space chooses among others, nothing else would look at them."""
    for name, options in methods.items():
        if name not in registry.METHODS:
            raise ConfigError(f"methods.{name}: {unknown('method', str(name), registry.METHODS)}")
        if options is not None and not isinstance(options, Mapping):
            raise ConfigError(f"methods.{name}: expected a mapping of options, found {options!r}")


def _check_forms(spec: SweepSpec) -> None:
    """Check the lists of stored forms: names, ranges, and that each value goes with some of the others."""
    for name, options in spec.forms.items():
        place = spec.where("forms", name)
        if name not in registry.METHODS:
            raise ConfigError(f"{place}: {unknown('method', name, registry.METHODS)}")
        kind = registry.method_class(name)
        if not kind.after_training:
            able = [item for item in registry.METHODS if registry.method_class(item).after_training]
            raise ConfigError(
                f"{place}: no option of {name!r} acts after training; allowed: options of {', '.join(able)}"
            )
        if not options:
            raise ConfigError(f"{place}: found nothing; allowed: options with lists of values")
        known = [item.name for item in fields(kind.Options)]
        for option, values in options.items():
            place = spec.where("forms", name, option)
            if option not in known:
                raise ConfigError(f"{place}: {unknown('option', option, sorted(kind.after_training))}")
            if option not in kind.after_training:
                raise ConfigError(
                    f"{place}: acts in training, so that each value is another training; search it under space. "
                    f"Allowed here: {', '.join(sorted(kind.after_training))}"
                )
            _check_listed(values, kind.Options, option, place)
        _check_goes_together(spec, name)


def _check_listed(values: list[Any], options: type, option: str, place: str) -> None:
    """Check the values of one option: a list that is not empty, each in range, each once."""
    if not values:
        raise ConfigError(f"{place}: the list is empty; allowed: at least one value")
    hint, setting = split(hints_of(options)[option])
    for index, value in enumerate(values):
        here = f"{place}[{index}]"
        found = convert(hint, value, here, strict=True)
        if setting is not None:
            setting.check(hint, found, here)
        if any(type(value) is type(other) and value == other for other in values[:index]):
            raise ConfigError(f"{here}: {value!r} stands twice")


def _check_goes_together(spec: SweepSpec, name: str) -> None:
    """Refuse a value with which no combination of the method's listed options is legal."""
    options = spec.forms[name]
    kind = registry.method_class(name)
    refused: dict[tuple[str, int], ConfigError] = {}
    legal: set[tuple[str, int]] = set()
    for places in product(*(range(len(values)) for values in options.values())):
        chosen = dict(zip(options, places, strict=True))
        try:
            kind.from_options({option: options[option][place] for option, place in chosen.items()})
            legal |= set(chosen.items())
        except ConfigError as error:
            for item in chosen.items():
                refused.setdefault(item, error)
    for (option, index), why in refused.items():
        if (option, index) not in legal:
            raise ConfigError(
                f"{spec.where('forms', name, option)}[{index}]: {options[option][index]!r} goes with none of the other "
                f"values: {why}"
            ) from why


def _check_parts(spec: SweepSpec) -> None:
    """Check references, the options of searcher and scheduler, and that the scheduler can see what it compares."""
    for index, objective in enumerate(spec.objectives):
        if objective.is_auto and (why := why_a_number(objective)) is not None:
            place = spec.where("objectives", index, "reference")
            raise ConfigError(f"{place}: found {AUTO}, and {why}; allowed: a number")
    try:
        parts.searcher_class(spec.searcher.name).check_options(spec.searcher.options)
    except ConfigError as error:
        raise _placed(spec, "searcher", error) from error
    try:
        scheduler = parts.scheduler_class(spec.scheduler.name).from_options(spec.scheduler.options)
        scheduler.check(spec.objectives, spec.budget.examples)
    except ConfigError as error:
        raise _placed(spec, "scheduler", error) from error


def _placed(spec: SweepSpec, section: str, error: ConfigError) -> ConfigError:
    """Return the error with its place: that of the option it begins with, or of the section's name."""
    location = str(error).split(":", 1)[0].split(".")
    if location[0] == section:
        return ConfigError(f"{spec._source.place(location)}: {error}")
    return ConfigError(f"{spec.where(section, 'name')}: {error}")


def why_refused(problem: Mapping[str, Any]) -> str:
    """Return what pydantic found wrong with a value, in the wording of all refusals.

    Args:
        problem: one of `ValidationError.errors()`.
    """
    if problem["type"] == "missing":
        return "missing, and it has no default"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"{problem['msg'][0].lower()}{problem['msg'][1:]}, found {shown(problem['input'])}"


def _refusals(error: ValidationError, source: Source) -> Iterator[str]:
    for item in error.errors():
        location: Location = tuple(part for part in item["loc"] if part not in ("function-after", "nullable"))
        name = dotted(location)
        if item["type"] == "extra_forbidden":
            text = f"{name}: {unknown('setting', str(location[-1]), _allowed_at(location[:-1]))}"
        else:
            text = f"{name}: {why_refused(item)}"
        yield f"{source.place(location)}: {_with_place(text)}"


def _with_place(text: str) -> str:
    """Return a refusal that names where an unknown setting would be known, such as budget.trials for trials."""
    from sweeps.spec.catalogue import paths_ending_in

    found = UNKNOWN_SETTING.search(text)
    places = paths_ending_in(found["name"]) if found else []
    if found is None or not places:
        return text
    named = " or ".join(map(repr, places[:MOST_PLACES]))
    return f"{text[: found.start()]}unknown setting {found['name']!r}; did you mean {named}?{text[found.end() :]}"


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
