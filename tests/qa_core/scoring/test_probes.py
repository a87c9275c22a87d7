"""Probes: the packaged items hold what their categories promise, and the report counts hand-made answers exactly."""

import json
import math
import random
import re
from collections import Counter
from dataclasses import replace

import pytest

from qa_core.data.text import normalize_answer
from qa_core.errors import DataError
from qa_core.schema import Answer, as_json
from qa_core.scoring.decode import Prediction
from qa_core.scoring.failures import OUTCOMES, answer_type, sentences
from qa_core.scoring.probes import (
    ALL,
    ANSWERABLE,
    CATEGORIES,
    TWIN,
    VARIANTS,
    ProbeItem,
    load_items,
    probe_set,
    report,
)

ITEMS = load_items()
BY_CATEGORY = {name: [item for item in ITEMS if item.category == name] for name in CATEGORIES}


# The packaged items


def test_eight_categories_in_three_groups_have_twenty_items_each():
    assert Counter(item.category for item in ITEMS) == dict.fromkeys(CATEGORIES, 20)
    groups = Counter(category.group for category in CATEGORIES.values())
    assert groups == {"foundational": 3, "temporal and numeric": 3, "advanced": 2}


def test_every_passage_id_and_question_occurs_once():
    assert len({item.item_id for item in ITEMS}) == len({item.context for item in ITEMS}) == len(ITEMS) == 160
    asked = [normalize_answer(text) for item in ITEMS for text in (item.question, item.paraphrase, item.twin)]
    assert [text for text, count in Counter(asked).items() if count > 1] == []
    table = probe_set(ITEMS).table
    assert len(set(table.question_ids)) == len(table)
    questions = table.rows.column("question").to_pylist()
    assert len(set(questions)) == len(questions)


def whole_words(context: str, text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", context)]


def test_golds_and_distractors_stand_in_the_passage_as_whole_words_apart():
    for item in ITEMS:
        golds = [(gold.start, gold.start + len(gold.text)) for gold in item.answers]
        for gold, (start, end) in zip(item.answers, golds, strict=True):
            assert item.context[start:end] == gold.text, item.item_id
            assert (start, end) in whole_words(item.context, gold.text), item.item_id
        normal = [
            normalize_answer(text) for text in (*(gold.text for gold in item.answers), *item.distractors)
        ]
        assert item.answers, item.item_id
        assert item.distractors, item.item_id
        assert len(set(normal)) == len(normal), item.item_id
        assert all(normal), item.item_id
        for text in item.distractors:
            places = whole_words(item.context, text)
            is_apart = [all(end <= a or b <= start for a, b in golds) for start, end in places]
            assert any(is_apart), (item.item_id, text)


def content_words(text: str) -> set[str]:
    """Words of four letters and more, cut to five, so that "floods" and "flooding" are one."""
    return {word[:5] for word in re.findall(r"[^\W\d_]{4,}", text.lower())}


def test_the_twin_asks_about_something_that_neither_passage_nor_question_names():
    for item in ITEMS:
        new = content_words(item.twin) - content_words(item.context) - content_words(item.question)
        assert new, item.item_id


def test_the_paraphrase_has_other_words_than_the_question():
    for item in ITEMS:
        assert content_words(item.paraphrase) != content_words(item.question), item.item_id


def test_defined_terms_stand_beside_a_list_that_the_question_names():
    for item in BY_CATEGORY["defined_term"]:
        (listed,) = item.distractors
        assert len(re.split(r", | and ", listed)) >= 3, item.item_id
        before = item.context[: item.context.index(listed)].split()[-8:]
        assert content_words(" ".join(before)) & content_words(item.question), item.item_id


def test_which_of_two_names_both_and_one_is_the_answer():
    for item in BY_CATEGORY["which_of_two"]:
        assert item.question.startswith("Which of the two "), item.item_id
        assert re.search(r"\b(most|least|best|worst|\w+est)\b", item.question), item.item_id
        for name in (item.answers[0].text, item.distractors[0]):
            assert normalize_answer(name) in normalize_answer(item.question), item.item_id


def test_pronoun_chains_want_a_place_and_offer_a_time_after_it():
    for item in BY_CATEGORY["pronoun_chain"]:
        (when,) = item.distractors
        assert answer_type(when) == "time", item.item_id
        assert "time" not in {answer_type(gold.text) for gold in item.answers}, item.item_id
        rest = item.context[max(gold.start + len(gold.text) for gold in item.answers) :]
        assert re.search(r"\b(it|its|there|that|he|she|they|here)\b", rest, re.IGNORECASE), item.item_id
        assert item.question.startswith(("Where ", "To which ", "In which ", "On the shore ")), item.item_id


def test_informal_questions_are_short_lower_case_and_without_mark():
    for item in BY_CATEGORY["informal_when"]:
        for text in (item.question, item.paraphrase, item.twin):
            assert re.fullmatch(r"when [a-z0-9 ]+|since when [a-z ]+", text), text
            assert len(text.split()) <= 10, text
        assert {answer_type(gold.text) for gold in item.answers} == {"time"}, item.item_id


def test_stated_goals_are_part_of_a_sentence_and_their_golds_are_lengths_of_one_span():
    for item in BY_CATEGORY["stated_goal"]:
        spans = sorted((gold.start, gold.start + len(gold.text)) for gold in item.answers)
        first, last = min(start for start, _ in spans), max(end for _, end in spans)
        assert (first, last) in spans, item.item_id
        (around,) = [end - start for start, end in sentences(item.context) if start <= first and last <= end]
        assert around >= last - first + 10, item.item_id  # the whole sentence would be over-long


def test_constrained_numbers_have_two_rivals_that_are_numbers_too():
    for item in BY_CATEGORY["constrained_number"]:
        assert len(item.distractors) >= 2, item.item_id
        for text in (*item.distractors, *(gold.text for gold in item.answers)):
            assert answer_type(text) == "number", text


def test_two_parts_stand_apart_with_words_between_them():
    for item in BY_CATEGORY["two_part"]:
        first, second = item.answers
        assert first.start < second.start
        between = item.context[first.start + len(first.text) : second.start]
        assert len(between.split()) >= 5, item.item_id


def test_causes_are_told_over_two_sentences_and_the_shared_part_is_no_answer():
    for item in BY_CATEGORY["causal"]:
        assert item.question.startswith("Why "), item.item_id
        assert re.search(r"\b(despite|although|when|on the same|but not)\b", item.question), item.item_id
        starts = [start for start, _ in sentences(item.context)]
        held = {sum(start <= gold.start for start in starts) for gold in item.answers}
        assert len(held) == 2, item.item_id


# Variants


def test_variants_change_case_and_marks_and_nothing_else():
    questions = replace(ITEMS[0], question="Who saw A?", paraphrase="By whom?", twin="Who ate A?").questions()
    assert questions == {
        "original": "Who saw A?",
        "paraphrase": "By whom?",
        "lower_no_mark": "who saw a",
        "upper": "WHO SAW A?",
        "many_marks": "Who saw A???",
        "twin": "Who ate A?",
    }


def test_an_informal_question_gets_a_formal_variant_and_is_asked_no_second_time():
    questions = replace(ITEMS[0], question="when was it", paraphrase="b", twin="c").questions()
    assert "lower_no_mark" not in questions
    assert questions["formal"] == "When was it?"
    assert questions["upper"] == "WHEN WAS IT"


def test_the_set_asks_six_variants_of_every_item_twins_without_answer():
    probes = probe_set(ITEMS)
    assert Counter(probes.variants) == {
        "original": 160,
        "paraphrase": 160,
        "upper": 160,
        "many_marks": 160,
        "twin": 160,
        "lower_no_mark": 140,
        "formal": 20,
    }
    is_twin = [variant == TWIN for variant in probes.variants]
    assert probes.table.is_unanswerable.tolist() == is_twin
    assert len(probes.table.contexts) == 160


def test_a_wrong_offset_is_refused_by_the_tables_own_checks():
    gold = ITEMS[0].answers[0]
    wrong = replace(ITEMS[0], answers=(Answer(gold.text, gold.start + 1),))
    with pytest.raises(DataError, match=rf"probes: {wrong.item_id}\.answers\[0\]\.answer_start.*occurs at"):
        probe_set([wrong])
    with pytest.raises(DataError, match="ids that occur once"):
        probe_set([ITEMS[0], ITEMS[0]])


# The report


def made(category: str, number: int, context: str, golds: tuple[str, ...], wrong: str) -> ProbeItem:
    answers = tuple(Answer(gold, context.index(gold)) for gold in golds)
    question = f"Question {category} {number}?"
    return ProbeItem(
        f"{category}-{number}", category, context, question, f"P {number}", f"T {number}", answers, (wrong,)
    )


def answer_all(probes, texts: dict[str, tuple[str, float]]) -> list[Prediction]:
    """Answer each question by "item/variant", or by its item alone."""
    found = []
    for name in probes.table.question_ids:
        text, odds = texts.get(name) or texts[name.partition("/")[0]]
        found.append(Prediction(text, odds, -math.inf if odds == math.inf else 0.0, name))
    return found


@pytest.fixture(scope="module")
def hand_made():
    probes = probe_set(
        [
            made("which_of_two", 1, "Ann Lee beat Bob Orr. It rained in May.", ("Ann Lee",), "Bob Orr"),
            made("which_of_two", 2, "Red clay beats loam. It rained in May.", ("Red clay",), "loam"),
            made("two_part", 1, "Salt came first. Then, much later, came ash.", ("Salt", "ash"), "first"),
        ]
    )
    texts = {
        "which_of_two-1": ("Ann Lee", -1.0),
        "which_of_two-1/upper": ("BOB ORR", -2.0),
        "which_of_two-1/twin": ("Ann Lee", 9.0),  # above the threshold: no answer
        "which_of_two-2": ("Red clay beats", 0.5),
        "which_of_two-2/original": ("clay", 3.0),
        "which_of_two-2/paraphrase": ("May", 1.0),
        "which_of_two-2/twin": ("May", 5.0),  # at the threshold: it stands
        "two_part-1": ("Salt came first. Then, much later, came ash", -4.0),
        "two_part-1/original": ("ash", 0.0),
        "two_part-1/upper": ("", math.inf),
        "two_part-1/twin": ("", math.inf),
    }
    return report(probes, answer_all(probes, texts), 5.0)


def test_a_row_has_the_scores_and_outcomes_of_its_questions(hand_made):
    row = hand_made.row("which_of_two", "original")
    assert (row.items, row.questions, row.group) == (2, 2, "foundational")
    assert row.em_percent.estimate == 50.0
    assert row.f1_percent.estimate == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert row.outcomes == {**dict.fromkeys(OUTCOMES, 0), "correct": 1, "partial": 1}
    assert row.median_null_odds == 1.0
    assert row.distractors == 0
    upper = hand_made.row("which_of_two", "upper")
    assert upper.outcomes == {**dict.fromkeys(OUTCOMES, 0), "wrong_span": 1, "over_long": 1}
    assert upper.distractors == 1
    paraphrase = hand_made.row("which_of_two", "paraphrase")
    assert (paraphrase.outcomes["correct"], paraphrase.outcomes["wrong_type"]) == (1, 1)


def test_the_threshold_decides_over_twins(hand_made):
    twins = hand_made.row("which_of_two", TWIN)
    assert twins.em_percent.estimate == 50.0
    assert (twins.outcomes["correct"], twins.outcomes["answered"]) == (1, 1)


def test_two_parts_count_one_part_as_a_match_and_both_as_all_parts(hand_made):
    assert hand_made.row("two_part", "original").em_percent.estimate == 100.0
    both = hand_made.row("two_part", "paraphrase")
    assert (both.em_percent.estimate, both.outcomes["all_parts"]) == (0.0, 1)
    none = hand_made.row("two_part", "upper")
    assert (none.outcomes["null"], none.median_null_odds) == (1, None)


def test_the_answerable_row_takes_each_item_once_and_leaves_twins_out(hand_made):
    row = hand_made.row("which_of_two", ANSWERABLE)
    assert (row.items, row.questions) == (2, 10)  # five variants each
    # item 1: right but for "upper"; item 2: never exactly right
    assert row.em_percent.estimate == pytest.approx(100 * (4 / 5 + 0) / 2)
    assert sum(row.outcomes.values()) == 10
    assert row.outcomes["answered"] == 0


def test_the_row_of_all_categories_holds_every_question_once(hand_made):
    assert sum(hand_made.row(ALL, variant).questions for variant in VARIANTS if variant != "formal") == 18
    assert hand_made.row(ALL, "original").items == 3
    with pytest.raises(KeyError):
        hand_made.row("causal", "original")


def test_intervals_are_over_passages_of_which_three_are_too_few(hand_made):
    row = hand_made.row("which_of_two", ANSWERABLE)
    assert (row.em_percent.unit, row.em_percent.clusters) == ("paragraph", row.items)
    assert (row.em_percent.low, row.em_percent.high) == (None, None)


def test_a_category_of_twenty_passages_has_intervals():
    probes = probe_set(ITEMS)
    rng = random.Random(0)
    answers = [
        Prediction(item.answers[0].text if rng.random() < 0.5 else "", 0.0, 0.0, name)
        for item, name in zip(probes.items, probes.table.question_ids, strict=True)
    ]
    row = report(probes, answers, None).row("pronoun_chain", ANSWERABLE)
    assert row.items == row.em_percent.clusters == 20
    assert row.questions > 20
    assert 0 < row.em_percent.low < row.em_percent.estimate < row.em_percent.high < 100


def test_a_report_is_plain_json_and_names_its_data(hand_made):
    document = json.loads(json.dumps(as_json(hand_made), allow_nan=False))
    assert len(document["data_hash"]) == 16
    assert document["answers"][0]["text"] == "Ann Lee"
    assert len(document["answers"]) == 18


def test_gold_answers_are_right_everywhere_and_silence_is_right_on_twins_alone():
    probes = probe_set(ITEMS)
    golds = [
        Prediction(item.answers[0].text if variant != TWIN else "", 0.0, 0.0, name)
        for item, variant, name in zip(probes.items, probes.variants, probes.table.question_ids, strict=True)
    ]
    found = report(probes, golds, None)
    assert len(found.rows) == len(CATEGORIES) * 7 + 8
    assert {row.em_percent.estimate for row in found.rows} == {100.0}
    silent = [Prediction("", math.inf, -math.inf, name) for name in probes.table.question_ids]
    found = report(probes, silent, 0.0)
    for row in found.rows:
        name, score = ("correct", 100.0) if row.variant == TWIN else ("null", 0.0)
        assert (row.em_percent.estimate, row.outcomes[name]) == (score, row.questions)


def test_distractors_are_named_as_such_and_score_nothing():
    probes = probe_set(ITEMS)
    wrong = [
        Prediction(item.distractors[0], 0.0, 0.0, name)
        for item, name in zip(probes.items, probes.table.question_ids, strict=True)
    ]
    found = report(probes, wrong, None)
    overall = found.row(ALL, ANSWERABLE)
    assert overall.em_percent.estimate == 0.0
    assert overall.distractors == overall.questions
    assert {name for name, count in overall.outcomes.items() if count} == {
        "wrong_type",
        "wrong_sentence",
        "wrong_span",
    }
    assert found.row("pronoun_chain", "original").outcomes["wrong_type"] == 20
    assert found.row("constrained_number", "original").outcomes["wrong_type"] == 0
