"""Recipes at the ends of a space, for what must be known of all of its recipes without a walk through each."""

from collections.abc import Mapping, Sequence

from qa_core.config import RunConfig
from qa_core.errors import ConfigError
from sweeps.space.space import Assignment, Parameter, Space


def start_of(
    space: Space, combination: Mapping[str, object], paths: Sequence[str]
) -> tuple[Assignment, list[Parameter]]:
    """Return a recipe of a combination, and the other active settings that lie below one of the paths."""
    assignment: Assignment = {}
    free = []
    for parameter in space.parameters:
        if not parameter.is_active(assignment):
            continue
        if parameter.id in combination:
            assignment[parameter.id] = combination[parameter.id]
            continue
        assignment[parameter.id] = parameter.domain.extremes()[0]
        if any(parameter.path == path or parameter.path.startswith(f"{path}.") for path in paths):
            free.append(parameter)
    return assignment, free


def recipe_of(space: Space, assignment: Assignment) -> RunConfig | None:
    """Return the recipe of an assignment; None where the values do not go together."""
    try:
        return space.to_run_config(assignment, seed=0)
    except ConfigError:
        return None
