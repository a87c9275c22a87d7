"""The table of questions: its hash, its rows and what `take` leaves."""

from typing import Any

import pytest

from qa_core.data.squad import QaTable, read_squad

QUESTION = ("data", 0, "paragraphs", 0, "qas", 0)


def test_the_same_content_has_the_same_hash_and_its_source_does_not_matter(document: dict) -> None:
    assert read_squad(document, "one").data_hash == read_squad(document, "two").data_hash
    assert len(read_squad(document, "one").data_hash) == 16


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("data", 0, "title"), "Other rivers"),
        (
            ("data", 0, "paragraphs", 0, "context"),
            "The Oder rises in the Odra Hills and flows 840 km to the SEA.",
        ),
        ((*QUESTION, "id"), "r9"),
        ((*QUESTION, "question"), "Where does the Oder rise"),
        ((*QUESTION, "answers", 0, "text"), "the Odra"),
        ((*QUESTION, "answers"), [{"text": "the Odra Hills", "answer_start": 18}]),
        (
            (*QUESTION, "answers"),
            [{"text": "Odra Hills", "answer_start": 22}, {"text": "the Odra Hills", "answer_start": 18}],
        ),
    ],
)
def test_a_change_in_any_field_changes_the_hash(document: dict, path: tuple, value: Any) -> None:
    before = read_squad(document, "small").data_hash
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert read_squad(document, "small").data_hash != before


def test_the_order_of_questions_is_part_of_the_hash(table: QaTable) -> None:
    assert table.take([1, 0, 2, 3, 4, 5]).data_hash != table.data_hash
    assert table.take(range(6)).data_hash == table.data_hash


def test_take_keeps_the_order_asked_for_and_drops_unused_paragraphs(table: QaTable) -> None:
    taken = table.take([4, 1])
    assert taken.question_ids == ["b1", "r2"]
    assert taken.contexts.to_pylist() == ["Rye bread keeps for a week.", table.example(1).context]
    assert [taken.example(0), taken.example(1)] == [table.example(4), table.example(1)]
    assert taken.source == "small"


def test_examples_come_in_order_and_negative_indices_count_from_the_end(table: QaTable) -> None:
    assert list(table.examples()) == [table.example(index) for index in range(6)]
    assert table.example(-1).question_id == "b2"
    with pytest.raises(IndexError):
        table.example(6)


def test_a_table_without_unanswerable_questions_says_so(table: QaTable) -> None:
    assert table.has_unanswerable
    assert not table.take([0, 1, 2, 4]).has_unanswerable
