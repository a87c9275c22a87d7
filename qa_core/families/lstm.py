"""A BiLSTM pointer reader, trained from scratch; the network is in `qa_core/models/lstm.py`.

It differs from the study's four models where those cannot work: attention is masked, each token has its own
logits, gold positions come from character offsets, start and end are decoded together, and "no answer" has a
slot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from qa_core.config import ModelConfig, from_dict, to_dict
from qa_core.errors import ConfigError, unknown
from qa_core.families.base import Batch, Block, Family, WindowLayout

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

ATTENTIONS = ("dot", "none")


@dataclass(frozen=True)
class LstmOptions:
    """Options of `lstm`."""

    attention: str = "dot"  # none: the mean of the question instead
    exact_match: bool = True  # each context token knows whether it occurs in the question

    def __post_init__(self) -> None:
        """Check the names."""
        if self.attention not in ATTENTIONS:
            raise ConfigError(f"model.options.attention: {unknown('attention', self.attention, ATTENTIONS)}")


class Lstm(Family):
    """Start and end logits from a BiLSTM over question and context."""

    name = "lstm"
    heads = ("span",)
    base_traits = frozenset({"recurrent"})
    tokenizer_kind = "word"
    presets: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "micro": {"embedding_size": 48, "hidden_size": 32},
        "tiny": {"embedding_size": 64, "hidden_size": 64},
        "mini": {"embedding_size": 128, "hidden_size": 128},
    }
    Options = LstmOptions

    def __init__(self, model: ModelConfig) -> None:
        """Check the recipe.

        Raises:
            ConfigError: see `Family`; or the checkpoint is no preset.
        """
        super().__init__(model)
        if not self.is_preset:
            found = unknown("preset", model.checkpoint, self.presets)
            raise ConfigError(f"model.checkpoint: family {self.name!r} is trained from scratch: {found}")

    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return `[CLS] question [SEP] context [SEP]`."""
        from qa_core.models.tokens import cls_sep_layout

        return cls_sep_layout(tokenizer, family=self.name)

    def build(self, tokenizer: "PreTrainedTokenizerFast") -> "nn.Module":
        """Build the network with random weights; see `Family.build`."""
        from qa_core.models.lstm import PointerReader, PointerReaderConfig
        from qa_core.models.tokens import special_token_id

        config = PointerReaderConfig(
            vocab_size=len(tokenizer),
            pad_id=special_token_id(tokenizer, "pad", family=self.name),
            unknown_id=special_token_id(tokenizer, "unk", family=self.name),
            attention=self.options.attention == "dot",
            exact_match=self.options.exact_match,
            dropout=self.model.dropout,
            **self.presets[self.model.checkpoint],
        )
        return PointerReader(config)

    def architecture(self, model: "nn.Module") -> dict[str, Any]:
        """Return the sizes and switches of the network."""
        return to_dict(model.config)

    def restore(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """Build the network from its sizes; torch's generator is left as it was."""
        import torch

        from qa_core.models.lstm import PointerReader, PointerReaderConfig

        with torch.random.fork_rng(devices=[]):
            return PointerReader(from_dict(PointerReaderConfig, architecture, path="architecture"))

    def span_logits(self, model: "nn.Module", batch: Batch) -> tuple["Tensor", "Tensor"]:
        """Return masked start and end logits, each [B, L] float32."""
        from qa_core.models.span_heads import mask_span_logits

        names = ("attention_mask", "token_type_ids", "null_positions")
        start_logits, end_logits = model(batch["input_ids"], **{name: batch[name] for name in names})
        start_logits = mask_span_logits(start_logits, batch["span_mask"])
        return start_logits, mask_span_logits(end_logits, batch["span_mask"])

    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the two BiLSTMs; the first reads question and context in turn, and the context's states count."""
        network: Any = model
        width = 2 * network.config.hidden_size
        return [Block(lstm, "context", width) for lstm in (network.reader, network.fusion)]

    def adapter_targets(self) -> Mapping[str, tuple[str, ...]]:
        """Return none: an LSTM's weights are not Linear layers."""
        return {}
