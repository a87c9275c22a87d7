"""Recipes to begin with: written into a spec as assignments, or taken over from another sweep.

Reads no files; `sweeps/commands/start_from.py` reads the other sweep, and a searcher proposes what is found.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qa_core import registry
from qa_core.errors import ConfigError, unknown
from qa_core.values import from_dict, shown, to_dict
from sweeps.space.domains import Choice, Domain, IntRange
from sweeps.space.paths import FAMILY_PATH, METHODS_PATH, NO_METHOD, method_names
from sweeps.space.space import Assignment, Parameter, Space

NOTHING = object()  # no value is given: None is one
MOST_SHOWN = 8  # values of a choice, in a refusal
ALWAYS_KEPT = (FAMILY_PATH, METHODS_PATH)  # a recipe of another family or other methods is another recipe


def assignment_of(space: Space, given: Mapping[str, Any]) -> Assignment:
    """Return an assignment in the order of the space, each value as its domain has it.

    Args:
        given: parameter id -> value.

    Raises:
        ConfigError: the space does not allow it; begins with the id.
    """
    found = _walked(space, lambda parameter: given.get(parameter.id, NOTHING))
    for identity, value in given.items():
        if identity not in space:
            raise ConfigError(
                unknown("parameter of the space", identity, [item.id for item in space.parameters])
            )
        if identity not in found:
            raise ConfigError(f"{identity}: found {shown(value)}; allowed: nothing beside the other values")
    return found


def taken_over(space: Space, config: Mapping[str, Any], searched: Iterable[str]) -> Assignment:
    """Return a recipe of another sweep as an assignment of this space.

    What the space does not search is as this sweep has it; but of what the other sweep searched, nothing may change.

    Args:
        space: of this sweep.
        config: the whole recipe, as a record has it.
        searched: paths of the settings that the other sweep had searched and that were active in the recipe.

    Raises:
        ConfigError: the space does not allow it; begins with the path.
    """
    found = _walked(space, lambda parameter: value_at(config, parameter.path))
    recipe = to_dict(space.to_run_config(found, seed=0))
    for path in dict.fromkeys((*ALWAYS_KEPT, *searched)):
        own, here = value_at(config, path), value_at(recipe, path)
        if not _is_same(path, own, here):
            raise ConfigError(f"{path}: found {_words(own)}; allowed: {_words(here)}, which is not searched")
    return found


def value_at(config: Mapping[str, Any], path: str) -> Any:
    """Return the value of a recipe's setting, defaults of methods included; `NOTHING` where it has none.

    Of `methods`, it is the product as a space names it.
    """
    methods: Mapping[str, Any] = config.get(METHODS_PATH) or {}
    if path == METHODS_PATH:
        return "+".join(methods) or NO_METHOD
    section, _, rest = path.partition(".")
    if section == METHODS_PATH:
        name, _, option = rest.partition(".")
        if name not in methods:
            return NOTHING
        kind = registry.method_class(name)
        return getattr(from_dict(kind.Options, methods[name] or {}), option, NOTHING)
    value: Any = config
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return NOTHING
        value = value[part]
    return value


def _walked(space: Space, value_of: Callable[[Parameter], Any]) -> Assignment:
    assignment: Assignment = {}
    for parameter in space.parameters:
        if not parameter.is_active(assignment):
            continue
        domain: Domain = parameter.domain
        if isinstance(domain, Choice):
            domain = Choice(space.legal_choices(parameter, assignment))
        value = value_of(parameter)
        own = _in_domain(domain, parameter.path, value)
        if own is NOTHING:
            raise ConfigError(f"{parameter.id}: found {_words(value)}; allowed: {_allowed(domain)}")
        assignment[parameter.id] = own
    return assignment


def _in_domain(domain: Domain, path: str, value: Any) -> Any:
    """Return the value as the domain has it, `NOTHING` where it is none of it."""
    if isinstance(domain, Choice):
        return next((own for own in domain.values if _is_same(path, own, value)), NOTHING)
    if not _is_number(value) or not domain.low <= value <= domain.high:
        return NOTHING
    if isinstance(domain, IntRange):
        return int(value) if value == int(value) else NOTHING
    return float(value)


def _is_same(path: str, one: Any, other: Any) -> bool:
    if path == METHODS_PATH and isinstance(one, str) and isinstance(other, str):
        return set(method_names(one)) == set(method_names(other))
    if _is_number(one) and _is_number(other):
        return bool(one == other)
    return type(one) is type(other) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _words(value: Any) -> str:
    return "nothing" if value is NOTHING else shown(value)


def _allowed(domain: Domain) -> str:
    if not isinstance(domain, Choice):
        return f"{domain.low:g} to {domain.high:g}"
    more = ", ..." if len(domain.values) > MOST_SHOWN else ""
    return ", ".join(map(shown, domain.values[:MOST_SHOWN])) + more
