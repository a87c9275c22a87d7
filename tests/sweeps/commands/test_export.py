"""`qa-sweep export`: the rule, ties with smaller models, the least exact match, and the card in the folder."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from qa_core.artifact import artifact
from qa_core.data.squad import load_table
from qa_core.scoring.answer_file import write_answers
from qa_core.scoring.decode import Prediction
from qa_core.values import to_dict
from sweeps import cli
from sweeps.run_folder.records import append
from tests.sweeps.finished import OBJECTIVES, record
from tests.untrained import write_untrained_bert

SECRET = "Who painted it?"  # a question of the data


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, small_squad: Path) -> Path:
    """An untrained micro BERT as an artifact, its recipe on the small set."""
    lengths = {"max_length": 64, "stride": 16, "max_question_length": 24}
    data = {"train": str(small_squad), "evaluation": str(small_squad), **lengths}
    return write_untrained_bert(tmp_path_factory.mktemp("artifact") / "a", small_squad, data=data)


@pytest.fixture
def run_dir(tmp_path: Path, shipped: Path, small_squad: Path) -> Path:
    """Four trials on the 60 questions of 12 articles: t0 the best, t1 and t3 smaller and tied, t2 smaller and worse."""
    folder = tmp_path / "run"
    table = load_table(str(small_squad), split="dev")
    config = to_dict(artifact.load(shipped).config)
    best = {row for row in range(60) if row % 5 < 3}  # of the five questions of each article
    right = {
        "t0": best,
        "t1": best - {0, 11} | {4},
        "t2": {row for row in range(60) if row % 5 == 0},
        "t3": best - {26, 31} | {29},
    }
    folder.mkdir()
    for (name, rows), memory in zip(right.items(), (20.0, 12.0, 5.0, 15.0), strict=True):
        em = 100 * len(rows) / 60
        quality = {
            "em_percent": em,
            "f1_percent": em,
            "questions": 60,
            "baseline_no_answer_em_percent": 20.0,
            "baseline_no_answer_f1_percent": 20.0,
        }
        provenance = {
            "command": "qa-sweep run --config x.yaml",
            "git": {"commit": "0123abc"},
            "packages": {"torch": "2.0", "peft": None},
        }
        item = record(name, em, memory, config=config, quality=quality, provenance=provenance)
        append(folder / "records.jsonl", item)
        scores = np.array([[float(row in rows)] * 2 for row in range(60)])
        predictions = [
            Prediction(f"answer {row}", -1.0, 0.0, name) for row, name in enumerate(table.question_ids)
        ]
        trial = folder / "trials" / name
        shutil.copytree(shipped, trial / "artifact")
        write_answers(trial / "answers.parquet", predictions, table, scores, threshold=None)
    objectives = [item.model_dump() for item in OBJECTIVES]
    (folder / "spec.json").write_text(json.dumps({"name": "quick", "objectives": objectives}))
    return folder


def exported(
    capsys: pytest.CaptureFixture[str], run_dir: Path, to: Path, *options: str, ends: int = 0
) -> str:
    assert cli.main(["export", str(run_dir), "--to", str(to), *options]) == ends
    shown = capsys.readouterr()
    return shown.err if ends else shown.out


def test_the_rule_is_printed_and_the_smallest_tied_model_offered(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = exported(capsys, run_dir, tmp_path / "out", "--max-memory-mb", "30")
    assert "best em_percent with memory_mb <= 30 MB, of 4 that fit: trial t0\n" in shown
    (tied,) = [line for line in shown.splitlines() if line.startswith("tied: ")]
    assert tied.startswith("tied: trial t1 is smaller (memory_mb 12.00 MB)")
    assert "EM -1.67, 95 % interval by article -" in tied
    assert "tied too: t3\n" in shown
    assert "t2" not in shown.partition("tied: ")[2]
    command = tied.partition("To take it: ")[2].split()
    assert command[:3] == ["qa-sweep", "export", str(run_dir)]
    assert cli.main(command[1:]) == 0
    assert "trial that was asked for: trial t1" in capsys.readouterr().out


def test_a_model_whose_artifact_was_removed_is_not_offered(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run_dir / "trials" / "t1" / "artifact")
    shown = exported(capsys, run_dir, tmp_path / "out", "--max-memory-mb", "30")
    assert "tied: trial t3" in shown
    assert "trial t1" not in shown
    assert "tied too" not in shown


def test_a_model_no_better_than_who_reads_no_question_is_handed_over_with_a_warning(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = "warning: this model is not better than the baseline 'no answer to anything' (EM 20.00)"
    assert warning in exported(capsys, run_dir, tmp_path / "low", "--trial", "t2")
    assert "warning" not in exported(capsys, run_dir, tmp_path / "high", "--trial", "t0")


def test_of_a_trial_that_was_stopped_it_is_said_that_it_has_no_model(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(run_dir / "records.jsonl", record("t4", 30.0, 9.0, status="stopped", reason="at a rung"))
    said = exported(capsys, run_dir, tmp_path / "out", "--trial", "t4", ends=2)
    assert (
        "--trial: found 't4', which has no model: stopped, at a rung; allowed: a trial that finished" in said
    )


def test_models_that_cannot_be_compared_are_named(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "trials" / "t1" / "answers.parquet").unlink()
    shown = exported(capsys, run_dir, tmp_path / "out", "--max-memory-mb", "30")
    assert "smaller, not compared (no answers, or too few articles): t1\n" in shown
    assert "tied: trial t3" in shown


@pytest.mark.parametrize(
    ("options", "trial", "rule"),
    [
        (["--min-em", "40"], "t1", "least memory_mb with em_percent >= 40 %, of 3 that fit"),
        (["--min-em", "10"], "t2", "least memory_mb with em_percent >= 10 %, of 4 that fit"),
        (["--min-em", "59"], "t0", "least memory_mb with em_percent >= 59 %, of 1 that fit"),
        (
            ["--min-em", "40", "--max-memory-mb", "14"],
            "t1",
            "least memory_mb with em_percent >= 40 %, memory_mb <= 14 MB, of 1 that fit",
        ),
    ],
)
def test_the_smallest_model_with_a_least_exact_match_is_taken(
    options: Sequence[str],
    trial: str,
    rule: str,
    run_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = exported(capsys, run_dir, tmp_path / "out", *options)
    assert f"{rule}: trial {trial}\n" in shown
    assert "tied" not in shown


def test_a_least_exact_match_that_none_has_names_the_best(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = exported(capsys, run_dir, tmp_path / "out", "--min-em", "61", ends=2)
    assert "--min-em: found 61; none of 4 finished trials has it: the best em_percent is 60 (t0)" in said
    said = exported(capsys, run_dir, tmp_path / "out", "--min-em", "40", "--max-memory-mb", "9", ends=2)
    assert "none of 4 finished trials has it within memory_mb=9: the best em_percent is 20 (t2)" in said
    said = exported(capsys, run_dir, tmp_path / "out", "--min-em", "much", ends=2)
    assert "--min-em: found 'much'; allowed: a number from 0 to 100" in said
    assert not (tmp_path / "out").exists()


def test_the_card_says_what_it_is_and_holds_no_question_of_the_data(
    run_dir: Path, small_squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "my_model"
    exported(capsys, run_dir, to, "--trial", "t0")
    card = (to / "README.md").read_text()
    front_matter = yaml.safe_load(card.split("---")[1])
    assert front_matter == {
        "license": None,
        "library_name": "transformers",
        "pipeline_tag": "question-answering",
    }
    for words in (
        "# my\\_model\n",
        "BertForQuestionAnswering.from_pretrained",
        "| all | 60 | 60.00 | 60.00 |",
        '| baseline: "no answer" to everything |  | 20.00 | 20.00 |',
        "95 % intervals over 12 articles: EM ",
        "weights included: 20.00 MB",
        f"`{small_squad}`",
        "chosen from 4 models",
        "qa-sweep run --config x.yaml",
        f"qa-sweep evaluate . {small_squad}",
        "commit `0123abc`",
    ):
        assert words in card, words
    questions = [item.question for item in load_table(str(small_squad), split="dev").examples()]
    assert not [question for question in questions if question in card]
    assert "answer 0" not in card
    artifact.load(to)  # the card is no part of the model


def test_questions_are_on_the_card_where_they_are_asked_for(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(capsys, run_dir, tmp_path / "out", "--trial", "t0", "--with-examples")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Examples" in card
    assert "| What colour is the door of Tower 00? | amber | answer 0 |" in card
    assert f"| {SECRET} | no answer | answer 4 |" in card
    assert "answer 5" not in card


def test_questions_that_cannot_be_read_are_refused_before_anything_is_copied(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (run_dir / "records.jsonl").read_text().splitlines()
    changed = json.loads(lines[0])
    changed["config"]["data"]["evaluation"] = "./gone.json"
    (run_dir / "records.jsonl").write_text("\n".join([json.dumps(changed), *lines[1:]]) + "\n")
    said = exported(capsys, run_dir, tmp_path / "out", "--trial", "t0", "--with-examples", ends=2)
    assert "./gone.json: found no such file" in said
    assert not (tmp_path / "out").exists()
