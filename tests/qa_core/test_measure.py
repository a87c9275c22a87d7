"""The final evaluation: the threshold comes from the selection split and is applied as it is everywhere else."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qa_core.data.squad import QaTable, read_squad
from qa_core.measure import cross_domain_scores, scored_quality
from qa_core.scoring import evaluate
from qa_core.scoring.answer_file import read_scores
from qa_core.scoring.decode import Prediction

pytestmark = pytest.mark.numeric

CONTEXT = "red green blue black"


def table(**golds: str | None) -> QaTable:
    questions = [
        {
            "id": name,
            "question": f"Which is {name}?",
            "answers": [{"text": text, "answer_start": CONTEXT.index(text)}] if text else [],
        }
        for name, text in golds.items()
    ]
    data = [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": questions}]}]
    return read_squad({"version": "v2.0", "data": data}, "hand-made")


class TableReader:
    """Answers each question from a list, whatever its windows are."""

    def __init__(self, **answers: tuple[str, float]) -> None:
        self.answers = answers
        self.asked: list[Any] = []

    def predict(self, windows: Any, asked: QaTable) -> list[Prediction]:
        self.asked.append(windows)
        return [Prediction(*self.answers[name], 0.0, name) for name in asked.question_ids]

    def index_accuracy(self, windows: Any) -> tuple[float, float] | None:
        return None


SELECTION = table(s1="red", s2="green", s3=None, s4=None)
EVALUATION = table(e1="red", e2="green", e3=None)
ABROAD = table(a1="blue", a2=None, a3=None, a4=None)
ANSWERS = {
    # the selection split is best served by 2.0
    "s1": ("red", -1.0),
    "s2": ("green", 2.0),
    "s3": ("red", 3.0),
    "s4": ("blue", 4.0),
    # the evaluation set would be by 5.0
    "e1": ("red", 1.0),
    "e2": ("green", 5.0),
    "e3": ("blue", 9.0),
    # and this one by "no answer" everywhere
    "a1": ("black", 0.0),
    "a2": ("red", 1.0),
    "a3": ("red", 2.0),
    "a4": ("red", 3.0),
}


def trial_data(selection: QaTable = SELECTION) -> Any:
    return SimpleNamespace(
        selection="selection windows",
        selection_table=selection,
        evaluation=lambda: "evaluation windows",
        evaluation_table=EVALUATION,
        cross_domain=lambda source: f"windows of {source}",
        cross_domain_tables={"abroad.json": ABROAD, "home": EVALUATION},
    )


def test_the_threshold_of_the_selection_split_is_applied_to_the_evaluation_set_as_it_is(tmp_path: Path):
    reader: Any = TableReader(**ANSWERS)
    quality, selection = scored_quality(reader, trial_data(), answers_path=tmp_path / "a")
    own = evaluate.tune_threshold(reader.predict(None, EVALUATION), EVALUATION)
    assert (quality.null_threshold, own) == (2.0, 5.0)
    ids, scores, _ = read_scores(tmp_path / "a")
    assert ids == ["e1", "e2", "e3"]
    assert scores.tolist() == [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    assert selection == (100.0, 100.0)
    assert quality.em_percent == pytest.approx(100 * 2 / 3)  # its own threshold would give 100
    assert (quality.has_ans_em_percent, quality.has_ans_questions) == (50.0, 2)
    assert (quality.no_ans_em_percent, quality.no_ans_f1_percent, quality.no_ans_questions) == (
        100.0,
        100.0,
        1,
    )


def test_a_selection_split_without_unanswerable_questions_lets_every_answer_stand(tmp_path: Path):
    reader: Any = TableReader(**ANSWERS)
    quality, _ = scored_quality(reader, trial_data(SELECTION.take([0, 1])), answers_path=tmp_path / "a")
    assert quality.null_threshold is None
    assert (quality.has_ans_em_percent, quality.no_ans_em_percent) == (100.0, 0.0)


def test_cross_domain_sets_are_scored_each_under_the_given_threshold(tmp_path: Path):
    reader: Any = TableReader(**ANSWERS)
    found = cross_domain_scores(reader, trial_data(), 2.0)
    assert list(found) == ["abroad.json", "home"]
    assert reader.asked == ["windows of abroad.json", "windows of home"]
    assert found["abroad.json"].data_hash == ABROAD.data_hash
    abroad = found["abroad.json"].quality
    assert (abroad.null_threshold, abroad.em_percent, abroad.no_ans_em_percent) == (
        2.0,
        25.0,
        pytest.approx(100 / 3),
    )
    assert abroad.baseline_no_answer_em_percent == 75.0
    assert found["home"].quality == scored_quality(reader, trial_data(), answers_path=tmp_path / "a")[0]


def test_index_accuracy_stands_beside_exact_match_for_a_family_that_reports_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reader: Any = TableReader(**ANSWERS)
    plain, _ = scored_quality(reader, trial_data(), answers_path=tmp_path / "a")
    monkeypatch.setattr(reader, "index_accuracy", lambda windows: (30.0, 51.0))
    quality, _ = scored_quality(reader, trial_data(), answers_path=tmp_path / "a")
    assert (plain.index_accuracy_percent, plain.index_accuracy_constant_0_percent) == (None, None)
    assert (quality.index_accuracy_percent, quality.index_accuracy_constant_0_percent) == (30.0, 51.0)
    assert quality.em_percent == plain.em_percent
