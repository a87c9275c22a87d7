"""`data`: what was understood of a data source, before anything is made of it.

Malformed questions are left out and counted first, so that all that can be said is said; the command then ends as a
sweep would.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qa_core.config import DataConfig
from qa_core.data.cache import default_cache_dir
from qa_core.errors import DataError
from sweeps.checks import lengths
from sweeps.checks.data import data_settings, found_answers, look_at_data
from sweeps.commands.validate import print_lines
from sweeps.space.compile import compile_space
from sweeps.spec.sections import SweepSpec

if TYPE_CHECKING:
    from qa_core.data.table import QaTable
    from qa_core.schema import Example

EXAMPLES = 3
CONTEXT_CHARACTERS = 160  # shown of a context, around the answer
TEXT_CHARACTERS = 200  # shown of a question or an answer


def data(spec: SweepSpec) -> int:
    """Print layout, columns, counts, lengths, hold-out, ceilings and examples of the training source of a sweep.

    Raises:
        DataError: the source cannot be read, or has malformed questions and `data.skip_bad_examples` is false.
        ConfigError: a setting is refused.
    """
    from qa_core.data.squad import load_table

    cache_dir = default_cache_dir()
    settings = next(iter(data_settings(spec)))
    table = load_table(
        settings.train, split="train", skip_bad_examples=True, columns=settings.columns, cache_dir=cache_dir
    )
    print_lines(f"{table.source}: {table.reading.layout}", list(_columns(table)))
    print_lines("counts", list(_counts(table)))
    print_lines("words", lengths.word_lines(table))
    for number, index in enumerate(_shown(table), 1):
        print_lines(f"example {number}", _example(table.example(index)))
    print_lines("malformed", list(table.reading.malformed))
    _refuse_malformed(table, settings)
    report = look_at_data(spec, compile_space(spec), cache_dir=cache_dir, counts_tokens=True)
    report.overlaps = report.overlaps or ["nothing"]
    for title, lines in report.sections().items():
        print_lines(title, lines)
    print_lines("warnings", report.warnings)
    return 0


def _columns(table: "QaTable") -> Iterator[str]:
    reading = table.reading
    for field, name in reading.columns.items():
        guessed = " (guessed; --columns names another)" if field in reading.guessed else ""
        yield f"{field}: {name}{guessed}"
    if reading.is_numbered:
        yield "id: none; questions are numbered from 0"
    if reading.unused:
        yield f"not read: {', '.join(reading.unused)}"
    yield f"data hash: {table.data_hash}"


def _counts(table: "QaTable") -> Iterator[str]:
    from qa_core.data.clusters import ARTICLE, question_clusters

    clusters = question_clusters(table)
    unanswerable = int(table.is_unanswerable.sum())
    yield f"articles: {clusters.count if clusters.unit == ARTICLE else 'none, or one'}"
    yield f"paragraphs: {len(table.contexts)}"
    yield f"questions: {len(table)}"
    yield f"unanswerable: {unanswerable} ({100.0 * unanswerable / len(table):.1f} %)"
    if found := found_answers(table.reading):
        yield f"answers without places, looked for in their contexts: {found}"
    if table.skipped or table.skipped_answers:
        yield f"malformed: {table.skipped} questions, {table.skipped_answers} answers of others"


def _shown(table: "QaTable") -> list[int]:
    """Return the first, a middle and the last question."""
    last = len(table) - 1
    return sorted({round(part * last / (EXAMPLES - 1)) for part in range(EXAMPLES)})


def _example(example: "Example") -> list[str]:
    start = example.answers[0].start if example.answers else 0
    begin = max(0, start - CONTEXT_CHARACTERS // 2)
    end = begin + CONTEXT_CHARACTERS
    before, after = "..." * (begin > 0), "..." * (end < len(example.context))
    golds = [f"{_cut(answer.text)} (at {answer.start})" for answer in example.answers]
    return [
        f"question {_cut(example.question_id)}: {_cut(example.question)}",
        f"context: {before}{' '.join(example.context[begin:end].split())}{after}",
        f"answer: {'; '.join(golds) or 'none'}",
    ]


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= TEXT_CHARACTERS else f"{text[:TEXT_CHARACTERS]}..."


def _refuse_malformed(table: "QaTable", settings: DataConfig) -> None:
    if (table.skipped or table.skipped_answers) and not settings.skip_bad_examples:
        raise DataError(
            f"{table.source}: found {table.skipped} malformed questions and {table.skipped_answers} malformed answers "
            f"of others, the first at {table.reading.malformed[0]}. Allowed: none, or data.skip_bad_examples: true, "
            "which leaves them out (--set recipe.data.skip_bad_examples=true)"
        )
