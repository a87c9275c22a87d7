"""`qa-sweep data`: what is shown of a source, in 80 columns, and how one with malformed questions ends."""

from pathlib import Path

import pytest

from sweeps import cli
from sweeps.checks import lengths
from tests.qa_core.data.one_table import delimited
from tests.sweeps.from_scratch import FROM_SCRATCH

SMALL = (
    f"--config={FROM_SCRATCH}",
    "--set=space=[]",
    "--set=recipe.model.family=lstm",
    "--set=recipe.model.checkpoint=micro",
    "--set=recipe.model.vocab_size=200",
)
TOWNS = ("Bonn", "Riga", "Oderland", "Brzeg", "Lenz", "Aln", "Odra", "Malm", "Rhine", "Ulm")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QA_SWEEPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    lines = ["q,passage,gold,more"]
    for number, town in enumerate(TOWNS):
        text = f"The mill of {town} was built in {1800 + number}, of grey stone, by Ina {town}."
        lines += [
            f'Where is mill {number}?,"{text}",{town.upper()},x',
            f'Who burnt mill {number}?,"{text}",,x',
        ]
    path = tmp_path / "my.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["data", "my.csv", *SMALL, *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_everything_that_was_understood_is_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = show(capsys, "--columns", "question=q")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert out.startswith(
        "my.csv: CSV, separated by commas:\n  context: passage (guessed; --columns names another)\n"
    )
    said = " ".join(out.split())
    for expected in (
        "question: q answer: gold (guessed; --columns names another)",
        "id: none; questions are numbered from 0 not read: more",
        "articles: none, or one paragraphs: 10 questions: 20 unanswerable: 10 (50.0 %)",
        "10 in other letter case, 10 at several places, of which the first was taken",
        "words: questions: 4 in the middle, 95 % up to 4, longest 4",
        "answers: 1 in the middle",
        "question 0: Where is mill 0? context: The mill of Bonn was built in 1800, of grey stone, by Ina Bonn. answer: "
        "Bonn (at 12)",
        "question 19: Who burnt mill 9?",
        "answer: none",
        "data: train: my.csv: 16 questions",
        "dev: 4 of the 20 questions of my.csv, held out by whole paragraphs (data.holdout_share 0.2, "
        "data.split_seed 13): none is trained on",
        "also in the training data: nothing",
        "word of 200 (lstm):",
        "0 % above data.max_length = 128",
        "highest exact match that can be reached, by tokenizer: train: my.csv: word of 200 (lstm) 100.0",
    ):
        assert expected in said, expected


def test_a_source_with_malformed_questions_is_shown_and_then_refused(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text() + "Who?,Ann.,Ben,x\nWho?,Ann.\n")
    code, out, err = show(capsys, "--columns", "question=q")
    assert code == 2
    assert "malformed: 2 questions, 0 answers of others" in out
    assert "1 nowhere in their context" in " ".join(out.split())
    assert err.startswith(
        "error: my.csv: found 2 malformed questions and 0 malformed answers of others, the first at line 22"
    )
    assert "highest exact match" not in out
    code, out, err = show(capsys, "--columns", "question=q", "--set", "recipe.data.skip_bad_examples=true")
    assert code == 0
    assert "left out: line 22.gold[0]" in out
    assert "highest exact match" in out


def test_a_source_whose_columns_are_not_known_is_refused_with_its_columns(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = show(capsys)
    assert (code, out) == (2, "")
    assert "my.csv: found columns q, passage, gold, more; missing: question" in err


def test_a_dev_source_and_articles_are_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(delimited(","))
    code, out, _ = show(capsys, "--eval-data", "sample")
    assert code == 0
    assert "articles: 3\n" in out
    assert "  answers: answers\n" not in out
    assert "dev: sample: 630 questions" in " ".join(out.split())
    assert "held out" not in out


def test_lengths_are_told_by_their_middle_and_their_end() -> None:
    import numpy as np

    found = np.array([1] * 50 + [3] * 45 + [9] * 5)
    assert lengths.in_words(found) == "1 in the middle, 95 % up to 3, longest 9"
    assert lengths.in_words(found, over=3, setting="x").endswith("; 5 % above x = 3")
