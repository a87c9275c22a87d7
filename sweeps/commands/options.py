"""Options that several commands share, named as in the YAML file, and how they become a spec.

Each option is an override of one setting, so that the command line and YAML can never mean different things.
"""

import functools
import inspect
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import ValidationError

from qa_core import files as files_door
from qa_core.config import FIELDS
from qa_core.errors import ConfigError, unknown
from sweeps.progress.shell_command import shell_command
from sweeps.spec.load import load_spec, stored_spec, why_refused
from sweeps.spec.sections import SweepSpec

DEFAULT_CONFIG = "quickstart"
RESUMABLE = ("trials", "total_examples", "concurrent", "max_disk_gb")  # may change when a sweep is resumed
MOST_DIGITS = 9  # of a number of trials
# parameter of `read_spec` -> the setting that it overrides
SETTINGS = {
    "data": "recipe.data.train",
    "eval_data": "recipe.data.evaluation",
    "columns": "recipe.data.columns",
    "trials": "budget.trials",
    "total_examples": "budget.total_examples",
    "max_memory_mb": "budget.max_memory_mb",
    "price_per_hour": "budget.price_per_hour",
    "concurrent": "budget.concurrent",
    "max_disk_gb": "budget.max_disk_gb",
    "seed": "seed",
}


Columns = Annotated[
    str | None,
    typer.Option(
        metavar="FIELD=COLUMN,...",
        help="Names of the data's columns, such as question=q,context=passage,answer=gold.",
    ),
]


def read_columns(text: str) -> dict[str, str]:
    """Return field -> column of an option; raises ConfigError where it is not FIELD=COLUMN, separated by commas."""
    found: dict[str, str] = {}
    for part in text.split(","):
        field, equals, column = (piece.strip() for piece in part.partition("="))
        if not (field and equals and column):
            raise ConfigError(f"--columns: found {part!r}; allowed: FIELD=COLUMN, separated by commas")
        if field not in FIELDS:
            raise ConfigError(f"--columns: {unknown('field', field, FIELDS)}")
        if field in found:
            raise ConfigError(f"--columns: found {field} twice; allowed: each field once")
        found[field] = column
    return found


def read_spec(
    config: Annotated[
        str, typer.Option(help="YAML file, or the name of one in sweeps/configs.")
    ] = DEFAULT_CONFIG,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be given many times."),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(
            help="A named scale of the file: the same sweep at another size; may be given many times."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Training data: sample, sample:hard, a file (SQuAD, JSON, CSV, Parquet, ...) or a hub name."
        ),
    ] = None,
    eval_data: Annotated[
        str | None,
        typer.Option(help="Evaluation data, named as --data; default: its dev split, or a part held out."),
    ] = None,
    columns: Columns = None,
    trials: Annotated[
        str | None,
        typer.Option(metavar="N", help="Number of trials; with --resume also +N: N more trials."),
    ] = None,
    total_examples: Annotated[
        int | None,
        typer.Option(help="End the sweep (resumable) when its trials have consumed so many examples."),
    ] = None,
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Refuse recipes with a larger memory_mb (one window).")
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            help="Price of one worker machine; `plan --calibrate` then prints the cost of the sweep."
        ),
    ] = None,
    concurrent: Annotated[int | None, typer.Option(help="Trials at a time.")] = None,
    max_disk_gb: Annotated[
        float | None, typer.Option(help="End the sweep (resumable) when the files of its trials exceed this.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sweep.")] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="Propose the recipes of that sweep's front first."),
    ] = None,
) -> SweepSpec:
    """Return the spec of a configuration with the options laid over it.

    Raises:
        ConfigError: no such configuration, or a setting is refused.
        DataError: the sweep to start from cannot be read.
    """
    given = {
        "data": data,
        "eval_data": eval_data,
        "columns": None if columns is None else read_columns(columns),
        "trials": None if trials is None else _whole_number(trials),
        "total_examples": total_examples,
        "max_memory_mb": max_memory_mb,
        "price_per_hour": price_per_hour,
        "concurrent": concurrent,
        "max_disk_gb": max_disk_gb,
        "seed": seed,
    }
    # A JSON value is a YAML value: paths with ": " or "#" in them stay whole.
    overrides = [
        f"{SETTINGS[name]}={json.dumps(value)}" for name, value in given.items() if value is not None
    ]
    spec = load_spec(find_config(config), [*(set_ or []), *overrides], scales=scale or ())
    if start_from is None:
        return spec
    from sweeps.commands import start_from as starting

    return starting.start_from(spec, start_from)


def takes_spec(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `read_spec`; it is called with the finished `spec` and its own.

    A command with an option `resume`, when that is given, gets the spec of the sweep in that folder.
    """
    shared = inspect.signature(read_spec).parameters
    own = [item for name, item in inspect.signature(command).parameters.items() if name != "spec"]

    @functools.wraps(command)
    def with_options(**values: Any) -> Any:
        given = {name: values.pop(name) for name in shared}
        folder = values.get("resume")
        spec = read_spec(**given) if folder is None else resumed_spec(folder, given)
        return command(spec=spec, **values)

    with_options.__signature__ = inspect.Signature([*shared.values(), *own])  # type: ignore[attr-defined]
    hints = {**get_type_hints(command, include_extras=True), **get_type_hints(read_spec, include_extras=True)}
    with_options.__annotations__ = {
        name: hint for name, hint in hints.items() if name not in ("spec", "return")
    }
    return with_options


def resumed_spec(folder: Path, given: dict[str, Any]) -> SweepSpec:
    """Return the spec of the sweep in a folder, with more trials, examples or disk, or other concurrency, where asked.

    Args:
        given: parameter of `read_spec` -> value.

    Raises:
        ConfigError: an option would make it another sweep.
        DataError: the folder holds no sweep.
    """
    defaults = {name: item.default for name, item in inspect.signature(read_spec).parameters.items()}
    for name, value in given.items():
        if value != defaults[name] and name not in RESUMABLE:
            allowed = ", ".join(f"--{item}" for item in RESUMABLE)
            is_of_forms = name == "set_" and any(item.startswith("forms") for item in value)
            more = shell_command("qa-sweep", "forms", folder, "--set", "...")
            instead = f", or {more} for trials that ended" if is_of_forms else ""
            raise ConfigError(
                f"--{name.strip('_').replace('_', '-')}: not with --resume: a resumed sweep keeps its settings; "
                f"allowed: {allowed}{instead}"
            )
    spec = stored_spec(folder)
    budget = spec.budget.model_dump()
    if (trials := given["trials"]) is not None:
        more = trials.removeprefix("+")
        budget["trials"] = _whole_number(more) + (spec.budget.trials if more != trials else 0)
    for name in ("total_examples", "concurrent", "max_disk_gb"):
        if given[name] is not None:
            budget[name] = given[name]
    values = {**spec.as_dict(), "budget": {name: item for name, item in budget.items() if item is not None}}
    try:
        resumed = SweepSpec.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"budget.{problem['loc'][-1]}: {why_refused(problem)}") from error
    resumed._source = spec._source  # the places in its file, for messages
    return resumed


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        raise ConfigError(
            f"--trials: found {text!r}; allowed: a whole number, or with --resume +N for N more"
        )
    return int(text)


def find_config(name: str) -> Path:
    """Return the YAML file: a path, or the name of a configuration that comes with the package.

    Raises:
        ConfigError: there is neither such a file nor such a name.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or files_door.is_file(path):
        return path  # the reader says what is wrong with it
    shipped = {item.stem: item for item in configs_folder().glob("*.yaml")}
    if name not in shipped:
        raise ConfigError(f"--config: {unknown('configuration', name, shipped)}, or a path to a .yaml file")
    return shipped[name]


def configs_folder() -> Path:
    """Return the folder of the configurations that come with the package."""
    return Path(str(files("sweeps"))) / "configs"
