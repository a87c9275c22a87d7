"""`qa-sweep evaluate`: one JSON object, whatever is asked for, and every number of it from the one evaluator."""

import json
from pathlib import Path
from typing import Any

import pytest

from qa_core.artifact import artifact
from qa_core.data.squad import load_table
from qa_core.scoring import probes
from qa_core.scoring.decode import Prediction
from sweeps import cli
from sweeps.commands import evaluate, predict
from tests.untrained import write_untrained_bert

GOLD, OTHER = "gold", "other"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, small_squad: Path) -> dict[str, str]:
    """Two untrained micro BERTs of different seeds as artifacts, the first with a no-answer threshold."""
    root = tmp_path_factory.mktemp("artifacts")
    lengths = {"max_length": 96, "stride": 16, "max_question_length": 24}
    for seed, name in enumerate((GOLD, OTHER)):
        write_untrained_bert(root / name, small_squad, data=lengths, seed=seed)
    artifact.set_null_threshold(root / GOLD, 2.0)
    return {name: str(root / name) for name in (GOLD, OTHER)}


@pytest.fixture
def knows_all(monkeypatch: pytest.MonkeyPatch, folders: dict[str, str]) -> None:
    """Let the first artifact answer with the golds; the second never says that there is no answer, and is wrong on
    every third question."""

    def answer(loaded: Any, table: Any, *, device: str) -> list[Prediction]:
        found = []
        for number, example in enumerate(table.examples()):
            text = example.answers[0].text if example.answers else "Tower"
            odds = -5.0 if example.answers else 5.0
            if loaded.null_threshold is None and number % 3 == 0:
                text = "the door of"
            found.append(Prediction(text, odds, 0.0, example.question_id))
        return found

    monkeypatch.setattr(evaluate, "answer", answer)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main(["evaluate", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_object_holds_quality_baselines_and_intervals_around_the_scores(
    folders: dict[str, str], small_squad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(capsys, folders[GOLD], str(small_squad), "--device", "cpu")
    assert found["questions"] == 60
    assert found["null_threshold"] == 2.0
    assert found["data_hash"] == load_table(str(small_squad), split="dev").data_hash
    assert found["device"].startswith("cpu")
    assert set(found["intervals"]) == {"em_percent", "f1_percent"}
    for name, interval in found["intervals"].items():
        assert interval["estimate"] == pytest.approx(found[name])
        assert interval["low"] <= interval["estimate"] <= interval["high"]
    baselines = {name: value for name, value in found.items() if name.startswith("baseline_")}
    assert len(baselines) == 6
    assert baselines["baseline_no_answer_em_percent"] == pytest.approx(100 * 12 / 60)
    assert not {"against", "semantic", "probes"} & set(found)


def test_another_artifact_is_compared_on_the_same_questions_under_its_own_threshold(
    folders: dict[str, str], small_squad: Path, knows_all: None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(capsys, folders[GOLD], str(small_squad), "--against", folders[OTHER])
    other = found["against"]
    assert other["artifact"] == folders[OTHER]
    assert (found["em_percent"], found["no_ans_em_percent"]) == (100.0, 100.0)
    assert other["quality"]["no_ans_em_percent"] == 0.0
    assert other["quality"]["questions"] == found["questions"] == 60
    difference = other["difference"]["em_percent"]
    assert difference["estimate"] == pytest.approx(found["em_percent"] - other["quality"]["em_percent"])
    assert 0 < difference["low"] < difference["estimate"] < difference["high"]
    assert not difference["is_tied"]
    turned = printed(capsys, folders[OTHER], str(small_squad), "--against", folders[GOLD])
    assert turned["against"]["difference"]["em_percent"]["estimate"] == pytest.approx(-difference["estimate"])


def test_an_artifact_is_tied_with_itself(
    folders: dict[str, str], small_squad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(capsys, folders[OTHER], str(small_squad), "--against", folders[OTHER])
    for difference in found["against"]["difference"].values():
        assert (difference["estimate"], difference["low"], difference["high"]) == (0.0, 0.0, 0.0)
        assert difference["is_tied"]


def test_the_semantic_score_is_one_for_golds_and_counts_silence_as_right_where_there_is_no_answer(
    folders: dict[str, str],
    small_squad: Path,
    knows_all: None,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    from transformers import BertConfig, BertModel

    from tests.qa_core.scoring.test_semantic import save_tokenizer

    config = BertConfig(
        vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    save_tokenizer(tmp_path / "encoder")
    encoder = str(tmp_path / "encoder")
    right = printed(capsys, folders[GOLD], str(small_squad), "--semantic", encoder)["semantic"]
    assert right["encoder"] == encoder
    assert right["cosine"]["estimate"] == pytest.approx(1.0, abs=1e-6)
    wrong = printed(capsys, folders[OTHER], str(small_squad), "--semantic", encoder)["semantic"]
    assert wrong["cosine"]["estimate"] < wrong["has_ans_cosine"]["estimate"] < 1.0


def test_probes_alone_need_no_data_and_are_written_with_every_answer(
    folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "report.json"
    found = printed(capsys, folders[GOLD], "--probes", "--output", str(output))
    assert "em_percent" not in found
    rows = {(row["category"], row["variant"]): row for row in found["probes"]["rows"]}
    assert {category for category, _ in rows} == {*probes.CATEGORIES, "all"}
    asked = probes.probe_set(probes.load_items())
    assert found["probes"]["data_hash"] == asked.table.data_hash
    assert rows["all", "original"]["questions"] == 160
    assert "answers" not in found["probes"]
    written = json.loads(output.read_text())
    texts = {item["question_id"]: item["text"] for item in written["probes"].pop("answers")}
    assert written == found
    contexts = {example.question_id: example.context for example in asked.table.examples()}
    assert set(texts) == set(contexts)
    assert all(text in contexts[name] for name, text in texts.items())
    assert any(texts.values())


def test_probe_scores_are_those_of_the_evaluator_that_scores_data(
    folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The paraphrases as a data file give the same F1 and interval as `--probes`."""
    asked = probes.probe_set(probes.load_items())
    paragraphs = [
        {
            "context": example.context,
            "qas": [
                {
                    "id": example.question_id,
                    "question": example.question,
                    "answers": [{"text": gold.text, "answer_start": gold.start} for gold in example.answers],
                }
            ],
        }
        for row, example in enumerate(asked.table.examples())
        if asked.variants[row] == "paraphrase"
    ]
    data = tmp_path / "probes.json"
    data.write_text(json.dumps({"version": "v2.0", "data": [{"title": "p", "paragraphs": paragraphs}]}))
    found = printed(capsys, folders[OTHER], str(data), "--probes")
    (row,) = [
        row for row in found["probes"]["rows"] if (row["category"], row["variant"]) == ("all", "paraphrase")
    ]
    assert row["f1_percent"] == pytest.approx(found["intervals"]["f1_percent"])
    assert row["f1_percent"]["estimate"] > 0


def test_an_output_that_exists_is_refused_before_anything_is_read(
    folders: dict[str, str], small_squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.json"
    output.write_text("precious")
    assert cli.main(["evaluate", "absent", str(small_squad), "--output", str(output)]) == 2
    assert f"{output}: exists already" in capsys.readouterr().err
    found = printed(capsys, folders[GOLD], str(small_squad), "--output", str(output), "--force")
    assert json.loads(output.read_text()) == found


def test_a_wrong_name_is_refused_before_any_question_is_answered(
    folders: dict[str, str],
    small_squad: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(predict, "answer", lambda *given, **named: pytest.fail("it was answered"))
    monkeypatch.setattr(evaluate, "answer", predict.answer)
    assert cli.main(["evaluate", folders[GOLD], str(small_squad), "--semantic", "./absent"]) == 2
    assert "error: --semantic: found './absent'" in capsys.readouterr().err
    assert cli.main(["evaluate", folders[GOLD], str(small_squad), "--against", "./absent"]) == 2
    assert "error: absent: not an artifact" in capsys.readouterr().err


def test_malformed_questions_are_refused_or_left_out_and_counted(
    folders: dict[str, str], small_squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(small_squad.read_text())
    questions = document["data"][0]["paragraphs"][0]["qas"]
    questions[0]["answers"][0]["answer_start"] += 1
    questions[1]["answers"].append({"text": "nowhere", "answer_start": 0})
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    assert cli.main(["evaluate", folders[GOLD], str(path), "--device", "cpu"]) == 2
    assert "qas[0].answers[0].answer_start" in capsys.readouterr().err
    found = printed(capsys, folders[GOLD], str(path), "--device", "cpu", "--skip-bad-examples")
    assert (found["questions"], found["skipped"], found["skipped_answers"]) == (59, 1, 1)


def test_people_get_a_table_with_the_same_numbers(
    folders: dict[str, str],
    small_squad: Path,
    knows_all: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    given = [folders[GOLD], str(small_squad), "--against", folders[OTHER]]
    found = printed(capsys, *given)
    assert cli.main(["evaluate", *given]) == 0
    shown = capsys.readouterr().out
    assert "\\n" not in shown
    assert [line.strip() for line in shown.splitlines()][-1].endswith("all values: --json")
    rows = [
        [cell.strip() for cell in line.split("\u2502")[1:-1]]
        for line in shown.splitlines()
        if "\u2502" in line
    ]
    cells = {row[0]: row[1:] for row in rows}
    assert cells["all"][:2] == ["60", "100.00"]
    assert cells["without an answer"] == ["12", "100.00", "", "100.00", ""]
    assert cells["baseline: no answer to anything"][1] == "20.00"
    difference = found["against"]["difference"]["em_percent"]
    assert cells["difference: better"][1:3] == [
        f"{difference['estimate']:+.2f}",
        f"{difference['low']:.2f} to {difference['high']:.2f}",
    ]
    assert found["data_hash"] in shown
    assert cli.main(["evaluate", folders[OTHER], str(small_squad), "--against", folders[OTHER]]) == 0
    assert "difference: tied" in capsys.readouterr().out


def test_probes_have_a_table_of_their_own(
    folders: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = printed(capsys, folders[GOLD], "--probes")
    assert cli.main(["evaluate", folders[GOLD], "--probes"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if "\u2502" in line]
    assert len(shown) == len(found["probes"]["rows"])
