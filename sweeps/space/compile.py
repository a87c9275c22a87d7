"""From a spec to its space, checked: settings exist, conditions make sense, combinations are legal.

Only parameters that decide legality are walked in full: those of `model.*`, `methods`, and every parameter
that a condition names. All others are checked at their extremes and on a few random recipes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.errors import ConfigError, IllegalCombination, unknown
from qa_core.seeding import numpy_generator
from qa_core.values import from_dict
from sweeps.space.domains import Choice, Domain, FloatRange, IntRange
from sweeps.space.first import assignment_of
from sweeps.space.paths import FAMILY_PATH, METHODS_PATH, NO_METHOD, method_names
from sweeps.space.settings import check_domain_type, check_method_choices, setting_type
from sweeps.space.space import Condition, Dropped, Parameter, Space, recipe_values
from sweeps.spec.sections import EXACTLY, SpaceEntry, SweepSpec
from sweeps.spec.source import entry_ids

MAX_COMBINATIONS = 100_000
RANDOM_CHECKS = 32


def compile_space(spec: SweepSpec) -> Space:
    """Check a spec's search space against recipes, families and methods, and build it.

    Illegal combinations of family, head and methods are left out and listed in `Space.dropped`.

    Raises:
        ConfigError: a setting does not exist, a value is refused, a condition is not about an earlier
            parameter, two entries of one setting can be active together, a method's option applies
            without its method, or no legal combination is left.
    """
    parameters = _parameters(spec)
    structural = _structural(parameters)
    walked = _walk(spec, structural)
    _check_overlaps(spec, parameters, walked)
    _check_set_once(spec, parameters)
    _check_family_is_set(spec, parameters)
    legal, dropped = [], []
    for assignment in walked:
        reason = _illegality(spec, parameters, assignment)
        if reason is None:
            legal.append(assignment)
        else:
            dropped.append(Dropped(assignment, reason))
    dropped = _merge(dropped, legal, structural)
    if not legal:
        reasons = "; ".join(item.reason for item in dropped[:3])
        raise ConfigError(
            f"{spec.where('space')}: no legal combination of family, head and methods: {reasons}"
        )
    space = Space(
        parameters,
        recipe=spec.recipe,
        budget_examples=spec.budget.examples,
        legal=legal,
        structural=[parameter.id for parameter in structural],
        dropped=dropped,
    )
    _check_values(spec, space)
    _check_first(spec, space)
    return space


def _parameters(spec: SweepSpec) -> list[Parameter]:
    ids = entry_ids([entry.path for entry in spec.space])
    parameters: list[Parameter] = []
    for index, (identity, entry) in enumerate(zip(ids, spec.space, strict=True)):
        place = spec.where("space", index)
        hint = setting_type(entry.path, f"{spec.where('space', index, 'set')}: {entry.path}")
        domain = _domain(entry)
        if entry.path == METHODS_PATH:
            check_method_choices(entry, spec.where("space", index))
        check_domain_type(domain, hint, f"{place} ({entry.path})")
        conditions = tuple(
            _condition(path, values, parameters, spec.where("space", index, "when", path))
            for path, values in entry.when.items()
        )
        parameters.append(Parameter(identity, entry.path, domain, conditions))
    return parameters


def _domain(entry: SpaceEntry) -> Domain:
    if entry.choice is not None:
        return Choice(tuple(entry.choice))
    if entry.int_range is not None:
        return IntRange(entry.int_range[0], entry.int_range[1], entry.log)
    bounds = entry.uniform or entry.log_uniform or []
    return FloatRange(bounds[0], bounds[1], log=entry.log_uniform is not None)


def _condition(path: str, written: Any, earlier: Sequence[Parameter], place: str) -> Condition:
    exactly = isinstance(written, Mapping)
    values: Sequence[Any] = written[EXACTLY] if exactly else written
    if exactly and path != METHODS_PATH:
        raise ConfigError(
            f"{place}: found {{{EXACTLY}: ...}}; allowed: for {METHODS_PATH} alone, every other value is compared whole"
        )
    searched = [parameter for parameter in earlier if parameter.path == path]
    if not searched:
        raise ConfigError(f"{place}: {unknown('earlier parameter', path, {item.path for item in earlier})}")
    known: list[Any] = []
    for parameter in searched:
        if not isinstance(parameter.domain, Choice):
            raise ConfigError(f"{place}: a condition can only name a choice; {path} is a range")
        known.extend(parameter.domain.values)
    # A family or method that exists but is not searched is no mistake: the choice may have been narrowed.
    if path == METHODS_PATH:
        allowed = [*registry.METHODS, NO_METHOD]
        found = [name for value in values for name in (method_names(value) or (NO_METHOD,))]
    else:
        allowed = [*known, *(registry.FAMILIES if path == FAMILY_PATH else ())]
        found = list(values)
    for value in found:
        if not any(type(value) is type(item) and value == item for item in allowed):
            raise ConfigError(f"{place}: {unknown('value', str(value), {str(item) for item in allowed})}")
    return Condition(path, tuple(parameter.id for parameter in searched), tuple(values), exactly)


def _structural(parameters: Sequence[Parameter]) -> list[Parameter]:
    named = {identity for item in parameters for condition in item.conditions for identity in condition.ids}
    return [
        item
        for item in parameters
        if isinstance(item.domain, Choice)
        and (item.id in named or item.path == METHODS_PATH or item.path.startswith("model."))
    ]


def _walk(spec: SweepSpec, structural: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Return every assignment of the structural parameters, legal or not."""
    assignments: list[dict[str, Any]] = [{}]
    for parameter in structural:
        assert isinstance(parameter.domain, Choice)
        extended = []
        for assignment in assignments:
            if parameter.is_active(assignment):
                extended += [{**assignment, parameter.id: value} for value in parameter.domain.values]
            else:
                extended.append(assignment)
        assignments = extended
        if len(assignments) > MAX_COMBINATIONS:
            raise ConfigError(
                f"{spec.where('space')}: more than {MAX_COMBINATIONS} combinations of family, head, "
                f"checkpoint, methods and what conditions name; search fewer of them at once"
            )
    return assignments


def _check_overlaps(
    spec: SweepSpec, parameters: Sequence[Parameter], walked: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse two active entries of one setting, and a method's option without the method."""
    for assignment in walked:
        active: dict[str, int] = {}
        chosen = _chosen_methods(spec, parameters, assignment)
        for index, parameter in enumerate(parameters):
            if not parameter.is_active(assignment):
                continue
            place = spec.where("space", index)
            if parameter.path in active:
                raise ConfigError(
                    f"{place}: {parameter.path} is searched by space[{active[parameter.path]}] as well, and "
                    f"both are active for {_describe(assignment)}; make their `when` exclude each other"
                )
            active[parameter.path] = index
            section, _, rest = parameter.path.partition(".")
            method = rest.partition(".")[0]
            if section == METHODS_PATH and method and method not in chosen:
                raise ConfigError(
                    f"{place}: {parameter.path} is active without its method for {_describe(assignment)}; "
                    f"add `when: {{methods: {method}}}`"
                )


def _chosen_methods(
    spec: SweepSpec, parameters: Sequence[Parameter], assignment: Mapping[str, Any]
) -> tuple[str, ...]:
    for parameter in parameters:
        if parameter.path == METHODS_PATH and parameter.id in assignment:
            return method_names(assignment[parameter.id])
    return tuple(spec.recipe.get(METHODS_PATH) or ())


def _check_set_once(spec: SweepSpec, parameters: Sequence[Parameter]) -> None:
    """Refuse a recipe's setting that an unconditional parameter overrides in every trial."""
    for index, parameter in enumerate(parameters):
        *sections, setting = parameter.path.split(".")
        target: Any = spec.recipe
        for section in sections:
            target = (target or {}).get(section)
        if parameter.path != METHODS_PATH and not parameter.conditions and setting in (target or {}):
            place = spec.where("space", index)
            raise ConfigError(f"{place}: recipe.{parameter.path} is set as well; keep one of them")


def _check_family_is_set(spec: SweepSpec, parameters: Sequence[Parameter]) -> None:
    is_searched = any(item.path == FAMILY_PATH and not item.conditions for item in parameters)
    if not is_searched and not (spec.recipe.get("model") or {}).get("family"):
        raise ConfigError(
            f"{spec.where('recipe')}: no family; set recipe.model.family or search it with an unconditional "
            f"`set: {FAMILY_PATH}`"
        )


def _illegality(
    spec: SweepSpec, parameters: Sequence[Parameter], structural: Mapping[str, Any]
) -> str | None:
    """Return why the combination is illegal, or None; raises ConfigError for any other refusal."""
    values = recipe_values(spec.recipe, parameters, _fill(parameters, structural))
    try:
        config = from_dict(RunConfig, values)
        kind = registry.family_class(config.model.family)
        head = config.model.head
        if head is not None and head not in kind.heads:
            return f"family {kind.name!r} has no head {head!r} (it has: {', '.join(kind.heads)})"
        registry.check_combination(registry.make_family(config), registry.make_methods(config))
    except IllegalCombination as error:
        return str(error)
    except ConfigError as error:
        place = _entry_place(spec, str(error))
        raise ConfigError(f"{place}: for {_describe(structural)}: {error}") from error
    return None


def _entry_place(spec: SweepSpec, message: str) -> str:
    """Return the place of the searched or shared setting that a message begins with, or of the space."""
    for index, entry in enumerate(spec.space):
        if message.startswith(f"{entry.path}:"):
            return spec.where("space", index)
    location = message.split(":", 1)[0].split(".")
    return spec.where("recipe", *location) if _holds(spec.recipe, location) else spec.where("space")


def _holds(values: Any, location: Sequence[str]) -> bool:
    for part in location:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def _fill(parameters: Sequence[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole assignment: the given values, and the first value of every other active parameter."""
    assignment: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.id in given:
            assignment[parameter.id] = given[parameter.id]
        elif parameter.is_active({**given, **assignment}):
            assignment[parameter.id] = parameter.domain.extremes()[0]
    return assignment


def _merge(
    dropped: Sequence[Dropped], legal: Sequence[Mapping[str, Any]], structural: Sequence[Parameter]
) -> list[Dropped]:
    """List a combination of family, head and methods once where no legal recipe has it."""
    core = {item.id for item in structural if item.path in (FAMILY_PATH, "model.head", METHODS_PATH)}
    kept = {frozenset(_part(item, core).items()) for item in legal}
    merged: dict[frozenset[tuple[str, Any]], Dropped] = {}
    for item in dropped:
        part = _part(item.assignment, core)
        whole = dict(item.assignment) if frozenset(part.items()) in kept else part
        merged.setdefault(frozenset(whole.items()), Dropped(whole, item.reason))
    return list(merged.values())


def _part(assignment: Mapping[str, Any], ids: set[str]) -> dict[str, Any]:
    return {identity: value for identity, value in assignment.items() if identity in ids}


def _check_values(spec: SweepSpec, space: Space) -> None:
    """Build recipes at every parameter's extremes, then random ones: a refusal would be a failed trial."""
    for index, parameter in enumerate(space.parameters):
        start = next((item for item in space.legal if parameter.is_active(item)), None)
        if start is None or parameter.id in space.structural:
            continue  # never active (its choice was narrowed), or built by the walk
        for value in parameter.domain.extremes():
            assignment = _fill(space.parameters, {**start, parameter.id: value})
            _build(space, assignment, f"{spec.where('space', index)} ({parameter.path}), value {value!r}")
    rng = numpy_generator(0, "space check")
    for _ in range(RANDOM_CHECKS):
        assignment = space.sample(rng)
        _build(
            space,
            assignment,
            f"{spec.where('space')}: a recipe of the space is refused, {assignment}",
        )


def _check_first(spec: SweepSpec, space: Space) -> None:
    """Refuse a recipe to begin with that the space does not allow, and one that stands twice."""
    seen: list[dict[str, Any]] = []
    for index, given in enumerate(spec.searcher.first):
        place = spec.where("searcher", "first", index)
        try:
            found = assignment_of(space, given)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error
        if found in seen:
            raise ConfigError(
                f"{place}: found what searcher.first[{seen.index(found)}] has; allowed: each recipe once"
            )
        seen.append(found)
        _build(space, found, place)


def _build(space: Space, assignment: Mapping[str, Any], place: str) -> None:
    try:
        config = space.to_run_config(assignment, seed=0)
        registry.check_combination(registry.make_family(config), registry.make_methods(config))
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _describe(assignment: Mapping[str, Any]) -> str:
    return ", ".join(f"{identity}={value}" for identity, value in assignment.items()) or "every recipe"
