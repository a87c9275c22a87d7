"""Ties with smaller models: exact verdicts of paired answers, smallest first, and what could not be judged."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from qa_core.scoring.answer_file import SCHEMA, UNIT
from sweeps.front.front import compute_front
from sweeps.front.points import Point
from sweeps.front.ties import Ties, smaller_and_tied
from tests.sweeps.front.test_front import BOTH, record

ARTICLES = 10


def answers(path: Path, right: list[int], *, questions: int = 40, articles: int = ARTICLES) -> None:
    """Write answers to questions that are spread over articles; those in `right` are exact."""
    exact = np.zeros(questions)
    exact[right] = 1.0
    columns = {
        "question_id": [f"q{row}" for row in range(questions)],
        "answer": [""] * questions,
        "exact_match": exact,
        "f1": exact,
        "cluster": pa.array([row % articles for row in range(questions)], pa.int32()),
    }
    parquet.write_table(pa.table(columns, schema=SCHEMA.with_metadata({UNIT: b"article"})), path)


def judged(folder: Path, by: str = "memory_mb") -> Ties:
    memories = {"t0": 9.0, "t1": 7.0, "t2": 5.0, "t3": 3.0, "t4": 11.0}
    records = [record(name, 50, memory) for name, memory in memories.items()]
    points: dict[str, Point] = {point.trial_id: point for point in compute_front(records, BOTH).points}
    return smaller_and_tied(
        points["t0"], points.values(), by, lambda point: folder / f"{point.trial_id}.parquet"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    best = list(range(20))
    answers(tmp_path / "t0.parquet", best)
    answers(tmp_path / "t1.parquet", [*best[2:], 30])  # two lost in articles 0 and 1, one won in another
    answers(tmp_path / "t2.parquet", list(range(10)))  # one lost in every article
    answers(tmp_path / "t3.parquet", [*best[1:], 31])
    answers(tmp_path / "t4.parquet", best)
    return tmp_path


def test_smaller_models_whose_difference_may_be_none_come_smallest_first(folder: Path) -> None:
    found = judged(folder)
    assert [tie.point.trial_id for tie in found.tied] == ["t3", "t1"]
    assert found.not_judged == ()
    assert [tie.difference.estimate for tie in found.tied] == pytest.approx([0.0, -100 / 40])
    for tie in found.tied:
        assert tie.difference.low is not None
        assert tie.difference.high is not None
        assert tie.difference.low < 0.0 < tie.difference.high


def test_without_answers_or_articles_or_on_other_questions_nothing_is_judged(folder: Path) -> None:
    (folder / "t1.parquet").unlink()
    answers(folder / "t3.parquet", [1], questions=41)
    found = judged(folder)
    assert ([point.trial_id for point in found.not_judged], found.tied) == (["t3", "t1"], ())
    for name in ("t0", "t1", "t2", "t3"):
        answers(folder / f"{name}.parquet", [1], articles=3)
    assert [point.trial_id for point in judged(folder).not_judged] == ["t3", "t2", "t1"]
    (folder / "t0.parquet").unlink()
    assert len(judged(folder).not_judged) == 3


def test_what_is_smaller_is_told_by_the_cost_that_is_named(folder: Path) -> None:
    assert judged(folder, by="latency_p50_ms") == Ties((), ())
