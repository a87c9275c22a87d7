"""How tokens become windows: chunks of the paragraph, question and chunk side by side, labels and targets.

Pure computation on `encoding.EncodedTable`. The cache file and the reading side are in `windows.py`.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from qa_core.data.encoding import EncodedTable
from qa_core.data.layout import WindowLayout
from qa_core.errors import ConfigError

OUTSIDE = -1  # character offset of a token that is not of the context
SCHEMA = pa.schema(
    [
        ("token_ids", pa.large_list(pa.int32())),
        ("char_starts", pa.large_list(pa.int32())),
        ("char_ends", pa.large_list(pa.int32())),
        ("segments", pa.large_list(pa.int8())),
        ("question_index", pa.int32()),
        ("null_positions", pa.int32()),
        ("start_positions", pa.int32()),
        ("end_positions", pa.int32()),
        ("has_answer", pa.uint8()),  # Arrow packs booleans into bits, which cannot be mapped
        ("target_ids", pa.large_list(pa.int32())),
    ]
)


@dataclass(frozen=True)
class WindowLengths:
    """Lengths in tokens: of a whole window, of the overlap of neighbours, and of the question at most."""

    max_length: int
    stride: int
    max_question_length: int


@dataclass(frozen=True)
class _Plan:
    """Where everything goes. W windows; all token counts.

    Args:
        question_index: [W] the question of each window.
        chunk_starts, chunk_ends: [W] the chunk within its paragraph, end exclusive.
        starts: [W + 1] each window's first place in the flat arrays.
        context_offsets: [W] where the chunk begins within its window.
    """

    question_index: np.ndarray
    chunk_starts: np.ndarray
    chunk_ends: np.ndarray
    starts: np.ndarray
    context_offsets: np.ndarray


def check_room(layout: WindowLayout, lengths: WindowLengths) -> None:
    """Refuse lengths that leave no more context in a window than neighbours share; raises ConfigError."""
    own = _own_tokens(layout)
    room = lengths.max_length - lengths.max_question_length - own
    if room <= lengths.stride:
        raise ConfigError(
            f"data.max_length: found {lengths.max_length}, which after {lengths.max_question_length} "
            f"question tokens and {own} tokens of the layout leaves {max(room, 0)} for the context; allowed: "
            f"lengths that leave more than data.stride, which is {lengths.stride}"
        )


def lay_out(encoded: EncodedTable, layout: WindowLayout, lengths: WindowLengths) -> pa.RecordBatch:
    """Return all windows of a table as one record batch of `SCHEMA`, questions in order."""
    plan = _plan(encoded, layout, lengths)
    answer_starts, answer_ends = (
        positions[plan.question_index] for positions in (encoded.answer_starts, encoded.answer_ends)
    )
    is_inside = (answer_starts >= plan.chunk_starts) & (answer_ends <= plan.chunk_ends)
    has_answer = is_inside & (answer_ends > answer_starts)
    nulls = np.zeros_like(plan.question_index) if layout.null_at == "first" else np.diff(plan.starts) - 1
    shift = plan.context_offsets - plan.chunk_starts  # from the paragraph's tokens to the window's
    targets, target_starts = _targets(encoded, plan.question_index, has_answer)
    columns = [
        *(_list_array(plan.starts, values) for values in _tokens(encoded, layout, plan)),
        plan.question_index.astype(np.int32),
        nulls.astype(np.int32),
        np.where(has_answer, answer_starts + shift, nulls).astype(np.int32),
        np.where(has_answer, answer_ends - 1 + shift, nulls).astype(np.int32),
        has_answer.astype(np.uint8),
        _list_array(target_starts, targets),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def _own_tokens(layout: WindowLayout) -> int:
    return len(layout.prefix) + len(layout.middle) + len(layout.suffix)


def _plan(encoded: EncodedTable, layout: WindowLayout, lengths: WindowLengths) -> _Plan:
    """Cut paragraphs into chunks.

    A chunk begins `stride` tokens before the end of the one before it; the first that reaches the end is the
    last.
    """
    context_lengths = encoded.contexts.lengths[encoded.context_index]  # [questions]
    room = lengths.max_length - _own_tokens(layout) - encoded.questions.lengths  # [questions]
    step = room - lengths.stride
    counts = 1 + np.maximum(0, -(-(context_lengths - room) // step))
    question_index = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(counts.sum()) - np.repeat(
        _bounds(counts)[:-1], counts
    )  # 0, 1, ... within each question
    chunk_starts = number * step[question_index]
    chunk_ends = np.minimum(chunk_starts + room[question_index], context_lengths[question_index])
    question_lengths = encoded.questions.lengths[question_index]
    before = len(layout.prefix) + (len(layout.middle) + question_lengths if layout.question_first else 0)
    return _Plan(
        question_index=question_index,
        chunk_starts=chunk_starts,
        chunk_ends=chunk_ends,
        starts=_bounds(_own_tokens(layout) + question_lengths + chunk_ends - chunk_starts),
        context_offsets=np.broadcast_to(before, question_index.shape),
    )


def _tokens(
    encoded: EncodedTable, layout: WindowLayout, plan: _Plan
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return flat token ids, first characters, end characters and segments of all windows."""
    total = plan.starts[-1]
    token_ids = np.empty(total, dtype=np.int32)
    char_starts = np.full(total, OUTSIDE, dtype=np.int32)
    char_ends = np.full(total, OUTSIDE, dtype=np.int32)
    segments = np.zeros(total, dtype=np.int8)
    prefix, middle, suffix = (
        np.array(part, np.int32) for part in (layout.prefix, layout.middle, layout.suffix)
    )
    paragraph_starts = encoded.contexts.starts[encoded.context_index[plan.question_index]]
    windows = zip(
        plan.question_index.tolist(),
        plan.starts[:-1].tolist(),
        plan.starts[1:].tolist(),
        (plan.starts[:-1] + plan.context_offsets).tolist(),
        (paragraph_starts + plan.chunk_starts).tolist(),
        (paragraph_starts + plan.chunk_ends).tolist(),
        strict=True,
    )
    for question, start, end, context_start, chunk_start, chunk_end in windows:
        chunk = slice(chunk_start, chunk_end)
        question_ids, context_ids = encoded.questions[question], encoded.contexts.token_ids[chunk]
        first, second = (question_ids, context_ids) if layout.question_first else (context_ids, question_ids)
        np.concatenate((prefix, first, middle, second, suffix), out=token_ids[start:end])
        context_end = context_start + chunk_end - chunk_start
        char_starts[context_start:context_end] = encoded.char_starts[chunk]
        char_ends[context_start:context_end] = encoded.char_ends[chunk]
        segments[context_start : end if layout.question_first else context_end] = 1
    return token_ids, char_starts, char_ends, segments


def _targets(
    encoded: EncodedTable, question_index: np.ndarray, has_answer: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return flat targets and their bounds [W + 1]; all empty for a layout without targets."""
    if encoded.targets is None:
        return np.empty(0, np.int32), np.zeros(len(question_index) + 1, np.int64)
    null_target = len(encoded.targets.lengths) - 1
    chosen = np.where(has_answer, question_index, null_target)
    pieces = [encoded.targets[index] for index in chosen.tolist()]
    return np.concatenate(pieces), _bounds(encoded.targets.lengths[chosen])


def _bounds(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _list_array(starts: np.ndarray, values: np.ndarray) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array(starts), pa.array(values))
