"""`validate`: a sweep's space and its data, checked without training. What it would do and spend is in `plan.py`."""

from collections.abc import Iterator, Mapping
from textwrap import fill
from typing import Any

from qa_core.config import DataConfig, from_dict
from qa_core.errors import ConfigError
from sweeps.space import compile_space
from sweeps.spec import SweepSpec

COLUMNS = 100  # of the terminal
# Names and paths in a line stay whole, longer or not.
AS_IT_IS: Mapping[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def validate(spec: SweepSpec) -> int:
    """Check the space and read the data; print what is legal and what is dropped."""
    space = compile_space(spec)
    print(f"{spec.name}: valid")
    print_lines("data", check_data(spec))
    print_lines("dropped", [f"{words(item.assignment)}: {item.reason}" for item in space.dropped])
    print(f"legal combinations: {len(space.legal)}, dropped: {len(space.dropped)}")
    return 0


def check_data(spec: SweepSpec) -> list[str]:
    """Read every data source that a trial could ask for; returns one line about each.

    Raises:
        ConfigError, DataError: a source is missing, malformed or not named; better here than in every trial.
    """
    from qa_core.data.squad import is_file_source, load_table

    lines = []
    for data in _data_settings(spec):
        if data.evaluation is None and is_file_source(data.train):
            place = spec.where("recipe", "data", "evaluation")
            raise ConfigError(
                f"{place}: found nothing, and data.train is the file {data.train!r}, which has no dev split; "
                "allowed: a file (--eval-data), a hub data set name or sample"
            )
        others = [("dev", source) for source in data.cross_domain]
        for split, source in (("train", data.train), ("dev", data.evaluation or data.train), *others):
            table = load_table(source, split=split, skip_bad_examples=data.skip_bad_examples)
            skipped = f", {table.skipped} skipped" if table.skipped else ""
            lines.append(f"{split}: {source}: {len(table)} questions{skipped}")
    return lines


def _data_settings(spec: SweepSpec) -> Iterator[DataConfig]:
    """Yield the data settings of the recipe, with each searched source once."""
    shared = dict(spec.recipe.get("data") or {})
    searched = {entry.path: entry.choice for entry in spec.space if entry.choice}
    for train in searched.get("data.train") or [shared.get("train")]:
        for evaluation in searched.get("data.evaluation") or [shared.get("evaluation")]:
            named = {"train": train, "evaluation": evaluation}
            given = {name: value for name, value in named.items() if value is not None}
            yield from_dict(DataConfig, {**shared, **given}, path="recipe.data")


def print_lines(title: str, lines: list[str]) -> None:
    """Print a title and the lines under it; nothing where there is no line."""
    if lines:
        print(f"{title}:")
        for line in lines:
            print(fill(line, COLUMNS, initial_indent="  ", subsequent_indent="    ", **AS_IT_IS))


def words(assignment: Mapping[str, Any]) -> str:
    """Return an assignment as "model.family=bert, train.learning_rate=0.003"."""
    shown = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in assignment.items()}
    return ", ".join(f"{key}={value}" for key, value in shown.items()) or "the recipe as it stands"
