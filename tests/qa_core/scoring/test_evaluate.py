"""Evaluation: order, batches, random state and mode, the threshold, and Quality's values."""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qa_core import registry
from qa_core.config import EvaluationConfig, ModelConfig
from qa_core.data.clusters import Clusters, each_alone, question_clusters
from qa_core.data.squad import QaTable, load_table, read_squad, select_questions
from qa_core.data.tokenizers import trained_tokenizer
from qa_core.data.windows import WindowLengths, WindowSet, build_windows
from qa_core.families.base import Family, GeneratedAnswer
from qa_core.scoring.decode import NonFiniteScore, Prediction, apply_threshold
from qa_core.scoring.evaluate import (
    Floor,
    index_accuracy,
    predict,
    quality,
    score_differences,
    score_intervals,
    scores_by_question,
    selection_scores,
    tune_threshold,
)
from qa_core.scoring.intervals import clustered_mean, standard_error
from qa_core.scoring.scores import evaluate_v2, question_scores

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
SETTINGS = EvaluationConfig(precision="float32", batch_tokens=400)


@pytest.fixture(scope="module")
def table() -> QaTable:
    return select_questions(load_table("sample", split="dev"), 60, seed=3)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tokenizer(table, cache_dir):
    return trained_tokenizer("wordpiece", table, vocab_size=600, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def family() -> Family:
    return registry.make_family(SimpleNamespace(model=ModelConfig(family="bert", checkpoint="micro")))


@pytest.fixture(scope="module")
def windows(table, tokenizer, family, cache_dir) -> WindowSet:
    lengths = WindowLengths(max_length=44, stride=8, max_question_length=20)
    found = build_windows(table, tokenizer, family.layout(tokenizer), lengths=lengths, cache_dir=cache_dir)
    assert len(found) > len(table), "some questions need two windows"
    return found


class GoldReader(torch.nn.Module):
    """Stands for a model and its family; knows the labels of a batch, or gives what it is told."""

    head = "span"

    def __init__(self) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.5)
        self.frozen = torch.nn.Dropout(0.5).eval()
        self.batches: list[dict] = []
        self.dtypes: list[torch.dtype] = []

    def span_logits(self, model, batch):
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.batches.append(batch)
        self.dtypes.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        torch.rand(3)  # an evaluation that draws random numbers
        length = batch["input_ids"].shape[1]
        found = [
            torch.nn.functional.one_hot(batch[name], length).float() * 5
            for name in ("start_positions", "end_positions")
        ]
        return found[0], found[1]

    def generate(self, model, batch, tokenizer, *, max_new_tokens):
        self.batches.append(batch)
        return [
            GeneratedAnswer(f"window {index} of {max_new_tokens}", -float(index), -1.0)
            for index in batch["window_index"].tolist()
        ]


def answered(reader, windows, table, tokenizer, **settings) -> list[Prediction]:
    chosen = EvaluationConfig(**{"precision": "float32", "batch_tokens": 400, **settings})
    return predict(reader, reader, windows, table, tokenizer=tokenizer, settings=chosen, device=CPU)


def test_a_reader_that_knows_the_labels_scores_a_hundred(windows, table, tokenizer):
    found = answered(GoldReader(), windows, table, tokenizer)
    assert [item.question_id for item in found] == table.question_ids
    threshold = tune_threshold(found, table)
    assert selection_scores(found, table, threshold) == (100.0, 100.0)


def test_batches_stay_within_their_tokens_and_take_every_window_once(windows, table, tokenizer):
    reader = GoldReader()
    answered(reader, windows, table, tokenizer, batch_tokens=300)
    sizes = [batch["input_ids"].shape for batch in reader.batches]
    assert max(rows * length for rows, length in sizes) <= 300
    assert sorted(index for batch in reader.batches for index in batch["window_index"].tolist()) == list(
        range(len(windows))
    )


def test_evaluation_leaves_random_state_and_every_modules_mode_alone(windows, table, tokenizer):
    reader = GoldReader().train()
    reader.frozen.eval()
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    answered(reader, windows, table, tokenizer)
    assert torch.equal(torch.rand(4), expected)
    assert (reader.training, reader.dropout.training, reader.frozen.training) == (True, True, False)


def test_a_failing_model_gets_its_mode_back_too(windows, table, tokenizer):
    reader = GoldReader().train()
    reader.span_logits = lambda model, batch: 1 / 0  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        answered(reader, windows, table, tokenizer)
    assert reader.dropout.training


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_decides_the_autocast(windows, table, tokenizer, precision, dtype):
    reader = GoldReader()
    answered(reader, windows, table, tokenizer, precision=precision)
    assert set(reader.dtypes) == {dtype}


def test_batch_size_and_padding_change_no_answer(windows, table, tokenizer, family):
    torch.manual_seed(0)
    model = family.build(tokenizer)

    def read(batch_tokens: int) -> list[Prediction]:
        settings = EvaluationConfig(precision="float32", batch_tokens=batch_tokens)
        return predict(model, family, windows, table, tokenizer=tokenizer, settings=settings, device=CPU)

    alone, together = read(1), read(100_000)
    assert [item.text for item in alone] == [item.text for item in together]
    odds = torch.tensor([[item.null_odds for item in found] for found in (alone, together)])
    torch.testing.assert_close(odds[0], odds[1], rtol=0, atol=1e-4)  # float32 sums in another order
    contexts = [item.context for item in table.examples()]
    assert all(item.text in context for item, context in zip(alone, contexts, strict=True))


def test_a_model_that_gives_nan_is_refused_with_the_question(windows, table, tokenizer):
    reader = GoldReader()
    reader.span_logits = lambda model, batch: (
        [  # type: ignore[assignment]
            torch.full(batch["input_ids"].shape, math.nan)
        ]
        * 2
    )
    with pytest.raises(NonFiniteScore, match=table.question_ids[0]):
        answered(reader, windows, table, tokenizer)


def test_generated_answers_come_back_in_the_order_of_the_questions(windows, table, tokenizer):
    reader = GoldReader()
    reader.head = "generate"
    found = answered(reader, windows, table, tokenizer, max_new_tokens=7)
    firsts = [windows.question_index.tolist().index(row) for row in range(len(table))]
    assert [item.text for item in found] == [f"window {index} of 7" for index in firsts]


def small(golds: dict[str, list[str]], context: str = "one two three four five x y") -> QaTable:
    questions = [
        {
            "id": name,
            "question": "?",
            "answers": [{"text": text, "answer_start": context.index(text)} for text in texts],
        }
        for name, texts in golds.items()
    ]
    data = [{"title": "t", "paragraphs": [{"context": context, "qas": questions}]}]
    return read_squad({"version": "v2.0", "data": data}, "small")


def guesses(*values: tuple[str, float]) -> list[Prediction]:
    return [Prediction(text, odds, 0.0, name) for (text, odds), name in zip(values, "abcdefgh", strict=False)]


def test_the_threshold_is_none_where_every_question_has_an_answer():
    assert tune_threshold(guesses(("x", 0.0)), small({"a": ["x"]})) is None


@pytest.mark.parametrize(
    ("found", "threshold"),
    [
        ((("x", -2.0), ("y", 0.5), ("x", 3.0)), 0.5),  # all right up to 0.5; the third would be wrong
        ((("x", 2.0), ("y", 2.0), ("x", 3.0)), 2.0),  # a tie of two right ones
        (
            (("x", 1.0), ("x", 2.0), ("x", 1.0)),
            math.nextafter(1.0, -math.inf),
        ),  # one right, one wrong: no gain
        ((("", math.inf), ("", math.inf), ("", math.inf)), 0.0),  # nothing was ever offered
    ],
)
def test_small_thresholds_by_hand(found, threshold):
    assert tune_threshold(guesses(*found), small({"a": ["x"], "b": ["y"], "c": []})) == threshold


def _random_cases() -> Iterator[tuple[QaTable, list[Prediction]]]:
    rng = random.Random(0)
    for _ in range(200):
        golds = {name: rng.choice([["x"], ["y", "x"], [], []]) for name in "abcdefgh"} | {"h": []}
        found = guesses(*((rng.choice(["x", "y", "", "the"]), rng.randint(-2, 2) / 2) for _ in range(8)))
        yield small(golds), found


def test_no_threshold_beats_the_tuned_one_and_it_can_be_reached():
    checked = 0
    for table, found in _random_cases():
        candidates = [-9.0, *(item.null_odds for item in found)]
        best = max(selection_scores(found, table, candidate)[0] for candidate in candidates)
        assert selection_scores(found, table, tune_threshold(found, table))[0] == best
        checked += best > selection_scores(found, table, None)[0]
    assert checked > 50, "thresholds that matter"


def test_quality_equals_the_official_scores_of_the_answers_under_the_threshold():
    for table, found in _random_cases():
        threshold = tune_threshold(found, table)
        questions = [
            {"id": item.question_id, "answers": [{"text": answer.text} for answer in item.answers]}
            for item in table.examples()
        ]
        answers = apply_threshold(found, threshold)
        official = evaluate_v2([{"paragraphs": [{"qas": questions}]}], answers)
        got = quality(found, table, threshold)
        assert got.em_percent == pytest.approx(official["exact"])
        assert got.f1_percent == pytest.approx(official["f1"])
        assert got.has_ans_em_percent == pytest.approx(official.get("HasAns_exact"))
        assert got.no_ans_f1_percent == pytest.approx(official["NoAns_f1"])
        assert (got.has_ans_questions, got.no_ans_questions) == (
            official.get("HasAns_total", 0),
            official["NoAns_total"],
        )


def test_quality_counts_groups_and_baselines():
    table = small({"a": ["one two three"], "b": ["x"], "c": ["y"], "d": []})
    found = quality(guesses(("one two", -1.0), ("x", 0.0), ("x", 5.0), ("y", 6.0)), table, 4.0)
    assert (found.em_percent, found.questions, found.null_threshold) == (50.0, 4, 4.0)
    assert found.f1_percent == pytest.approx(100 * (0.8 + 1 + 0 + 1) / 4)
    assert (found.has_ans_em_percent, found.no_ans_em_percent) == (pytest.approx(100 / 3), 100.0)
    assert (found.baseline_no_answer_em_percent, found.baseline_first_span_em_percent) == (25.0, 25.0)
    assert (found.baseline_no_answer_f1_percent, found.baseline_first_span_f1_percent) == (25.0, 25.0)


def test_baselines_answer_from_each_questions_own_paragraph():
    paragraphs = [
        {
            "context": context,
            "qas": [{"id": name, "question": "?", "answers": [{"text": gold, "answer_start": at}]}],
        }
        for name, context, gold, at in [
            ("a", "they met Ada Byron, in 1843", "1843", 23),
            ("b", "nobody met Bob Orr twice", "Bob Orr twice", 11),
            ("c", "the old ship sank", "old ship", 4),
        ]
    ]
    table = read_squad({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}, "three")
    found = quality(guesses(("x", 0.0), ("x", 0.0), ("x", 0.0)), table, None)
    assert found.baseline_question_blind_em_percent == pytest.approx(
        100 * 2 / 3
    )  # "the old ship" is "old ship"
    assert found.baseline_question_blind_f1_percent == pytest.approx(100 * (1 + 0.8 + 1) / 3)
    assert found.baseline_first_span_em_percent == pytest.approx(100 / 3)
    assert found.baseline_no_answer_em_percent == found.baseline_no_answer_f1_percent == 0.0


def test_intervals_and_differences_are_those_of_the_percentages():
    scores = np.tile([[1.0, 1.0], [0.0, 0.5], [0.0, 0.0], [1.0, 1.0]], (5, 1))
    clusters = Clusters("article", np.repeat(np.arange(10), 2))
    found = score_intervals(scores, clusters)
    assert found == {
        "em_percent": clustered_mean(5 * [100.0, 0.0, 0.0, 100.0], clusters, bounds=(0.0, 100.0)),
        "f1_percent": clustered_mean(5 * [100.0, 50.0, 0.0, 100.0], clusters, bounds=(0.0, 100.0)),
    }
    other = np.tile([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], (5, 1))
    difference = score_differences(scores, other, clusters)
    assert difference["em_percent"].estimate == 0.0
    assert difference["f1_percent"] == clustered_mean(5 * [0.0, -50.0, 0.0, 100.0], clusters)


def test_quality_has_none_for_a_group_without_questions():
    found = quality(guesses(("x", 0.0)), small({"a": ["x"]}), None)
    assert (found.no_ans_em_percent, found.no_ans_f1_percent, found.no_ans_questions) == (None, None, 0)
    assert (found.em_percent, found.has_ans_em_percent) == (100.0, 100.0)


def test_scores_by_question_are_those_of_each_question():
    table = small({"a": ["one two three"], "b": []})
    found = guesses(("two", 0.0), ("x", 1.0))
    assert scores_by_question(found, table, None).tolist() == [[0.0, 0.5], [0.0, 0.0]]
    assert scores_by_question(found, table, 0.5).tolist() == [
        list(question_scores(["one two three"], "two")),
        [1, 1],
    ]


def _index_accuracy(reader, windows) -> tuple[float, float]:
    return index_accuracy(reader, reader, windows, pad_id=0, settings=SETTINGS, device=CPU)


class ConstantReader(GoldReader):
    """Names a fixed place of the context for the start and one for the end; None names the gold one."""

    def __init__(self, *places: int | None) -> None:
        super().__init__()
        self.places = places

    def span_logits(self, model, batch):
        gold = super().span_logits(model, batch)
        length = batch["span_mask"].shape[1]
        is_context = batch["span_mask"] & (torch.arange(length) > 0)  # the null position is 0
        starts = is_context.int().argmax(dim=1)
        return [
            own if place is None else torch.nn.functional.one_hot(starts + place, length).float()
            for own, place in zip(gold, self.places, strict=True)
        ]


def test_index_accuracy_is_the_mean_of_two_accuracies_and_its_baseline_that_of_place_0(windows, table):
    firsts = [windows.question_index.tolist().index(row) for row in range(len(table))]
    context_starts = [int((windows.offsets(window)[0] >= 0).argmax()) for window in firsts]
    gold = [
        [
            max(0, int(positions[window]) - start) if windows.has_answer[window] else 0
            for window, start in zip(firsts, context_starts, strict=True)
        ]
        for positions in (windows.start_positions, windows.end_positions)
    ]
    other = next(place for place in gold[0] if place > 0)
    shares = {
        place: [100 * side.count(place) / len(table) for side in gold]  # of start and of end
        for place in (0, other)
    }
    assert 0 < sum(shares[other]) != sum(shares[0]) < 200
    baseline = pytest.approx(sum(shares[0]) / 2)
    assert _index_accuracy(GoldReader(), windows) == (100.0, baseline)
    assert _index_accuracy(ConstantReader(0, 0), windows) == (baseline, baseline)
    half = pytest.approx(sum(shares[other]) / 2)
    assert _index_accuracy(ConstantReader(other, other), windows) == (half, baseline)
    half = pytest.approx((100 + shares[other][1]) / 2)
    assert _index_accuracy(ConstantReader(None, other), windows) == (half, baseline)


def test_a_question_counts_once_in_index_accuracy_with_its_first_window(windows, table):
    reader = GoldReader()
    _index_accuracy(reader, windows)
    asked = torch.cat([batch["window_index"] for batch in reader.batches]).tolist()
    assert sorted(windows.question_index[asked].tolist()) == list(range(len(table)))
    assert all(
        window == 0 or windows.question_index[window - 1] != windows.question_index[window]
        for window in asked
    )


def test_index_accuracy_leaves_mode_and_random_state_alone(windows):
    reader = GoldReader().train()
    reader.frozen.eval()
    state = torch.get_rng_state()
    _index_accuracy(reader, windows)
    assert torch.equal(torch.get_rng_state(), state)
    assert reader.training
    assert not reader.frozen.training


def _answering(answered: dict[int, str], table: QaTable) -> np.ndarray:
    """Return the scores of a reader that answers these questions so, and nothing else."""
    found = [Prediction(answered.get(row, ""), 0.0, 0.0, str(row)) for row in range(len(table))]
    return scores_by_question(found, table, None)


def test_the_floor_is_the_best_baseline_and_a_gain_is_paired_with_it_question_by_question():
    """Ten questions, six without an answer: answering nothing has 60 % and the other baselines less.

    Right on two that have an answer, wrong on one that has none: the differences are 1, 1, -1 and seven times 0.
    """
    table = small({**{f"a{index}": ["x"] for index in range(4)}, **{f"n{index}": [] for index in range(6)}})
    floor = Floor.of(table)
    assert (floor.baseline, floor.exact.tolist()) == ("no_answer", [0.0] * 4 + [1.0] * 6)
    found = floor.gain(_answering({0: "x", 1: "x", 9: "x"}, table))
    differences = np.array([100.0, 100.0, -100.0, *[0.0] * 7])
    assert found == {
        "selection_baseline": "no_answer",
        "selection_baseline_em_percent": 60.0,
        "selection_gain_percent": pytest.approx(10.0),
        "selection_gain_error_percent": pytest.approx(differences.std(ddof=1) / 10**0.5),
        "selection_gain_unit": "question",  # one paragraph: nothing else is independent
    }
    alike = floor.gain(_answering({}, table))
    assert (alike["selection_gain_percent"], alike["selection_gain_error_percent"]) == (0.0, 0.0)


@pytest.mark.parametrize(("articles", "unit"), [(7, "question"), (8, "article")])
def test_the_error_of_a_gain_is_by_article_where_there_are_enough_of_them(articles, unit):
    data = [
        {
            "title": f"t{article}",
            "paragraphs": [
                {
                    "context": f"{article} x y",
                    "qas": [
                        {"id": f"{article}-{row}", "question": "?", "is_impossible": True, "answers": []}
                        for row in range(5)
                    ],
                }
            ],
        }
        for article in range(articles)
    ]
    table = read_squad({"version": "v2.0", "data": data}, "articles")
    wrong = dict.fromkeys(range(10), "x")  # all of two articles
    found = Floor.of(table).gain(_answering(wrong, table))
    assert found["selection_gain_unit"] == unit
    differences = np.repeat([-100.0, -100.0, *[0.0] * (articles - 2)], 5)
    clusters = question_clusters(table) if unit == "article" else each_alone(len(table), "question")
    assert found["selection_gain_error_percent"] == pytest.approx(standard_error(differences, clusters))
    by_question = differences.std(ddof=1) / len(differences) ** 0.5
    assert (found["selection_gain_error_percent"] > 1.5 * by_question) == (unit == "article")


def test_a_single_question_has_no_error():
    assert Floor.of(small({"a": ["x"]})).gain(np.array([[1.0, 1.0]]))["selection_gain_error_percent"] is None
