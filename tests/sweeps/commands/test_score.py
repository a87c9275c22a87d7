"""`score`, and that it says of answers of `predict` what `evaluate` says."""

import json
import re
from pathlib import Path

import pytest

from sweeps import cli


def test_the_folder_of_a_form_answers_and_is_scored_like_any_artifact(
    run_with_forms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = run_with_forms / "trials" / "t0"
    (trial / "forms" / "int8").rename(trial / "forms" / "int8+e8")
    small, large = trial / "forms" / "int8+e8" / "artifact", trial / "artifact"
    ask = ["--question", "Who built it?", "--context", "The tower of Velm was built by Orla Finch."]
    assert cli.main(["predict", str(small), *ask]) == 0
    capsys.readouterr()
    data = squad_file(tmp_path / "data.json", 3)
    assert cli.main(["evaluate", str(small), str(data), "--against", str(large), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["artifact"], found["against"]["artifact"]) == (str(small), str(large))


def test_predict_answers_with_a_piece_of_the_context(
    artifact_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = "The tower of Velm was built by Orla Finch in the year 1204, of red stone."
    arguments = ["predict", str(artifact_folder), "--question", "Who built it?", "--context", context]
    assert cli.main(arguments) == 0
    shown = re.fullmatch(r"(.+) \(score -?[\d.]+, characters (\d+) to (\d+)\)\n", capsys.readouterr().out)
    assert shown
    assert context[int(shown[2]) : int(shown[3])] == shown[1]


def squad_file(path: Path, count: int) -> Path:
    context = "The tower of Velm was built by Orla Finch in the year 1204, of red stone."
    answer = {"text": "Orla Finch", "answer_start": context.index("Orla")}
    questions = [
        {"id": f"q{index}", "question": f"Who built it, version {index}?", "answers": [answer]}
        for index in range(count)
    ]
    paragraphs = [{"context": context, "qas": questions}]
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "Velm", "paragraphs": paragraphs}]}))
    return path


def test_predictions_of_a_file_score_as_evaluate_says(
    artifact_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = squad_file(tmp_path / "data.json", 3), tmp_path / "new" / "predictions.json"
    arguments = ["predict", str(artifact_folder), "--input", str(data), "--output", str(output)]
    assert cli.main(arguments) == 0
    assert f"{output}: 3 answers" in capsys.readouterr().out
    assert sorted(json.loads(output.read_text())) == ["q0", "q1", "q2"]
    assert cli.main(arguments) == 2
    assert f"{output}: exists already" in capsys.readouterr().err
    assert cli.main([*arguments, "--force"]) == 0
    capsys.readouterr()
    assert cli.main(["score", str(data), str(output)]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert cli.main(["evaluate", str(artifact_folder), str(data), "--json"]) == 0
    quality = json.loads(capsys.readouterr().out)
    assert quality["questions"] == scores["total"] == 3
    assert (quality["em_percent"], quality["f1_percent"]) == pytest.approx((scores["exact"], scores["f1"]))
    assert len(quality["data_hash"]) == 16


def test_score_prints_the_keys_of_the_version_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, predictions = squad_file(tmp_path / "data.json", 4), tmp_path / "predictions.json"
    predictions.write_text(json.dumps({"q0": "the Orla Finch!", "q1": "Finch", "q2": "nobody"}))
    assert cli.main(["score", str(data), str(predictions)]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["exact"], scores["total"], scores["HasAns_total"]) == (25.0, 4, 4)
    assert scores["f1"] == pytest.approx(100 * (1 + 2 / 3) / 4)
    assert scores["missing_predictions"] == 1
    assert cli.main(["score", str(data), str(predictions), "--official", "v1.1"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"exact_match", "f1"}
    assert cli.main(["score", str(data), str(predictions), "--strict"]) == 2
    assert "'q3'" in capsys.readouterr().err
