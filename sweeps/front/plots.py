"""The still plot of a front, as PNG. What can be moved and asked is `sweeps/report/`.

Draws what `sweeps/front/front.py` computed and decides nothing. With two or more objectives, the first is on the y
axis and the second on the x axis; with one, the x axis is the order of the trials.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qa_core import files
from qa_core.errors import ConfigError
from sweeps.front.points import Point
from sweeps.front.result import FrontResult
from sweeps.front.tables import summary

# Okabe and Ito's colours: told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
TRIAL_ORDER = "trial"


def write_png(result: FrontResult, path: Path) -> None:
    """Write a still plot, 1600 x 1000 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for colour, family, members in _by_family(result):
        for on_front in (False, True):
            shown = [point for point in members if point.on_front is on_front]
            if not shown:
                continue
            xs, ys = _coordinates(result, shown)
            size, opacity = (60, 1.0) if on_front else (25, 0.45)
            label = _literal(family) if on_front or not any(point.on_front for point in members) else None
            axes.scatter(xs, ys, s=size, alpha=opacity, color=colour, label=label, linewidths=0, zorder=3)
    knees = [point for point in result.points if point.is_knee]
    if knees:
        axes.scatter(
            *_coordinates(result, knees), s=150, facecolors="none", edgecolors="#222222", label="knee"
        )
    line = _front_line(result)
    if line is not None:
        axes.plot(*line, color="#444444", linewidth=1, zorder=2, label="front")
    for name, value in _baselines(result):
        axes.axhline(value, linestyle=":", color="#888888", linewidth=1)
        right_end = axes.get_yaxis_transform()  # x in shares of the width, y in data
        label = f"baseline: {name}"
        axes.text(1, value, label, transform=right_end, ha="right", va="bottom", fontsize=7, color="#666666")
    x_title, y_title = _axis_titles(result)
    axes.set(xlabel=x_title, ylabel=y_title)
    axes.set_title(_literal(summary(result)), fontsize=8)
    axes.grid(alpha=0.25)
    if result.points:
        axes.legend(fontsize=7, loc="best")
    with files.written_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _by_family(result: FrontResult) -> list[tuple[str, str, list[Point]]]:
    families = sorted({point.family for point in result.points})
    members = {name: [point for point in result.points if point.family == name] for name in families}
    return [(COLOURS[index % len(COLOURS)], name, members[name]) for index, name in enumerate(families)]


def _coordinates(result: FrontResult, shown: Sequence[Point]) -> tuple[list[float], list[float]]:
    ys = [point.values[result.objectives[0].name] for point in shown]
    if len(result.objectives) > 1:
        return [point.values[result.objectives[1].name] for point in shown], ys
    order = {point.id: float(index) for index, point in enumerate(result.points)}
    return [order[point.id] for point in shown], ys


def _front_line(result: FrontResult) -> tuple[list[float], list[float]] | None:
    """Return the corners of the dominated region; None unless there are two objectives."""
    if len(result.objectives) != 2 or not result.front:
        return None
    x_is_max = result.objectives[1].goal == "max"
    ordered = sorted(zip(*_coordinates(result, result.front), strict=True), reverse=x_is_max)
    xs, ys = [ordered[0][0]], [ordered[0][1]]
    for x, y in ordered[1:]:  # a step: the quality of the last point holds until the next one is reached
        xs += [x, x]
        ys += [ys[-1], y]
    return xs, ys


def _baselines(result: FrontResult) -> list[tuple[str, float]]:
    return list(result.baselines.items()) if result.objectives[0].name == "em_percent" else []


def _axis_titles(result: FrontResult) -> tuple[str, str]:
    if not result.objectives:
        raise ConfigError("objectives: found none; a plot needs at least one")
    better = {"max": "more is better", "min": "less is better"}
    titles = [f"{item.name} [{item.measured_unit}], {better[item.goal]}" for item in result.objectives]
    return (titles[1] if len(titles) > 1 else TRIAL_ORDER), titles[0]


def _literal(text: str) -> Any:
    """Keep matplotlib from reading $...$ in a name as mathematics, or a leading _ as "no label"."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
