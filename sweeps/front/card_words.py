"""What a card says of a model to people who know no sweeps: where it began, how it is stored, its limits."""

from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.run_folder.records import Record

PROGRAM = "qa-sweep"  # by its name: the card is read elsewhere

BUILT_IN = "sample"  # what the names of built-in data begin with, before any ":"
IN_PYTHON = """```python
import qa_sweeps
reader = qa_sweeps.load(".")
answer = reader.answer("Who ...?", "...")
print(answer.text, answer.score, answer.start, answer.end)  # text None: no answer
```"""
FAMILIES = {
    "bert": "a transformer that reads both ways",
    "distilbert": "a BERT of fewer layers",
    "t5": "a transformer whose encoder reads and whose decoder can write",
    "mamba": "a state-space model, which reads from left to right",
    "lstm": "a recurrent network that reads both ways",
}
BASELINES = {
    "no_answer": 'baseline: "no answer" to everything',
    "first_span": "baseline: the first three words of the text",
    "question_blind": "baseline: a number or name of the text, without reading the question",
}
SCORES = (
    "EM (exact match): answers that are one of the expected ones, apart from case, punctuation and articles. F1: the "
    "words that an answer shares with an expected one. Both as the official script of SQuAD v2.0 counts them. A model "
    "is worth no more than what it adds to the baselines."
)
BITS = "methods.quantize.bits"
EMBEDDING_BITS = "methods.quantize.embedding_bits"


def start(checkpoint: str, *, is_preset: bool, is_shipped: bool) -> str:
    """Return what a network was before it was trained, in words around its name, a piece of Markdown code."""
    if is_preset:
        return f"of the size {checkpoint}, trained from random weights"
    if is_shipped:
        return f"that began as {checkpoint}, a small network that qa-sweeps brings along, pretrained on made-up text"
    return f"that began as {checkpoint}"


def family(name: object) -> str:
    """Return what a family is, in brackets; "" for one that is not known here."""
    return f" ({FAMILIES[str(name)]})" if str(name) in FAMILIES else ""


def stored(settings: Mapping[str, Any]) -> str:
    """Return the bits of a form by its settings, such as ": weight matrices in 4 bits"; "" where none are told."""
    named = ((BITS, "weight matrices"), (EMBEDDING_BITS, "embeddings"))
    parts = [f"{what} in {settings[path]} bits" for path, what in named if settings.get(path)]
    return f": {', '.join(parts)}" if parts else ""


def is_built_in(source: object) -> bool:
    """Tell whether data are the invented passages of the package."""
    return str(source).split(":")[0] == BUILT_IN


def limits(model: Record, *, compared: int, is_span: bool) -> Iterator[str]:
    """Yield the limits of a model as one list.

    Args:
        model: its record.
        compared: how many models it was chosen from.
        is_span: whether it answers with passages.
    """
    data, evaluation = model.config.get("data") or {}, model.config.get("evaluation") or {}
    others = "those above" if model.cross_domain else "those of its data"
    lines = [
        f"It was chosen from {compared} models by these scores: the best of many is also the luckiest.",
        "It was trained once, with one seed. Another seed gives other scores, and the intervals do not hold that: "
        f"`{PROGRAM} confirm` trains and scores more seeds.",
        f"It finds what the text says, true or not. It was tested on no other texts and languages than {others}.",
    ]
    if is_built_in(data.get("train")):
        lines.append("It was trained on invented passages of few words and forms. Real texts are beyond it.")
    if data.get("max_length"):
        lines.append(
            f"It reads at most {data['max_length']} tokens at once. `{PROGRAM}` cuts longer texts into windows that "
            "overlap, and an answer lies within one of them."
        )
    if is_span and (longest := evaluation.get("max_answer_tokens")):
        lines.append(f"No answer is longer than {longest} tokens.")
    yield "\n".join(f"- {line}" for line in lines)
