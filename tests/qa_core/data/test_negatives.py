"""Synthetic unanswerable questions."""

import pytest

from qa_core.data.negatives import add_negatives
from qa_core.data.squad import QaTable, read_squad
from qa_core.errors import DataError
from qa_core.scores import normalize_answer


@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.5])
def test_negatives_are_real_questions_on_paragraphs_without_their_answers(
    many: QaTable, ratio: float
) -> None:
    extended, _ = add_negatives(many, ratio, seed=4)
    assert len(extended) == len(many) + round(ratio * len(many))
    assert extended.take(range(len(many))).data_hash == many.data_hash
    originals = {example.question_id: example for example in many.examples()}
    assert len(set(extended.question_ids)) == len(extended)
    pairs = set()
    for index in range(len(many), len(extended)):
        example = extended.example(index)
        original = originals[example.question_id.rsplit("-negative-", 1)[0]]
        assert example.is_impossible
        assert example.question == original.question
        assert original.answers
        assert example.context != original.context
        for answer in original.answers:
            assert answer.text.lower() not in example.context.lower()
            assert normalize_answer(answer.text) not in normalize_answer(example.context)
        pairs.add((example.question, example.context))
    assert len(pairs) == len(extended) - len(many)


def test_no_question_is_used_twice_before_all_were_used_once(many: QaTable) -> None:
    extended, _ = add_negatives(many, 0.4, seed=4)
    new = [identity.rsplit("-negative-", 1) for identity in extended.question_ids[len(many) :]]
    assert len({identity for identity, _ in new}) == len(new) == 160
    assert {number for _, number in new} == {"1"}


def test_negatives_follow_the_seed(many: QaTable) -> None:
    first, again, other = (add_negatives(many, 0.3, seed=seed)[0].data_hash for seed in (4, 4, 5))
    assert first == again != other


def test_a_negative_carries_the_title_of_its_paragraph(many: QaTable) -> None:
    titles = {example.context: example.title for example in many.examples()}
    extended, _ = add_negatives(many, 0.3, seed=4)
    assert all(example.title == titles[example.context] for example in extended.examples())


def test_no_ratio_changes_nothing(table: QaTable) -> None:
    assert add_negatives(table, 0.0, seed=0) == (table, {"random": 0, "same_article": 0})


def one_answer(answer: str, *contexts: str) -> QaTable:
    paragraphs = [{"context": context, "qas": []} for context in contexts]
    paragraphs[0]["qas"] = [
        {"id": "q", "question": "What?", "answers": [{"text": answer, "answer_start": 0}]}
    ]
    for index, paragraph in enumerate(paragraphs[1:]):
        paragraph["qas"] = [{"id": f"e{index}", "question": "Else?", "answers": [], "is_impossible": True}]
    return read_squad({"version": "v2.0", "data": [{"paragraphs": paragraphs}]}, "one")


@pytest.mark.parametrize("other", ["paris is far.", "In Paris.", "Par-is!", "The p.a.r.i.s. of the north"])
def test_a_paragraph_that_holds_the_answer_however_written_is_never_used(other: str) -> None:
    table = one_answer("Paris", "Paris is old.", other, "Rome is older.")
    for seed in range(10):
        extended, _ = add_negatives(table, 1 / 3, seed=seed)
        assert [extended.example(index).context for index in range(3, len(extended))] == ["Rome is older."]


@pytest.mark.parametrize(("answer", "other"), [("The", "In the north."), ("%", "Some 5% more.")])
def test_an_answer_that_normalises_to_nothing_is_looked_for_as_written(answer: str, other: str) -> None:
    table = one_answer(answer, f"{answer} is odd.", other, "Rome is older.")
    for seed in range(10):
        assert add_negatives(table, 1 / 3, seed=seed)[0].example(-1).context == "Rome is older."


def test_fewer_come_out_where_no_paragraph_is_left() -> None:
    table = one_answer("Paris", "Paris is old.", "In Paris.", "Rome is older.")
    assert len(add_negatives(table, 2.0, seed=0)[0]) == len(table) + 1
    assert add_negatives(one_answer("Paris", "Paris is old.", "In Paris."), 2.0, seed=0)[0].question_ids == [
        "q",
        "e0",
    ]


def test_ids_that_are_taken_already_are_passed_over(document: dict) -> None:
    document["data"][0]["paragraphs"][0]["qas"][1]["id"] = "r1-negative-1"
    extended, _ = add_negatives(read_squad(document, "small"), 1.0, seed=0)
    assert len(set(extended.question_ids)) == len(extended) == 12


def test_tables_that_allow_no_negative_are_refused(table: QaTable) -> None:
    with pytest.raises(
        DataError, match=r"found 1 paragraphs and 2 answerable questions; allowed with data\.neg"
    ):
        add_negatives(table.take([0, 1]), 0.5, seed=0)
    with pytest.raises(DataError, match="found 2 paragraphs and 0 answerable questions"):
        add_negatives(table.take([3, 5]), 0.5, seed=0)
