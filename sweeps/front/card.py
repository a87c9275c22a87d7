"""The card of an exported model: a README that says what it is, how good, how large, on what data, and its limits.

Text alone: a function of the model's record and of what its folder holds. Questions of the data are on it only where
they are handed in. `sweeps/commands/export.py` writes it.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeps.front import card_words
from sweeps.run_folder.masking import masked_text, printable
from sweeps.run_folder.records import Record, read_inside

if TYPE_CHECKING:
    from qa_core.scoring.intervals import Interval

CARD = "README.md"
ADAPTER_CONFIG = "adapter/adapter_config.json"
NOT_KNOWN = "not recorded"
SPAN = "span"


@dataclass(frozen=True)
class Shipped:
    """What a card must know of the exported folder.

    Attributes:
        name: of the folder.
        files: the recorded ones.
        plain_class: the class of transformers that opens it; None where none does.
        has_prompt: whether the network was prompted with demonstrations.
        threshold: on the null odds, above which there is no answer; None: every question is answered.
        compared: how many models of the sweep it was chosen from.
        head: how the network answers: "span" or "generate".
        is_preset, is_shipped: whether its checkpoint is a size without weights, or a network of this package.
    """

    name: str
    files: tuple[str, ...]
    plain_class: str | None
    has_prompt: bool
    threshold: float | None
    compared: int
    head: str = SPAN
    is_preset: bool = False
    is_shipped: bool = False


@dataclass(frozen=True)
class Example:
    """One question of the evaluation set, its gold answers and the model's answer, "" for none."""

    question: str
    golds: tuple[str, ...]
    answer: str


def model_card(
    model: Record,
    shipped: Shipped,
    *,
    intervals: "Mapping[str, Interval] | None",
    examples: Sequence[Example] = (),
) -> str:
    """Return the card as Markdown, its field `license` empty.

    Args:
        model: the record of the model, of `models_of`.
        shipped: the folder.
        intervals: of EM and F1 in percent; None where the answers are not there.
        examples: questions to show; none unless the user asked for them.

    Raises:
        DataError: the record cannot be read; names the trial.
    """
    return read_inside(model, lambda model: _card(model, shipped, intervals, examples))


def _card(
    model: Record,
    shipped: Shipped,
    intervals: "Mapping[str, Interval] | None",
    examples: Sequence[Example],
) -> str:
    parts = [
        _front_matter(shipped),
        f"# {_text(shipped.name)}\n\n{_what(model, shipped)}",
        _section("Use", _use(model, shipped)),
        _section("Scores", _scores(model, shipped, intervals)),
        _section("Size and speed", _costs(model)),
        _section("Data", _data(model)),
        _section("Recipe", _recipe(model)),
        _section("Limits", card_words.limits(model, compared=shipped.compared, is_span=shipped.head == SPAN)),
        _section("How to repeat it", _repeat(model)),
        _section("Examples", _examples(examples)) if examples else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(shipped: Shipped) -> str:
    """Return the fields that the hub reads. The licence is the user's to choose."""
    library = "peft" if ADAPTER_CONFIG in shipped.files else "transformers"
    lines = [
        "---",
        "license:  # fill in, such as apache-2.0; the licences of the data and of the base network bind you too",
        *([f"library_name: {library}"] if shipped.plain_class else []),
        "pipeline_tag: question-answering",
        "---",
    ]
    return "\n".join(lines)


def _what(model: Record, shipped: Shipped) -> str:
    config = model.config["model"]
    answers = "with a passage of that text" if shipped.head == SPAN else "in words that it writes itself"
    refuses = "" if shipped.threshold is None else ', or with "no answer"'
    start = card_words.start(
        _code(config["checkpoint"]), is_preset=shipped.is_preset, is_shipped=shipped.is_shipped
    )
    methods = ", ".join(map(_code, dict(model.config.get("methods") or {})))
    trained = f"Trained with {methods}" if methods else "All weights were trained"
    form = model.forms[0] if model.forms else None
    kept = "" if form is None else f"; stored as {_code(form.label)}{card_words.stored(form.settings)}"
    family = f"{_code(config['family'])}{card_words.family(config['family'])}"
    return (
        f"Answers a question about a text that is given with it, {answers}{refuses}. A network of the family {family} "
        f"{start}. {trained}{kept}. Made with the Python package qa-sweeps, which trained many models in one search (a "
        "sweep), measured each as it is stored, and kept the best for their memory."
    )


def _use(model: Record, shipped: Shipped) -> Iterator[str]:
    version = (model.provenance.get("packages") or {}).get("qa-sweeps")
    made = f" ({_text(version)} made it)" if version else ""
    yield f"With the Python package qa-sweeps{made}, in this folder, on the command line or in Python:"
    yield f"```\n{card_words.PROGRAM} predict . --question 'Who ...?' --context '...'\n```"
    yield card_words.IN_PYTHON
    if shipped.plain_class is None:
        yield "transformers cannot open this folder: its weights or its head are in a form that only qa-sweeps reads."
        return
    lines = [
        f"from transformers import AutoTokenizer, {shipped.plain_class}",
        f'model = {shipped.plain_class}.from_pretrained(".").eval()',
        'tokenizer = AutoTokenizer.from_pretrained(".")',
    ]
    if ADAPTER_CONFIG in shipped.files:
        lines.insert(1, "from peft import PeftModel")
        lines.insert(3, 'model = PeftModel.from_pretrained(model, "adapter").eval()')
    yield "\n".join(["```python", *lines, "```"])
    yield (
        "Windows of long texts, the choice of the answer and the threshold for no answer (`manifest.json`) are then up "
        "to the caller."
    )
    if shipped.has_prompt:
        yield "So are the demonstrations before each prompt, which `manifest.json` has."


def _scores(model: Record, shipped: Shipped, intervals: "Mapping[str, Interval] | None") -> Iterator[str]:
    quality = model.quality or {}
    rows: list[tuple[str, ...]] = [
        ("questions", "number", "EM [%]", "F1 [%]"),
        ("---", "---:", "---:", "---:"),
    ]
    for name, part in (("all", ""), ("with an answer", "has_ans_"), ("without an answer", "no_ans_")):
        number = quality.get(f"{part}questions")
        if number:
            scores = [_score(quality, f"{part}{kind}_percent") for kind in ("em", "f1")]
            rows.append((name, str(number), *scores))
    for name, words in card_words.BASELINES.items():
        scores = [_score(quality, f"baseline_{name}_{kind}_percent") for kind in ("em", "f1")]
        if any(scores):
            rows.append((words, "", *scores))
    yield "\n".join(f"| {' | '.join(row)} |" for row in rows)
    yield card_words.SCORES
    yield _interval_words(intervals)
    yield (
        "Every question is answered."
        if shipped.threshold is None
        else f'It says "no answer" where the score of "no answer" minus that of the best answer is more than '
        f"{shipped.threshold:.4f}."
    )
    for source, other in model.cross_domain.items():
        scores = [_score(other["quality"], f"{kind}_percent") for kind in ("em", "f1")]
        yield f"On {_code(source)}: EM {scores[0]} %, F1 {scores[1]} %."


def _interval_words(intervals: "Mapping[str, Interval] | None") -> str:
    if intervals is None:
        return "No intervals: the answers to single questions were not there when this card was written."
    em = intervals["em_percent"]
    if em.low is None:
        return f"No intervals: {em.clusters} {em.unit}s are too few for one."
    bounds = [
        f"{name} {intervals[key].low:.2f} to {intervals[key].high:.2f} %"
        for name, key in (("EM", "em_percent"), ("F1", "f1_percent"))
    ]
    return (
        f"{100 * em.confidence:.0f} % intervals over {em.clusters} {em.unit}s: {', '.join(bounds)}. On other "
        f"{em.unit}s of the same kind the scores may lie anywhere in them."
    )


def _costs(model: Record) -> Iterator[str]:
    cost = model.cost or {}
    longest = (model.config.get("data") or {}).get("max_length")
    window = f"one window of {longest} tokens" if longest else "one window"
    entries = [
        (f"memory for {window}, weights included", "inference_peak_bytes", 1e6, "MB"),
        ("memory for eight windows at once", "inference_peak_batch8_bytes", 1e6, "MB"),
        ("files of the folder", "artifact_bytes", 1e6, "MB"),
        ("time for one window, median", "latency_p50_ms", 1.0, "ms"),
    ]
    lines = [
        f"- {name}: {float(cost[key]) / divisor:.2f} {unit}"
        for name, key, divisor, unit in entries
        if cost.get(key) is not None
    ]
    lines += [f"- parameters: {cost['parameters']:,}"] if cost.get("parameters") is not None else []
    threads = f", threads: {cost['threads']}" if cost.get("threads") is not None else ""
    lines += [f"- measured on: {_text(model.device)}{threads}"] if model.device else []
    yield "\n".join(lines) or NOT_KNOWN
    if lines:
        yield "A window is question and text together. Python and its libraries need memory of their own beside it."


def _data(model: Record) -> Iterator[str]:
    settings = model.config.get("data") or {}
    lines = []
    for name, key in (("training", "train"), ("evaluation", "evaluation")):
        found = model.data.get(key) or {}
        source = found.get("source") or settings.get(key)
        facts = [_code(source)] if source else []
        facts += [f"{found['questions']} questions"] if "questions" in found else []
        facts += [f"{found['unanswerable']} of them without an answer"] if found.get("unanswerable") else []
        facts += [f"hash {_code(found['data_hash'])}"] if "data_hash" in found else []
        lines.append(f"- {name}: {', '.join(facts) or NOT_KNOWN}")
    if card_words.is_built_in(settings.get("train")):
        lines.append(
            "- the training data come with qa-sweeps: short English passages about invented things, made by a grammar"
        )
    shared = model.data.get("evaluation_contexts_in_train")
    lines += (
        [f"- evaluation paragraphs that are in the training data too: {shared}"] if shared is not None else []
    )
    yield "\n".join(lines)


def _recipe(model: Record) -> Iterator[str]:
    train = model.config.get("train") or {}
    data = model.config.get("data") or {}
    chosen = {
        "model": {name: value for name, value in model.config["model"].items() if value not in (None, {})},
        "methods": {**dict(model.config.get("methods") or {})},
        "train": {name: train[name] for name in ("learning_rate", "batch_size", "schedule") if name in train},
        "data": {name: data[name] for name in ("max_length", "stride") if name in data},
        "training windows seen": model.examples_seen,
        "seed": model.seed,
    }
    if model.forms:
        chosen["form"] = dict(model.forms[0].settings)
    yield "All settings are in `recipe.json`. The main ones:"
    yield f"```json\n{json.dumps(chosen, indent=1, ensure_ascii=True)}\n```"


def _repeat(model: Record) -> Iterator[str]:
    provenance = model.provenance
    evaluation = (model.config.get("data") or {}).get("evaluation")
    lines = (
        [f"# the sweep; the model is trial {model.trial_id} of it", masked_text(str(provenance["command"]))]
        if "command" in provenance
        else []
    )
    if evaluation:
        lines += [
            "# its scores",
            shlex.join([card_words.PROGRAM, "evaluate", ".", masked_text(str(evaluation))]),
        ]
    if lines:
        yield "\n".join(["```", *map(printable, lines), "```"])
    git, packages = provenance.get("git") or {}, provenance.get("packages") or {}
    named = [
        f"{name} {packages[name]}"
        for name in ("qa-sweeps", "torch", "transformers", "peft")
        if packages.get(name)
    ]
    facts = [f"commit {_code(git['commit'])}"] if git.get("commit") else []
    facts += [f"versions {_text(', '.join(named))}"] if named else []
    yield f"{'; '.join(facts)}." if facts else f"Commit and versions: {NOT_KNOWN}."


def _examples(examples: Sequence[Example]) -> Iterator[str]:
    rows = [("question", "gold answers", "answer"), ("---", "---", "---")]
    for example in examples:
        golds = "; ".join(map(_text, example.golds)) or "no answer"
        rows.append((_text(example.question), golds, _text(example.answer) or "no answer"))
    yield "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _section(title: str, paragraphs: Iterator[str]) -> str:
    return "\n\n".join([f"## {title}", *paragraphs])


def _score(quality: Mapping[str, Any], name: str) -> str:
    value = quality.get(name)
    return "" if value is None else f"{float(value):.2f}"


def _text(value: Any) -> str:
    """Return a value as text that no renderer takes for Markdown or HTML, in one line."""
    plain = printable(" ".join(masked_text(str(value)).split()))
    return "".join(f"\\{sign}" if sign in r"\`*_[]<>|#" else sign for sign in plain)


def _code(value: Any) -> str:
    return f"`{printable(masked_text(str(value))).replace('`', chr(39))}`"
