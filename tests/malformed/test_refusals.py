"""Every malformed input of the tables ends as a named error with exit code 2, and leaves nothing behind."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps import cli
from sweeps.commands import run
from tests.ids import plain
from tests.malformed import (
    artifact_cases,
    checkpoint_cases,
    option_cases,
    parquet_cases,
    run_cases,
    squad_cases,
    sweep_cases,
    table_cases,
)
from tests.malformed.cases import Case, check_refusal, run_case, tree

PLAIN = [
    *squad_cases.CASES,
    *parquet_cases.CASES,
    *table_cases.CASES,
    *sweep_cases.CASES,
    *option_cases.CASES,
    *run_cases.CASES,
]
IN_TRIALS = (checkpoint_cases.BAD, checkpoint_cases.OUTCOMES, checkpoint_cases.FINALS)  # test_trials.py
TYPED = ("squad: cut in the middle", "sweep: a Python call", "predictions: a list", "records: NaN")
Read = Callable[[], tuple[str, str]]


def name_of(case: Case) -> str | None:
    return plain(case.name)


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Read:
    """What was printed on stdout and stderr since the last call."""
    return lambda: tuple(capsys.readouterr())  # type: ignore[return-value]


def test_there_are_several_hundred_malformed_inputs_and_no_two_are_one() -> None:
    cases = [*PLAIN, *artifact_cases.CASES, *run_cases.CONFIRMED]
    assert len({case.name for case in cases}) == len(cases) >= 500
    assert len(cases) + sum(map(len, IN_TRIALS)) >= 550
    kinds = {case.name.partition(":")[0] for case in cases}
    tables = {"csv", "tsv", "table", "json lines", "json list", "columns"}
    assert {
        "squad",
        "parquet",
        "sweep",
        "options",
        "predictions",
        "records",
        "journal",
        "artifact",
    } | tables <= kinds


@pytest.mark.parametrize("case", PLAIN, ids=name_of)
def test_it_is_refused_with_its_place_and_nothing_is_written(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    monkeypatch.chdir(tmp_path)
    run_case(case, tmp_path, read)


@pytest.mark.parametrize("case", artifact_cases.CASES, ids=name_of)
def test_a_damaged_artifact_is_refused_and_nothing_of_it_is_run(
    case: Case, whole_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    monkeypatch.chdir(tmp_path)
    artifact_cases.make_all(whole_artifact, tmp_path)
    run_case(case, tmp_path, read)
    assert not (tmp_path / artifact_cases.MARKER).exists()


def test_the_whole_artifact_is_none_of_them(
    whole_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    artifact_cases.make_all(whole_artifact, tmp_path)
    assert cli.main(list(artifact_cases.PREDICT)) == 0
    (tmp_path / "bad" / "README.md").write_text("a word on it")
    assert cli.main([*artifact_cases.PREDICT, "--force"]) == 0


@pytest.mark.parametrize("case", run_cases.CONFIRMED, ids=name_of)
def test_what_a_confirming_sweep_left_is_refused_when_it_cannot_be_judged(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "run", lambda *arguments, **named: 0)  # all of its trials have ended
    monkeypatch.setattr("sweeps.front.confirm.plan", lambda *arguments, **named: None)
    run_case(case, tmp_path, read)


@pytest.mark.parametrize("case", [case for case in PLAIN if case.name in TYPED], ids=name_of)
def test_the_program_itself_ends_as_the_function_does(case: Case, tmp_path: Path) -> None:
    case.make(tmp_path)
    before = tree(tmp_path)
    project = Path(__file__).resolve().parents[2]
    code = f"import sys; sys.path.insert(0, {str(project)!r}); from sweeps.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *case.command]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    check_refusal(done.returncode, done.stdout, done.stderr, case.says)
    assert tree(tmp_path) == before
