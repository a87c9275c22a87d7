"""`validate`: a sweep's space and its data, checked without training. What it would do and spend is in `plan.py`."""

import sys
from collections.abc import Mapping
from typing import Any

from qa_core import registry
from qa_core.errors import counted
from sweeps.budget import references
from sweeps.checks.data import DataReport
from sweeps.checks.sweep import check
from sweeps.progress.console import broken_lines, warning_text
from sweeps.space.paths import METHODS_PATH, method_names
from sweeps.spec.sections import SweepSpec

COLUMNS = 80  # of the terminal


def validate(spec: SweepSpec) -> int:
    """Check the space, read the data and find the references; print what is legal and what is dropped."""
    checked = check(spec)
    print(f"{spec.name}: valid")
    print_lines("notes", remarks(spec))
    show_data(checked.report)
    found = checked.references()
    references.resolved(spec, found)
    print_lines("references", references.lines(spec, found))
    print_lines("dropped", [f"{words(item.assignment)}: {item.reason}" for item in checked.space.dropped])
    print(f"legal combinations: {len(checked.space.legal)}, dropped: {len(checked.space.dropped)}")
    return 0


def remarks(spec: SweepSpec) -> list[str]:
    """Return what is allowed and might surprise."""
    return [*spec.notes, *_first_remarks(spec), *_scheduler_remarks(spec), *_form_remarks(spec)]


def _first_remarks(spec: SweepSpec) -> list[str]:
    """Return how many recipes come before the searcher's own, and whether the budget has room for all of them."""
    count, trials = len(spec.searcher.first), spec.budget.trials
    if not count:
        return []
    more = "" if count <= trials else f"; budget.trials has room for {trials} of them"
    return [f"{counted(count, 'recipe')} before the searcher's own (searcher.first){more}"]


def _form_remarks(spec: SweepSpec) -> list[str]:
    """Return which methods are searched although one training could be stored in each of their values."""
    searched = {
        name
        for entry in spec.space
        if entry.path == METHODS_PATH
        for product in entry.choice or ()
        for name in method_names(product)
    }
    searched |= {
        entry.path.split(".")[1] for entry in spec.space if entry.path.startswith(f"{METHODS_PATH}.")
    }
    return [
        f"{METHODS_PATH} {name} is searched, which trains a network for each choice; under forms ({name}: {{OPTION: "
        "[VALUES]}) one training is stored in each"
        for name in sorted(searched & registry.METHODS.keys())
        if registry.method_class(name).is_addable_after_training
    ]


def _scheduler_remarks(spec: SweepSpec) -> list[str]:
    if spec.scheduler.name == "asha" and len(spec.objectives) > 1:
        first, *others = (objective.name for objective in spec.objectives)
        return [
            f"scheduler asha stops trials by {first} alone; {', '.join(others)}: measured and on the front, but what a "
            "front would keep for it can be stopped (pareto_asha looks at all objectives)"
        ]
    return []


def show_data(report: DataReport) -> None:
    """Print what was found in the data; warnings on the error stream."""
    for title, lines in report.sections().items():
        print_lines(title, lines)
    for warning in report.warnings:
        print(warning_text(warning, is_broken=sys.stderr.isatty()), file=sys.stderr)


def print_lines(title: str, lines: list[str], *, width: int = COLUMNS) -> None:
    """Print a title and the lines under it, which are broken at `width`; nothing where there is no line."""
    for line in broken_lines(title, lines, width):
        print(line)


def words(assignment: Mapping[str, Any]) -> str:
    """Return an assignment as "model.family=bert, train.learning_rate=0.003"."""
    shown = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in assignment.items()}
    return ", ".join(f"{key}={value}" for key, value in shown.items()) or "the recipe as it stands"
