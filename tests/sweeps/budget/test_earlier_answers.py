"""What `plan` and `validate` keep of their work: used while all that it follows from is unchanged, and no longer."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps import cli
from sweeps.budget import earlier_answers
from sweeps.budget.earlier_answers import EarlierAnswers
from tests.sweeps.from_scratch import SMALL

QUESTION = {"model": {"family": "lstm", "checkpoint": "micro"}, "data": {"train": "sample"}}


def ask(cache_dir: Path, question: Any, made: Any = 1, *, lasts: bool = True) -> tuple[Any, int]:
    """Ask as a process of its own would; returns the answer, and how often it was worked out."""
    worked: list[int] = []

    def make() -> Any:
        worked.append(1)
        return made

    answers = EarlierAnswers(cache_dir)
    found = answers.answer(question, make, is_lasting=lambda found: lasts)
    answers.write()
    return found, len(worked)


def kept_file(cache_dir: Path) -> Path:
    (file,) = (cache_dir / "plans").glob("*.json")
    return file


def test_an_answer_is_worked_out_once_and_an_answer_to_another_question_beside_it(tmp_path: Path) -> None:
    other = {**QUESTION, "data": {"train": "sample:hard"}}
    assert ask(tmp_path, QUESTION, 5) == (5, 1)
    assert ask(tmp_path, other, 6) == (6, 1)
    assert [ask(tmp_path, item, 7) for item in (QUESTION, other)] == [(5, 0), (6, 0)]


def test_an_answer_that_does_not_last_is_worked_out_each_time(tmp_path: Path) -> None:
    assert ask(tmp_path, QUESTION, 5, lasts=False) == (5, 1)
    assert ask(tmp_path, QUESTION, 6) == (6, 1)


def test_a_file_or_folder_that_changes_makes_its_answers_anew(tmp_path: Path) -> None:
    data, folder = tmp_path / "questions.json", tmp_path / "network"
    folder.mkdir()
    data.write_text("[]")
    (folder / "config.json").write_text("{}")
    question = {"data": {"train": str(data)}, "model": {"checkpoint": str(folder)}}
    assert ask(tmp_path, question, 1) == (1, 1)
    assert ask(tmp_path, question, 2) == (1, 0)
    data.write_text("[1]")
    assert ask(tmp_path, question, 3) == (3, 1)
    (folder / "config.json").write_text("{ }")
    assert ask(tmp_path, question, 4) == (4, 1)
    data.unlink()
    assert ask(tmp_path, question, 5) == (5, 1)


@pytest.mark.parametrize(
    "question",
    [
        {"data": {"train": "owner/set"}},
        {"model": {"checkpoint": "some-network"}},
        {"model": {"checkpoint": "micro", "tokenizer": "owner/network"}},
        {"methods": {"distill": {"teacher": "owner/network"}}},
    ],
    ids=["data", "checkpoint", "tokenizer", "teacher"],
)
def test_nothing_is_kept_about_a_name_of_the_hub(tmp_path: Path, question: Any) -> None:
    assert [ask(tmp_path, question) for _ in range(2)] == [(1, 1), (1, 1)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("_versions", ("torch 0",)), ("_cpu", ("other flags",)), ("FORMAT", 0)],
    ids=["versions", "cpu", "format"],
)
def test_another_library_cpu_or_format_makes_all_answers_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    ask(tmp_path, QUESTION, 1)
    monkeypatch.setattr(earlier_answers, name, value if name == "FORMAT" else lambda: iter(value))
    assert ask(tmp_path, QUESTION, 2) == (2, 1)


def _cut(text: str) -> str:
    return text[: len(text) // 2]


def _other_answer(text: str) -> str:
    values = json.loads(text)
    values["answers"] = dict.fromkeys(values["answers"], 99)
    return json.dumps(values)


@pytest.mark.parametrize(
    "damage", [_cut, _other_answer, lambda text: "[]"], ids=["cut", "altered", "no-object"]
)
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: Callable[[str], str]) -> None:
    ask(tmp_path, QUESTION, 1)
    file = kept_file(tmp_path)
    file.write_text(damage(file.read_text()))
    assert ask(tmp_path, QUESTION, 2) == (2, 1)
    assert ask(tmp_path, QUESTION, 3) == (2, 0)


def test_work_is_announced_once_and_only_where_there_is_some(tmp_path: Path) -> None:
    told: list[str] = []
    ask(tmp_path, QUESTION)
    answers = EarlierAnswers(tmp_path, before_work=lambda: told.append("work"))
    answers.answer(QUESTION, lambda: 1, is_lasting=bool)
    assert told == []
    for number in (2, 3):
        answers.answer([QUESTION, number], lambda: 1, is_lasting=bool)
    assert told == ["work"]


COUNTED = """
import sys
from sweeps import cli
code = cli.main(sys.argv[1:])
print("loaded:", *[name for name in ("torch", "transformers", "peft") if name in sys.modules])
sys.exit(code)
"""


def test_the_second_plan_and_validate_import_no_torch_and_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(tmp_path))
    arguments = [*SMALL, "--set", "forms.quantize={bits: [32, 8]}"]
    for command in ("plan", "validate"):
        assert cli.main([command, *arguments]) == 0
        first = capsys.readouterr().out
        assert "lstm" in first
        again = subprocess.run(
            [sys.executable, "-c", COUNTED, command, *arguments], capture_output=True, text=True, check=True
        )
        assert again.stdout == f"{first}loaded:\n"


def test_a_second_refusal_of_a_memory_budget_imports_no_torch_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(tmp_path))
    assert cli.main(["validate", *SMALL, "--max-memory-mb", "0.01"]) == 2
    first = capsys.readouterr().err.partition("error: ")[2]
    assert "budget.max_memory_mb: found 0.01; allowed: at least " in first
    for command in ("validate", "plan"):
        again = subprocess.run(
            [sys.executable, "-c", COUNTED, command, *SMALL, "--max-memory-mb", "0.02"],
            capture_output=True,
            text=True,
        )
        assert (again.returncode, again.stdout) == (2, "loaded:\n")
        assert again.stderr.partition("error: ")[2] == first.replace("0.01", "0.02")
