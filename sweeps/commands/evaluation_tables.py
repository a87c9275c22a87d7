"""What `evaluate` found, as tables for people; the same values as the JSON object of `evaluate.py`."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sweeps.run_folder.masking import printable

if TYPE_CHECKING:
    from rich.table import Table

BASELINES = {
    "no answer to anything": "baseline_no_answer",
    "first span": "baseline_first_span",
    "question blind": "baseline_question_blind",
}
PARTS = {"with an answer": "has_ans", "without an answer": "no_ans"}


def tables(result: Mapping[str, Any]) -> "Iterator[Table]":
    """Yield one table for the data and one for the probes, each where `evaluate` was asked for it."""
    if "em_percent" in result:
        yield _of_data(result)
    if "probes" in result:
        yield _of_probes(result["probes"])


def interval_words(interval: Mapping[str, Any] | None) -> str:
    """Return the bounds of an interval as "41.20 to 47.90", or why there is none."""
    if interval is None:
        return ""
    if interval["low"] is None:
        return f"none: {interval['clusters']} {interval['unit']}s are too few"
    return f"{interval['low']:.2f} to {interval['high']:.2f}"


def _of_data(result: Mapping[str, Any]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    intervals = result["intervals"]
    first = intervals["em_percent"]
    confidence = f"{100 * first['confidence']:.0f} % interval by {first['unit']}"
    shown = Table(title=escape(printable(f"{result['artifact']} on {result['data']}")))
    for name, justify in (("questions", "left"), ("number", "right"), ("EM [%]", "right")):
        shown.add_column(name, justify=justify)  # type: ignore[arg-type]
    shown.add_column(confidence, justify="right")
    shown.add_column("F1 [%]", justify="right")
    shown.add_column(confidence, justify="right")
    em, f1 = (interval_words(intervals[name]) for name in ("em_percent", "f1_percent"))
    shown.add_row(
        "all", str(result["questions"]), _number(result["em_percent"]), em, _number(result["f1_percent"]), f1
    )
    for name, part in PARTS.items():
        if result[f"{part}_questions"]:
            scores = (_number(result[f"{part}_{score}_percent"]) for score in ("em", "f1"))
            shown.add_row(name, str(result[f"{part}_questions"]), next(scores), "", next(scores), "")
    shown.add_section()
    for name, part in BASELINES.items():
        scores = (_number(result[f"{part}_{score}_percent"]) for score in ("em", "f1"))
        shown.add_row(f"baseline: {name}", "", next(scores), "", next(scores), "", style="dim")
    if "against" in result:
        shown.add_section()
        _add_comparison(shown, result["against"])
    shown.caption = escape("\n".join(map(printable, _notes(result))))
    return shown


def _add_comparison(shown: "Table", against: Mapping[str, Any]) -> None:
    from rich.markup import escape

    quality, differences = against["quality"], against["difference"]
    scores = [_number(quality[name]) for name in ("em_percent", "f1_percent")]
    shown.add_row(
        escape(printable(f"{against['artifact']}")), str(quality["questions"]), scores[0], "", scores[1], ""
    )
    em, f1 = (differences[name] for name in ("em_percent", "f1_percent"))
    cells = [f"{em['estimate']:+.2f}", interval_words(em), f"{f1['estimate']:+.2f}", interval_words(f1)]
    shown.add_row(f"difference{_verdict(em)}", "", *cells)


def _verdict(difference: Mapping[str, Any]) -> str:
    """Return what the interval of the difference in EM says."""
    if difference["is_tied"] is None:
        return ""
    if difference["is_tied"]:
        return ": tied"
    return ": better" if difference["estimate"] > 0 else ": worse"


def _notes(result: Mapping[str, Any]) -> Iterator[str]:
    threshold = result["null_threshold"]
    yield (
        "every question is answered (no threshold for no answer)"
        if threshold is None
        else f"no answer where its score is more than {threshold:.3f} above the best answer's"
    )
    if result["skipped"] or result["skipped_answers"]:
        yield f"left out: {result['skipped']} questions and {result['skipped_answers']} answers that are malformed"
    if "semantic" in result:
        for name, interval in result["semantic"].items():
            if name != "encoder" and interval is not None:
                yield f"semantic {name}: {interval['estimate']:.4f} ({result['semantic']['encoder']})"
    yield f"data {result['data_hash']}, device {result['device']}; all values: --json"


def _of_probes(report: Mapping[str, Any]) -> "Table":
    from rich.table import Table

    shown = Table(title="Probes", caption="intervals are by passage; all values: --json")
    for name in ("category", "variant"):
        shown.add_column(name)
    for name in ("passages", "EM [%]", "F1 [%]", "interval of F1"):
        shown.add_column(name, justify="right")
    for row in report["rows"]:
        scores = [_number(row[name]["estimate"]) for name in ("em_percent", "f1_percent")]
        shown.add_row(
            row["category"], row["variant"], str(row["items"]), *scores, interval_words(row["f1_percent"])
        )
    return shown


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
