"""`reference: auto`: where an objective begins to count, found before the first trial.

The hypervolume of a front is what its points dominate up to a reference point: a trial that is not better than the
reference in every objective gains nothing. A reference that is too generous makes the volume say little: above an EM of
0 and below a memory that no recipe needs, a model that has learnt nothing dominates most of it. So `auto` is

- for a quality, the best trivial baseline of the evaluation questions (`qa_core/scoring/baselines.py`): a model that
  is no better than an answer which needs no model has found nothing;
- for a cost that the recipe fixes (`PREDICTED` in `sweeps/budget/memory.py`, and the peak of training), `MARGIN` times
  the largest value among recipes that the sweep admits, so that the largest of them counts too.

A measure that cannot be predicted, such as latency, needs a number. Numbers are stored with the sweep's settings, and a
resumed, extended or confirming sweep keeps them.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core.config import RunConfig
from qa_core.errors import ConfigError, QaError, counted
from qa_core.values import to_dict
from sweeps.budget.earlier_answers import EarlierAnswers
from sweeps.budget.memory import DECIDING, OF_A_STEP, MemoryForecast
from sweeps.space.extremes import recipe_of, start_of
from sweeps.space.space import Assignment, Parameter, Space
from sweeps.spec.objectives import TRAINING, measure

if TYPE_CHECKING:
    from sweeps.spec.sections import SweepSpec

MARGIN = 1.1
MOST_TOGETHER = 32  # recipes of a combination that are all looked at; of more, some
# Settings of a recipe that its evaluation questions depend on.
OF_THE_QUESTIONS = (
    "data.train",
    "data.evaluation",
    "data.holdout_share",
    "data.evaluation_questions",
    "data.skip_bad_examples",
    "data.split_seed",
    "evaluation.confirm_share",
    "evaluation.part",
)


@dataclass(frozen=True)
class Reference:
    """A reference that was found, and how; or why none was."""

    value: float | None
    how: str


def find(
    spec: "SweepSpec",
    space: Space,
    forecast: MemoryForecast,
    *,
    earlier: EarlierAnswers | None = None,
) -> dict[str, Reference]:
    """Return what `auto` stands for, for each objective of the sweep that has it.

    Args:
        spec: its recipes' checkpoints and evaluation data are looked at.
        space: of the spec.
        forecast: of the spec.
        earlier: baselines of earlier calls; None: all are computed anew.
    """
    from qa_core.data.cache import default_cache_dir

    return {
        objective.name: (
            _known_baseline(objective.name, space, default_cache_dir(), earlier)
            if measure(objective.name).section == "quality"
            else _largest(objective.name, space, forecast)
        )
        for objective in spec.objectives
        if objective.is_auto
    }


def resolved(spec: "SweepSpec", found: Mapping[str, Reference]) -> "SweepSpec":
    """Return the spec with numbers for its references.

    Raises:
        ConfigError: one was not found; names the objective and the setting.
    """
    for index, objective in enumerate(spec.objectives):
        if objective.is_auto and found[objective.name].value is None:
            raise ConfigError(
                f"{spec.where('objectives', index, 'reference')}: found auto for {objective.name}, and "
                f"{found[objective.name].how}; allowed: a number"
            )
    return spec.with_references({name: item.value for name, item in found.items() if item.value is not None})


def lines(spec: "SweepSpec", found: Mapping[str, Reference]) -> list[str]:
    """Return one line about each objective's reference."""
    texts = []
    for objective in spec.objectives:
        if not objective.is_auto:
            texts.append(f"{objective.name}: {objective.worst:g} {objective.measured_unit}, as given")
            continue
        item = found[objective.name]
        value = "not found" if item.value is None else f"{item.value:.4g} {objective.measured_unit}"
        texts.append(f"{objective.name}: {value}: {item.how}")
    return texts


def _known_baseline(name: str, space: Space, cache_dir: Path, earlier: EarlierAnswers | None) -> Reference:
    """Return the baseline of an earlier call where there is one, else that of this one."""
    if earlier is None:
        return _baseline(name, space, cache_dir)
    configs = [to_dict(config) for config in _recipes(space, OF_THE_QUESTIONS)]
    parts = [{section: values[section] for section in ("data", "evaluation")} for values in configs]
    found = earlier.answer(
        ["baseline", name, parts],
        lambda: asdict(_baseline(name, space, cache_dir)),
        is_lasting=lambda found: found["value"] is not None,
    )
    return Reference(**found)


def _baseline(name: str, space: Space, cache_dir: Path) -> Reference:
    """Return the best score of any trivial baseline on any evaluation set that a recipe names."""
    from qa_core.data.prepare import evaluation_part
    from qa_core.scoring.evaluate import baseline_scores

    best: Reference | None = None
    seen = set()
    for config in _recipes(space, OF_THE_QUESTIONS):
        settings = tuple(str(attrgetter(path)(config)) for path in OF_THE_QUESTIONS)
        if settings in seen:
            continue
        seen.add(settings)
        try:
            questions, _ = evaluation_part(config, cache_dir=cache_dir)
        except QaError as error:
            return Reference(None, f"the evaluation questions cannot be read: {error}")
        scores = {
            key.removeprefix("baseline_").removesuffix(f"_{name}"): value
            for key, value in baseline_scores(questions).items()
            if key.endswith(f"_{name}")
        }
        baseline = max(scores, key=lambda key: scores[key])
        found = Reference(
            scores[baseline],
            f"the best trivial baseline of {len(questions)} evaluation questions ({baseline.replace('_', ' ')})",
        )
        best = found if best is None or scores[baseline] > (best.value or 0.0) else best
    assert best is not None  # a space has a recipe
    return best


def _largest(name: str, space: Space, forecast: MemoryForecast) -> Reference:
    """Return MARGIN times the largest forecast of an admitted recipe.

    In a combination of more than MOST_TOGETHER recipes, one setting after the other is moved to the value that needs
    most and is still admitted.
    """
    paths = [*DECIDING, *(f"train.{item}" for item in OF_A_STEP if name == TRAINING)]
    largest: float | None = None
    why: str | None = None
    count = 0
    for combination in space.legal:
        assignment, free = start_of(space, combination, paths)
        here = None
        for changed in _ends(assignment, free):
            config = recipe_of(space, changed)
            place = None if config is None else _place(forecast, config, name)
            if config is None or place is None:
                why = why or (None if config is None else _why(forecast, config, name))
                continue
            count += 1
            if here is None or place > here:
                here = place
                assignment.update(changed)
        if here is not None and here > 0:
            largest = max(here, largest or 0.0)
    if largest is not None:
        unit = measure(name).unit
        limit = "" if forecast.max_memory_mb is None else f" within {forecast.max_memory_mb:g} MB"
        return Reference(
            MARGIN * largest,
            f"{MARGIN:g} x {largest:.4g} {unit}, the largest of {counted(count, 'recipe')}{limit}",
        )
    if count:
        return Reference(None, f"no recipe is predicted to need at most {forecast.max_memory_mb:g} MB")
    return Reference(None, f"no recipe can be predicted: {why or 'it cannot be built'}")


def _place(forecast: MemoryForecast, config: RunConfig, name: str) -> float | None:
    """Return the largest value of what a recipe is stored as, within the limit; beyond it, where less is nearer to it,
    the smallest as a negative number; None where none is predicted.
    """
    if name == TRAINING:
        value = forecast.training_bytes(config)
        return value if value is None or forecast.admits(config) else -value
    found = [(forecast.predict(form, name), forecast.fits(form)) for form in forecast.stored(config)]
    within = [value for value, fits in found if value is not None and fits]
    beyond = [value for value, fits in found if value is not None and not fits]
    return max(within) if within else -min(beyond) if beyond else None


def _why(forecast: MemoryForecast, config: RunConfig, name: str) -> str | None:
    return "its training is not predicted" if name == TRAINING else forecast.why(config, name)


def _recipes(space: Space, paths: Sequence[str]) -> Iterator[RunConfig]:
    """Yield recipes of each combination, the settings below the paths at their ends."""
    for combination in space.legal:
        assignment, free = start_of(space, combination, paths)
        for changed in _ends(assignment, free):
            config = recipe_of(space, changed)
            if config is not None:
                yield config


def _ends(assignment: Assignment, free: list[Parameter]) -> Iterator[Assignment]:
    """Yield the assignment with the free settings at their ends: all together, or too many of them one by one.

    One by one, whoever updates the assignment meanwhile goes on from there.
    """
    ends = [parameter.domain.extremes() for parameter in free]
    if math.prod(map(len, ends)) <= MOST_TOGETHER:
        names = [parameter.id for parameter in free]
        for values in itertools.product(*ends):
            yield {**assignment, **dict(zip(names, values, strict=True))}
        return
    yield dict(assignment)
    for parameter, values in zip(free, ends, strict=True):
        for value in values[1:]:
            yield {**assignment, parameter.id: value}
