"""What a proposal costs, after how many trials.

    python -m benchmarks.decisions [--trials 10 --trials 100 ...] [--searcher NAME ...] [--forms]

A synthetic space of 5 families (`benchmarks/synthetic.py`, scale "ten-thousand"). The trials are random recipes of it;
all of them have reported at the first rung, a third at the second, a ninth has finished, the others were stopped. The
time is processor time of one proposal, the median of several, each of which stays open; and, once, of taking all trials
in, as on a resume. Megabytes are what the process has grown by since before that, imports left aside: a first searcher
without trials has made its proposal by then. With `--forms` each training is stored in the bits of FORM_BITS.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from benchmarks.search_markdown import markdown_table
from benchmarks.synthetic import (
    BUDGET,
    FORM_BITS,
    SCALES,
    final_em,
    learnt_share,
    memory_mb,
    synthetic_spec,
)
from sweeps import registry
from sweeps.run_folder import provenance
from sweeps.searchers.base import Searcher
from sweeps.space.compile import compile_space
from sweeps.space.space import Space

SEARCHERS = ("random", "sobol", "surrogate")
TRIALS = (10, 100, 1_000, 10_000)
OPTIONS = SCALES["ten-thousand"]
RUNGS = (BUDGET // 9, BUDGET // 3)


def main(
    searcher: Annotated[list[str] | None, typer.Option(help="repeat for several")] = None,
    trials: Annotated[list[int] | None, typer.Option(help="before the proposal; repeat for several")] = None,
    proposals: Annotated[int, typer.Option(help="that are timed")] = 5,
    forms: Annotated[bool, typer.Option(help="several stored forms of each training")] = False,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("runs/benchmarks/decisions.json"),
) -> None:
    """Measure, print the table in Markdown and write the JSON file."""
    spec = synthetic_spec(replace(OPTIONS, forms=forms))
    space = compile_space(spec)
    known = partial(forecast, shares=[share for _, share, _ in FORM_BITS.values()] if forms else [1.0])
    rows, results = {}, {}
    for name in searcher or SEARCHERS:
        for count in trials or TRIALS:
            kind = registry.searcher_class(name)
            kind(space, spec.objectives, seed=0, options={}, forecast=known).propose()
            before = psutil.Process().memory_info().rss
            made = kind(space, spec.objectives, seed=0, options={}, forecast=known)
            started = time.process_time()
            remember(made, space, count)
            taken_in = time.process_time() - started
            seconds = [seconds_of_proposal(made) for _ in range(proposals)]
            grown = (psutil.Process().memory_info().rss - before) / 1e6
            results[f"{name}, {count}"] = {"proposals": seconds, "taken_in": taken_in, "grown_mb": grown}
            rows[f"{name}, {count}"] = [f"{1e3 * np.median(seconds):.1f}", f"{taken_in:.2f}", f"{grown:.0f}"]
    for line in markdown_table(["searcher, trials", "ms a proposal", "s to take all in", "MB"], rows):
        typer.echo(line)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"seconds": results, "provenance": provenance.collect()}, indent=1))
    typer.echo(f"written to {out}")


def forecast(assignment: dict[str, Any], *, shares: Sequence[float]) -> list[dict[str, float]]:
    """Return what is known of a recipe before it starts: the memory of each stored form, shares of the whole."""
    whole = memory_mb(assignment)
    return [{"memory_mb": share * whole} for share in shares]


def remember(searcher: Searcher, space: Space, trials: int) -> None:
    """Let a searcher take in so many trials of an earlier session."""
    rng = np.random.default_rng(0)
    for number in range(trials):
        recipe = space.sample(rng)
        final, memory = final_em(recipe), memory_mb(recipe)
        reached = RUNGS if number % 3 == 0 else RUNGS[:1]
        curve = [
            (seen, [final * learnt_share(recipe, seen, crossing=0.1) + rng.normal(), memory])
            for seen in reached
        ]
        if number % 9 == 0:
            searcher.remember(recipe, "ok", [final, memory], curve=curve)
        else:
            searcher.remember(recipe, "stopped", None, curve=curve)


def seconds_of_proposal(searcher: Searcher) -> float:
    """Return the processor seconds of one proposal."""
    started = time.process_time()
    searcher.propose()
    return time.process_time() - started


if __name__ == "__main__":
    typer.run(main)
