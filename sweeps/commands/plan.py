"""`plan`: what a sweep would do and what it would need, found out before anything is run.

Memory is predicted for a few recipes of each legal combination. Hours are claimed only with `calibrate`, which times
training, evaluation and storing on this machine; a teacher's training and measuring are not in them. Scoring and
storing count once for each stored form. What an earlier call worked out is looked up: see
`sweeps/budget/earlier_answers.py`.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qa_core.data.cache import default_cache_dir
from qa_core.errors import ConfigError, QaError
from sweeps.budget import references
from sweeps.budget.hours import Cell, Hours, cell_shares, cells_of, halving_share, span, sweep_hours
from sweeps.budget.memory import MemoryForecast
from sweeps.checks.sweep import check
from sweeps.commands.validate import print_lines, remarks, show_data, words
from sweeps.space.forms import forms_of
from sweeps.spec.sections import SweepSpec

if TYPE_CHECKING:
    from qa_core.config import RunConfig
    from sweeps.schedulers.base import Scheduler
    from sweeps.space.space import Space

EXAMPLES_SHOWN = 5
WIDEST_TEXT = 28  # longer methods and checkpoints are cut: a row then fits into 100 columns
MEMORY = {"memory_mb": "memory MB", "memory_batch8_mb": "at batch 8"}  # objective -> heading
SECONDS_PER_CELL = 20.0  # of training steps in a calibration
REASONS_SHOWN = 3  # why nothing can be built


def plan(spec: SweepSpec, *, calibrate: bool = False) -> int:
    """Print what would be proposed, the memory that it needs and, calibrated, the hours and the money.

    Raises:
        ConfigError: the space is refused, or no recipe of it can be built.
        DataError: a data source is refused.
    """
    from qa_core.seeding import numpy_generator
    from sweeps.schedulers.base import make_scheduler

    scheduler = make_scheduler(spec.scheduler.name, spec.scheduler.options)
    checked = check(spec, before_work=silence_libraries)
    space, forecast = checked.space, checked.forecast
    _print_search(spec, space, scheduler)
    show_data(checked.report)
    print_lines("notes", remarks(spec))
    cells = cells_of(space, numpy_generator(spec.seed, "plan memory"))
    _check_buildable(cells, forecast)
    if calibrate:
        checked.earlier.begin_work()
    trial_hours, notes = _calibrated(spec, cells, scheduler) if calibrate else ({}, [])
    _print_memory(cells, forecast, trial_hours)
    print_lines("stored forms of each training", _forms(spec, cells, forecast))
    found = checked.references()
    print_lines("references", references.lines(spec, found))
    print_lines("not timed", notes)
    if trial_hours:
        for line in hours_in_words(spec, hours_of(spec, space, scheduler, trial_hours)):
            print(line)
    elif not calibrate:
        what = "hours" if spec.budget.price_per_hour is None else "hours and money"
        print(f"{what}: not estimated; --calibrate times a few steps of each row on this machine")
    return 0


def silence_libraries() -> None:
    """Keep what libraries say of kernels that this machine lacks out of the plan; workers have logs for it."""
    from transformers.utils import logging as transformers_logging

    for name in ("bitsandbytes", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()


def _check_buildable(cells: "Mapping[Cell, Sequence[RunConfig]]", forecast: MemoryForecast) -> None:
    """Refuse a sweep of which no recipe can be built, each reason once."""
    recipes = [recipe for members in cells.values() for recipe in members]
    reasons = list(dict.fromkeys(forecast.fault(recipe) for recipe in recipes))
    faults = [reason for reason in reasons if reason is not None]
    if not recipes or len(faults) < len(reasons):
        return
    more = f"; and {len(faults) - REASONS_SHOWN} more reasons" if len(faults) > REASONS_SHOWN else ""
    raise ConfigError(f"no recipe of the sweep can be built: {'; '.join(faults[:REASONS_SHOWN])}{more}")


def _print_search(spec: SweepSpec, space: "Space", scheduler: "Scheduler") -> None:
    from sweeps.searchers.base import make_searcher

    goals = [f"{item.goal} {item.name} [{item.measured_unit}]" for item in spec.objectives]
    total = spec.budget.total_examples
    together = "" if total is None else f", {total} together"
    print(f"{spec.name}: {spec.budget.trials} trials of at most {spec.budget.examples} examples{together}")
    print(f"objectives: {', '.join(goals)}")
    print(f"searcher {spec.searcher.name}, scheduler {spec.scheduler.name}, seed {spec.seed}")
    rungs = [*scheduler.rungs(spec.budget.examples), spec.budget.examples]
    print(f"rungs at examples: {', '.join(map(str, rungs))}")
    print_lines("legal", [words(item) for item in space.legal])
    print_lines("dropped", [f"{words(item.assignment)}: {item.reason}" for item in space.dropped])
    searcher = make_searcher(spec, space)
    proposals = [proposal for _ in range(EXAMPLES_SHOWN) if (proposal := searcher.propose()) is not None]
    print_lines("the first proposals", [words(item.assignment) for item in proposals])


def _print_memory(
    cells: "Mapping[Cell, Sequence[RunConfig]]", forecast: MemoryForecast, trial_hours: Mapping[Cell, float]
) -> None:
    """Print a row for each cell, then why cells were not predicted."""
    limit = forecast.max_memory_mb
    headings = ["family", "methods", "checkpoint", *MEMORY.values()]
    headings += [f"over {limit:g} MB"] if limit is not None else []
    headings += ["a trial"] if trial_hours else []
    rows: list[list[str]] = []
    reasons: dict[str, list[str]] = {}  # why -> the rows that it holds for
    for cell, recipes in cells.items():
        row = [cell.family, cell.methods, cell.checkpoint]
        row += [_memory(recipes, forecast, name) for name in MEMORY]
        if limit is not None:
            row.append(_over(recipes, forecast))
        if trial_hours:
            row.append(_duration(trial_hours[cell]) if cell in trial_hours else "?")
        rows.append(row)
        stored = (form for recipe in recipes for form in forecast.stored(recipe))
        for why in dict.fromkeys(map(forecast.why, stored)):
            if why is not None:
                reasons.setdefault(why, []).append(" ".join(row[:3]))
    print("predicted memory in use (inference peak), smallest to largest of recipes drawn at random,")
    print("for one window at a time and for eight; a limit is one on the first:")
    for line in table(headings, rows):
        print(f"  {line}")
    print_lines(
        "not predicted",
        [f"{held[0] if len(held) == 1 else f'{len(held)} rows'}: {why}" for why, held in reasons.items()],
    )


def _memory(recipes: "Sequence[RunConfig]", forecast: MemoryForecast, objective: str) -> str:
    stored = (form for recipe in recipes for form in forecast.stored(recipe))
    found = span(forecast.predict(form, objective) for form in stored)
    if found is None:
        return "?"
    low, high = (f"{value:.1f}" for value in found)
    return low if low == high else f"{low} - {high}"


def _forms(
    spec: SweepSpec, cells: "Mapping[Cell, Sequence[RunConfig]]", forecast: MemoryForecast
) -> list[str]:
    """Return a line for each cell: how many forms a training is stored in at most, the disk that they take, which.

    The twin is written in any case, as the reference.
    """
    if not spec.forms:
        return []
    lines = []
    for cell, (recipe, *_) in cells.items():
        forms = forms_of(recipe, spec.forms)
        written = [form.recipe for form in forms if not form.is_twin] + [recipe]
        sizes = [forecast.predict(form, "artifact_bytes") for form in written]
        known = [size for size in sizes if size is not None]
        disk = "?" if len(known) < len(sizes) else f"{sum(known) / 1e6:.1f}"
        name = f"{cell.family} {cell.methods} {_cut(cell.checkpoint)}"
        labels = ", ".join(form.label for form in forms) or "as its recipe says"
        lines.append(f"{name}: {max(1, len(forms))} ({disk} MB on disk): {labels}")
    return lines


def _over(recipes: "Sequence[RunConfig]", forecast: MemoryForecast) -> str:
    refused = [not forecast.admits(recipe) for recipe in recipes]
    if all(forecast.predict(recipe) is None for recipe in recipes):
        return "?"
    return "all" if all(refused) else "some" if any(refused) else "none"


def _calibrated(
    spec: SweepSpec, cells: "Mapping[Cell, Sequence[RunConfig]]", scheduler: "Scheduler"
) -> tuple[dict[Cell, float], list[str]]:
    """Time the first recipe of each cell; returns hours of a trial to the full budget, and what could not be timed."""
    import torch

    from qa_core.calibration import timed_recipe
    from qa_core.data.prepare import scored_questions

    rungs = len(scheduler.rungs(spec.budget.examples))
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(spec.resources.cpus_per_trial)))
    hours, notes = {}, []
    try:
        for number, (cell, (recipe, *_)) in enumerate(cells.items(), start=1):
            name = f"{cell.family} {cell.methods} {cell.checkpoint}"
            print(f"timing {number} of {len(cells)}: {name}", file=sys.stderr, flush=True)
            try:
                timing = timed_recipe(recipe, cache_dir=default_cache_dir(), limit_seconds=SECONDS_PER_CELL)
                at_a_rung, at_the_end = scored_questions(recipe.data, cache_dir=default_cache_dir())
                seconds = timing.train_seconds_per_example * spec.budget.examples
                times = 1 + sum(
                    not form.is_twin for form in forms_of(recipe, spec.forms)
                )  # the twin is always made
                seconds += timing.evaluation_seconds_per_question * (rungs * at_a_rung + times * at_the_end)
                seconds += timing.storing_seconds * times
                hours[cell] = seconds / 3600
            except (
                QaError,
                RuntimeError,
                ValueError,
            ) as error:  # memory and libraries included: one row lacks a time
                notes.append(f"{name}: {str(error).splitlines()[0]}")
    finally:
        torch.set_num_threads(threads)
    return hours, notes


def hours_of(
    spec: SweepSpec, space: "Space", scheduler: "Scheduler", trial_hours: Mapping[Cell, float]
) -> Hours:
    """Return the hours of the whole sweep from those of a trial of each cell to the full budget."""
    from qa_core.seeding import numpy_generator

    rungs = scheduler.rungs(spec.budget.examples)
    eta = getattr(scheduler.options, "eta", None)
    return sweep_hours(
        trial_hours,
        cell_shares(space, numpy_generator(spec.seed, "plan shares")),
        trials=spec.budget.trials,
        concurrent=concurrent_here(spec),
        least_share=halving_share(rungs, eta, spec.budget.examples) if eta is not None and rungs else None,
        time_minutes=spec.budget.time_minutes,
        most_share=_most_share(spec),
    )


def _most_share(spec: SweepSpec) -> float:
    """Return the share of the examples of all trials to their ends that `budget.total_examples` allows."""
    whole, total = spec.budget.trials * spec.budget.examples, spec.budget.total_examples
    return 1.0 if total is None or whole == 0 else min(1.0, total / whole)


def concurrent_here(spec: SweepSpec) -> int:
    """Return how many trials this machine holds at a time; at least one."""
    import torch

    fits = [int((os.cpu_count() or 1) / spec.resources.cpus_per_trial)]
    if spec.resources.wants_gpus:
        fits.append(int(torch.cuda.device_count() / spec.resources.least_gpus))
    return max(1, min([*fits, *([spec.budget.concurrent] if spec.budget.concurrent else [])]))


def hours_in_words(spec: SweepSpec, hours: Hours) -> list[str]:
    """Return in lines how long the whole sweep takes, and what it costs where there is a price."""
    machine = f"one machine like this, {hours.concurrent} trial{'s' * (hours.concurrent > 1)} at a time"
    lines = [f"training and evaluation of the whole sweep on {machine}:"]
    price = spec.budget.price_per_hour
    for label, value in (
        ("at most, every trial to the full budget", hours.at_most),
        ("at least, halving at each rung", hours.at_least),
    ):
        if value is not None:
            money = "" if price is None else f", {value * price:.2f} at {price:g} an hour"
            lines.append(f"  {label}: {_duration(value)}{money}")
    return lines


def _duration(hours: float) -> str:
    return f"{60 * hours:.1f} min" if hours < 1 else f"{hours:.1f} h"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows in columns, headings first; text is cut to `WIDEST_TEXT` characters, numbers never."""
    texts = 3  # the first columns
    shown = [[_cut(item) if place < texts else item for place, item in enumerate(row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *shown, strict=True)]
    lines = []
    for row in (headings, *shown):
        cells = [
            item.ljust(width) if place < texts else item.rjust(width)
            for place, (item, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _cut(text: str) -> str:
    """Return a text of at most `WIDEST_TEXT` characters; of a path the end says most."""
    if len(text) <= WIDEST_TEXT:
        return text
    return "..." + text[3 - WIDEST_TEXT :] if "/" in text else text[: WIDEST_TEXT - 3] + "..."
