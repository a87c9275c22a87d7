"""What a family is: how one kind of model reads a question.

A family builds the network, says how its windows are laid out, gives the loss and the answers, and states its traits.
It does not train, score or store: `qa_core/training/train.py`, `qa_core/scoring/evaluate.py` and
`qa_core/artifact/artifact.py` do, through these methods alone.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from qa_core.checkpoints import shipped_folder, shipped_names
from qa_core.config import DataConfig, ModelConfig
from qa_core.data.layout import Prompting, WindowLayout
from qa_core.errors import ConfigError, unknown
from qa_core.values import from_dict

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

Batch = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class NoOptions:
    """Options of a family or method that has none."""


@dataclass(frozen=True)
class Block:
    """One layer of a network's body, as distillation of hidden states sees it.

    `tokens` says on which tokens the states stand: "window" [B, L, D]; "context" [B, C, D], the context side of each
    window, right-padded on its own; "target" [B, T, D]; or "window and target" [B, L + T, D], each row's target right
    behind its window.
    """

    module: "nn.Module"  # gives the states, or a tuple that begins with them
    tokens: str
    width: int  # D


@dataclass(frozen=True)
class LinearRoles:
    """What the Linear layers of a body do, as ends of their names; where several match, the longest counts."""

    queries: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    attention_outputs: tuple[str, ...] = ()
    feed_forward_in: tuple[str, ...] = ()
    feed_forward_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class GeneratedAnswer:
    """One generated answer. Log-probabilities are sums over the answer's tokens and its end token, natural log."""

    text: str  # "" when the model said that there is no answer
    log_probability: float
    null_log_probability: float  # of the text that means "no answer"


@dataclass(frozen=True)
class Found:
    """What `Family.prepare` found outside of the recipe.

    Attributes:
        content: what `build` takes from it, of the family's own type; None for nothing.
        facts: for the record, as JSON values, by names of the family's own.
    """

    content: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)


NOTHING = Found()


class Family(ABC):
    """One kind of model: a function of its settings and of how it is prompted; nothing changes it afterwards.

    Subclasses import torch and transformers inside their methods only.
    """

    name: ClassVar[str]
    heads: ClassVar[tuple[str, ...]]
    base_traits: ClassVar[frozenset[str]]
    tokenizer_kind: ClassVar[
        str
    ]  # trained on the data when the checkpoint brings none: wordpiece, unigram, bytes, word
    # What the tokenizer of an artifact returns when others call it on two texts: what the network reads.
    tokenizer_outputs: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    presets: ClassVar[Mapping[str, Mapping[str, int]]]  # named tiny configurations, trained from scratch
    head_modules: tuple[str, ...] = ("qa_outputs",)  # trained in full beside any adapter
    # Ends of the names of Linear layers whose weight the network reads itself: bitsandbytes' cannot take their place.
    weights_read_directly: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type] = NoOptions

    def __init__(self, model: ModelConfig, prompting: Prompting | None = None) -> None:
        """Check the head and the options.

        Args:
            model: of the recipe.
            prompting: how a network that is not trained is shown its task; None: it learns its task by training.

        Raises:
            ConfigError: the family has no such head, or an option is unknown.
        """
        self.model, self.prompting = model, prompting
        self.options: Any = from_dict(self.Options, model.options, path="model.options")
        self.head = model.head or self.default_head()
        if self.head not in self.heads:
            raise ConfigError(f"model.head: family {self.name!r}: {unknown('head', self.head, self.heads)}")

    def with_prompting(self, prompting: Prompting | None) -> Self:
        """Return this family, its network prompted so."""
        return type(self)(self.model, prompting)

    @property
    def is_preset(self) -> bool:
        """True when the checkpoint is one of the named tiny configurations, trained from scratch."""
        return self.model.checkpoint in self.presets

    @property
    def is_shipped(self) -> bool:
        """True when the checkpoint is a pretrained network of this package: see `qa_core/checkpoints`."""
        return shipped_folder(self.name, self.model.checkpoint) is not None

    @property
    def known_checkpoints(self) -> tuple[str, ...]:
        """The names that need neither a folder nor the hub: presets, then networks of this package."""
        return (*self.presets, *shipped_names(self.name))

    def place_of(self, name: str) -> str:
        """Return what to load a checkpoint or tokenizer from: a folder of this package, or the name as it is."""
        return str(shipped_folder(self.name, name) or name)

    @property
    def checkpoint_name(self) -> str | None:
        """The checkpoint as others know it, a hub name or a folder; None for a preset or a network of this package."""
        return None if self.is_preset or self.is_shipped else self.model.checkpoint

    @property
    def traits(self) -> frozenset[str]:
        """What methods may rely on, given head and checkpoint."""
        head_trait = {"span": "span_output", "generate": "generates"}[self.head]
        extra = set() if self.is_preset else {"pretrained"}
        return self.base_traits | {head_trait} | extra

    def reports_index_accuracy(self, model: "nn.Module") -> bool:
        """Tell whether the record shall hold `evaluate.index_accuracy` too, for a study that measured it."""
        return False

    def default_head(self) -> str:
        """Return the head used when the recipe names none."""
        return self.heads[0]

    @abstractmethod
    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return how windows are laid out for this tokenizer and head."""

    def prepare(self, tokenizer: "PreTrainedTokenizerFast", data: DataConfig, *, cache_dir: Path) -> Found:
        """Return what `build` needs beside the tokenizer, and check the lengths of the data; here, nothing.

        Raises:
            ConfigError, DataError: the recipe's lengths do not fit the network, or a file is missing or malformed.
        """
        return NOTHING

    def prompted(self, layout: WindowLayout, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return the layout with the demonstrations of `prompting`, if any, before every window."""
        if self.prompting is None:
            return layout
        from qa_core.data.demonstrations import with_demonstrations

        return with_demonstrations(layout, self.prompting.demonstrations, tokenizer)

    @abstractmethod
    def build(self, tokenizer: "PreTrainedTokenizerFast", found: Found = NOTHING) -> "nn.Module":
        """Build the network in float32: weights of the checkpoint, or random ones for a preset.

        Args:
            tokenizer: whose tokens the network reads.
            found: of `prepare` with the same tokenizer.

        Raises:
            ConfigError: the checkpoint is neither a preset, a network of this package, a folder nor a name that the hub
                knows.
        """

    @abstractmethod
    def architecture(self, model: "nn.Module") -> dict[str, Any]:
        """Return, as JSON values, what `restore` needs to build the same network without its weights."""

    @abstractmethod
    def restore(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """Build the network of an artifact, weights uninitialised; `artifact.load` fills them in."""

    def plain_class(self, model: "nn.Module") -> str | None:
        """Return the name of the class of transformers that this network is; None, as here: transformers has none.

        Of the same weights the class computes the same logits.
        """
        return None

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
        self,
        model: "nn.Module",
        batch: Batch,
        tokenizer: "PreTrainedTokenizerFast",
        *,
        max_new_tokens: int,
        min_new_tokens: int = 0,
    ) -> list[GeneratedAnswer]:
        """Return one answer for each window of the batch; only for the head `generate`.

        Both limits count the tokens of the answer and its end, never the prompt's; the lower one is for measuring.
        """
        raise ConfigError(f"family {self.name!r} with head {self.head!r} does not generate")

    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the layers of the body in the order in which they run, each of which runs in every forward pass.

        Adapters and masks sit inside blocks and leave them where they are. Empty: the network has none to tell.
        """
        return ()

    @abstractmethod
    def adapter_targets(self, model: "nn.Module") -> Mapping[str, tuple[str, ...]]:
        """Return named sets of Linear module suffixes of the network for adapters.

        At least `attention` and `all_linear`; empty when the body has no Linear layers (the family then lacks the trait
        `linear_layers`).
        """

    def linear_roles(self, model: "nn.Module") -> LinearRoles:
        """Return what the Linear layers of the body do; none where there is no attention (trait `attention`)."""
        return LinearRoles()

    def compute_path(self, model: "nn.Module") -> str | None:
        """Name what computes the network where it stands, if the family has several ways; None when it has one."""
        return None

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
