"""Plain values, as JSON and YAML hold them, checked against the annotations of the records that they become.

One converter and one wording for all of them: "PATH: found X; allowed: Y". What a setting means, its unit and its range
stand with its annotation, as a `Setting`; the checks and `sweeps/spec/catalogue.py` read the same object.
"""

import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from qa_core.errors import ConfigError, nearest, unknown

SHOWN_CHARACTERS = 60
WORDS = {
    str: "text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    type(None): "null",
}
PLURALS = {str: "texts", int: "whole numbers", float: "finite numbers"}
LISTS: tuple[Any, ...] = (list, tuple, Sequence)
MAPPINGS: tuple[Any, ...] = (dict, Mapping)
Record = TypeVar("Record")


@dataclass(frozen=True)
class Setting:
    """What a setting means and which values it takes; stands in the annotation: `Annotated[int, Setting(...)]`.

    Null is allowed where the type says so, and `meaning` says what it stands for. A range applies to numbers, and to
    each number of a list.

    Attributes:
        meaning: one or two sentences.
        unit: of its numbers, "" for none. A `share` is worded as one.
        at_least, above, at_most, below: the ends of the range; None for none.
        allowed: the values that it takes, all of them; () where there are too many to list.
        pattern: a regular expression that the whole text must match; None for any text.
    """

    meaning: str
    unit: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    allowed: tuple[Any, ...] = ()
    pattern: str | None = None

    def admits(self, value: Any) -> bool:
        """Tell whether a value of the right type is in the range; null always is."""
        if isinstance(value, list | tuple):
            return all(map(self.admits, value))
        if value is None:
            return True
        if self.allowed:
            return value in self.allowed
        if isinstance(value, str):
            return self.pattern is None or re.fullmatch(self.pattern, value) is not None
        if not isinstance(value, int | float) or isinstance(value, bool):
            return True
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def range(self) -> str:
        """Return the range in words, such as "0 <= share < 1"; "" where every value of the type is allowed."""
        if self.allowed:
            return (" or " if len(self.allowed) == 2 else ", ").join(map(plain_text, self.allowed))
        if self.pattern is not None:
            return f"text of the form {self.pattern}"
        low = _end(self.at_least, "<=") or _end(self.above, "<")
        high = _end(self.at_most, "<=") or _end(self.below, "<")
        if low and high:
            (first, low_sign), (last, high_sign) = low, high
            noun = "share" if self.unit == "share" else "value"
            return f"{first} {low_sign} {noun} {high_sign} {last}"
        if low:
            return f"{low[0]} or more" if low[1] == "<=" else f"a number above {low[0]}"
        if high:
            return f"{high[0]} or less" if high[1] == "<=" else f"a number below {high[0]}"
        return ""

    def check(self, hint: Any, value: Any, path: str) -> None:
        """Refuse a value outside the range; raises ConfigError.

        Args:
            hint: the setting's type, without this annotation.
        """
        if not self.admits(value):
            near = nearest(value, map(str, self.allowed)) if isinstance(value, str) else ""
            null = ", or null" if type(None) in typing.get_args(hint) else ""
            each = "each " if isinstance(value, list | tuple) else ""
            raise refusal(path, value, f"{each}{self.range()}{null}{near}")

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Let pydantic check single values as everything else does; it keeps lists, mappings and sections."""
        from pydantic_core import core_schema

        if not _is_single(source):
            return handler(source)

        def read(value: Any) -> Any:
            try:
                found = convert(source, value, "", strict=True)
                self.check(source, found, "")
            except ConfigError as error:
                raise ValueError(str(error)) from error
            return found

        return core_schema.no_info_plain_validator_function(read)


def require(condition: bool, path: str, value: Any, allowed: str) -> None:
    """Raise ConfigError in the common wording unless the condition holds."""
    if not condition:
        raise refusal(path, value, allowed)


def refusal(path: str, value: Any, allowed: str) -> ConfigError:
    """Word the refusal of one value."""
    return ConfigError(f"{path}{': ' * bool(path)}found {shown(value)}; allowed: {allowed}")


def shown(value: Any) -> str:
    """Return a value for a message, cut to a readable length."""
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def plain_text(value: Any) -> str:
    """Return a value as YAML writes it: null, true, false, numbers and text without quotes, lists in brackets."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(plain_text, value))}]"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def from_dict(record: type[Record], values: Any, *, path: str = "", strict: bool = False) -> Record:
    """Build a dataclass from plain values.

    Args:
        record: the dataclass, e.g. `RunConfig`.
        values: a mapping as read from YAML or JSON.
        path: where the mapping stands in its file, for messages ("train.learning_rate").
        strict: see `convert`.

    Raises:
        ConfigError: a key is unknown (the nearest name is suggested) or missing, or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise refusal(path or record.__name__, values, "a mapping")
    known = {item.name: item for item in fields(record)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{_join(path, str(key))}: {unknown('field' if strict else 'setting', str(key), known)}"
            )
    hints = hints_of(record)  # type: ignore[arg-type]
    arguments = {}
    for name, item in known.items():
        if name in values:
            arguments[name] = convert(hints[name], values[name], _join(path, name), strict=strict)
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{_join(path, name)}: missing, and it has no default")
    return record(**arguments)


def to_dict(record: Any) -> dict[str, Any]:
    """Return the nested plain values of a config; `from_dict(type(record), to_dict(record)) == record`."""
    return {item.name: _plain(getattr(record, item.name)) for item in fields(record)}


def check_ranges(record: Any, path: str) -> None:
    """Refuse a record of which a value lies outside the range of its `Setting`; raises ConfigError.

    Args:
        path: of the record, such as "methods.lora"; "" at the top.
    """
    for name, hint in hints_of(type(record)).items():  # type: ignore[arg-type]
        inner, setting = split(hint)
        if setting is not None:
            setting.check(inner, getattr(record, name), _join(path, name))


def convert(hint: Any, value: Any, path: str, *, strict: bool = False) -> Any:
    """Return a plain value as the annotated type holds it: lists as tuples, mappings as dataclasses.

    Ranges are not looked at; see `check_ranges`.

    Args:
        hint: str, int, float, bool, Any, a Literal, a dataclass, or a union, list or mapping of these.
        value: as read from YAML or JSON.
        path: its place, for messages.
        strict: True for files that the project wrote itself: a number is a number. False for settings: 8.0 is a whole
            number, and text such as "3e-4", which YAML 1.1 reads as text, is a number.

    Raises:
        ConfigError: the value is of another type.
    """
    return _convert(hint, value, path, strict, words(hint))


@cache
def words(hint: Any) -> str:
    """Return a type in words, such as "a whole number or null"."""
    hint, _ = split(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(words, inner))
    if origin is typing.Literal:
        return " or ".join(map(plain_text, inner))
    if origin in LISTS or hint in LISTS:
        item = split(inner[0])[0] if inner else Any
        return f"a list of {PLURALS[item]}" if item in PLURALS else "a list"
    if origin in MAPPINGS or hint in MAPPINGS or is_dataclass(hint):
        return "a mapping"
    return WORDS.get(hint, "anything" if hint is Any else getattr(hint, "__name__", str(hint)))


def split(hint: Any) -> tuple[Any, Setting | None]:
    """Return a type without its annotations, and the `Setting` among them."""
    if typing.get_origin(hint) is not typing.Annotated:
        return hint, None
    inner, *annotations = typing.get_args(hint)
    return inner, next((item for item in annotations if isinstance(item, Setting)), None)


@cache
def hints_of(record: Any) -> dict[str, Any]:
    """Return the fields of a record with their types, annotations included."""
    return typing.get_type_hints(record, include_extras=True)


@cache
def _taken_apart(hint: Any) -> tuple[Any, Any, tuple[Any, ...], bool]:
    """Return a type without its annotations, its origin, its arguments, and whether it is a dataclass."""
    hint, _ = split(hint)
    return hint, typing.get_origin(hint), typing.get_args(hint), is_dataclass(hint)


def _convert(hint: Any, value: Any, path: str, strict: bool, allowed: str) -> Any:
    hint, origin, inner, is_record = _taken_apart(hint)
    if hint is Any:
        return value
    if is_record:
        return from_dict(hint, value, path=path, strict=strict)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        *others, last = (item for item in inner if item is not type(None))
        for item in others:
            with suppress(ConfigError):
                return _convert(item, value, path, strict, allowed)
        return _convert(last, value, path, strict, allowed)
    if origin in LISTS or hint in LISTS:
        if not isinstance(value, list | tuple):
            raise refusal(path, value, allowed)
        item_hint = inner[0] if inner else Any
        items = [
            convert(item_hint, item, f"{path}[{index}]", strict=strict) for index, item in enumerate(value)
        ]
        return items if list in (origin, hint) else tuple(items)
    if origin in MAPPINGS or hint in MAPPINGS:
        if not isinstance(value, Mapping):
            raise refusal(path, value, allowed)
        item_hint = inner[1] if inner else Any
        if item_hint is Any:  # most of a record
            return {str(key): item for key, item in value.items()}
        return {
            str(key): convert(item_hint, item, _join(path, str(key)), strict=strict)
            for key, item in value.items()
        }
    if origin is typing.Literal:
        if any(type(value) is type(item) and value == item for item in inner):
            return value
        near = nearest(value, map(str, inner)) if isinstance(value, str) else ""
        raise refusal(path, value, allowed + near)
    return _single(hint, value, path, strict, allowed)


def _single(hint: Any, value: Any, path: str, strict: bool, allowed: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and (is_number or (isinstance(value, str) and not strict)):
        with suppress(ValueError, OverflowError):
            if math.isfinite(number := float(value)):
                return number
    elif hint is int and is_number and (isinstance(value, int) or (not strict and value.is_integer())):
        return int(value)
    elif hint in (str, bool) and isinstance(value, hint):
        return value
    elif hint is type(None) and value is None:
        return None
    raise refusal(path, value, allowed)


def _is_single(hint: Any) -> bool:
    """Tell whether a type is one value: no list, mapping or section, and not one of several of those."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return all(map(_is_single, typing.get_args(hint)))
    return hint in WORDS or typing.get_origin(hint) is typing.Literal


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _end(value: float | None, sign: str) -> tuple[str, str] | None:
    return None if value is None else (plain_text(value), sign)
