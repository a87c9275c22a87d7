"""Rows as columns and back: nothing lost but digits beyond the sixth."""

import json

from sweeps.report.columns import decoded, encoded, rounded


def test_rows_come_back_as_they_were() -> None:
    rows = [
        {"id": "t0", "em": 61.53846153, "size": 1_800_883, "word": "a"},
        {"id": "t1", "em": None, "size": 0, "word": None},
        {"id": "t2", "em": 1e-7, "size": 12, "word": "a"},
    ]
    columns = encoded(rows, ["id", "em", "size", "word", "absent"])
    assert decoded(json.loads(json.dumps(columns))) == [
        {"id": "t0", "em": 61.5385, "size": 1_800_883, "word": "a", "absent": None},
        {"id": "t1", "em": None, "size": 0, "word": None, "absent": None},
        {"id": "t2", "em": 1e-7, "size": 12, "word": "a", "absent": None},
    ]
    assert columns[3] == {"key": "word", "levels": ["a"], "at": [0, -1, 0]}


def test_a_column_of_numbers_and_words_is_one_of_words() -> None:
    rows = [{"x": 0.001}, {"x": "auto"}, {"x": True}, {"x": 4}]
    assert [row["x"] for row in decoded(encoded(rows, ["x"]))] == ["0.001", "auto", "true", "4"]


def test_what_no_json_number_is_becomes_nothing() -> None:
    assert [rounded(value) for value in (float("nan"), float("inf"), None, 2.0, 123456.78)] == [
        None,
        None,
        None,
        2,
        123457.0,
    ]
