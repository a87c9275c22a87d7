"""Whether the points of a front hold with other seeds: their recipes run again, and compared question by question.

A point came onto the front because its one seed was good on its questions: of many trials, the luckiest are chosen.
`plan` writes a sweep that runs each recipe of the front once with each new seed, and makes of it the stored forms that
are on the front; on the questions that chose nothing where `evaluation.confirm_share` set some aside, and with nothing
else changed. `sweeps/trials/ray_driver.py` runs it like any other. `judge` reads what it found. The point's own score,
which chose it, is shown beside and never averaged in.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qa_core import files
from qa_core.config import CONFIRM, RunConfig
from qa_core.data.clusters import Clusters
from qa_core.errors import ConfigError, DataError
from qa_core.scoring.answer_file import ANSWERS_FILE, read_scores
from qa_core.scoring.intervals import Interval, crossed_mean
from qa_core.seeding import derive_seed
from qa_core.values import convert, from_dict
from sweeps.front.points import Point
from sweeps.front.result import FrontResult
from sweeps.run_folder import journal
from sweeps.run_folder.journal import Journal, PastTrial
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.models import models_of
from sweeps.run_folder.noted_forms import NotedForm, as_note, noted_forms
from sweeps.run_folder.records import Record
from sweeps.spec.load import store_spec
from sweeps.spec.objectives import measure
from sweeps.spec.sections import SweepSpec

FOLDER = "confirm"  # in the sweep's folder
NOTE = "confirms"  # in the notes of a trial: the trial whose recipe it repeats


@dataclass(frozen=True)
class Confirmed:
    """One point of a front after its recipe was run again.

    Attributes:
        point: as it stands on the front, from the seed that chose it.
        em_percents: exact match of each new seed.
        em: mean over new seeds and questions with a 95 % interval over both; None without a finished seed.
        memory_mb: least and greatest of the new seeds.
        tied_with: the next smaller point on the front, as it is shown, when the gain over it may be none.
        gain: in exact match over that point, with its interval; None for the smallest point.
    """

    point: Point
    em_percents: tuple[float, ...]
    em: Interval | None
    memory_mb: tuple[float, float] | None
    tied_with: str | None
    gain: Interval | None


def confirming_spec(spec: SweepSpec, trials: int) -> SweepSpec:
    """Return the settings of the sweep that confirms: every trial runs to its end, nothing is searched."""
    values = spec.as_dict()
    values["name"] = f"{spec.name}-confirm"
    values["searcher"] = {"name": "random"}
    values["scheduler"] = {"name": "fifo", "options": {"reports": 0}}
    values["budget"] = {**values["budget"], "trials": trials}
    return SweepSpec.model_validate(values)


def plan(
    spec: SweepSpec, front: FrontResult, records: Sequence[Record], folder: Path, *, seeds: int
) -> SweepSpec:
    """Write the sweep that confirms a front into `folder`, or add to it what it does not have yet.

    Returns its settings; its trials are those that the journal proposes.

    Raises:
        DataError: the front is empty, or the folder holds something that cannot be read.
    """
    if not front.front:
        raise DataError("the sweep has no front yet: no trial has finished")
    recipes = {record.trial_id: record for record in records}
    for point in front.front:
        recipe_of(recipes[point.trial_id])
    files.make_folder(folder)
    past = journal.read(folder)
    log, count = Journal(folder), len(past.trials)
    missing = _missing(spec, front, past.trials, seeds=seeds)
    confirming = confirming_spec(spec, count + len(missing))
    store_spec(confirming, folder)
    for index, (trial_id, seed, labels) in enumerate(missing, start=count):
        record = recipes[trial_id]
        forms = [NotedForm(form.label, form.settings) for form in record.forms if form.label in labels]
        log.proposed(
            f"t{index:04d}",
            assignment=record.assignment,
            notes={NOTE: trial_id, **as_note(forms)},
            recipe=_confirming(record, seed=seed),
        )
    return confirming


def _missing(
    spec: SweepSpec, front: FrontResult, past: Collection[PastTrial], *, seeds: int
) -> list[tuple[str, int, set[str | None]]]:
    """Return (trial, new seed, labels of its forms) for what no trial of the confirming sweep covers yet."""
    covered: dict[tuple[str, int], set[str | None]] = {}
    for trial in past:
        confirms, labels = _noted(trial)
        covered.setdefault((confirms, trial.recipe["seed"]), {None}).update(labels)
    wanted: dict[str, set[str | None]] = {}
    for point in front.front:
        wanted.setdefault(point.trial_id, set()).add(point.form)
    missing = []
    for number in range(seeds):
        for trial_id, forms in wanted.items():
            seed = new_seed(spec.seed, trial_id, number)
            if lacking := forms - covered.get((trial_id, seed), set()):
                missing.append((trial_id, seed, lacking))
    return missing


def _noted(trial: PastTrial) -> tuple[str, list[str]]:
    """Return which trial another one repeats, and the labels of the forms that it makes; raises DataError."""
    try:
        confirms = convert(str, trial.notes.get(NOTE), f"notes.{NOTE}", strict=True)
        return confirms, [form.label for form in noted_forms(trial.notes) or ()]
    except (ConfigError, DataError) as error:
        raise DataError(f"trial {trial.trial_id}: {error}, as every confirming trial has") from error


def _confirming(record: Record, *, seed: int) -> dict[str, Any]:
    """Return the recipe with another seed, scored on the questions that were set aside, if there are any."""
    evaluation = record.config.get("evaluation", {})
    if evaluation.get("confirm_share"):
        evaluation = {**evaluation, "part": CONFIRM}
    train = {**record.config["train"], "rungs": []}
    return {**record.config, "train": train, "evaluation": evaluation, "seed": seed}


def new_seed(sweep_seed: int, trial_id: str, number: int) -> int:
    """Return a seed for another run of a trial's recipe; no trial of the sweep itself has it but by chance."""
    return derive_seed(sweep_seed, f"confirm {trial_id} {number}") % 2**31


def judge(front: FrontResult, records: Sequence[Record], folder: Path) -> list[Confirmed]:
    """Return the points of a front, the smallest first, with what the sweep in `folder` found about them.

    Args:
        front: of the sweep that is confirmed.
        records: of the sweep in `folder`.

    Raises:
        DataError: answers are missing, or trials answered other questions.
    """
    by_point: dict[ModelId, list[Record]] = {}
    for model in (model for record in records if record.status == "ok" for model in models_of(record)):
        _check_repeat(model, folder)
        form = model.forms[0].label if model.forms else None
        by_point.setdefault(ModelId(model.notes[NOTE], form), []).append(model)
    points = sorted(front.front, key=lambda item: (item.memory_mb or 0.0, item.id.order))
    scores = {point.id: _exact_match(by_point.get(point.id, []), folder) for point in points}
    confirmed = []
    smaller: Point | None = None
    for point in points:
        repeats, own = by_point.get(point.id, []), scores[point.id]
        gain = None
        if own is not None and smaller is not None:
            gain = _gain(own, scores[smaller.id])
        memory = [_memory_mb(record.cost or {}) for record in repeats]
        confirmed.append(
            Confirmed(
                point=point,
                em_percents=tuple(float((record.quality or {})["em_percent"]) for record in repeats),
                em=None if own is None else _mean(own),
                memory_mb=(min(memory), max(memory)) if memory else None,
                tied_with=str(smaller.id) if smaller and gain and _may_be_none(gain) else None,
                gain=gain,
            )
        )
        smaller = point if own is not None else smaller
    return confirmed


def recipe_of(record: Record) -> RunConfig:
    """Return the recipe of a record; raises DataError where this version does not take it."""
    try:
        return from_dict(RunConfig, record.config)
    except ConfigError as error:
        raise DataError(f"trial {record.trial_id}: config: {error}") from error


def _check_repeat(record: Record, folder: Path) -> None:
    """Refuse a record that lacks what `judge` reads of it; raises DataError."""
    memory = measure("memory_mb").field
    try:
        convert(str, record.notes.get(NOTE), f"notes.{NOTE}", strict=True)
        convert(float, (record.quality or {}).get("em_percent"), "quality.em_percent", strict=True)
        convert(float, (record.cost or {}).get(memory), f"cost.{memory}", strict=True)
    except ConfigError as error:
        place = f"{RunFolder(folder).records}: trial {record.trial_id}"
        raise DataError(f"{place}: {error}, as every confirming trial has") from error


@dataclass(frozen=True)
class _Answers:
    """Exact match in percent of a model's new seeds, [seeds, questions], and which questions belong together."""

    trial_ids: list[str]  # that trained each seed
    question_ids: list[str]
    exact_match: np.ndarray
    clusters: Clusters


def _exact_match(repeats: Sequence[Record], folder: Path) -> _Answers | None:
    """Return what the new seeds of a model answered; None where no seed has finished."""
    rows = []
    found: tuple[list[str], Clusters] | None = None
    for model in repeats:
        path = _answers_of(model, folder)
        ids, scores, clusters = read_scores(path)
        if found is not None and found[0] != ids:
            raise DataError(f"{path}: its questions are not those of the other seeds of the same recipe")
        found = ids, clusters
        rows.append(100.0 * scores[:, 0])
    if found is None:
        return None
    return _Answers([model.trial_id for model in repeats], found[0], np.stack(rows), found[1])


def _answers_of(model: Record, folder: Path) -> Path:
    """Return the file of a model's answers; those of the twin are its trial's own."""
    trial = RunFolder(folder).trial(model.trial_id)
    form = model.forms[0] if model.forms else None
    return trial.form(form.label).answers if form is not None and form.settings else trial.path / ANSWERS_FILE


def _mean(own: _Answers) -> Interval:
    """Return the mean exact match over seeds and questions."""
    return crossed_mean(own.exact_match, None, own.clusters, bounds=(0.0, 100.0))


def _gain(own: _Answers, other: _Answers | None) -> Interval:
    """Return the gain in exact match over another model.

    Two forms of one network vary together from seed to seed, so they are compared seed by seed.
    """
    assert other is not None, "only a point of which a seed finished is compared with"
    if own.question_ids != other.question_ids:
        raise DataError("two recipes of the front answered other questions, so they cannot be compared")
    shared = [trial_id for trial_id in own.trial_ids if trial_id in other.trial_ids]
    if not shared:
        return crossed_mean(own.exact_match, other.exact_match, own.clusters)
    mine, theirs = (
        answers.exact_match[[answers.trial_ids.index(trial_id) for trial_id in shared]]
        for answers in (own, other)
    )
    return crossed_mean(mine - theirs, None, own.clusters)


def _may_be_none(gain: Interval) -> bool:
    return gain.low is not None and gain.low <= 0.0


def _memory_mb(cost: Mapping[str, Any]) -> float:
    memory = measure("memory_mb")
    return float(cost[memory.field] / memory.divisor)
