"""Every malformed input of the tables ends as a named error with exit code 2, and leaves nothing behind."""

from pathlib import Path

import pytest

from tests.malformed import parquet_cases, squad_cases, sweep_cases
from tests.malformed.cases import Case, run_case

CASES = [*squad_cases.CASES, *parquet_cases.CASES, *sweep_cases.CASES]


def test_there_are_at_least_200_malformed_inputs_and_no_two_are_one() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_it_is_refused_with_its_place_and_nothing_is_written(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_case(case, tmp_path, lambda: tuple(capsys.readouterr()))
