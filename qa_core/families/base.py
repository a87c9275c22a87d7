"""What a family is: how one kind of model reads a question.

A family builds the network, says how its windows are laid out, gives the loss and the answers, and states its traits.
It does not train, score or store: `train.py`, `evaluate.py` and `artifact.py` do, through these methods alone.

Dimensions: B batch, L tokens of the longest window in the batch, T tokens of the longest target, V vocabulary.

A batch is a dict of tensors made by `qa_core.data.batches.collate`:
    input_ids        [B, L] int64, right-padded
    attention_mask   [B, L] int64, 1 on tokens, 0 on padding
    token_type_ids   [B, L] int64, 0 on the question side, 1 on the context side
    span_mask        [B, L] bool, True where an answer may start or end: context tokens and the null position
    null_positions   [B] int64, where "no answer" points
    start_positions  [B] int64, gold first token (the null position when the window holds no answer)
    end_positions    [B] int64, gold last token, inclusive
    target_ids       [B, T] int64, answer text and end token, padded with -100; only for generating heads
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from qa_core.config import ModelConfig, from_dict
from qa_core.errors import ConfigError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

Batch = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class NoOptions:
    """Options of a family or method that has none."""


@dataclass(frozen=True)
class WindowLayout:
    """How question and a chunk of context become one token sequence.

    `prefix + question + middle + context + suffix`, or context before question when `question_first` is False.
    With `null_text`, each window also gets a target: the answer's tokens, or those of `null_text` when the window
    holds no answer, then `target_end`.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    null_at: str  # "first" or "last": the token that stands for "no answer"
    question_first: bool = True
    null_text: str | None = None
    target_end: tuple[int, ...] = ()


@dataclass(frozen=True)
class GeneratedAnswer:
    """One generated answer. Log-probabilities are sums over the answer's tokens and its end token, natural log."""

    text: str  # "" when the model said that there is no answer
    log_probability: float
    null_log_probability: float  # of the text that means "no answer"


class Family(ABC):
    """One kind of model. Subclasses import torch and transformers inside their methods only."""

    name: ClassVar[str]
    heads: ClassVar[tuple[str, ...]]
    base_traits: ClassVar[frozenset[str]]
    tokenizer_kind: ClassVar[
        str
    ]  # trained on the data when the checkpoint brings none: wordpiece, unigram, bytes, word
    presets: ClassVar[Mapping[str, Mapping[str, int]]]  # named tiny configurations, trained from scratch
    head_modules: tuple[str, ...] = ("qa_outputs",)  # trained in full beside any adapter
    Options: ClassVar[type] = NoOptions

    def __init__(self, model: ModelConfig) -> None:
        """Check the head and the options.

        Raises:
            ConfigError: the family has no such head, or an option is unknown.
        """
        self.model = model
        self.options: Any = from_dict(self.Options, model.options, path="model.options")
        self.head = model.head or self.default_head()
        if self.head not in self.heads:
            raise ConfigError(f"model.head: family {self.name!r}: {unknown('head', self.head, self.heads)}")

    @property
    def is_preset(self) -> bool:
        """True when the checkpoint is one of the named tiny configurations, trained from scratch."""
        return self.model.checkpoint in self.presets

    @property
    def traits(self) -> frozenset[str]:
        """What methods may rely on, given head and checkpoint."""
        head_trait = {"span": "span_output", "generate": "generates"}[self.head]
        extra = set() if self.is_preset else {"pretrained"}
        return self.base_traits | {head_trait} | extra

    def default_head(self) -> str:
        """Return the head used when the recipe names none."""
        return self.heads[0]

    @abstractmethod
    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return how windows are laid out for this tokenizer and head."""

    @abstractmethod
    def build(self, tokenizer: "PreTrainedTokenizerFast") -> "nn.Module":
        """Build the network in float32: weights of the checkpoint, or random ones for a preset.

        Raises:
            ConfigError: the checkpoint is neither a preset, a folder nor a name that the hub knows.
        """

    @abstractmethod
    def architecture(self, model: "nn.Module") -> dict[str, Any]:
        """Return, as JSON values, what `restore` needs to build the same network without its weights."""

    @abstractmethod
    def restore(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """Build the network of an artifact, weights uninitialised; `artifact.load` fills them in."""

    def logits(self, model: "nn.Module", batch: Batch) -> tuple["Tensor", ...]:
        """Return what the loss is made of, and what distillation compares: all logits of one forward pass.

        Span heads, as here: start and end logits, see `span_logits`. Generating heads: one tensor [B, T, V], in which
        [:, t] predicts `target_ids[:, t]`.
        """
        return self.span_logits(model, batch)

    def loss(self, model: "nn.Module", batch: Batch, logits: "tuple[Tensor, ...] | None" = None) -> "Tensor":
        """Return the mean loss over the windows of the batch, a scalar.

        For span heads, as here: the mean of start and end cross-entropy over the allowed positions.

        Args:
            logits: of this model and batch, from `logits`; None to compute them.
        """
        from qa_core.models.span_heads import span_loss

        start_logits, end_logits = logits or self.logits(model, batch)
        positions = {name: batch[name] for name in ("start_positions", "end_positions")}
        return span_loss(start_logits, end_logits, **positions)

    def span_logits(self, model: "nn.Module", batch: Batch) -> tuple["Tensor", "Tensor"]:
        """Return start and end logits, each [B, L] float32, the dtype's minimum where `span_mask` is False."""
        raise ConfigError(f"family {self.name!r} with head {self.head!r} has no span logits")

    def generate(
        self, model: "nn.Module", batch: Batch, tokenizer: "PreTrainedTokenizerFast", *, max_new_tokens: int
    ) -> list[GeneratedAnswer]:
        """Return one answer for each window of the batch; only for the head `generate`."""
        raise ConfigError(f"family {self.name!r} with head {self.head!r} does not generate")

    @abstractmethod
    def adapter_targets(self) -> Mapping[str, tuple[str, ...]]:
        """Return named sets of Linear module suffixes for adapters: at least `attention` and `all_linear`.

        Empty when the body has no Linear layers (the family then lacks the trait `linear_layers`).
        """

    def is_decay_free(self, name: str, shape: tuple[int, ...]) -> bool:
        """Tell whether weight decay must leave this parameter alone; default: biases and norms."""
        return len(shape) < 2

    def enable_gradient_checkpointing(self, model: "nn.Module") -> None:
        """Trade compute for memory in training.

        Raises:
            ConfigError: the family cannot.
        """
        enable = getattr(model, "gradient_checkpointing_enable", None)
        if enable is None:
            raise ConfigError(f"train.gradient_checkpointing: family {self.name!r} does not support it")
        enable()
