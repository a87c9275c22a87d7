"""The catalogue of all settings: path, type, default, range, unit and meaning, read from where each is defined.

A setting of the recipe is named as a space entry names it, `train.batch_size`; in a file of a sweep it stands under
`recipe`. Options of a family, method, searcher or scheduler say whose they are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from textwrap import fill
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from qa_core import registry
from qa_core.config import RunConfig
from qa_core.errors import ConfigError, nearest
from qa_core.values import Setting, hints_of, plain_text, split, words
from sweeps import registry as parts
from sweeps.spec.objectives import MEASURES
from sweeps.spec.sections import SweepSpec

COLUMNS = 80  # of a terminal
RECIPE = "recipe."
REQUIRED = "required"
# Settings whose values are the names of a registry, which the floors below it do not know.
NAMES: Mapping[str, Iterable[str]] = {
    "model.family": registry.FAMILIES,
    "searcher.name": parts.SEARCHERS,
    "scheduler.name": parts.SCHEDULERS,
    "objectives[].name": MEASURES,
}


@dataclass(frozen=True)
class Row:
    """One setting in words. `owner` is the family, method, searcher or scheduler that an option belongs to, or ""."""

    path: str
    owner: str
    kind: str
    default: str  # REQUIRED where there is none
    allowed: str  # "" where every value of the type is
    unit: str
    meaning: str


def rows(prefix: str = "") -> list[Row]:
    """Return all settings whose path begins with the prefix, in the order of a file.

    Args:
        prefix: `train.`, `budget` or a whole path; `recipe.` before it changes nothing.

    Raises:
        ConfigError: no path begins so; names the nearest.
    """
    everything = list(_all_rows())
    wanted = prefix if prefix == RECIPE else prefix.removeprefix(RECIPE)
    found = [
        row
        for row in everything
        if wanted == RECIPE or row.path.startswith(wanted) or row.path == wanted.removesuffix(".")
    ]
    if found:
        return found
    paths = [row.path for row in everything]
    sections = {path[: end + 1] for path in paths for end, letter in enumerate(path) if letter == "."}
    names = [*paths, *(path.rpartition(".")[2] for path in paths), *(name.rstrip(".[]") for name in sections)]
    heads = sorted({path.partition(".")[0].removesuffix("[]") for path in paths})
    raise ConfigError(
        f"settings: found the prefix {prefix!r}{nearest(wanted.rstrip('.'), names)}; allowed: the beginning of a path: "
        f"{', '.join(heads)}"
    )


def paths_ending_in(name: str) -> list[str]:
    """Return where a setting of this name stands in a file, `recipe.` included; [] where none has it."""
    heads = {item.name for item in fields(RunConfig)} - {"seed"}  # a sweep has its own
    paths = dict.fromkeys(row.path for row in _all_rows() if row.path.rpartition(".")[2] == name)
    return [f"{RECIPE}{path}" if path.partition(".")[0] in heads else path for path in paths]


def as_text(found: Sequence[Row]) -> str:
    """Return the rows as paragraphs for a terminal."""
    return "\n\n".join(map(_paragraph, found)) + "\n"


def as_markdown() -> str:
    """Return the whole of `docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "Made from the code that checks the settings, by the command `settings` with `--markdown`; change them there.",
        "Settings of the recipe (`model`, `data`, `train`, `evaluation`, `methods`, `device`) stand under `recipe` in",
        "a file, or are searched by an entry of `space`. A name in brackets is the family, method, searcher or",
        "scheduler that has the option.",
    ]
    section = None
    for row in _all_rows():
        head = _section(row.path)
        if head != section:
            section = head
            lines += [
                "",
                f"## {head}",
                "",
                "| setting | type | default | allowed | unit | meaning |",
                "|---|---|---|---|---|---|",
            ]
        name = f"`{row.path}`" + (f" ({row.owner})" if row.owner else "")
        cells = (
            name,
            row.kind,
            row.default if row.default == REQUIRED else f"`{row.default}`",
            row.allowed,
            row.unit,
            row.meaning,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _section(path: str) -> str:
    head = path.partition(".")[0].removesuffix("[]")
    return "sweep" if head in ("name", "seed") else head


def _paragraph(row: Row) -> str:
    head = row.path + (f" ({row.owner})" if row.owner else "")
    facts = [f"type: {row.kind}", f"default: {row.default}"]
    facts += [f"allowed: {row.allowed}"] if row.allowed else []
    facts += [f"unit: {row.unit}"] if row.unit else []
    indented = {
        "width": COLUMNS,
        "initial_indent": "    ",
        "subsequent_indent": "    ",
        "break_on_hyphens": False,
    }
    return "\n".join([head, fill(row.meaning, **indented), fill("; ".join(facts), **indented)])  # type: ignore[arg-type]


def _all_rows() -> Iterator[Row]:
    for name, item in SweepSpec.model_fields.items():
        if name == "recipe":
            yield from _of_record(RunConfig, "")
        else:
            yield from _of_field(SweepSpec, name, item, "")


def _of_section(section: type[BaseModel], path: str) -> Iterator[Row]:
    for name, item in section.model_fields.items():
        yield from _of_field(section, name, item, path)


def _of_field(section: type[BaseModel], name: str, item: Any, path: str) -> Iterator[Row]:
    hint, setting = split(hints_of(section)[name])
    here = f"{path}{item.alias or name}"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield from _of_section(hint, f"{here}.")
        return
    default = item.default_factory() if item.default_factory is not None else item.default
    yield _row(here, "", hint, setting, MISSING if default is PydanticUndefined else default)
    inner = next(iter(getattr(hint, "__args__", ())), None)
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        yield from _of_section(inner, f"{here}[].")
    for kind, table, load in (
        ("searcher.options", parts.SEARCHERS, parts.searcher_class),
        ("scheduler.options", parts.SCHEDULERS, parts.scheduler_class),
    ):
        if here == kind:
            yield from _of_options(here, table, load)


def _of_record(record: type, path: str, owner: str = "") -> Iterator[Row]:
    for item in fields(record):
        hint, setting = split(hints_of(record)[item.name])
        here = f"{path}{item.name}"
        if is_dataclass(hint):
            yield from _of_record(hint, f"{here}.")  # type: ignore[arg-type]
            continue
        if here == "seed":  # a sweep's own seed decides it
            continue
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        yield _row(here, owner, hint, setting, default)
        if here == "model.options":
            yield from _of_options(here, registry.FAMILIES, registry.family_class)
        elif here == "methods":
            for name in registry.METHODS:
                yield from _of_record(registry.method_class(name).Options, f"{here}.{name}.", name)


def _of_options(path: str, table: Iterable[str], load: Callable[[str], Any]) -> Iterator[Row]:
    for name in table:
        yield from _of_record(load(name).Options, f"{path}.", name)


def _row(path: str, owner: str, hint: Any, setting: Setting | None, default: Any) -> Row:
    setting = setting or Setting("")
    allowed = ", ".join(NAMES[path]) if path in NAMES else setting.range()
    shown = (
        REQUIRED
        if default is MISSING
        else plain_text(dict(default) if isinstance(default, Mapping) else default)
    )
    return Row(path, owner, words(hint), shown, allowed, setting.unit, setting.meaning)
