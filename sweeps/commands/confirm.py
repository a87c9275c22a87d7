"""`confirm`: the recipes of a front run again with new seeds, and which of its points are tied."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qa_core import files
from qa_core.config import CONFIRM, RunConfig
from qa_core.data.cache import default_cache_dir
from qa_core.errors import ConfigError
from qa_core.scoring.intervals import LEAST_CLUSTERS
from qa_core.values import from_dict
from sweeps.commands import run
from sweeps.commands.predict import answer, load_artifact
from sweeps.commands.results import artifact_folder, read_front
from sweeps.front import confirm as confirmation
from sweeps.front.confirm import Confirmed
from sweeps.front.result import FrontResult
from sweeps.nodes.report import machine_here
from sweeps.run_folder.layout import RunFolder
from sweeps.run_folder.model_id import ModelId
from sweeps.run_folder.records import Record, load
from sweeps.spec.load import stored_spec
from sweeps.spec.sections import SweepSpec

if TYPE_CHECKING:
    from qa_core.scoring.intervals import Interval
    from sweeps.front.result import FrontResult
    from sweeps.run_folder.records import Record


def confirm(run_dir: Path, *, seeds: int, target: run.Target) -> int:
    """Run every recipe of the front with new seeds and show which points are confirmed; earlier results stay.

    A recipe is trained once for each seed, however many of its stored forms are on the front.

    Args:
        run_dir: of the sweep; the confirming one goes into its folder `confirm`.
        target: where it runs; its folder is not read.

    Raises:
        ConfigError: the number of seeds is below 1.
        DataError: there is no front, or files cannot be read.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds: found {seeds}; allowed: 1 or more")
    files.refuse_links(run_dir)
    spec, front = stored_spec(run_dir), read_front(run_dir)
    folder = run_dir / confirmation.FOLDER
    records = load(RunFolder(run_dir).records).records
    _check_terms(spec, front, records, target)
    confirming = confirmation.plan(spec, front, records, folder, seeds=seeds)
    here = replace(target, folder=folder)
    code = run.run(confirming, here, resume=True)
    shipped = _score_artifacts(front, records, run_dir)
    show(confirmation.judge(front, load(RunFolder(folder).records).records, folder), shipped)
    return code


def _check_terms(spec: SweepSpec, front: FrontResult, records: Sequence[Record], target: run.Target) -> None:
    """Refuse to confirm a front whose own recipes would now be measured on other terms.

    What a cluster's nodes are is not known yet: there, devices are left to the confirming sweep.
    """
    from sweeps.front import comparability

    shown = {point.trial_id for point in front.points}
    on_front = {point.trial_id for point in front.front}
    compared = [record for record in records if record.trial_id in shown]
    comparability.check(
        compared,
        [confirmation.recipe_of(record) for record in compared if record.trial_id in on_front],
        spec.objectives,
        machines=machine_here if target.address is None else comparability.recorded(compared),
        cache_dir=default_cache_dir(),
        allow_mixed=target.allow_mixed,
        note=print,
    )


def show(confirmed: Sequence[Confirmed], shipped: Mapping[ModelId, "Interval"]) -> None:
    """Print one line for each point, the smallest first.

    Args:
        confirmed: the points.
        shipped: exact match of each point's own artifact on the questions that were set aside; empty where none
            were.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title="The front with new seeds", caption=_caption(confirmed, bool(shipped)))
    columns = ["trial", "recipe", "memory [MB]", "EM [%] that chose it"]
    if shipped:
        columns.append("EM [%] of its artifact, set aside")
    for name in (*columns, "EM [%] of new seeds", "mean and interval", "over the next smaller"):
        table.add_column(name)
    for item in confirmed:
        memory = "-" if item.memory_mb is None else f"{item.memory_mb[0]:.2f} to {item.memory_mb[1]:.2f}"
        gain = _shown(item.gain)
        point = item.point
        table.add_row(
            str(point.id),
            f"{point.family} {point.methods} {point.checkpoint}",
            memory,
            f"{point.values['em_percent']:.1f}" if "em_percent" in point.values else "-",
            *([_shown(shipped.get(point.id))] if shipped else []),
            ", ".join(f"{value:.1f}" for value in item.em_percents) or "none finished",
            _shown(item.em),
            f"{gain}; tied with {item.tied_with}" if item.tied_with else gain,
        )
    Console().print(table)


def _score_artifacts(
    front: "FrontResult", records: "Sequence[Record]", run_dir: Path
) -> "dict[ModelId, Interval]":
    """Return the exact match of the front's own artifacts on the questions that chose nothing, in percent.

    Empty where no questions were set aside. An artifact that is not there any more is left out.
    """
    from qa_core.data.clusters import question_clusters
    from qa_core.data.prepare import evaluation_part
    from qa_core.scoring import evaluate

    configs = {record.trial_id: record.config for record in records}
    intervals = {}
    for point in front.front:
        recipe = from_dict(RunConfig, configs[point.trial_id])
        if not recipe.evaluation.confirm_share or point.artifact is None:
            continue
        folder = artifact_folder(run_dir, point.id, point.artifact)
        if not files.is_folder(folder):
            continue
        recipe = replace(recipe, evaluation=replace(recipe.evaluation, part=CONFIRM))
        table, _ = evaluation_part(recipe, cache_dir=default_cache_dir())
        loaded = load_artifact(folder)
        predictions = answer(loaded, table, device=recipe.device)
        scores = evaluate.scores_by_question(predictions, table, loaded.null_threshold)
        intervals[point.id] = evaluate.score_intervals(scores, question_clusters(table))["em_percent"]
    return intervals


def _caption(confirmed: Sequence[Confirmed], has_set_aside: bool) -> str:
    """Say what the intervals are over, and on which questions."""
    found = next((item.em for item in confirmed if item.em is not None), None)
    if found is None:
        return "no new seed has finished"
    over = f"{found.clusters} {found.unit}s"
    if has_set_aside:
        where = "New seeds and artifacts are scored on the questions that evaluation.confirm_share set aside."
    else:
        where = (
            "The questions are those that chose the front: its scores are a little too high "
            "(evaluation.confirm_share sets questions aside)."
        )
    if found.low is None:
        return f"No intervals: there are only {over}; {LEAST_CLUSTERS} are needed. {where}"
    return f"95 % intervals over new seeds and {over}. {where}"


def _shown(interval: "Interval | None") -> str:
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:.1f}"
    return f"{interval.estimate:.1f} ({interval.low:.1f} to {interval.high:.1f})"
