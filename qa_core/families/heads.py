"""Heads as objects: how a network with one body reads spans or writes text.

A family that has both composes them: its `readers` name one class for each head, and `HeadedFamily` asks the one that
the recipe names. What differs between families, such as layout and body, is in subclasses beside the family.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from qa_core.config import ModelConfig
from qa_core.data.layout import Prompting, WindowLayout
from qa_core.families.base import Batch, Block, Family, GeneratedAnswer

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

Owner = TypeVar("Owner", bound="HeadedFamily")


class Head(ABC, Generic[Owner]):
    """One way of answering, of one family; see `Family` for what its methods return."""

    def __init__(self, family: Owner) -> None:
        self.family = family

    @abstractmethod
    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return how windows are laid out."""

    @abstractmethod
    def body_class(self) -> Any:
        """Return the class of transformers that the network is, or has as its body."""

    @abstractmethod
    def complete(self, body: Any) -> "nn.Module":
        """Return the network of a body; torch draws what is new in it."""

    @abstractmethod
    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the layers of the body."""

    def plain_class(self, model: "nn.Module") -> str | None:
        """Return the class of transformers that the network is; None, as here: the head is this project's own."""
        return None


class SpanHead(Head[Owner]):
    """Reads start and end logits off the states of a body; the network is a `SpanReader`."""

    def span_logits(self, model: "nn.Module", batch: Batch) -> tuple["Tensor", "Tensor"]:
        """Return masked start and end logits, each [B, L] float32."""
        from qa_core.models.span_heads import mask_span_logits

        start_logits, end_logits = model(batch["input_ids"], attention_mask=batch["attention_mask"])
        start_logits = mask_span_logits(start_logits, batch["span_mask"])
        return start_logits, mask_span_logits(end_logits, batch["span_mask"])


class TextHead(Head[Owner]):
    """Writes the answer token by token; the network is the body itself."""

    def complete(self, body: Any) -> "nn.Module":
        """Return the body."""
        return body

    def plain_class(self, model: "nn.Module") -> str | None:
        """Return the class of the body."""
        return str(self.body_class().__name__)

    @abstractmethod
    def target_logits(self, model: "nn.Module", batch: Batch) -> "Tensor":
        """Return [B, T, V], in which [:, t] predicts `target_ids[:, t]`."""

    @abstractmethod
    def generate(
        self,
        model: "nn.Module",
        batch: Batch,
        tokenizer: "PreTrainedTokenizerFast",
        *,
        max_new_tokens: int,
        min_new_tokens: int,
    ) -> list[GeneratedAnswer]:
        """Return greedy answers; they and the text that means "no answer" are scored by a second pass."""


class HeadedFamily(Family):
    """A family whose head the recipe chooses."""

    readers: ClassVar[Mapping[str, type[Head[Any]]]]  # by the head's name

    def __init__(self, model: ModelConfig, prompting: Prompting | None = None) -> None:
        """Check the recipe; see `Family`."""
        super().__init__(model, prompting)
        self.reader = self.readers[self.head](self)

    def default_head(self) -> str:
        """Return `span` for presets and networks of this package, which are too small to write, else `generate`."""
        return "span" if self.is_preset or self.is_shipped else "generate"

    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return the layout of the head."""
        return self.reader.layout(tokenizer)

    def logits(self, model: "nn.Module", batch: Batch) -> tuple["Tensor", ...]:
        """Return start and end logits, or the logits of the target tokens."""
        if isinstance(self.reader, TextHead):
            return (self.reader.target_logits(model, batch),)
        return super().logits(model, batch)

    def loss(self, model: "nn.Module", batch: Batch, logits: "tuple[Tensor, ...] | None" = None) -> "Tensor":
        """Return the span loss, or the mean over windows of the loss per target token."""
        if isinstance(self.reader, TextHead):
            from qa_core.models.target_scores import target_loss

            (target_logits,) = logits or self.logits(model, batch)
            return target_loss(target_logits, batch["target_ids"])
        return super().loss(model, batch, logits)

    def span_logits(self, model: "nn.Module", batch: Batch) -> tuple["Tensor", "Tensor"]:
        """Return masked start and end logits, each [B, L] float32; only for the head `span`."""
        if isinstance(self.reader, SpanHead):
            return self.reader.span_logits(model, batch)
        return super().span_logits(model, batch)

    def generate(
        self,
        model: "nn.Module",
        batch: Batch,
        tokenizer: "PreTrainedTokenizerFast",
        *,
        max_new_tokens: int,
        min_new_tokens: int = 0,
    ) -> list[GeneratedAnswer]:
        """Return one answer for each window of the batch; only for the head `generate`."""
        if isinstance(self.reader, TextHead):
            return self.reader.generate(
                model, batch, tokenizer, max_new_tokens=max_new_tokens, min_new_tokens=min_new_tokens
            )
        return super().generate(model, batch, tokenizer, max_new_tokens=max_new_tokens)

    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the layers of the body."""
        return self.reader.blocks(model)

    def plain_class(self, model: "nn.Module") -> str | None:
        """Return the class of transformers that the network is; None where the head is this project's own."""
        return self.reader.plain_class(model)
