"""Small tokenizers trained on the training data, for models that start from random weights.

Four kinds, in the manner of the models they serve. Training gives the same tokenizer on every machine, which
the library's trainers do not do by themselves: they break ties in the order of a randomly seeded hash table.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from qa_core.errors import ConfigError, unknown

BERT_SPECIALS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
SCORE_DIGITS = 6
UNSEEN_STEP = 1e-4  # the Unigram trainer's step between the scores of characters that it had to add


@dataclass(frozen=True)
class TokenizerKind:
    """How to train one kind of tokenizer, and the role of its special tokens; their ids are 0, 1, 2..."""

    train: Callable[[list[str], int], Tokenizer]
    specials: Mapping[str, str]


def train_tokenizer(kind: str, texts: list[str], *, vocab_size: int) -> Tokenizer:
    """Train a tokenizer; the same texts give the same tokenizer, whatever the machine.

    Args:
        kind: `wordpiece` (lower case, as BERT), `unigram` (as T5), `bytes` (byte-level BPE) or `word` (lower
            case).
        texts: what to train on.
        vocab_size: entries wanted, special tokens included. Fewer come out when the texts give no more;
            `bytes` never has fewer than 257, all bytes and the end token.

    Raises:
        ConfigError: there is no such kind.
    """
    return tokenizer_kind(kind).train(texts, vocab_size)


def tokenizer_kind(kind: str) -> TokenizerKind:
    """Return a kind by name; raises ConfigError with the nearest name when there is none."""
    if kind not in KINDS:
        raise ConfigError(unknown("tokenizer kind", kind, KINDS))
    return KINDS[kind]


def wordpiece_tokenizer(vocab: Mapping[str, int], *, lowercase: bool) -> Tokenizer:
    """Build a BERT-like tokenizer from a vocabulary that holds BERT's special tokens."""
    tokenizer = Tokenizer(models.WordPiece(dict(vocab), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _with_bert_pairs(tokenizer)


def _train_wordpiece(texts: list[str], vocab_size: int) -> Tokenizer:
    normalizer = normalizers.BertNormalizer(lowercase=True)
    texts = [normalizer.normalize_str(text) for text in texts]
    specials = [*BERT_SPECIALS.values(), "[MASK]"]
    # The trainer numbers continuations ("##a") in hash order, and its ties go by number. Naming all
    # characters as special tokens fixes the numbers; the final tokenizer is then built from the bare
    # vocabulary.
    counts = Counter(character for text in texts for character in text if not character.isspace())
    frequent = sorted(counts, key=lambda character: (-counts[character], character))[: vocab_size // 8]
    rare = {ord(character): " " for character in counts.keys() - set(frequent)}
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*specials, *frequent, *(f"##{character}" for character in frequent)],
        show_progress=False,
    )
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    scratch.train_from_iterator([text.translate(rare) for text in texts], trainer)
    tokenizer = wordpiece_tokenizer(scratch.get_vocab(), lowercase=True)
    tokenizer.add_special_tokens(specials)
    return tokenizer


def _train_unigram(texts: list[str], vocab_size: int) -> Tokenizer:
    specials = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=specials, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = json.loads(tokenizer.to_str())["model"]["vocab"]
    tokenizer.model = models.Unigram(_settled_scores(trained, len(specials)), specials.index("<unk>"), False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(specials)
    return tokenizer


def _settled_scores(trained: list[list], specials: int) -> list[tuple[str, float]]:
    """Round away the noise of summing in hash order, and order pieces by score, then by text."""
    pieces = [(str(piece), float(score)) for piece, score in trained[specials:]]
    singles = sum(len(piece) == 1 for piece, _ in pieces)
    lowest = min(score for _, score in pieces)
    # Characters that the model dropped come back with scores that rise from the lowest one in hash order.
    settled = [
        (
            piece,
            round(
                lowest if len(piece) == 1 and score < lowest + singles * UNSEEN_STEP else score, SCORE_DIGITS
            ),
        )
        for piece, score in pieces
    ]
    first = [(str(piece), 0.0) for piece, _ in trained[:specials]]
    return first + sorted(settled, key=lambda item: (-item[1], item[0]))


def _train_bytes(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_word(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size, special_tokens=list(BERT_SPECIALS.values()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _with_bert_pairs(tokenizer)


def _with_bert_pairs(tokenizer: Tokenizer) -> Tokenizer:
    specials = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=specials
    )
    return tokenizer


KINDS = {
    "wordpiece": TokenizerKind(_train_wordpiece, {**BERT_SPECIALS, "mask_token": "[MASK]"}),
    "unigram": TokenizerKind(
        _train_unigram, {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    ),
    "bytes": TokenizerKind(_train_bytes, {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}),
    "word": TokenizerKind(_train_word, BERT_SPECIALS),
}
