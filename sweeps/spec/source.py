"""The text behind a spec: YAML read with line numbers, named scales, and `key=value` overrides.

A file may hold `scales`: name -> settings that replace others, written as dotted keys, so that one file is the whole
study and the same study in minutes. Knows YAML and dotted paths, not what the keys mean; that is `sweeps/spec/load.py`.
Every error can say where its value came from: file and line, the scale, or the override.
"""

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from qa_core import files
from qa_core.errors import ConfigError, DataError, unknown

Location = tuple[str | int, ...]

SCALES_KEY = "scales"
DOMAIN_KEYS = ("choice", "value", "uniform", "log_uniform", "int")
MOST_BYTES = 16 * 2**20  # of a file
MOST_LEVELS = 20  # of a dotted key
SHOWN_CHARACTERS = 60
MOST_VALUES = 100_000  # a few lines of aliases of aliases can stand for billions


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in YAML 1.2; YAML 1.1 wants 1.0e-3 and reads 1e-3 as text.

    Tags are refused: no setting needs one. A value that Python cannot make, such as a 99th month, is named by line.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        event: Any = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"found the tag {event.tag}; allowed: plain values", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
            _check_number(value)
            return value
        except ValueError as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error


_Loader.yaml_implicit_resolvers = {
    key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass
class Source:
    """Plain values and where each of them stands."""

    file: str
    values: dict[str, Any]
    lines: dict[Location, int] = field(default_factory=dict)  # counted from 1
    overrides: dict[Location, str] = field(default_factory=dict)  # as written: "--set budget.trials=8"

    def place(self, location: Sequence[str | int]) -> str:
        """Return "--set key=value" or "file.yaml:12" for the value at `location` or its nearest parent."""
        whole = tuple(location)
        if whole not in self.lines:  # an override may have made this mapping
            for key, override in self.overrides.items():
                if key[: len(whole)] == whole:
                    return override
        for length in range(len(location), -1, -1):
            prefix = tuple(location[:length])
            if prefix in self.overrides:
                return self.overrides[prefix]
            if prefix in self.lines:
                return f"{self.file}:{self.lines[prefix]}"
        return self.file


def read_source(path: str | Path, overrides: Sequence[str] = (), scales: Sequence[str] = ()) -> Source:
    """Read a YAML mapping, apply the named scales of the file in order, then the overrides in order.

    Raises:
        ConfigError: the file is missing or no YAML mapping, a key stands twice, there is no such scale, or an override
            is malformed.
    """
    return _changed(_read_file(Path(path)), overrides, scales)


def source_of(values: Mapping[str, Any], overrides: Sequence[str] = (), scales: Sequence[str] = ()) -> Source:
    """Return settings that stand in no file, with scales and overrides applied; raises as `read_source`.

    Args:
        values: what a file holds, as nested mappings and lists of plain values; it is copied.
    """
    try:
        copied = json.loads(json.dumps(values))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"settings: {error}; allowed: mappings, lists and plain values") from error
    if not isinstance(copied, dict):
        raise ConfigError(f"settings: found a {type(values).__name__}; allowed: a mapping of settings")
    return _changed(Source("settings", copied), overrides, scales)


def _changed(source: Source, overrides: Sequence[str], scales: Sequence[str]) -> Source:
    settings = _take_scales(source)
    for scale in scales:
        if scale not in settings:
            raise ConfigError(f"--scale: {source.file}: {unknown('scale', scale, settings)}")
        for key, value in settings[scale].items():
            _apply(source, f"--scale {scale}: {key}={json.dumps(value)}", str(key), value)
    for override in overrides:
        _apply_text(source, override)
    return source


def overridden(values: dict[str, Any], overrides: Sequence[str]) -> Source:
    """Return settings that stand in no file, with "key=value" overrides applied in order; raises as `read_source`."""
    source = Source("--set", values)
    for override in overrides:
        _apply_text(source, override)
    return source


def scale_names(path: str | Path) -> list[str]:
    """Return the names of a file's scales, in their order; raises ConfigError as `read_source` does."""
    return list(_take_scales(_read_file(Path(path))))


def entry_ids(paths: Sequence[str]) -> list[str]:
    """Return one id per space entry: its path, with ".1", ".2", ... after it where the path occurs again."""
    counts: dict[str, int] = {}
    ids = []
    for path in paths:
        counts[path] = counts.get(path, 0) + 1
        ids.append(f"{path}.{counts[path]}" if paths.count(path) > 1 else path)
    return ids


def dotted(location: Sequence[str | int]) -> str:
    """Return "space[2].when" for ("space", 2, "when")."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _read_file(path: Path) -> Source:
    try:
        text = files.read_text(path, most_bytes=MOST_BYTES)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ConfigError(f"{path}: cannot be read as a YAML file: {reason}") from error
    return _parsed(text, path)


def values_of(text: str, name: str) -> dict[str, Any]:
    """Return the mapping that a YAML text holds; raises ConfigError as `read_source`, with `name` for the file."""
    return _parsed(text, Path(name)).values


def _parsed(text: str, path: Path) -> Source:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        values = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}{_line_of(error, text)}: not valid YAML: {_problem(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not valid YAML: nested too deeply") from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else f"a {type(values).__name__}"
        raise ConfigError(f"{path}: expected a mapping of settings, found {found}")
    source = Source(str(path), values)
    try:
        _note_lines(source, cast(yaml.Node, node), ())
    except RecursionError as error:
        raise ConfigError(
            f"{path}: nested too deeply; allowed: no alias within what it stands for"
        ) from error
    return source


def _check_number(value: Any) -> None:
    """Refuse a whole number that no float holds; raises ValueError. Settings say by name when one must be finite."""
    if isinstance(value, int) and abs(value) >= 10**files.MOST_DIGITS:
        raise ValueError(f"found a whole number of more than {files.MOST_DIGITS} digits")


def _line_of(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f":{mark.line + 1}"
    position = getattr(error, "position", None)  # of a character that YAML does not allow
    return "" if position is None else f":{text.count(chr(10), 0, position) + 1}"


def _problem(error: yaml.YAMLError) -> str:
    """Return what is wrong in one line."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"found the character {chr(error.character)!r}"
    return getattr(error, "problem", None) or " ".join(str(error).split())


def _note_lines(source: Source, node: yaml.Node, location: Location) -> None:
    if len(source.lines) > MOST_VALUES:
        raise ConfigError(f"{source.file}: found more than {MOST_VALUES} values, aliases counted each time")
    source.lines[location] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*location, key.value)
            if inner in source.lines:
                raise ConfigError(
                    f"{source.file}:{key.start_mark.line + 1}: {dotted(inner)} stands twice "
                    f"(first in line {source.lines[inner]})"
                )
            _note_lines(source, value, inner)
            source.lines[inner] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(source, item, (*location, index))


def _take_scales(source: Source) -> dict[str, dict[str, Any]]:
    """Remove the scales from the values and return them: name -> dotted key -> value."""
    scales = source.values.pop(SCALES_KEY, None) or {}
    place = f"{source.place((SCALES_KEY,))}: {SCALES_KEY}"
    if not isinstance(scales, dict) or not all(isinstance(item, dict) for item in scales.values()):
        raise ConfigError(
            f"{place}: expected a mapping of names to mappings of dotted keys, found {scales!r}"
        )
    return scales


def _apply_text(source: Source, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected KEY=VALUE with a dotted key, like budget.trials=8")
    try:
        value = yaml.load(text, Loader=_Loader)
        files.check_depth(value)
    except ValueError as error:
        raise ConfigError(f"--set {key}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: {_problem(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"--set {key}: the value is not valid YAML: nested too deeply") from error
    _apply(source, f"--set {override}", key, value)


def _apply(source: Source, override: str, key: str, value: Any) -> None:
    if not all(key.split(".")):
        raise ConfigError(f"{override}: expected KEY=VALUE with a dotted key, like budget.trials=8")
    if key.count(".") >= MOST_LEVELS:
        found = f"{override[:SHOWN_CHARACTERS]}..."
        raise ConfigError(f"{found}: found {key.count('.') + 1} levels; allowed: at most {MOST_LEVELS}")
    parts = _resolve(source.values, key.split("."), override)
    target: Any = source.values
    for position, part in enumerate(parts[:-1]):
        inner = target[cast(int, part)] if isinstance(target, list) else target.get(part)
        if inner is None:
            inner = target[part] = {}
        if not isinstance(inner, dict | list):
            raise ConfigError(f"{override}: {dotted(parts[: position + 1])} is {inner!r}, not a mapping")
        target = inner
    if parts[0] == "space" and parts[-1] in DOMAIN_KEYS:  # one domain replaces the other
        for other in DOMAIN_KEYS:
            target.pop(other, None)
    if isinstance(target, list):
        raise ConfigError(
            f"{override}: {dotted(parts[:-1])} is a list; name one of its entries and its setting"
        )
    target[parts[-1]] = value
    source.overrides[tuple(parts)] = override


def _resolve(values: Mapping[str, Any], keys: list[str], override: str) -> Location:
    """Turn the name of a space entry or an objective into its index in the list."""
    section = values.get(keys[0])
    if keys[0] not in ("space", "objectives") or not isinstance(section, list) or len(keys) == 1:
        return tuple(keys)
    name_key = "set" if keys[0] == "space" else "name"
    names = [str(item.get(name_key)) if isinstance(item, dict) else "" for item in section]
    ids: list[str] = entry_ids(names)
    rest = ".".join(keys[1:])
    matches = [(identity, index) for index, identity in enumerate(ids) if rest.startswith(f"{identity}.")]
    if not matches:
        kind = "space entry" if keys[0] == "space" else "objective"
        raise ConfigError(f"{override}: {unknown(kind, '.'.join(keys[1:-1]) or rest, ids)}")
    identity, index = max(matches, key=lambda match: len(match[0]))
    return (keys[0], index, *rest[len(identity) + 1 :].split("."))


def is_scalar(value: Hashable) -> bool:
    """Tell whether a YAML value is a single value: text, number, true/false or null."""
    return value is None or isinstance(value, str | int | float | bool)
