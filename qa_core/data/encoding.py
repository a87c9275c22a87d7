"""Tokens of questions, paragraphs and answers, each text tokenised once; the raw material of `windows.py`.

Offsets are moved here to where answers begin and end (`characters.py`), because byte-level and Unigram tokenizers
count the space before a word as part of its token and others drop marks; gold answers are found among the tokens here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qa_core.data.characters import bare, bare_bounds, bare_offsets
from qa_core.data.foreign_tokenizers import panics_refused
from qa_core.data.layout import WindowLayout
from qa_core.data.table import QaTable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS_AT_ONCE = 1024  # bounds the memory that the tokenizer's own objects take


@dataclass(frozen=True)
class TokenLists:
    """Many token lists in one flat int32 array: list i is `token_ids[starts[i]:starts[i + 1]]`."""

    token_ids: np.ndarray
    starts: np.ndarray

    def __getitem__(self, index: int) -> np.ndarray:
        return self.token_ids[self.starts[index] : self.starts[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each list, [lists] int64."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class EncodedTable:
    """A table in tokens.

    Args:
        questions: tokens of each question, cut to its maximum length.
        contexts: tokens of each distinct paragraph.
        char_starts, char_ends: character offsets of what an answer may be, beside `contexts.token_ids`.
        context_index: the paragraph of each question.
        answer_starts, answer_ends: tokens of each question's first gold answer within its paragraph, end
            exclusive; start equals end where there is none.
        targets: what a generating model shall write for each question and, last, for a window without the
            answer; None without targets.
    """

    questions: TokenLists
    contexts: TokenLists
    char_starts: np.ndarray
    char_ends: np.ndarray
    context_index: np.ndarray
    answer_starts: np.ndarray
    answer_ends: np.ndarray
    targets: TokenLists | None


def encode_table(
    table: QaTable, tokenizer: "PreTrainedTokenizerFast", layout: WindowLayout, *, max_question_length: int
) -> EncodedTable:
    """Tokenise a table, without the tokenizer's own special tokens: the layout places those."""
    questions = [text.lstrip() for text in table.rows.column("question").to_pylist()]
    contexts, char_starts, char_ends = encode_contexts(tokenizer, table.contexts.to_pylist())
    answers = [
        (texts[0], starts[0]) if texts else ("", 0)
        for texts, starts in zip(
            table.rows.column("answer_texts").to_pylist(),
            table.rows.column("answer_starts").to_pylist(),
            strict=True,
        )
    ]
    answer_spans = np.zeros((len(table), 2), np.int64)
    for question, (text, start) in enumerate(answers):
        context = table.context_index[question]
        tokens = slice(contexts.starts[context], contexts.starts[context + 1])
        answer_spans[question] = covering_tokens(char_starts[tokens], char_ends[tokens], text, start)
    return EncodedTable(
        questions=_encode(tokenizer, questions, max_length=max_question_length),
        contexts=contexts,
        char_starts=char_starts,
        char_ends=char_ends,
        context_index=table.context_index,
        answer_starts=answer_spans[:, 0],
        answer_ends=answer_spans[:, 1],
        targets=None
        if layout.null_text is None
        else encode_targets(tokenizer, [text for text, _ in answers], layout),
    )


def encode_contexts(
    tokenizer: "PreTrainedTokenizerFast", texts: list[str]
) -> tuple[TokenLists, np.ndarray, np.ndarray]:
    """Return the tokens of each text and, beside their flat ids, first and end character of what an answer may be."""
    ids: list[np.ndarray] = []
    offsets: list[np.ndarray] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        some = texts[start : start + TEXTS_AT_ONCE]
        batch = _call(tokenizer, some, offsets=True)
        ids.extend(np.array(one, np.int32) for one in batch["input_ids"])
        offsets.extend(
            bare_offsets(text, np.array(one, np.int32).reshape(-1, 2))
            for text, one in zip(some, batch["offset_mapping"], strict=True)
        )
    flat = np.concatenate(offsets)
    return _token_lists(ids), np.ascontiguousarray(flat[:, 0]), np.ascontiguousarray(flat[:, 1])


def encode_targets(
    tokenizer: "PreTrainedTokenizerFast", texts: list[str], layout: WindowLayout
) -> TokenLists:
    """Return what a generating model shall write for each answer and, last, where there is none; ends included.

    A leading space of the null text is put before every answer too.
    """
    assert layout.null_text is not None, "only a generating layout has targets"
    space = layout.null_text[: len(layout.null_text) - len(layout.null_text.lstrip())]
    bare_lists = _encode(tokenizer, [*(space + bare(text) for text in texts), layout.null_text])
    end = np.array(layout.target_end, np.int32)
    return _token_lists([np.concatenate((bare_lists[index], end)) for index in range(len(texts) + 1)])


def covering_tokens(char_starts: np.ndarray, char_ends: np.ndarray, text: str, start: int) -> tuple[int, int]:
    """Return the first token that overlaps the answer and the one after the last; (0, 0) when none does.

    White space and format characters at the answer's ends do not count. None overlaps where the tokenizer dropped all
    its characters.
    """
    first, end = (start + place for place in bare_bounds(text))
    first_token = int(np.searchsorted(char_ends, first, side="right"))
    end_token = int(np.searchsorted(char_starts, end, side="left"))
    return (first_token, end_token) if end > first and end_token > first_token else (0, 0)


def _encode(
    tokenizer: "PreTrainedTokenizerFast", texts: list[str], *, max_length: int | None = None
) -> TokenLists:
    pieces: list[np.ndarray] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        batch = _call(tokenizer, texts[start : start + TEXTS_AT_ONCE], offsets=False)
        pieces.extend(np.array(ids[:max_length], np.int32) for ids in batch["input_ids"])
    return _token_lists(pieces)


def _call(tokenizer: "PreTrainedTokenizerFast", texts: list[str], *, offsets: bool) -> dict[str, list]:
    """Call the tokenizer with everything said: its file may carry truncation and padding of its own."""
    with panics_refused():
        return tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=offsets,
            return_attention_mask=False,
            return_token_type_ids=False,
            truncation=False,
            padding=False,
            verbose=False,
        )


def _token_lists(pieces: list[np.ndarray]) -> TokenLists:
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    return TokenLists(np.concatenate(pieces), np.concatenate(([0], np.cumsum(lengths))))
