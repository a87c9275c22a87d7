"""`qa-sweep replay`: from a run's folder or a table to figures, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qa_core.errors import ConfigError
from sweeps import cli
from sweeps.commands.replay import parse_options
from sweeps.replay.curve_files import read_table, write_table
from tests.sweeps.curves import spec_of, three_recipes
from tests.sweeps.replay.test_curves import SPACE, record, run_folder


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    path = tmp_path / "t.parquet"
    write_table(three_recipes(), path)
    return path


def figures(text: str) -> dict[str, str]:
    """Return the rows of the printed table."""
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line
    ]
    return {row[0]: row[1] for row in cells}


def test_it_prints_shares_and_counts(table_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["replay", str(table_file), "--workers", "3", "--seeds", "1"]
    assert cli.main(arguments) == 0
    # B and C pause at the rung until A is there, after 10 s. A alone goes on, and ends after 33 s with 5400 of 7950;
    # all three began 30 + 10 + 10 of 90 examples.
    assert figures(capsys.readouterr().out) == {
        "budget share to reach 90% of the hypervolume": "never",
        "budget share to reach 95% of the hypervolume": "never",
        "budget share to reach 99% of the hypervolume": "never",
        "hypervolume at the end": "67.9 %",
        "share of worker time to reach 99%": "never",
        "budget share at the end": "55.6 %",
        "simulated hours": "0.009167",
        "finished": "1",
        "stopped": "2",
        "paused at the end": "0",
        "proposals without an answer": "0",
    }


def test_the_sweep_s_own_choices_hold_until_others_are_named(
    table_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["replay", str(table_file), "--seeds", "1"]) == 0
    own = capsys.readouterr().out
    assert "grid + pareto_asha, 1 workers" in own
    assert figures(own)["stopped"] == "2"
    named = [
        "--scheduler",
        "fifo",
        "--option",
        "reports=1",
        "--searcher",
        "grid",
        "--searcher-option",
        "shuffle=true",
    ]
    assert cli.main(["replay", str(table_file), "--seeds", "5", *named]) == 0
    other = capsys.readouterr().out
    assert "grid + fifo, 1 workers; median (least to most) of 5 seeds" in other
    assert figures(other)["finished"] == "3"
    assert "(" in figures(other)["budget share to reach 90% of the hypervolume"]  # the order differs by seed


def test_a_sweep_that_began_with_recipes_begins_with_them_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = three_recipes()
    searcher = table.spec.searcher.model_copy(update={"first": [{"train.learning_rate": 0.003}]})
    path = tmp_path / "t.parquet"
    write_table(replace(table, spec=table.spec.model_copy(update={"searcher": searcher})), path)
    named = ["--scheduler", "fifo", "--option", "reports=1", "--seeds", "1"]
    shares = []
    for others in ([], ["--searcher", "random"]):
        assert cli.main(["replay", str(path), *named, *others]) == 0
        shares.append(figures(capsys.readouterr().out)["budget share to reach 90% of the hypervolume"])
    # C alone is 7650 of 7950, after 30 of 90 examples; another searcher knows nothing of it.
    assert shares == ["33.3 %", "66.7 %"]


def test_a_run_s_folder_is_replayed_and_its_curves_are_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = record("t1", status="stopped", reason="rung", objectives=None, curve=(), examples_seen=10)
    run_folder(tmp_path, record("t0"), stopped)
    saved = tmp_path / "saved.parquet"
    assert cli.main(["replay", str(tmp_path), "--seeds", "1", "--save", str(saved)]) == 0
    printed = capsys.readouterr().out
    assert "1 full curves; left out: 1 stopped" in printed
    assert "record with fifo" in printed
    assert [item.trial_id for item in read_table(saved).curves] == ["t0"]
    assert json.loads((tmp_path / "spec.json").read_text()) == spec_of(SPACE).as_dict()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seeds", "0"], "--seeds: found 0; allowed: 1 or more"),
        (["--workers", "-1"], "--workers: found -1; allowed: 1 or more"),
        (["--scheduler", "ahsa"], "unknown scheduler 'ahsa'; did you mean 'asha'?"),
        (["--scheduler", "asha"], "grace_examples"),
        (["--option", "eta"], "--option: found 'eta'; allowed: key=value"),
        (["--option", "eta=1"], "scheduler.options.eta: found 1"),
        (["--searcher-option", "x=1"], "searcher.options.x: unknown setting 'x'"),
    ],
)
def test_what_does_not_fit_is_refused(
    table_file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert cli.main(["replay", str(table_file), *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_a_file_that_is_no_table_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.parquet"
    path.write_text("no table")
    assert cli.main(["replay", str(path)]) == 2
    assert "notes.parquet: not a readable Parquet file" in capsys.readouterr().err


def test_options_are_read_as_yaml() -> None:
    assert parse_options(["a=1", "b=true", "c=x=y", "d=[1, 2]"], "--option") == {
        "a": 1,
        "b": True,
        "c": "x=y",
        "d": [1, 2],
    }
    with pytest.raises(ConfigError, match=r"--option: a: found '\[', which is not a YAML value"):
        parse_options(["a=["], "--option")
