"""`qa-sweep predict`: one question, a file or the standard input, in each format; nothing loaded before it is read."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from qa_core.artifact import artifact
from qa_core.config import EvaluationConfig
from qa_core.data.squad import load_questions, load_table
from qa_core.scoring import evaluate
from qa_core.scoring.decode import Candidate, Ranked
from sweeps import cli
from sweeps.commands import predict
from sweeps.commands.answer_formats import FORMATS, formatted, row
from tests.untrained import write_untrained_bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_squad: Path) -> str:
    """An untrained micro BERT with a threshold that lets some answers stand and others not."""
    lengths = {"max_length": 64, "stride": 16, "max_question_length": 24}
    written = write_untrained_bert(
        tmp_path_factory.mktemp("artifacts") / "a", small_squad, data=lengths, seed=1
    )
    table = load_table(str(small_squad), split="dev")
    found = predict.answer(artifact.load(written), table, device="cpu")
    artifact.set_null_threshold(written, sorted(item.null_odds for item in found)[20])
    return str(written)


@pytest.fixture(scope="module")
def questions(small_squad: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The questions of the small set as JSON lines; one of them on a text of several windows."""
    path = tmp_path_factory.mktemp("lines") / "questions.jsonl"
    rows = [
        {"id": item.question_id, "question": item.question, "context": item.context}
        for item in load_table(str(small_squad), split="dev").examples()
    ]
    rows[3]["context"] = " ".join(row["context"] for row in rows[:12])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("device", "recorded", "used"), [("cpu", 16384, 4096), ("cpu", 400, 400), ("cuda", 16384, 16384)]
)
def test_batches_on_a_cpu_are_no_larger_than_it_answers_fast(device: str, recorded: int, used: int) -> None:
    given = EvaluationConfig(batch_tokens=recorded, max_answer_tokens=7)
    found = predict._settings(given, torch.device(device))
    assert found == EvaluationConfig(batch_tokens=used, max_answer_tokens=7)


def test_the_evaluator_is_given_these_batches(
    folder: str, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, loaded = load_questions(str(questions)), artifact.load(Path(folder))
    whole = predict.rank(loaded, table, device="cpu", count=2)
    monkeypatch.setattr(predict, "CPU_BATCH_TOKENS", 1)
    sizes: list[int] = []
    monkeypatch.setattr(evaluate, "collate", counting(evaluate.collate, sizes))
    assert [item.candidates[0].text for item in predict.rank(loaded, table, device="cpu", count=2)] == [
        item.candidates[0].text for item in whole
    ]
    assert set(sizes) == {1}
    assert len(sizes) >= len(table)


def counting(collate: Any, sizes: list[int]) -> Any:
    def counted(windows: Any, indices: Any, pad_id: int) -> Any:
        sizes.append(len(indices))
        return collate(windows, indices, pad_id)

    return counted


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["predict", *arguments]) == 0
    return capsys.readouterr().out


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def contexts(path: Path) -> dict[str, str]:
    return {item.question_id: item.context for item in load_questions(str(path)).examples()}


def test_each_row_has_text_score_and_place(
    folder: str, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(printed(capsys, folder, "--input", str(questions), "--format", "jsonl", "--n-best", "4"))
    texts = contexts(questions)
    assert [item["id"] for item in found] == list(texts)
    threshold = artifact.load(Path(folder)).null_threshold
    answered = [item for item in found if item["answer"] is not None]
    assert 0 < len(answered) < len(found)
    for item in found:
        best = item["n_best"]
        assert item["null_threshold"] == threshold
        assert [other["score"] for other in best] == sorted((other["score"] for other in best), reverse=True)
        assert len(best) == 4
        for other in best:
            assert texts[item["id"]][other["start"] : other["end"]] == other["text"]
        is_null = item["null_score"] - best[0]["score"] > threshold
        assert (item["answer"] is None) == is_null
        if is_null:
            assert (item["score"], item["start"], item["end"], item["window"]) == (
                item["null_score"],
                None,
                None,
                None,
            )
        else:
            wanted = {
                "text": item["answer"],
                **{name: item[name] for name in ("score", "start", "end", "window")},
            }
            assert wanted == best[0]
    assert max(item["windows"] for item in found) > 1


def test_formats_say_the_same(folder: str, questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [folder, "--input", str(questions)]
    found = rows(printed(capsys, *given, "--format", "jsonl"))
    assert json.loads(printed(capsys, *given, "--format", "json")) == found
    assert json.loads(printed(capsys, *given, "--format", "squad")) == {
        item["id"]: item["answer"] or "" for item in found
    }
    shown = printed(capsys, *given).splitlines()
    for line, item in zip(shown, found, strict=True):
        if item["answer"] is None:
            assert line == f"{item['id']}\tno answer (score {item['score']:.2f})"
        else:
            place = f"characters {item['start']} to {item['end']}"
            assert line == f"{item['id']}\t{item['answer']} (score {item['score']:.2f}, {place})"


def test_the_standard_input_is_read_as_the_file(
    folder: str,
    questions: Path,
    small_squad: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path in (questions, small_squad):
        expected = printed(capsys, folder, "--input", str(path), "--format", "jsonl", "--n-best", "2")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
        assert printed(capsys, folder, "--input", "-", "--format", "jsonl", "--n-best", "2") == expected


def test_one_question_is_answered_as_in_a_file(
    folder: str, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first, *_), texts = (
        rows(printed(capsys, folder, "--input", str(questions), "--format", "jsonl")),
        contexts(questions),
    )
    asked = next(iter(load_questions(str(questions)).examples()))
    given = [folder, "--question", asked.question, "--context", texts[asked.question_id], "--format", "jsonl"]
    (alone,) = rows(printed(capsys, *given))
    assert alone == {**first, "id": "question", "score": alone["score"], "null_score": alone["null_score"]}
    assert alone["score"] == pytest.approx(first["score"], abs=1e-4)  # another batch: sums in another order


def test_an_output_file_is_what_score_reads_unless_a_format_is_named(
    folder: str, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "answers.json"
    shown = printed(capsys, folder, "--input", str(questions), "--output", str(output))
    answers = json.loads(output.read_text())
    empty = sum(not text for text in answers.values())
    assert shown == f"{output}: 60 answers, {empty} of them 'no answer'\n"
    assert 0 < empty < 60
    lines = tmp_path / "answers.jsonl"
    printed(capsys, folder, "--input", str(questions), "--output", str(lines), "--format", "jsonl")
    assert {item["id"]: item["answer"] or "" for item in rows(lines.read_text())} == answers


def test_questions_are_read_before_the_model_is_loaded(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "load_artifact", lambda folder: pytest.fail("it was loaded"))
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "a"}\n')
    assert cli.main(["predict", folder, "--input", str(path)]) == 2
    assert "bad.jsonl: found columns question; missing: context" in capsys.readouterr().err
    assert cli.main(["evaluate", folder, "absent.json"]) == 2
    assert "absent.json: found no such file" in capsys.readouterr().err


def test_malformed_questions_are_left_out_where_asked_and_counted(
    folder: str, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(questions.read_text() + "{}\n")
    assert cli.main(["predict", folder, "--input", str(path)]) == 2
    capsys.readouterr()
    assert cli.main(["predict", folder, "--input", str(path), "--skip-bad-examples"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 60
    assert shown.err == (
        "note: left out: line 61.context: found nothing; allowed: text that is not blank\n"
        "note: 1 malformed question left out\n"
    )


ANSWER = Candidate("a\nb\x1b[2J", 2.0, 4, 11, 1)
ITEM = Ranked("q\t1", (ANSWER, Candidate("c", 1.0, None, None, 0), Candidate("", 0.5, 3, 3, 0)), 1.25, 2)


def test_text_is_one_line_for_each_answer_without_commands_to_a_terminal() -> None:
    shown = formatted([ITEM], None, form="text", n_best=3, is_named=True)
    assert shown == (
        "q\\t1\ta b\\x1b[2J (score 2.00, characters 4 to 11)\n"
        "  1. a b\\x1b[2J (score 2.00, characters 4 to 11)\n"
        "  2. c (score 1.00)\n"
        "  no answer (score 1.25)\n"
    )
    assert formatted([ITEM], -1.0, form="text", n_best=1, is_named=False) == "no answer (score 1.25)\n"


def test_a_model_that_offers_nothing_says_no_answer_in_every_format() -> None:
    silent = Ranked("q", (), -0.5, 1)
    blank = Ranked("q", (Candidate("", 3.0, 2, 2, 0),), -0.5, 1)
    for item in (silent, blank):
        assert row(item, None, n_best=2)["answer"] is None
        assert row(item, None, n_best=2)["n_best"] == []
        assert row(item, None, n_best=1)["score"] == -0.5
        shown = [formatted([item], None, form=form, n_best=1, is_named=False) for form in FORMATS]
        assert shown[0] == "no answer (score -0.50)\n"
        assert json.loads(shown[3]) == {"q": ""}
