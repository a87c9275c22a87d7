"""The special tokens that a family's window layout is built from. Needs no torch."""

from typing import TYPE_CHECKING

from qa_core.data.layout import WindowLayout
from qa_core.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LINE_BREAK = "\u010a"  # how byte-level vocabularies write the byte 10


def special_token_id(tokenizer: "PreTrainedTokenizerFast", role: str, *, family: str) -> int:
    """Return the id of a special token.

    Args:
        role: the tokenizer's attribute without `_token`: "cls", "sep", "eos", "pad", "unk".
        family: whose layout needs it, for the message.

    Raises:
        ConfigError: the tokenizer has no such token.
    """
    token_id = getattr(tokenizer, f"{role}_token_id")
    if token_id is None:
        present = ", ".join(sorted(tokenizer.special_tokens_map)) or "none"
        raise ConfigError(
            f"model.tokenizer: family {family!r} needs a {role} token; this one lacks it (it has: {present})"
        )
    return token_id


def line_break_ids(tokenizer: "PreTrainedTokenizerFast") -> list[int]:
    """Return the tokens of a byte-level vocabulary whose text holds a line break, rising."""
    return sorted(index for piece, index in tokenizer.get_vocab().items() if LINE_BREAK in piece)


def cls_sep_layout(tokenizer: "PreTrainedTokenizerFast", *, family: str) -> WindowLayout:
    """Return the layout `[CLS] question [SEP] context [SEP]`, in which "no answer" points at [CLS].

    Raises:
        ConfigError: the tokenizer lacks one of the two tokens.
    """
    separator = special_token_id(tokenizer, "sep", family=family)
    return WindowLayout(
        prefix=(special_token_id(tokenizer, "cls", family=family),),
        middle=(separator,),
        suffix=(separator,),
        null_at="first",
    )
