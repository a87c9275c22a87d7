"""Vectors of words: a table with a row for each word, or means of vectors that words share by their spelling.

A table starts from random numbers or from a file (`qa_core/data/vectors.py`). Subword vectors follow Bojanowski et
al. 2017, arXiv 1607.04606, section 3.2: a word is the set of its character n-grams with boundary marks, hashed into
buckets. They help rare words of the vocabulary; a word outside it has lost its spelling before it comes here.

Dimensions: V vocabulary, B batch, L tokens, U distinct tokens of a batch, G n-grams of the longest word, E width.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qa_core.data.vectors import FoundVectors

SHORTEST, LONGEST = 3, 6  # characters of an n-gram, boundary marks included
GRAMS_AT_MOST = 64  # of a word: all up to 17 letters; a longer one keeps the first and the last half of these
FNV_OFFSET, FNV_PRIME = 2166136261, 16777619


@dataclass(frozen=True)
class EmbeddingConfig:
    """Sizes of the word vectors; all plain values."""

    vocab_size: int
    pad_id: int
    size: int
    is_trained: bool
    buckets: int | None = None  # of the n-grams' table; None: a row for each word
    grams: int | None = None  # n-grams of the word that has most; None without buckets


class HashedEmbedding(nn.Module):
    """The mean of a word's n-gram vectors; words without n-grams, such as padding, are zero.

    Which buckets belong to which word is a buffer and ships with the weights: no spelling is needed to read them.
    """

    grams: Tensor

    def __init__(self, config: EmbeddingConfig) -> None:
        super().__init__()
        assert config.buckets is not None
        assert config.grams is not None
        self.buckets = config.buckets
        # One more row, always zero, pads the lists of n-grams.
        self.table = nn.Embedding(config.buckets + 1, config.size, padding_idx=config.buckets)
        self.register_buffer(
            "grams", torch.full((config.vocab_size, config.grams), config.buckets, dtype=torch.int32)
        )

    def forward(self, token_ids: Tensor) -> Tensor:
        """Return vectors [B, L, E] of token ids [B, L]; each distinct word is computed once."""
        words, places = _distinct(token_ids, len(self.grams))
        grams = F.embedding(words, self.grams)  # [U, G]
        counts = (grams != self.buckets).sum(dim=1, keepdim=True).clamp(min=1)
        means = self.table(grams).sum(dim=1) / counts  # [U, E]
        return F.embedding(places, means)


def make_embedding(config: EmbeddingConfig) -> nn.Module:
    """Build the module from token ids [B, L] to vectors [B, L, E], random; a `HashedEmbedding` lacks its n-grams."""
    module: nn.Module
    if config.buckets is None:
        module = nn.Embedding(config.vocab_size, config.size, padding_idx=config.pad_id)
    else:
        module = HashedEmbedding(config)
    return module.requires_grad_(config.is_trained)


def write_vectors(embedding: nn.Embedding, found: FoundVectors) -> None:
    """Overwrite the rows of the words that a file holds; the others keep their random vectors, scaled to match."""
    vectors = torch.from_numpy(found.vectors)
    with torch.no_grad():
        if len(vectors):
            embedding.weight.mul_(vectors.std() / embedding.weight.std())
        embedding.weight[torch.from_numpy(found.places)] = vectors


def write_grams(embedding: HashedEmbedding, lists: Sequence[Sequence[int]]) -> None:
    """Tell a `HashedEmbedding` the buckets of each word, in the order of the token ids."""
    rows = np.full(tuple(embedding.grams.shape), embedding.buckets, np.int32)
    for row, grams in zip(rows, lists, strict=True):
        row[: len(grams)] = grams
    embedding.grams.copy_(torch.from_numpy(rows))


def vocabulary_grams(words: Sequence[str], *, special: Collection[str], buckets: int) -> list[list[int]]:
    """Return the buckets of each word; a special token is one whole and has a single one.

    Args:
        words: the vocabulary by token id.
        special: names that are no words, such as "[SEP]".
        buckets: their number.
    """
    return [[fnv1a(word) % buckets] if word in special else word_grams(word, buckets) for word in words]


def word_grams(word: str, buckets: int) -> list[int]:
    """Return the buckets of the n-grams of `<word>`, from left to right, and of `<word>` itself, last.

    An n-gram that occurs twice counts twice, as in fastText. fastText keeps a row of its own for each whole word of
    its training vocabulary; here the whole word is hashed like the rest.
    """
    marked = f"<{word}>"
    found = []
    for start in range(len(marked)):
        hashed = FNV_OFFSET
        for end in range(start + 1, min(start + LONGEST, len(marked)) + 1):
            hashed = fnv1a(marked[end - 1], hashed)
            if end - start >= SHORTEST and end - start < len(marked):
                found.append(hashed % buckets)
    found.append(fnv1a(marked) % buckets)
    half = GRAMS_AT_MOST // 2
    return found if len(found) <= GRAMS_AT_MOST else found[:half] + found[-half:]


def fnv1a(text: str, state: int = FNV_OFFSET) -> int:
    """Return the 32-bit FNV-1a hash of a text's UTF-8 bytes, as fastText computes it.

    Its bytes are signed: one above 127 is widened with ones before it is mixed in, which the original FNV-1a does
    not do.

    Args:
        state: of the text before this one.
    """
    for byte in text.encode("utf-8"):
        widened = byte if byte < 128 else byte | 0xFFFFFF00
        state = (state ^ widened) * FNV_PRIME & 0xFFFFFFFF
    return state


def _distinct(token_ids: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Return the distinct ids, rising, [U], and the place of each token's among them, in the shape of the tokens.

    `torch.unique` would do, but the size of its result cannot be predicted on meta tensors; that of a sum can.
    """
    flat = token_ids.flatten()
    is_present = torch.zeros(vocab_size, dtype=torch.long, device=flat.device).scatter(0, flat, 1)
    places = (is_present.cumsum(0) - 1)[flat]
    words = torch.zeros(int(is_present.sum()), dtype=torch.long, device=flat.device).scatter(0, places, flat)
    return words, places.view(token_ids.shape)
