"""Answers as a file: exactly what was scored, under the threshold; what is no such file is named."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from qa_core.data.table import SCHEMA as SCHEMA_OF_TABLES
from qa_core.data.table import QaTable
from qa_core.errors import DataError, StorageError
from qa_core.scoring import evaluate
from qa_core.scoring.answer_file import read_scores, write_answers
from qa_core.scoring.decode import Prediction
from tests.qa_core.test_measure import table

QUESTIONS = table(q1="red green", q2="blue", q3=None)
PREDICTIONS = [
    Prediction("green", -1.0, 0.0, "q1"),
    Prediction("blue", 3.0, 0.0, "q2"),
    Prediction("red", 4.0, 0.0, "q3"),
]


def test_scores_and_answers_come_back_as_they_were(tmp_path: Path) -> None:
    scores = evaluate.scores_by_question(PREDICTIONS, QUESTIONS, 2.0)
    path = tmp_path / "trial" / "answers.parquet"
    write_answers(path, PREDICTIONS, QUESTIONS, scores, threshold=2.0)
    ids, found, clusters = read_scores(path)
    assert (clusters.unit, clusters.of_value.tolist()) == ("paragraph", [0, 0, 0])
    assert ids == ["q1", "q2", "q3"]
    assert found.tolist() == [[0.0, pytest.approx(2 / 3)], [0.0, 0.0], [1.0, 1.0]]
    assert parquet.read_table(path).column("answer").to_pylist() == ["green", "", ""]
    assert [item.name for item in path.parent.iterdir()] == ["answers.parquet"]


def test_articles_come_back_and_a_file_without_them_lets_each_question_stand_alone(tmp_path: Path) -> None:
    tables = [table(q1="red"), table(q2="blue"), table(q3=None)]
    rows = pa.concat_tables([item.rows for item in tables]).set_column(
        1, SCHEMA_OF_TABLES.field("title"), pa.array(["a", "b", "a"])
    )
    rows = rows.set_column(2, SCHEMA_OF_TABLES.field("context_index"), pa.array([0, 1, 2], pa.int32()))
    contexts = pa.array(["red green blue black", "blue", "red"])
    path = tmp_path / "answers.parquet"
    scores = np.zeros((3, 2))
    write_answers(path, PREDICTIONS, QaTable(rows, contexts, "made"), scores, threshold=None)
    clusters = read_scores(path)[2]
    assert (clusters.unit, clusters.of_value.tolist()) == ("article", [0, 1, 0])
    parquet.write_table(parquet.read_table(path).drop_columns("cluster").replace_schema_metadata(None), path)
    clusters = read_scores(path)[2]
    assert (clusters.unit, clusters.of_value.tolist()) == ("question", [0, 1, 2])


def test_a_missing_a_damaged_and_a_foreign_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.parquet"
    with pytest.raises(DataError, match=r"answers\.parquet: answers cannot be read"):
        read_scores(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"answers\.parquet: answers cannot be read"):
        read_scores(path)
    parquet.write_table(pa.table({"question_id": ["a"]}), path)
    with pytest.raises(
        DataError, match=r"found columns \['question_id: string'\]; allowed: .*'exact_match: double'"
    ):
        read_scores(path)


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_answers(tmp_path / "file" / "a", PREDICTIONS, QUESTIONS, np.zeros((3, 2)), threshold=None)
