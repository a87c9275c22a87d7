"""Small tokenizers trained on the training data, for models that start from random weights.

Four kinds, in the manner of the models they serve. Training gives the same tokenizer on every machine, which
the library's trainers do not do by themselves: they break ties in the order of a randomly seeded hash table.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from qa_core.errors import ConfigError, unknown

BERT_SPECIALS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
# GPT-2's pattern of words, with marks beside letters: a mark then shares no token with the punctuation behind it.
BYTES_WORD = r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
SCORE_DIGITS = 6  # the last ones may differ between machines


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
    frequent, rare = _split_alphabet(texts, vocab_size // 8)
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
    """Take the pieces of a byte-pair encoding and score each by the logarithm of its share of the tokens.

    The library's own Unigram trainer differs from run to run, and it misses the frequent words of a small
    corpus: it looks for pieces among distinct words, where "the" counts once.
    """
    specials = ["<pad>", "</s>", "<unk>"]
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    texts = [normalizer.normalize_str(text) for text in texts]
    _, rare = _split_alphabet(texts, vocab_size // 4)
    texts = [text.translate(rare) for text in texts]
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = _metaspace_words()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=specials, show_progress=False)
    pairs.train_from_iterator(texts, trainer)
    counts = Counter(token for encoding in pairs.encode_batch_fast(texts) for token in encoding.tokens)
    pieces = sorted(pairs.get_vocab().items(), key=lambda item: item[1])
    total = counts.total()
    scored = [
        # Half a count more, for pieces that occur within longer ones only.
        (piece, 0.0 if piece in specials else round(math.log((counts[piece] + 0.5) / total), SCORE_DIGITS))
        for piece, _ in pieces
    ]
    tokenizer = Tokenizer(models.Unigram(scored, specials.index("<unk>"), False))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = _metaspace_words()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(specials)
    return tokenizer


def _metaspace_words() -> pre_tokenizers.PreTokenizer:
    """Words with the space before them; punctuation alone, so that no answer shares a token with it."""
    return pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])


def _split_alphabet(texts: list[str], size: int) -> tuple[list[str], dict[int, str]]:
    """Return the most frequent characters, and a translation of all others to spaces."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    visible = [character for character in counts if not character.isspace()]
    frequent = sorted(visible, key=lambda character: (-counts[character], character))[:size]
    return frequent, {ord(character): " " for character in set(visible) - set(frequent)}


def _train_bytes(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(BYTES_WORD), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
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
