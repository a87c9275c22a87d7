"""The ceiling of exact match: what a model that is always right could score on a source with this tokenizer and limit.

A span reader answers with whole tokens, and a generating model with what its tokenizer decodes; both have a longest
answer. A gold answer that no such answer gives back is lost before training begins. Tokens are in
`qa_core/data/encoding.py`.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow.compute

from qa_core import files
from qa_core.data.cache import DamagedFile, read_or_make
from qa_core.data.characters import bare
from qa_core.data.encoding import covering_tokens, encode_contexts, encode_targets
from qa_core.data.layout import WindowLayout
from qa_core.data.table import QaTable
from qa_core.data.tokenizers import tokenizer_hash
from qa_core.errors import ConfigError, DataError
from qa_core.scoring.scores import question_scores
from qa_core.seeding import numpy_generator
from qa_core.values import from_dict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FORMAT = 1  # raise it when the numbers change: older cache files are then left alone
# More is drawn by seed: 10,000 questions tell a share of 1 % to 0.2 points (two standard errors).
MOST_QUESTIONS = 10_000
MOST_CHARACTERS = 10_000_000  # of their paragraphs
DRAW_SEED = 0


@dataclass(frozen=True)
class Ceiling:
    """What can be reached of a source; shares are of the questions looked at, in percent.

    Args:
        questions: how many were looked at.
        of_questions: how many the source has.
        em_percent: the best exact match; a question without an answer counts as reached.
        not_cut_percent: no gold answer is given back, however long an answer may be.
        too_long_percent: every gold answer that is given back is longer than the limit.
        limit: of an answer, in tokens.
    """

    questions: int
    of_questions: int
    em_percent: float
    not_cut_percent: float
    too_long_percent: float
    limit: int


def find_ceiling(
    table: QaTable,
    tokenizer: "PreTrainedTokenizerFast",
    layout: WindowLayout,
    *,
    limit: int,
    cache_dir: Path,
) -> Ceiling:
    """Return the ceiling of a table, computed once on a machine; of large ones from `MOST_QUESTIONS` drawn by seed.

    Args:
        table: the questions.
        tokenizer, layout: of the recipe; a layout with a null text is that of a generating head.
        limit: `max_answer_tokens` of a span reader, `max_new_tokens` of a generating head, its end token included.
        cache_dir: where it is kept, beside the windows.

    Raises:
        StorageError: the cache folder cannot be written to.
    """
    parts = [FORMAT, table.data_hash, tokenizer_hash(tokenizer), layout.null_text, layout.target_end, limit]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    return read_or_make(
        Path(cache_dir) / "ceilings" / f"{key}.json",
        read=_read,
        make=lambda: _find(table, tokenizer, layout, limit),
        write=_write,
    )


def _find(table: QaTable, tokenizer: "PreTrainedTokenizerFast", layout: WindowLayout, limit: int) -> Ceiling:
    drawn = _drawn(table)
    golds = drawn.rows.column("answer_texts").to_pylist()
    if layout.null_text is None:
        found = _cut(drawn, golds, tokenizer)
    else:
        found = _written(golds, tokenizer, layout)
    is_cut, is_reached = np.ones(len(drawn), bool), np.ones(len(drawn), bool)
    for question, (texts, answers) in enumerate(zip(golds, found, strict=True)):
        if texts:
            fitting = [length for answer, length in answers if _matches(answer, texts)]
            is_cut[question] = bool(fitting)
            is_reached[question] = any(length <= limit for length in fitting)
    return Ceiling(
        questions=len(drawn),
        of_questions=len(table),
        em_percent=100.0 * float(is_reached.mean()),
        not_cut_percent=100.0 * float((~is_cut).mean()),
        too_long_percent=100.0 * float((is_cut & ~is_reached).mean()),
        limit=limit,
    )


def _drawn(table: QaTable) -> QaTable:
    """Return the questions to look at, in the table's order; at least one."""
    order = numpy_generator(DRAW_SEED, "ceiling").permutation(len(table))[:MOST_QUESTIONS]
    contexts = table.context_index[order]
    _, firsts = np.unique(contexts, return_index=True)
    sizes = np.zeros(len(order), np.int64)
    sizes[firsts] = pyarrow.compute.utf8_length(table.contexts).to_numpy()[contexts[firsts]]
    count = max(1, int(np.searchsorted(np.cumsum(sizes), MOST_CHARACTERS, side="right")))
    return table if count == len(table) else table.take(np.sort(order[:count]))


def _cut(
    table: QaTable, golds: list[list[str]], tokenizer: "PreTrainedTokenizerFast"
) -> list[list[tuple[str, int]]]:
    """Return for each gold answer the text of the nearest tokens that cover it, and their number."""
    paragraphs = table.contexts.to_pylist()
    contexts, char_starts, char_ends = encode_contexts(tokenizer, paragraphs)
    found = []
    rows = zip(
        table.context_index.tolist(), golds, table.rows.column("answer_starts").to_pylist(), strict=True
    )
    for context, texts, starts in rows:
        tokens = slice(contexts.starts[context], contexts.starts[context + 1])
        firsts, lasts = char_starts[tokens], char_ends[tokens]
        spans = [
            covering_tokens(firsts, lasts, text, start) for text, start in zip(texts, starts, strict=True)
        ]
        found.append(
            [
                (bare(paragraphs[context][firsts[first] : lasts[end - 1]]), end - first)
                for first, end in spans
                if end > first
            ]
        )
    return found


def _written(
    golds: list[list[str]], tokenizer: "PreTrainedTokenizerFast", layout: WindowLayout
) -> list[list[tuple[str, int]]]:
    """Return for each gold answer what its target decodes to, and the target's tokens with the end."""
    distinct = list(dict.fromkeys(text for texts in golds for text in texts))
    targets = encode_targets(tokenizer, distinct, layout)
    ids = [targets[index].tolist() for index in range(len(distinct))]
    decoded = tokenizer.batch_decode(ids, skip_special_tokens=True) if ids else []
    answers = {
        text: (bare(written), len(tokens))
        for text, written, tokens in zip(distinct, decoded, ids, strict=True)
    }
    return [[answers[text] for text in texts] for texts in golds]


def _matches(answer: str, golds: list[str]) -> bool:
    return answer in golds or question_scores(golds, answer)[0] == 1


def _write(file: BinaryIO, ceiling: Ceiling) -> None:
    file.write(json.dumps(asdict(ceiling)).encode())


def _read(path: Path) -> Ceiling:
    try:
        return from_dict(Ceiling, files.read_object(path))
    except (DataError, ConfigError) as error:
        raise DamagedFile(path) from error
