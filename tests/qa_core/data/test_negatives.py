"""Synthetic unanswerable questions."""

import pytest

from qa_core.data.negatives import add_negatives, keep_unanswerable
from qa_core.data.squad import QaTable, read_squad
from qa_core.data.text import normalize_answer
from qa_core.errors import DataError


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


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_the_same_article_is_kept_and_counted(many: QaTable, share: float) -> None:
    extended, counts = add_negatives(many, 0.5, seed=4, same_article_share=share)
    near = round(share * 200)
    assert counts == {"random": 200 - near, "same_article": near}
    assert len(extended) == len(many) + 200
    originals = {example.question_id: example for example in many.examples()}
    for index in range(len(many), len(many) + near):
        example = extended.example(index)
        original = originals[example.question_id.rsplit("-negative-", 1)[0]]
        assert example.title == original.title
        assert example.context != original.context
        assert all(answer.text.lower() not in example.context.lower() for answer in original.answers)
    others = [
        extended.example(index).title
        == originals[extended.question_ids[index].rsplit("-negative-", 1)[0]].title
        for index in range(len(many) + near, len(extended))
    ]
    assert sum(others) < 0.3 * max(1, len(others)) or not others
    pairs = {(example.question, example.context) for example in list(extended.examples())[len(many) :]}
    assert len(pairs) == 200


def test_random_ones_are_the_same_with_and_without_the_setting(many: QaTable) -> None:
    plain, _ = add_negatives(many, 0.3, seed=4)
    explicit, _ = add_negatives(many, 0.3, seed=4, same_article_share=0.0)
    assert plain.data_hash == explicit.data_hash


def titled(*titles: str) -> QaTable:
    """One answerable question on a paragraph of its own for each title."""
    articles = [
        {
            "title": title,
            "paragraphs": [
                {
                    "context": f"Nr {index} is {word}.",
                    "qas": [
                        {
                            "id": f"q{index}",
                            "question": f"What is {index}?",
                            "answers": [{"text": word, "answer_start": 8}],
                        }
                    ],
                }
            ],
        }
        for index, (title, word) in enumerate(zip(titles, ("red", "blue", "green", "grey"), strict=False))
    ]
    return read_squad({"version": "v2.0", "data": articles}, "titled")


def test_a_question_whose_article_has_one_paragraph_gets_none_of_its_article() -> None:
    table = titled("A", "A", "B", "")
    extended, counts = add_negatives(table, 2.0, seed=0, same_article_share=1.0)
    assert counts == {"random": 0, "same_article": 2}
    found = [extended.example(index) for index in range(4, 6)]
    assert {(item.question, item.context) for item in found} == {
        ("What is 0?", "Nr 1 is blue."),
        ("What is 1?", "Nr 0 is red."),
    }


def test_without_any_title_none_can_be_of_the_same_article() -> None:
    table = titled("", "", "")
    with pytest.raises(DataError, match=r"found no titles.*data\.negatives_same_article_share 0"):
        add_negatives(table, 1.0, seed=0, same_article_share=0.5)
    assert add_negatives(table, 1.0, seed=0)[1] == {"random": 3, "same_article": 0}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_share_of_the_real_unanswerable_questions_is_kept_in_order(many: QaTable, share: float) -> None:
    kept = keep_unanswerable(many, share, seed=3)
    total = int(many.is_unanswerable.sum())
    assert int(kept.is_unanswerable.sum()) == total - round((1 - share) * total)
    assert int((~kept.is_unanswerable).sum()) == len(many) - total
    ids = kept.question_ids
    assert [name for name in many.question_ids if name in set(ids)] == ids
    if share:
        smaller = set(keep_unanswerable(many, share / 2, seed=3).question_ids)
        assert smaller < set(ids)
        assert keep_unanswerable(many, share, seed=4).question_ids != ids


def test_all_are_kept_by_default_and_something_must_be_left(many: QaTable, table: QaTable) -> None:
    assert keep_unanswerable(many, 1.0, seed=3) is many
    with pytest.raises(DataError, match=r"no answerable question; allowed with data\.unanswerable_share 0"):
        keep_unanswerable(table.take([3, 5]), 0.0, seed=0)


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
