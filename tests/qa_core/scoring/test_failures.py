"""Outcomes of answers: each one exact on hand-made predictions, none for two, all of them reached."""

import pytest

from qa_core.schema import Answer, Example
from qa_core.scoring.failures import OUTCOMES, answer_type, outcome, sentences

CONTEXT = (
    "The Tarn Lute was sold to the Lindmoor Museum in 1907. Its case, which Anna Pell of Tolland made, cost 40 "
    "crowns. On 3 May 1931 it was moved to the Salt Tower and 12 guards came along."
)


def example(*golds: str, context: str = CONTEXT) -> Example:
    return Example("q", "?", context, tuple(Answer(gold, context.index(gold)) for gold in golds))


MUSEUM, TWO = example("the Lindmoor Museum"), example("Anna Pell", "40 crowns")


@pytest.mark.parametrize(
    ("asked", "text", "expected"),
    [
        (MUSEUM, "Lindmoor Museum!", "correct"),
        (MUSEUM, "", "null"),
        (MUSEUM, "the", "null"),  # nothing is left of it after normalisation
        (MUSEUM, "the Lindmoor Museum in 1907", "over_long"),
        (MUSEUM, "a lindmoor museum", "correct"),
        (MUSEUM, "sold to the lindmoor museum", "over_long"),
        (MUSEUM, "Museum", "partial"),
        (MUSEUM, "Museum in 1907", "partial"),  # holds a piece and is no piece, but overlaps in the passage
        (MUSEUM, "Lindmoor House", "not_in_passage"),
        (MUSEUM, "Lind moor Museum", "not_in_passage"),
        (MUSEUM, "1907", "wrong_type"),
        (MUSEUM, "3 May 1931", "wrong_type"),
        (MUSEUM, "12 guards", "wrong_type"),
        (MUSEUM, "which", "wrong_type"),
        (MUSEUM, "Anna Pell", "wrong_sentence"),
        (MUSEUM, "the Salt Tower", "wrong_sentence"),
        (MUSEUM, "The Tarn Lute", "wrong_span"),
        (example("1907"), "3 May 1931", "wrong_sentence"),
        (example("40 crowns"), "12 guards", "wrong_sentence"),
        (example("Anna Pell"), "Tolland", "wrong_span"),
        # either of two golds is enough for every comparison
        (TWO, "Anna Pell of Tolland", "over_long"),
        (TWO, "40", "partial"),
        (TWO, "12", "wrong_sentence"),
        (example(), "", "correct"),
        (example(), "the", "correct"),
        (example(), "1907", "answered"),
    ],
)
def test_each_answer_has_its_outcome(asked, text, expected):
    assert outcome(asked, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Anna Pell of Tolland made, cost 40 crowns", "all_parts"),
        ("40 crowns and Anna Pell", "all_parts"),  # as a generating head may write it
        ("Anna Pell of Tolland", "over_long"),
        ("Anna Pell", "correct"),
        ("", "null"),
    ],
)
def test_all_parts_are_asked_for_only_where_the_golds_are_parts(text, expected):
    assert outcome(TWO, text, needs_all=True) == expected
    assert outcome(TWO, text) == ("over_long" if expected == "all_parts" else expected)


def test_every_outcome_is_reached_by_the_examples_here():
    cases = [
        mark.args[1]
        for test in (
            test_each_answer_has_its_outcome,
            test_all_parts_are_asked_for_only_where_the_golds_are_parts,
        )
        for mark in test.pytestmark
    ]
    assert {case[-1] for rows in cases for case in rows} == set(OUTCOMES)


def test_a_number_is_found_as_a_whole_word_before_it_is_found_within_another():
    asked = example("4", context="Row 14 had 20 seats. Row 9 had 4 seats.")
    assert outcome(asked, "4 seats") == "over_long"
    assert outcome(example("20", context=asked.context), "4") == "wrong_sentence"  # not the 4 of 14
    assert outcome(example("20", context="Row 14 had 20 seats. It rained."), "4") == "wrong_span"


def test_what_only_touches_a_gold_or_its_sentence_is_apart_from_it():
    context = "Ann Lee won. Bob Orr lost, unlike Ann-Marie."
    assert outcome(example("Ann Lee", context=context), "Bob Orr") == "wrong_sentence"
    assert outcome(example("Marie", context=context), "Ann-") == "wrong_span"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("14 March 1931", "time"),
        ("1907", "time"),
        ("around 700 BC", "time"),
        ("3 may", "time"),
        ("May", "time"),
        ("may", "phrase"),
        ("march", "phrase"),
        ("21:04 to 21:11", "time"),
        ("a quarter past five", "time"),
        ("the last day of the year", "time"),
        ("last spring", "time"),
        ("the spring", "phrase"),
        ("Friday", "time"),
        ("2,100 metres", "number"),
        ("1,250", "number"),
        ("1250.5 metres", "number"),
        ("12.50", "number"),
        ("30000", "number"),
        ("10 minutes", "number"),
        ("forty days", "number"),
        ("fourteen", "number"),
        ("one green umbrella", "phrase"),
        ("the Guild of Saddlers", "name"),
        ("The Aune", "name"),
        ("“Finch”", "name"),
        ("Black loam", "phrase"),
        ("Cold air runs down", "phrase"),
        ("savage", "phrase"),
        ("the", "phrase"),
    ],
)
def test_the_type_of_an_answer_follows_from_its_words(text, expected):
    assert answer_type(text) == expected


def test_sentences_cover_the_passage_and_end_after_closing_quotes():
    context = 'He said "No." Then 4.5 metres fell (all of it!) and rest? Yes'
    found = [context[start:end] for start, end in sentences(context)]
    assert found == ['He said "No." ', "Then 4.5 metres fell (all of it!) ", "and rest? ", "Yes"]
    assert sentences("One. ") == [(0, 5)]
