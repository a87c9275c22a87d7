"""The Markdown tables of `benchmarks/search.py`: quantiles over seeds, and gains over rows with equal seeds."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.search_rows import OURS, SEARCHERS, WITH_FORMS, WITHOUT_FLOOR, Setting, has_forms
from benchmarks.search_runs import REACH, SPEND, Run, grid_front
from sweeps.replay.curves import CurveTable

BUSY_AT = REACH.index(0.99)  # of which worker seconds are shown
QUANTILES = (0.1, 0.5, 0.9)
PAIRED_AT = 0.15  # of the budget


def interval(values: Sequence[float | None]) -> tuple[float, ...]:
    """Return the quantiles of QUANTILES; None counts as infinite, and each is one of the values."""
    numbers = [np.inf if value is None else value for value in values]
    return tuple(float(np.quantile(numbers, at, method="inverted_cdf")) for at in QUANTILES)


def cell(values: Sequence[float | None], *, scale: float = 100.0, digits: int = 1) -> str:
    """Return "median (low-high)", in percent unless another scale is given; what a seed never reached is "never"."""
    low, middle, high = (
        "never" if np.isinf(value) else f"{scale * value:.{digits}f}" for value in interval(values)
    )
    return middle if low == middle == high else f"{middle} ({low}-{high})"


def reach_cell(values: Sequence[float | None]) -> str:
    """Return the cell of a share of the volume, and how many of the seeds get there where not all do."""
    reached = sum(value is not None for value in values)
    return cell(values) if reached == len(values) else f"{cell(values)}; {reached} of {len(values)}"


def markdown(name: str, setting: Setting, rows: Mapping[str, Sequence[Run]]) -> list[str]:
    """Return two tables: budget to reach a volume, and what is there at a budget."""
    table = setting.table
    references = ", ".join(f"{item.name} {item.worst:.4g}" for item in table.spec.objectives)
    lines = ["", f"### {name}", ""]
    lines += [
        f"{_size(table)}, front of {len(grid_front(table))} points, reference {references}, "
        f"{setting.workers} workers, {max(map(len, rows.values()))} seeds.",
        "",
    ]
    budget_to = [f"budget % to {100 * share:g} % HV" for share in REACH]
    first = {
        row: [
            *(reach_cell([run.reached[index] for run in runs]) for index in range(len(REACH))),
            reach_cell([run.busy[BUSY_AT] for run in runs]),
        ]
        for row, runs in rows.items()
    }
    at = [
        title.format(f"{100 * share:g} %")
        for share in SPEND
        for title in ("HV % at {}", "front points at {}", "EM lost at {}")
    ]
    second = {row: [*_standing_cells(runs), *_counts(runs)] for row, runs in rows.items()}
    lines += markdown_table(
        ["method", *budget_to, f"worker seconds % to {100 * REACH[BUSY_AT]:g} % HV"], first
    )
    lines += ["", *markdown_table(["method", *at, "finished", "stopped"], second)]
    if setting.trainings is not None:
        headings = ["method", "mean HV %", "HV %", "mean front points", "finished", "stopped", "paused"]
        third = {row: _end_cells(runs) for row, runs in rows.items() if all(run.end for run in runs)}
        lines += [
            "",
            f"At the end, {setting.trainings:g} trainings' worth:",
            "",
            *markdown_table(headings, third),
        ]
    return lines


def _size(table: CurveTable) -> str:
    trainings = f"{len(table.curves)} {'trainings' if has_forms(table) else 'recipes'}"
    return f"{trainings}, {len(table.losses)} stored forms" if has_forms(table) else trainings


def _end_cells(runs: Sequence[Run]) -> list[str]:
    ends = [run.end for run in runs if run.end is not None]
    volumes = [end.volume for end in ends]
    return [
        f"{100 * np.mean(volumes):.1f}",
        cell(volumes),
        f"{np.mean([end.front_points for end in ends]):.2f}",
        *(f"{np.mean([getattr(run, key) for run in runs]):.1f}" for key in ("finished", "stopped", "paused")),
    ]


def _standing_cells(runs: Sequence[Run]) -> list[str]:
    cells = []
    for index in range(len(SPEND)):
        found = [run.standings[index] for run in runs]
        cells.append(cell([item.volume for item in found]))
        cells.append(cell([item.front_points for item in found], scale=1.0, digits=0))
        cells.append(cell([item.em_lost for item in found], scale=1.0))
    return cells


def _counts(runs: Sequence[Run]) -> list[str]:
    return [f"{np.median([getattr(run, key) for run in runs]):.0f}" for key in ("finished", "stopped")]


def paired_markdown(rows: Mapping[str, Sequence[Run]]) -> list[str]:
    """Return what rows gain in volume over others with the same seeds, and how often.

    Ours over those on the same proposals, at equal budget; other searchers over ours, at equal budget and at the end.
    """
    at = SPEND.index(PAIRED_AT)
    pairs = {}
    for ours, mine in rows.items():
        base, _, part = ours.rpartition(", ")
        if base not in (OURS, f"{OURS}{WITH_FORMS}"):
            continue
        for theirs, others in rows.items():
            is_like = theirs.startswith("random") and theirs.rpartition(", ")[2] in (part, theirs)
            is_like &= (WITH_FORMS in theirs) == (WITH_FORMS in ours)  # else the proposals are others
            if theirs != ours and is_like:
                pairs[f"{ours}, minus {theirs}"] = _gains(mine, others, lambda run: run.standings[at].volume)
        for name in (*(f"{searcher} + pareto_asha" for searcher in SEARCHERS), f"{OURS}{WITHOUT_FLOOR}"):
            theirs = f"{name}{base.removeprefix(OURS)}, {part}"
            found = rows.get(theirs)
            if found is None:
                continue
            if name.startswith(SEARCHERS):
                pairs[f"{theirs}, minus {ours}"] = _gains(found, mine, lambda run: run.standings[at].volume)
            pairs[f"{theirs}, minus {ours}; at the end"] = _gains(
                found, mine, lambda run: run.end.volume if run.end else 0.0
            )
    title = f"same seed, HV % at {PAIRED_AT:.0%} of the budget"
    headings = [title, "difference", "mean", "seeds better", "seeds worse"]
    return ["", *markdown_table(headings, pairs), ""] if pairs else []


def _gains(some: Sequence[Run], others: Sequence[Run], volume: Callable[[Run], float]) -> list[str]:
    gains = [volume(a) - volume(b) for a, b in zip(some, others, strict=True)]
    wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return [cell(gains), mean_cell(gains), str(wins), str(losses)]


def mean_cell(gains: Sequence[float]) -> str:
    """Return "mean (low to high)" in percent: the 95 % interval of the mean over seeds, resampled 2,000 times."""
    rng = np.random.default_rng(0)
    means = rng.choice(gains, (2000, len(gains))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{100 * np.mean(gains):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def markdown_table(headings: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *([row, *cells] for row, cells in rows.items())]
    return [f"| {' | '.join(line)} |" for line in lines]
