"""`validate` and `plan`: what a sweep would do, found out without training anything."""

from collections.abc import Iterator, Mapping
from typing import Any

from qa_core.config import DataConfig, from_dict
from qa_core.errors import ConfigError
from sweeps.space import compile_space
from sweeps.spec import SweepSpec

EXAMPLES_SHOWN = 5


def validate(spec: SweepSpec) -> int:
    """Check the space and read the data; print what is legal and what is dropped."""
    space = compile_space(spec)
    print(f"{spec.name}: valid")
    _print_lines("data", check_data(spec))
    _print_lines("dropped", [f"{_words(item.assignment)}: {item.reason}" for item in space.dropped])
    print(f"legal combinations: {len(space.legal)}, dropped: {len(space.dropped)}")
    return 0


def plan(spec: SweepSpec) -> int:
    """Print objectives, budget, rungs, legal and dropped combinations, and a few recipes drawn at random."""
    from qa_core.seeding import numpy_generator
    from sweeps.registry import scheduler_class

    space = compile_space(spec)
    rungs = (
        scheduler_class(spec.scheduler.name).from_options(spec.scheduler.options).rungs(spec.budget.examples)
    )
    goals = [f"{item.goal} {item.name} [{item.measured_unit}]" for item in spec.objectives]
    print(f"{spec.name}: {spec.budget.trials} trials of at most {spec.budget.examples} examples")
    print(f"objectives: {', '.join(goals)}")
    print(f"searcher {spec.searcher.name}, scheduler {spec.scheduler.name}, seed {spec.seed}")
    print(f"rungs at examples: {', '.join(map(str, [*rungs, spec.budget.examples]))}")
    _print_lines("legal", [_words(item) for item in space.legal])
    _print_lines("dropped", [f"{_words(item.assignment)}: {item.reason}" for item in space.dropped])
    generator = numpy_generator(spec.seed, "plan")
    _print_lines("examples", [_words(space.sample(generator)) for _ in range(EXAMPLES_SHOWN)])
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


def _print_lines(title: str, lines: list[str]) -> None:
    if lines:
        print(f"{title}:")
        for line in lines:
            print(f"  {line}")


def _words(assignment: Mapping[str, Any]) -> str:
    shown = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in assignment.items()}
    return ", ".join(f"{key}={value}" for key, value in shown.items()) or "the recipe as it stands"
