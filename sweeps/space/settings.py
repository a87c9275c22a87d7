"""The settings of a recipe as targets of a search: which exist, and which domains suit them.

Reads the dataclasses of `qa_core/config.py` and the option records of methods. Which values go together is
checked in `sweeps/space/compile.py`.
"""

import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.errors import ConfigError, unknown
from qa_core.values import words
from sweeps.space.domains import Choice, Domain, FloatRange
from sweeps.space.paths import METHODS_PATH, NO_METHOD, method_names
from sweeps.spec.sections import DECIDED_BY_THE_SWEEP, SpaceEntry


def setting_type(path: str, place: str) -> Any:
    """Return the type of a recipe's setting; raises ConfigError when there is no such setting."""
    if path in DECIDED_BY_THE_SWEEP:
        raise ConfigError(f"{place}: cannot be searched; {DECIDED_BY_THE_SWEEP[path]}")
    if path == METHODS_PATH:
        return str
    record: type = RunConfig
    parts = path.split(".")
    if parts[0] == METHODS_PATH:
        if len(parts) != 3:
            raise ConfigError(f"{place}: expected methods.NAME.OPTION")
        if parts[1] not in registry.METHODS:
            raise ConfigError(f"{place}: {unknown('method', parts[1], registry.METHODS)}")
        record, parts = registry.method_class(parts[1]).Options, parts[2:]
    for position, part in enumerate(parts):
        names = [item.name for item in fields(record)]
        if part not in names:
            raise ConfigError(f"{place}: {unknown('setting', part, names)}")
        hint = typing.get_type_hints(record)[part]
        if part == "options" and len(parts) == position + 2:  # a family's own, checked by the family
            return Any
        if is_dataclass(hint) and position + 1 < len(parts):
            record = typing.cast(type, hint)
        elif position + 1 < len(parts):
            raise ConfigError(f"{place}: {'.'.join(parts[: position + 1])} has no settings inside")
    if is_dataclass(hint) or typing.get_origin(hint) not in (None, types.UnionType, typing.Union):
        inside = f" (it holds: {', '.join(item.name for item in fields(hint))})" if is_dataclass(hint) else ""
        raise ConfigError(f"{place}: is not a single value{inside}")
    return hint


def check_domain_type(domain: Domain, hint: Any, place: str) -> None:
    """Refuse a range on a setting of another type; choices are checked value by value elsewhere."""
    kinds = {hint, *typing.get_args(hint)}
    if Any in kinds or isinstance(domain, Choice):
        return
    allowed = {float} if isinstance(domain, FloatRange) else {int, float}
    if not kinds & allowed:
        kind = "uniform and log_uniform" if isinstance(domain, FloatRange) else "int"
        raise ConfigError(f"{place}: {kind} give numbers of another type; the setting is {words(hint)}")


def check_method_choices(entry: SpaceEntry, place: str) -> None:
    """Refuse a choice of methods that names an unknown one, or one twice."""
    if entry.choice is None:
        raise ConfigError(f"{place}: methods are chosen from a list; use `choice`")
    for product in entry.choice:
        names = method_names(product)
        for name in names:
            if name == NO_METHOD:
                others = "+".join(one for one in names if one != NO_METHOD)
                found = f"{product!r}: {NO_METHOD!r} is training with no method and stands alone"
                raise ConfigError(f"{place}: found {found}; write {others!r} for full fine-tuning with it")
            if name not in registry.METHODS:
                raise ConfigError(f"{place}: {unknown('method', name, [*registry.METHODS, NO_METHOD])}")
        if len(set(names)) != len(names):
            raise ConfigError(f"{place}: {product!r} names a method twice")
