"""The official scores: published vectors, a set of seven questions with every value, malformed files."""

import gzip
import itertools
import json
import re
import string
from collections import Counter
from pathlib import Path

import pytest

from qa_core.errors import ConfigError, DataError
from qa_core.scoring import scores

GOLDS = {
    "q1": ["Paris", "paris, France"],
    "q2": ["1066"],
    "q3": ["the Norman Conquest"],
    "q4": [],
    "q5": [],
    "q6": ["The"],
    "q7": [],
}
PREDICTIONS = {"q1": "Paris", "q2": "in 1066", "q3": "", "q4": "", "q5": "Rollo", "q6": "", "q7": "the"}
NA_PROBS = {"q1": 0.1, "q2": 0.4, "q3": 0.9, "q4": 0.8, "q5": 0.3, "q6": 0.7, "q7": 0.6}
SEVEN = {
    "exact": 57.142857,
    "f1": 66.666667,
    "total": 7,
    "HasAns_exact": 50.0,
    "HasAns_f1": 66.666667,
    "HasAns_total": 4,
    "NoAns_exact": 66.666667,
    "NoAns_f1": 66.666667,
    "NoAns_total": 3,
}


def articles(golds: dict[str, list[str]]) -> list[dict]:
    """Return a document's `data`, two questions to a paragraph."""
    questions = [
        {"id": name, "question": "?", "answers": [{"text": text, "answer_start": 0} for text in texts]}
        for name, texts in golds.items()
    ]
    paragraphs = [{"context": "c", "qas": questions[start : start + 2]} for start in range(0, len(golds), 2)]
    return [{"title": "t", "paragraphs": paragraphs}]


@pytest.fixture
def files(tmp_path: Path):
    """Write the seven questions and return a function that scores them with these predictions."""
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"version": "v2.0", "data": articles(GOLDS)}))

    def score(predictions: object, na_probs: object = None, **options):
        predictions_path, na_prob_path = tmp_path / "predictions.json", tmp_path / "na.json"
        predictions_path.write_text(json.dumps(predictions))
        na_prob_path.write_text(json.dumps(na_probs))
        na = na_prob_path if na_probs is not None else None
        return scores.score_file(data, predictions_path, na_prob_path=na, **options)

    return score


@pytest.mark.facts
@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat, sat.", "cat sat"),
        ("285 km/h", "285 kmh"),
        ("4.6 billion", "46 billion"),
        ("an a the", ""),
        ("theatre and a banana", "theatre and banana"),
        ("the-end", "theend"),
        ("a\u00a0b", "b"),
        ("\u201cNaïve\u201d \u2013 €5", "\u201cnaïve\u201d \u2013 €5"),
        ("ﬁre\tÉ\n", "ﬁre é"),
    ],
)
def test_normalisation_deletes_ascii_punctuation_and_articles_and_keeps_other_signs(text, normal):
    assert scores.normalize_answer(text) == normal


@pytest.mark.facts
@pytest.mark.parametrize(
    ("prediction", "gold", "exact", "f1", "f1_v1"),
    [
        ("the cat sat", "cat sat down", 0, 0.8, 0.8),
        ("New York New York", "New York", 0, 0.666667, 0.666667),
        ("285 km / h ( 177 mph", "285 km/h", 0, 0.285714, 0.285714),
        ("4. 6 billion years ago", "4.6 billion years ago", 0, 0.666667, 0.666667),
        ("Normans", "the Normans", 1, 1.0, 1.0),
        ("", "the", 1, 1.0, 0.0),
        ("the", "the", 1, 1.0, 0.0),
        ("", "Rollo", 0, 0.0, 0.0),
        ("Rollo", "", 0, 0.0, 0.0),
    ],
)
def test_published_pairs_score_as_the_scripts_print(prediction, gold, exact, f1, f1_v1):
    assert scores.exact_match(gold, prediction) == exact
    assert scores.f1_score_v2(gold, prediction) == pytest.approx(f1, abs=5e-7)
    assert scores.f1_score_v1(gold, prediction) == pytest.approx(f1_v1, abs=5e-7)


@pytest.mark.facts
def test_a_question_takes_its_best_gold_and_drops_golds_that_normalise_to_nothing():
    assert scores.question_scores(["x y", "y"], "y") == (1, 1.0)
    assert scores.question_scores(["x y", "y z w"], "y") == (0, pytest.approx(2 / 3))
    assert scores.question_scores(["the", "Rollo"], "") == (0, 0.0)
    assert scores.question_scores(["the"], "") == (1, 1.0)
    assert scores.question_scores([], "the") == (1, 1.0)
    assert scores.question_scores([], "Rollo") == (0, 0.0)


@pytest.mark.facts
def test_seven_questions_have_the_published_v2_scores():
    result = scores.evaluate_v2(articles(GOLDS), PREDICTIONS)
    assert result == {key: pytest.approx(value, abs=5e-7) for key, value in SEVEN.items()}


@pytest.mark.facts
def test_seven_questions_have_the_published_best_thresholds():
    result = scores.evaluate_v2(articles(GOLDS), PREDICTIONS, na_probs=NA_PROBS)
    best = {"best_exact": 57.142857, "best_f1": 57.142857, "best_exact_thresh": 0.1, "best_f1_thresh": 0.1}
    assert result == {key: pytest.approx(value, abs=5e-7) for key, value in (SEVEN | best).items()}


@pytest.mark.facts
def test_seven_questions_at_threshold_035_have_the_published_scores():
    result = scores.evaluate_v2(articles(GOLDS), PREDICTIONS, na_probs=NA_PROBS, na_threshold=0.35)
    wanted = {"exact": 42.857143, "f1": 42.857143, "HasAns_exact": 25.0, "HasAns_f1": 25.0}
    assert {key: result[key] for key in wanted} == {
        key: pytest.approx(value, abs=5e-7) for key, value in wanted.items()
    }


def test_a_value_equal_to_the_threshold_lets_the_answer_stand():
    at_value = scores.evaluate_v2(articles(GOLDS), PREDICTIONS, na_probs=NA_PROBS, na_threshold=0.1)
    below_value = scores.evaluate_v2(articles(GOLDS), PREDICTIONS, na_probs=NA_PROBS, na_threshold=0.0999)
    assert (at_value["HasAns_exact"], below_value["HasAns_exact"]) == (25.0, 0.0)


def test_the_best_threshold_is_zero_when_no_answer_everywhere_is_best():
    golds = {"a": [], "b": ["x"]}
    na_probs = {"a": 0.2, "b": 0.3}
    result = scores.evaluate_v2(articles(golds), {"a": "y", "b": "z"}, na_probs=na_probs)
    assert (result["best_exact"], result["best_exact_thresh"]) == (50.0, 0.0)


def test_the_v2_walk_leaves_ties_ungrouped_in_the_order_of_the_probability_file():
    golds = {"a": ["x"], "b": []}
    predictions = {"a": "x", "b": "y"}
    first = scores.evaluate_v2(articles(golds), predictions, na_probs={"a": 0.5, "b": 0.5})
    second = scores.evaluate_v2(articles(golds), predictions, na_probs={"b": 0.5, "a": 0.5})
    assert (first["best_exact"], first["best_exact_thresh"]) == (100.0, 0.5)
    assert (second["best_exact"], second["best_exact_thresh"]) == (50.0, 0.0)


def test_an_empty_answer_to_an_unanswerable_question_costs_the_best_threshold_nothing():
    """It comes first in the walk: counted as lost, answering "b" would not be better than answering nothing."""
    golds, predictions = {"a": [], "b": ["x"]}, {"a": "", "b": "x"}
    result = scores.evaluate_v2(articles(golds), predictions, na_probs={"a": 0.1, "b": 0.2})
    for name in ("exact", "f1"):
        assert (result[f"best_{name}"], result[f"best_{name}_thresh"]) == (100.0, 0.2)


@pytest.mark.parametrize("f1", [scores.f1_score_v1, scores.f1_score_v2])
def test_a_word_counts_as_often_as_both_texts_have_it(f1):
    """Two of three tokens are shared, "york" twice; as sets the texts share one of two."""
    assert f1("york york old", "york new york") == pytest.approx(2 / 3, abs=1e-12)
    assert f1("york york york", "york old old") == pytest.approx(1 / 3, abs=1e-12)


@pytest.mark.facts
def test_v1_scores_differ_from_v2_where_both_texts_are_empty():
    golds = {name: texts for name, texts in GOLDS.items() if texts}
    predictions = PREDICTIONS | {"q6": "the"}
    assert scores.evaluate_v1(articles(golds), predictions) == {
        "exact_match": 50.0,
        "f1": pytest.approx(100 * (1 + 2 / 3) / 4),
    }


@pytest.mark.facts
def test_the_best_f1_can_fall_below_the_plain_f1_of_all_answers():
    """The walk counts an unanswerable question as lost by any raw text, "the" too, which plain scoring forgives."""
    result = scores.evaluate_v2(articles(GOLDS), PREDICTIONS, na_probs=NA_PROBS)
    assert result["best_f1"] == pytest.approx(57.142857, abs=5e-7)
    assert result["f1"] == pytest.approx(66.666667, abs=5e-7)


@pytest.mark.facts
def test_the_default_threshold_is_one_and_strict():
    at_one, above = NA_PROBS | {"q1": 1.0}, NA_PROBS | {"q1": 1.0000001}
    assert scores.evaluate_v2(articles(GOLDS), PREDICTIONS, na_probs=at_one)["HasAns_exact"] == 50.0
    assert scores.evaluate_v2(articles(GOLDS), PREDICTIONS, na_probs=above)["HasAns_exact"] == 25.0


@pytest.mark.facts
def test_a_missing_v2_prediction_is_refused_where_the_script_ends_in_a_traceback():
    given = {name: text for name, text in PREDICTIONS.items() if name != "q3"}
    with pytest.raises(DataError, match="'q3'"):
        scores.evaluate_v2(articles(GOLDS), given)


@pytest.mark.facts
def test_no_answer_to_everything_scores_the_share_of_unanswerable_questions_of_dev_v2(shared):
    path = shared / "data" / "squad" / "dev-v2.0.json.gz"
    data = json.loads(gzip.decompress(path.read_bytes()))["data"]
    result = scores.evaluate_v2(data, dict.fromkeys(scores.gold_answers(data), ""))
    assert (result["total"], result["HasAns_total"], result["NoAns_total"]) == (11_873, 5_928, 5_945)
    assert result["exact"] == result["f1"] == pytest.approx(50.07, abs=0.005)
    assert (result["HasAns_exact"], result["NoAns_f1"]) == (0.0, 100.0)


@pytest.mark.facts
def test_v1_counts_a_missing_prediction_as_zero_and_ignores_unknown_ids():
    golds = {"a": ["x"], "b": ["y z"], "c": ["w"]}
    result = scores.evaluate_v1(articles(golds), {"a": "x", "b": "y", "nowhere": "v"})
    assert result == {"exact_match": pytest.approx(100 / 3), "f1": pytest.approx(100 * (1 + 2 / 3) / 3)}


def test_v1_refuses_a_question_without_answer():
    with pytest.raises(DataError, match=r"'q4' has no gold answer.*v1\.1"):
        scores.evaluate_v1(articles(GOLDS), PREDICTIONS)


def test_groups_without_questions_have_no_keys():
    result = scores.evaluate_v2(articles({"a": ["x"]}), {"a": "x"})
    assert set(result) == {"exact", "f1", "total", "HasAns_exact", "HasAns_f1", "HasAns_total"}


def test_a_missing_prediction_counts_as_an_empty_answer_and_is_reported(files):
    predictions = {name: text for name, text in PREDICTIONS.items() if name not in ("q1", "q4")}
    na_probs = {name: value for name, value in NA_PROBS.items() if name not in ("q1", "q4")}
    result = files(predictions | {"nowhere": "x"}, na_probs)
    filled = files(PREDICTIONS | {"q1": "", "q4": ""}, NA_PROBS)
    assert (result.pop("missing_predictions"), result.pop("extra_predictions")) == (2, 1)
    assert (filled.pop("missing_predictions"), filled.pop("extra_predictions")) == (0, 0)
    assert result == filled
    assert result["total"] == 7


def test_strict_refuses_missing_predictions_and_names_them(files):
    with pytest.raises(DataError, match=r"2 \('q1', 'q7'\) of 7 questions have no prediction"):
        files({name: text for name, text in PREDICTIONS.items() if name not in ("q1", "q7")}, strict=True)
    assert files(PREDICTIONS, strict=True)["total"] == 7


def test_official_v2_has_that_scripts_keys_alone_and_needs_every_prediction(files):
    assert files(PREDICTIONS, official="v2.0") == scores.evaluate_v2(articles(GOLDS), PREDICTIONS)
    with pytest.raises(DataError, match="'q1'"):
        files({name: text for name, text in PREDICTIONS.items() if name != "q1"}, official="v2.0")


def test_official_v1_has_that_scripts_keys_alone(tmp_path):
    data, predictions = tmp_path / "data.json", tmp_path / "predictions.json"
    data.write_text(json.dumps({"version": "1.1", "data": articles({"a": ["x"], "b": ["y"]})}))
    predictions.write_text(json.dumps({"a": "x"}))
    assert scores.score_file(data, predictions, official="v1.1") == {"exact_match": 50.0, "f1": 50.0}


def test_official_refuses_unknown_versions_and_v1_with_probabilities(files):
    with pytest.raises(ConfigError, match=r"did you mean 'v1\.1'"):
        files(PREDICTIONS, official="1.1")
    with pytest.raises(ConfigError, match=r"allowed: v2\.0"):
        files(PREDICTIONS, NA_PROBS, official="v1.1")


@pytest.mark.parametrize("value", [None, 7, ["Paris"], {"text": "Paris"}, True])
def test_a_prediction_that_is_not_text_is_refused_with_its_question(files, value):
    with pytest.raises(DataError, match=r"predictions\.json: question 'q2': found .*; allowed: text"):
        files(PREDICTIONS | {"q2": value})


@pytest.mark.parametrize("value", [None, "0.3", True, float("nan")])
def test_a_probability_that_is_not_a_number_is_refused_with_its_question(files, value):
    with pytest.raises(DataError, match=r"question 'q2': found .*; allowed: a number"):
        files(PREDICTIONS, NA_PROBS | {"q2": value})


def test_a_question_without_probability_is_refused(files):
    with pytest.raises(DataError, match=r"question 'q3': found nothing; allowed: a number"):
        files(PREDICTIONS, {name: value for name, value in NA_PROBS.items() if name != "q3"})


def test_predictions_that_are_no_object_are_refused(files):
    with pytest.raises(DataError, match=r"predictions\.json: found list; allowed: a JSON object"):
        files(["Paris"])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], r"found \[\]; allowed: an object with a list `data`"),
        ({"version": "v2.0"}, "found an object with 'version'; allowed: an object with a list `data`"),
        ({"data": []}, "found no questions"),
        ({"data": ["x"]}, r"data\[0\]: found 'x'"),
        ({"data": [{"paragraphs": [{"qas": 3}]}]}, r"data\[0\]\.paragraphs\[0\]\.qas: found 3"),
        ({"data": [{"paragraphs": [{"qas": [{"id": 3.5}]}]}]}, r".*qas\[0\]\.id: found 3.5"),
        (
            {"data": [{"paragraphs": [{"qas": [{"id": "a"}]}]}]},
            r".*qas\[0\]\.answers \(question 'a'\): found nothing",
        ),
        (
            {"data": [{"paragraphs": [{"qas": [{"id": "a", "answers": []}] * 2}]}]},
            r".*qas\[1\]\.id: found 'a'; allowed: ids that occur once",
        ),
    ],
)
def test_malformed_data_is_refused_with_its_place(tmp_path, document, message):
    path = tmp_path / "data.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=rf"data\.json: {message}"):
        scores.score_file(path, path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.json", b" \n", "empty file"),
        ("broken.json", b'{"data": [\n}', "line 2, column 1"),
        ("latin.json", b'{"data":\n "\xe9"}', "line 2: found bytes that are not UTF-8"),
        ("nul.json", b'{"data": \0}', "line 1: found a NUL byte at byte 9"),
        ("plain.json.gz", b"{}", "not gzip"),
        ("short.json.gz", gzip.compress(b"[1, 2, 3]" * 50, mtime=0)[:-12], "damaged gzip"),
        ("deep.json", b"[" * 200_000, "allowed: one JSON document"),
    ],
)
def test_files_that_are_not_json_are_refused_with_their_name(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{re.escape(name)}.*{message}"):
        scores.score_file(path, path)
    with pytest.raises(DataError, match=r"absent\.json: found no such file"):
        scores.score_file(tmp_path / "absent.json", path)


def test_gzip_data_and_parquet_data_score_like_json(tmp_path, files):
    import pyarrow as pa
    from pyarrow import parquet

    context = "Paris, paris, France in 1066 after the Norman Conquest The"
    document = {"version": "v2.0", "data": articles(GOLDS)}
    packed = tmp_path / "data.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(document).encode()))
    columns = {
        "id": list(GOLDS),
        "context": [context] * len(GOLDS),
        "question": ["?"] * len(GOLDS),
        "answers": [
            {"text": texts, "answer_start": [context.index(text) for text in texts]}
            for texts in GOLDS.values()
        ],
    }
    parquet.write_table(pa.table(columns), tmp_path / "data.parquet")
    expected = files(PREDICTIONS)
    assert scores.score_file(packed, tmp_path / "predictions.json") == expected
    assert scores.score_file(tmp_path / "data.parquet", tmp_path / "predictions.json") == expected


def test_real_answers_score_as_a_plain_count_of_tokens_gives(shared):
    """Every gold of the dev set against the gold before it: many partial overlaps in real text."""
    path = shared / "data" / "squad" / "dev-v1.1.json.gz"
    golds = scores.gold_answers(json.loads(gzip.decompress(path.read_bytes()))["data"])
    texts = [text for answers in golds.values() for text in answers]
    assert len(golds) == 10570
    plain = str.maketrans(dict.fromkeys(string.punctuation))
    checked = 0
    for gold, prediction in itertools.pairwise(texts):
        bags = [
            Counter(word for word in text.lower().translate(plain).split() if word not in ("a", "an", "the"))
            for text in (gold, prediction)
        ]
        overlap, size = sum((bags[0] & bags[1]).values()), sum(bags[0].values()) + sum(bags[1].values())
        f1 = 2 * overlap / size if size else 1.0
        assert scores.f1_score_v2(gold, prediction) == pytest.approx(f1, abs=1e-12)
        checked += 0 < f1 < 1
    assert checked > 1000


def test_predictions_of_other_data_are_refused(files):
    others = {f"other-{number}": "x" for number in range(9)}
    for options in ({}, {"official": "v1.1"}, {"official": "v2.0"}):
        with pytest.raises(
            DataError, match=r"found 9 predictions, none for a question of .*7 \('q1', 'q2', 'q3', ...\)"
        ):
            files(others, **options)
    with pytest.raises(DataError, match="found 0 predictions"):
        files({})


def test_many_missing_predictions_are_told_and_few_are_not(tmp_path):
    golds = {f"q{number}": ["x"] for number in range(300)}
    data, predictions = tmp_path / "data.json", tmp_path / "predictions.json"
    data.write_text(json.dumps({"version": "v2.0", "data": articles(golds)}))
    for missing, told in ((0, 0), (3, 0), (4, 1), (299, 1)):
        predictions.write_text(json.dumps(dict.fromkeys(list(golds)[missing:], "x")))
        warnings: list[str] = []
        scores.score_file(data, predictions, warn=warnings.append)
        assert len(warnings) == told
        assert all(f"{missing} ('q0'" in warning and "of 300 questions" in warning for warning in warnings)


def test_a_score_can_leave_out_what_training_leaves_out(tmp_path):
    document = {"version": "v2.0", "data": articles({"a": ["c"], "b": ["elsewhere"]})}
    data, predictions = tmp_path / "data.json", tmp_path / "predictions.json"
    data.write_text(json.dumps(document))
    predictions.write_text(json.dumps({"a": "c", "b": "x"}))
    assert scores.score_file(data, predictions)["exact"] == 50.0
    kept = scores.score_file(data, predictions, skip_bad_examples=True)
    assert (kept["exact"], kept["total"]) == (100.0, 1)
