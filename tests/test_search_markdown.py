"""The tables of the search benchmark: quantiles over seeds, and comparisons at equal seeds."""

import math

from benchmarks import search_markdown, search_runs


def test_quantiles_are_values_that_occurred_and_never_is_the_greatest() -> None:
    values = [0.1, None, 0.3, 0.2, None, 0.5, 0.4, None, None, None]
    assert search_markdown.interval(values) == (0.1, 0.5, math.inf)
    assert search_markdown.cell(values) == "50.0 (10.0-never)"
    assert search_markdown.reach_cell(values) == "50.0 (10.0-never); 5 of 10"
    assert search_markdown.reach_cell([None, None]) == "never; 0 of 2"
    assert search_markdown.reach_cell([0.25, 0.25]) == "25.0"
    assert search_markdown.cell([12.5, 3.0], scale=1.0) == "3.0 (3.0-12.5)"


def test_searchers_are_compared_with_random_by_seed() -> None:
    def run_of(volume: float, end: float) -> search_runs.Run:
        standings = tuple(search_runs.Standing(share, 0, 0.0) for share in (volume, 1.0))
        return search_runs.Run((None,) * 4, standings, 0, 1, 1.0, end=search_runs.Standing(end, 0, 0.0))

    rows = {
        "random + pareto_asha, 1/9": [run_of(0.5, 0.8), run_of(0.7, 0.8), run_of(0.6, 0.9)],
        "sobol + pareto_asha, 1/9": [run_of(0.6, 0.8), run_of(0.7, 0.7), run_of(0.9, 0.9)],
    }
    lines = [line for line in search_markdown.paired_markdown(rows) if "sobol" in line]
    assert [line.split(" | ") for line in lines] == [
        [
            "| sobol + pareto_asha, 1/9, minus random + pareto_asha, 1/9",
            "10.0 (0.0-30.0)",
            "13.3 (0.0 to 30.0)",
            "2",
            "0 |",
        ],
        [
            "| sobol + pareto_asha, 1/9, minus random + pareto_asha, 1/9; at the end",
            "0.0 (-10.0-0.0)",
            "-3.3 (-10.0 to 0.0)",
            "0",
            "1 |",
        ],
    ]


def test_with_forms_a_searcher_is_compared_with_random_with_forms() -> None:
    def run_of(volume: float) -> search_runs.Run:
        standing = search_runs.Standing(volume, 0, 0.0)
        return search_runs.Run((None,) * 4, (standing, standing), 0, 1, 1.0, end=standing)

    rows = {
        "random + pareto_asha, 1/9": [run_of(0.1)],
        "surrogate + pareto_asha, 1/9": [run_of(0.2)],
        "random + pareto_asha, no floor + forms, 1/9": [run_of(0.6)],
        "random + pareto_asha + forms, 1/9": [run_of(0.5)],
        "surrogate + pareto_asha + forms, 1/9": [run_of(0.9)],
    }
    found = {
        line.split(" | ")[0]: line.split(" | ")[1]
        for line in search_markdown.paired_markdown(rows)
        if "," in line
    }
    ours = "random + pareto_asha + forms, 1/9"
    assert found["| surrogate + pareto_asha, 1/9, minus random + pareto_asha, 1/9"] == "10.0"
    for end in ("", "; at the end"):
        assert found[f"| surrogate + pareto_asha + forms, 1/9, minus {ours}{end}"] == "40.0"
    assert found[f"| random + pareto_asha, no floor + forms, 1/9, minus {ours}; at the end"] == "10.0"
    assert found[f"| {ours}, minus random + pareto_asha, no floor + forms, 1/9"] == "-10.0"
