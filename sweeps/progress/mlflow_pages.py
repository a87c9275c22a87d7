"""What MLflow's own pages show of a sweep: which of them open, the scatter of its models, and the text on its run.

Makes addresses, tags and text and writes nothing. Who sends them: `mlflow_runs.py`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.progress.shell_command import shell_command
from sweeps.run_folder.model_id import ModelId

DESCRIPTION_TAG = "mlflow.note.content"
# On which pages an experiment opens: versions of MLflow go by the tag, or by the address and what was opened last.
TRAINING = {"mlflow.experimentKind": "custom_model_development"}
WORKFLOW = "workflowType=machine_learning"
VIEW_TAG = "mlflow.sharedViewState."  # and a key: what a page with `viewStateShareKey` shows
CHART_HEIGHT = 560  # pixels; MLflow's default is 360
MOST_POINTS = 10_000  # that a scatter draws
MOST_ROWS = 20  # of a front, in the text
PARTS = {"train": "training", "selection": "selection", "evaluation": "evaluation"}  # of a record's data


def runs_page(experiment_id: str) -> str:
    """Return where MLflow's UI lists the runs of an experiment, relative to its address."""
    return f"#/experiments/{experiment_id}/runs?{WORKFLOW}"


def scatter_page(experiment_id: str, parent: str) -> str:
    """Return where it shows the models of one sweep as points, relative to its address."""
    return f"{runs_page(experiment_id)}&compareRunsMode=CHART&viewStateShareKey={_view_key(parent)}"


def experiment_tags(
    spec: Mapping[str, Any], parent: str, *, sweep_tag: str, front_tag: str
) -> dict[str, str]:
    """Return tags of the experiment: on which pages it opens, and the view that `scatter_page` names.

    Args:
        spec: the sweep's settings; its first two objectives are the axes, the second one the horizontal.
        parent: the sweep's run.
        sweep_tag: the tag with which all its trials and forms name it.
        front_tag: the tag of models on its front.
    """
    names = [str(item["name"]) for item in spec.get("objectives") or ()]
    if len(names) < 2:
        return dict(TRAINING)
    # The only chart takes the whole row: of three columns, MLflow's default, it would fill a narrow third.
    section = {"uuid": "models", "name": "models", "display": True, "isReordered": False}
    section |= {"columns": 1, "cardHeight": CHART_HEIGHT}
    chart = {
        "type": "SCATTER",
        "uuid": "front",
        "metricSectionId": section["uuid"],
        "displayName": f"{names[0]} against {names[1]}",
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": MOST_POINTS,
        "xaxis": {"key": names[1], "type": "METRIC"},
        "yaxis": {"key": names[0], "type": "METRIC"},
    }
    view = {
        # A model has both values; a run without the first is a training whose forms are the models, or none.
        "searchFilter": f"tags.`{sweep_tag}` = '{parent}' AND metrics.`{names[0]}` > -1e30",
        # The page loads a hundred runs at a time: the front first. By time, runs are folded away below the sweep's.
        "orderByKey": f"tags.`{front_tag}`",
        "orderByAsc": False,
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": [chart],
        "compareRunSections": [section],
        "isAccordionReordered": False,
    }
    return {**TRAINING, f"{VIEW_TAG}{_view_key(parent)}": json.dumps(view)}


def _view_key(parent: str) -> str:
    return f"qa-{parent}"


def front_values(
    spec: Mapping[str, Any], points: Sequence[Mapping[str, Any]], hypervolume: float
) -> dict[str, float]:
    """Return the numbers of a front: hypervolume, size, and `best.NAME` of each objective.

    Args:
        spec: the sweep's settings.
        points: of the front, with the objectives by name.
        hypervolume: of the front.
    """
    values = {"hypervolume": hypervolume, "front_size": float(len(points))}
    for item in spec.get("objectives") or ():
        found = [float(row[item["name"]]) for row in points if row.get(item["name"]) is not None]
        if found:
            values[f"best.{item['name']}"] = max(found) if item["goal"] == "max" else min(found)
    return values


def description(spec: Mapping[str, Any], folder: Path, points: Sequence[Mapping[str, Any]]) -> str:
    """Return a text in Markdown: what was asked, the front, best values, the folder, and what to type.

    Args:
        spec: the sweep's settings.
        folder: of the sweep.
        points: of the front, best first objective first, with the objectives by name.
    """
    objectives = list(spec.get("objectives") or ())
    lines = ["## What was asked", "", *_asked(spec, objectives), "", "## The front", ""]
    lines += _table(objectives, points) if points else ["No model has been trained to its end yet."]
    best = front_values(spec, points, 0.0)
    named = [
        f"{item['name']} {best[key]:.2f}" for item in objectives if (key := f"best.{item['name']}") in best
    ]
    if named:
        lines += ["", f"Best values on it: {', '.join(named)}."]
    commands = [shell_command("qa-sweep", "front", folder), shell_command("qa-sweep", "report", folder)]
    if points:
        model = ModelId(str(points[0]["trial_id"]), points[0].get("form"))
        form = ["--form", model.form] if model.form else []
        commands.append(
            shell_command(
                "qa-sweep", "export", folder, "--trial", model.trial_id, *form, "--to", f"{folder}-model"
            )
        )
    lines += ["", "## Where it is", "", f"Folder: `{folder}`", "", "```", *commands, "```"]
    return "\n".join(lines)


def _asked(spec: Mapping[str, Any], objectives: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    goals = {"max": "most", "min": "least"}
    yield "- objectives: " + ", ".join(
        f"{goals.get(item.get('goal', ''), '')} {item['name']}" for item in objectives
    )
    budget = {name: value for name, value in (spec.get("budget") or {}).items() if value is not None}
    for name in ("trials", "examples", "total_examples", "max_memory_mb", "time_minutes"):
        if name in budget:
            yield f"- budget.{name}: {budget[name]}"
    data = (spec.get("recipe") or {}).get("data") or {}
    for name in ("train", "evaluation"):
        if data.get(name):
            yield f"- data.{name}: `{data[name]}`"
    for name in ("searcher", "scheduler"):
        if chosen := (spec.get(name) or {}).get("name"):
            yield f"- {name}: {chosen}"


def _table(objectives: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [str(item["name"]) for item in objectives]
    heads = ["model", *names, "family", "methods"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in points[:MOST_ROWS]:
        model = ModelId(str(row["trial_id"]), row.get("form"))
        values = ["" if row.get(name) is None else f"{row[name]:.2f}" for name in names]
        lines.append(
            f"| {' | '.join([str(model), *values, str(row.get('family', '')), str(row.get('methods', ''))])} |"
        )
    if len(points) > MOST_ROWS:
        lines += ["", f"and {len(points) - MOST_ROWS} more: see `front.csv`"]
    return lines


def data_sets(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what each set of data of a record is for, where it came from, and its hash."""
    data = record.get("data") or {}
    given = (record.get("config") or {}).get("data") or {}
    for part, context in PARTS.items():
        found = data.get(part) or {}
        if found.get("data_hash"):
            source = given.get("evaluation") if part == "evaluation" else None
            yield context, str(source or given.get("train") or part), str(found["data_hash"])
