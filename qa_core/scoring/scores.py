"""Official SQuAD scores: normalised exact match, token F1, v1.1 and v2.0 rules, best thresholds.

Written from the published rules; equal to what the two official scripts print. Where a script ends in a
traceback, this raises `DataError`. Standard library only. How models are scored inside a trial is in
`evaluate.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qa_core.data.text import normalize_answer
from qa_core.errors import ConfigError, DataError, unknown

Golds = Mapping[str, Sequence[str]]  # question id -> gold texts; none: unanswerable
OFFICIAL_VERSIONS = ("v1.1", "v2.0")
SHOWN_IDS = 3
MANY_MISSING = 0.01  # of the questions


def exact_match(gold: str, prediction: str) -> int:
    """Return 1 when both texts are equal after normalisation, else 0."""
    return int(normalize_answer(gold) == normalize_answer(prediction))


def f1_score_v1(gold: str, prediction: str) -> float:
    """Return the token F1 of v1.1, 0 to 1: without a common token it is 0, even when both texts are empty."""
    return _token_f1(normalize_answer(gold), normalize_answer(prediction))


def f1_score_v2(gold: str, prediction: str) -> float:
    """Return the token F1 of v2.0, 0 to 1: when either text is empty, 1 if both are, else 0."""
    return _token_f1_or_empty(normalize_answer(gold), normalize_answer(prediction))


def question_scores(golds: Sequence[str], prediction: str) -> tuple[int, float]:
    """Return (exact match, F1), the best over the golds, by v2.0 rules.

    Args:
        golds: gold texts; those that normalise to nothing are dropped, and none left means that "" is right.
        prediction: the answer, "" for "no answer".
    """
    normal = normalize_answer(prediction)
    kept = [gold for gold in map(normalize_answer, dict.fromkeys(golds)) if gold] or [""]
    if normal in kept:
        return 1, 1.0
    return 0, max(_token_f1_or_empty(gold, normal) for gold in kept)


def _token_f1(gold: str, prediction: str) -> float:
    """Return the F1 of the tokens of two normalised texts; 0 without a common one."""
    gold_tokens, predicted_tokens = gold.split(), prediction.split()
    if set(gold_tokens).isdisjoint(predicted_tokens):
        return 0.0
    common = (Counter(gold_tokens) & Counter(predicted_tokens)).total()
    precision, recall = common / len(predicted_tokens), common / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def _token_f1_or_empty(gold: str, prediction: str) -> float:
    """Return the F1 of the tokens of two normalised texts; where one is empty, whether both are."""
    if not gold or not prediction:
        return float(gold == prediction)
    return _token_f1(gold, prediction)


def gold_answers(articles: Any, *, source: str = "data") -> dict[str, list[str]]:
    """Return question id -> gold texts of a document's `data`, in its order.

    Questions are found and their fields checked as for training, but for what a score does not need: titles, contexts,
    question texts and offsets.

    Raises:
        DataError: a field is missing or of the wrong type, or an id occurs twice; names the place.
    """
    from qa_core.data.articles import FoundQuestion, articles_of, is_row, questions_of
    from qa_core.data.fields import Fields

    fields = Fields(source)
    golds: dict[str, list[str]] = {}
    questions = (
        found
        for place, item in articles_of({"data": articles}, source)
        for found in (
            [FoundQuestion(place, "", "", item)]
            if is_row(item) and "question" in item
            else questions_of(place, item, fields, on_bad=_refuse, golds_only=True)
        )
    )
    for found in questions:
        place, values = found.place, found.values
        if not isinstance(values, dict):
            raise fields.bad(place, values, "an object with id and answers")
        question_id = fields.question_id(f"{place}.id", values.get("id"))
        if question_id in golds:
            raise fields.bad(f"{place}.id", question_id, "ids that occur once")
        named = {"question_id": question_id}
        answers = fields.answers(place, values, empty_is_unanswerable=True, named=named)
        for index, answer in enumerate(answers):
            if not isinstance(answer, dict) or not isinstance(answer.get("text"), str):
                raise fields.bad(f"{place}.answers[{index}]", answer, "an object with text", **named)
        golds[question_id] = [answer["text"] for answer in answers]
    if not golds:
        raise DataError(f"{source}: found no questions; allowed: at least one")
    return golds


def _refuse(error: DataError, questions: int) -> None:
    raise error


def evaluate_v1(articles: Any, predictions: Mapping[str, Any]) -> dict[str, float]:
    """Score by the v1.1 rules.

    Args:
        articles: the list `data` of a SQuAD document.
        predictions: question id -> text. A missing one scores 0 and stays in the denominator; unknown ids are
            ignored.

    Returns:
        `exact_match` and `f1`, in percent.

    Raises:
        DataError: malformed data, a prediction that is not text, or a question without gold answers.
    """
    return _score_v1(gold_answers(articles), predictions)


def evaluate_v2(
    articles: Any,
    predictions: Mapping[str, Any],
    *,
    na_probs: Mapping[str, Any] | None = None,
    na_threshold: float = 1.0,
) -> dict[str, float]:
    """Score by the v2.0 rules.

    Args:
        articles: the list `data` of a SQuAD document.
        predictions: question id -> text, for every question; unknown ids are ignored.
        na_probs: question id -> how likely it is that there is no answer; None means 0 for all.
        na_threshold: a question whose value in `na_probs` is above it counts as answered with "no answer".

    Returns:
        In percent and counts: `exact f1 total`, the same with `HasAns_` and `NoAns_` where there are such
            questions,
        and with `na_probs` also `best_exact best_exact_thresh best_f1 best_f1_thresh`.

    Raises:
        DataError: malformed data, a prediction that is not text, or a question that lacks its prediction or
            its value in `na_probs`.
    """
    return _score_v2(gold_answers(articles), predictions, na_probs=na_probs, na_threshold=na_threshold)


def score_file(
    data_path: str | Path,
    predictions_path: str | Path,
    *,
    official: str | None = None,
    na_prob_path: str | Path | None = None,
    na_threshold: float = 1.0,
    strict: bool = False,
    skip_bad_examples: bool = False,
    columns: Mapping[str, str] | None = None,
    warn: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Score a file of predictions against a data file.

    Args:
        data_path: a file or folder as `qa_core.data.squad.load_table` reads it.
        predictions_path: JSON object of question id -> text.
        official: "v1.1" or "v2.0" do as those scripts do. None scores by the v2.0 rules, but a missing
            prediction counts as "", and `missing_predictions` and `extra_predictions` count missing and
            unknown ids.
        na_prob_path: JSON object of question id -> how likely it is that there is no answer.
        na_threshold: see `evaluate_v2`.
        strict: refuse a file that lacks predictions.
        skip_bad_examples: leave out what `load_table` leaves out, so that the score is of the same questions.
        columns: as for `load_table`.
        warn: told where more than 1 % of the questions have no prediction; None: nobody is.

    Raises:
        DataError: a file is missing or malformed, no prediction is of a question of the data, or predictions are
            missing where that is not allowed.
        ConfigError: `official` is unknown, or v1.1 is asked for together with `na_prob_path`.
    """
    if official is not None and official not in OFFICIAL_VERSIONS:
        raise ConfigError(f"official: {unknown('version', official, OFFICIAL_VERSIONS)}")
    if official == "v1.1" and na_prob_path is not None:
        raise ConfigError("official: found v1.1 together with no-answer probabilities; allowed: v2.0")
    golds = _read_golds(str(data_path), skip_bad_examples=skip_bad_examples, columns=columns)
    predictions = _read_object(Path(predictions_path), "question id -> answer text")
    na_probs = _read_object(Path(na_prob_path), "question id -> number") if na_prob_path is not None else None
    missing = [question_id for question_id in golds if question_id not in predictions]
    if len(missing) == len(golds):
        raise DataError(
            f"{predictions_path}: found {len(predictions)} predictions, none for a question of {data_path} (which has "
            f"{_shown(missing)}); allowed: predictions for these questions"
        )
    if missing and strict:
        raise DataError(f"{predictions_path}: {_shown(missing)} of {len(golds)} questions have no prediction")
    if official is None:
        predictions = {**predictions, **dict.fromkeys(missing, "")}
        if na_probs is not None:  # the value makes no difference to an empty answer
            na_probs = {**dict.fromkeys(missing, 0.0), **na_probs}
    if official == "v1.1":
        result = _score_v1(golds, predictions, source=str(predictions_path), data=str(data_path))
    else:
        result = _score_v2(
            golds,
            predictions,
            na_probs=na_probs,
            na_threshold=na_threshold,
            source=str(predictions_path),
            na_source=str(na_prob_path),
        )
    if warn is not None and len(missing) > MANY_MISSING * len(golds):  # last: a refusal stands alone
        warn(
            f"{predictions_path}: {_shown(missing)} of {len(golds)} questions of {data_path} have no prediction and "
            "count as wrong, or as right where no answer is right; is it a file for other data?"
        )
    if official is None:
        result["missing_predictions"] = len(missing)
        result["extra_predictions"] = sum(question_id not in golds for question_id in predictions)
    return result


def _score_v1(
    golds: Golds, predictions: Mapping[str, Any], *, source: str = "predictions", data: str = "data"
) -> dict[str, float]:
    exact, f1 = 0, 0.0
    for question_id, texts in golds.items():
        if not texts:
            raise DataError(
                f"{data}: question {question_id!r} has no gold answer, which the v1.1 rules cannot score"
            )
        if question_id not in predictions:
            continue
        prediction = _text(predictions, question_id, source)
        exact += max(exact_match(text, prediction) for text in texts)
        f1 += max(f1_score_v1(text, prediction) for text in texts)
    return {"exact_match": 100.0 * exact / len(golds), "f1": 100.0 * f1 / len(golds)}


def _score_v2(
    golds: Golds,
    predictions: Mapping[str, Any],
    *,
    na_probs: Mapping[str, Any] | None,
    na_threshold: float,
    source: str = "predictions",
    na_source: str = "no-answer probabilities",
) -> dict[str, float]:
    missing = [question_id for question_id in golds if question_id not in predictions]
    if missing:
        raise DataError(f"{source}: {_shown(missing)} questions have no prediction; the v2.0 rules need all")
    texts = {question_id: _text(predictions, question_id, source) for question_id in golds}
    odds = {question_id: _number(na_probs, question_id, na_source) for question_id in golds}
    raw = {question_id: question_scores(golds[question_id], text) for question_id, text in texts.items()}
    final = {
        question_id: (float(not golds[question_id]),) * 2 if odds[question_id] > na_threshold else scores
        for question_id, scores in raw.items()
    }
    result: dict[str, float] = _means(final.values())
    for prefix, wanted in (("HasAns", True), ("NoAns", False)):
        part = [scores for question_id, scores in final.items() if bool(golds[question_id]) == wanted]
        if part:
            result |= {f"{prefix}_{key}": value for key, value in _means(part).items()}
    if na_probs is not None:
        asked = [question_id for question_id in na_probs if question_id in raw]
        order = sorted(asked, key=odds.__getitem__)
        for index, name in enumerate(("exact", "f1")):
            scores = {question_id: pair[index] for question_id, pair in raw.items()}
            best, threshold = _best_threshold(order, scores, texts, golds=golds, odds=odds)
            result |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
    return result


def _best_threshold(
    order: Sequence[str],
    scores: Mapping[str, float],
    texts: Mapping[str, str],
    *,
    golds: Golds,
    odds: Mapping[str, float],
) -> tuple[float, float]:
    """Walk as the v2.0 script does: from all-null, questions answered by rising value.

    Ties are not grouped there, so the threshold need not give the score: for thresholds that do, see
    `evaluate.tune_threshold`.
    """
    current = best = float(sum(not texts_of for texts_of in golds.values()))
    threshold = 0.0
    for question_id in order:
        if golds[question_id]:
            current += scores[question_id]
        elif texts[question_id]:
            current -= 1
        if current > best:
            best, threshold = current, odds[question_id]
    return 100.0 * best / len(scores), threshold


def _means(scores: Iterable[tuple[float, float]]) -> dict[str, float]:
    exact, f1 = zip(*scores, strict=True)
    total = len(exact)
    return {"exact": 100.0 * sum(exact) / total, "f1": 100.0 * sum(f1) / total, "total": total}


def _text(predictions: Mapping[str, Any], question_id: str, source: str) -> str:
    value = predictions[question_id]
    if not isinstance(value, str):
        raise DataError(f"{source}: question {question_id!r}: found {value!r}; allowed: text")
    return value


def _number(na_probs: Mapping[str, Any] | None, question_id: str, source: str) -> float:
    if na_probs is None:
        return 0.0
    value = na_probs.get(question_id)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        found = repr(value) if question_id in na_probs else "nothing"
        raise DataError(f"{source}: question {question_id!r}: found {found}; allowed: a number")
    return value


def _read_golds(
    source: str, *, skip_bad_examples: bool, columns: Mapping[str, str] | None
) -> dict[str, list[str]]:
    """Return question id -> gold texts. Of SQuAD's articles it reads no more than a score needs."""
    from qa_core.data.squad import load_table, read_articles

    articles = None if skip_bad_examples or columns else read_articles(source)
    if articles is not None:
        return gold_answers(articles, source=source)
    table = load_table(source, split="dev", skip_bad_examples=skip_bad_examples, columns=columns)
    return dict(zip(table.question_ids, table.rows.column("answer_texts").to_pylist(), strict=True))


def _read_object(path: Path, allowed: str) -> dict[str, Any]:
    from qa_core.data.json_file import read_json

    document = read_json(path)
    if not isinstance(document, dict):
        raise DataError(f"{path}: found {type(document).__name__}; allowed: a JSON object of {allowed}")
    return document


def _shown(question_ids: Sequence[str]) -> str:
    names = ", ".join(map(repr, question_ids[:SHOWN_IDS]))
    return f"{len(question_ids)} ({names}{', ...' if len(question_ids) > SHOWN_IDS else ''})"
