"""Baselines that read no question: exact on passages where every rule gives another answer."""

import pytest

from qa_core.scoring.baselines import BASELINES, question_blind


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        # the first figure, not the longest, and before any name
        ("New York City has 8 bridges and 12 345 boats since 1,066 days.", "8"),
        ("About 12 345 boats and 7 ships", "12 345"),
        ("It weighs 4.6 grams, not 46", "4.6"),
        ("the B52s played", "B52s"),
        # without a figure, the longest run of capitalised words; punctuation between words ends a run
        ("Paris is not New York City, Ohio, nor Rome", "New York City"),
        ("we met Ann-Marie O'Neill.\nBob Jones came", "Ann-Marie O'Neill"),
        ("Ada Byron and Bea Byron and Cy", "Ada Byron"),  # the first among equals
        ("Ärmel und Öle wuchsen", "Ärmel"),
        # without either, the first three words
        ("nothing here is written large", "nothing here is"),
        ("one  two", "one two"),
    ],
)
def test_question_blind_takes_a_figure_else_a_name_else_the_first_words(context, answer):
    assert question_blind(context) == answer


def test_every_baseline_is_named_and_answers_without_a_question():
    context = "Old Tom sold 9 hens to New Mary Lou."
    answers = {name: answer(context) for name, answer in BASELINES.items()}
    assert answers == {"no_answer": "", "first_span": "Old Tom sold", "question_blind": "9"}


def test_answers_are_pieces_of_the_paragraph_on_real_text(shared):
    from qa_core.data.squad import load_table

    contexts = load_table(str(shared / "data" / "squad" / "dev-v1.1.json.gz"), split="dev").contexts
    texts = contexts.to_pylist()
    assert len(texts) > 2000
    assert all(question_blind(text) and question_blind(text) in text for text in texts)
