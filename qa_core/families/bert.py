"""BERT as a span reader: Devlin et al. 2018, arXiv 1810.04805, sections 4.2 and 4.3.

"No answer" points at [CLS]. The head is a new linear layer, or two rows of the checkpoint's language-model decoder: see
`qa_core/models/lm_rows.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from qa_core.config import ModelConfig
from qa_core.data.layout import Prompting, WindowLayout
from qa_core.families.base import NOTHING, Batch, Block, Family, Found, LinearRoles
from qa_core.values import Setting, check_ranges

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast


SPAN_HEADS = ("linear", "lm_rows")


@dataclass(frozen=True)
class BertOptions:
    """Options of `bert`."""

    span_head: Annotated[
        str,
        Setting(
            "linear: a new layer, trained in full. lm_rows: two rows of the language model's decoder, which adapters "
            "and masks leave frozen.",
            allowed=SPAN_HEADS,
        ),
    ] = "linear"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self, "model.options")


def _sizes(*, width: int, layers: int, heads: int, feed_forward: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward,
    }


class Bert(Family):
    """Start and end logits from a linear layer on BERT's last hidden states."""

    name = "bert"
    heads = ("span",)
    base_traits = frozenset({"linear_layers", "attention", "encoder"})
    tokenizer_kind = "wordpiece"
    tokenizer_outputs = ("input_ids", "token_type_ids", "attention_mask")
    presets: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "micro": _sizes(width=64, layers=2, heads=2, feed_forward=128),
        "tiny": _sizes(width=128, layers=2, heads=4, feed_forward=256),
        "mini": _sizes(width=192, layers=3, heads=6, feed_forward=512),
    }
    Options = BertOptions

    def __init__(self, model: ModelConfig, prompting: Prompting | None = None) -> None:
        """Check the recipe; see `Family`."""
        super().__init__(model, prompting)
        if self.options.span_head == "lm_rows":
            self.head_modules = ()

    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return `[CLS] question [SEP] context [SEP]`."""
        from qa_core.models.tokens import cls_sep_layout

        return cls_sep_layout(tokenizer, family=self.name)

    def build(self, tokenizer: "PreTrainedTokenizerFast", found: Found = NOTHING) -> "nn.Module":
        """Build the network; see `Family.build`."""
        from transformers import BertConfig, BertForMaskedLM, BertForQuestionAnswering

        from qa_core.models.lm_rows import random_reader, reader_of_language_model
        from qa_core.models.pretrained import check_vocabulary, load_pretrained

        reads_rows = self.options.span_head == "lm_rows"
        settings: dict[str, Any] = {
            "num_labels": 2,  # start and end; a checkpoint of a classifier may say otherwise
            "hidden_dropout_prob": self.model.dropout,
            "attention_probs_dropout_prob": self.model.attention_dropout,
        }
        if self.is_preset:
            sizes = self.presets[self.model.checkpoint]
            # The usual 0.02 suits a width of 768. At a width of 64, 40,000 windows of varied generated questions
            # gave an exact match of 37 % with it and of 56 % with this (one seed, no dropout).
            settings |= {**sizes, "initializer_range": sizes["hidden_size"] ** -0.5}
            config = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **settings)
            return random_reader(config) if reads_rows else BertForQuestionAnswering(config)
        model = load_pretrained(
            BertForMaskedLM if reads_rows else BertForQuestionAnswering,
            self.place_of(self.model.checkpoint),
            presets=self.known_checkpoints,
            config_changes=settings,
            new_modules=self.head_modules,
        )
        check_vocabulary(model, tokenizer, self.model.checkpoint)
        return reader_of_language_model(model, tokenizer) if reads_rows else model

    def architecture(self, model: "nn.Module") -> dict[str, Any]:
        """Return the configuration of transformers, and the head where it is not transformers' own."""
        from qa_core.models.lm_rows import LmRowsHead
        from qa_core.models.pretrained import config_as_json

        reads_rows = isinstance(model.get_submodule("qa_outputs"), LmRowsHead)
        config = config_as_json(model.config)  # type: ignore[arg-type]
        return config | ({"span_head": "lm_rows"} if reads_rows else {})

    def plain_class(self, model: "nn.Module") -> str | None:
        """Return the reader of spans of transformers; None with the head `lm_rows`, which it does not have."""
        from qa_core.models.lm_rows import LmRowsHead

        reads_rows = isinstance(model.get_submodule("qa_outputs"), LmRowsHead)
        return None if reads_rows else "BertForQuestionAnswering"

    def restore(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """Build the network from its configuration."""
        from transformers import BertForQuestionAnswering

        from qa_core.models.lm_rows import uninitialised_reader
        from qa_core.models.pretrained import build_uninitialised

        config = {name: value for name, value in architecture.items() if name != "span_head"}
        if "span_head" in architecture:
            return uninitialised_reader(config)
        return build_uninitialised(BertForQuestionAnswering, config)

    def span_logits(self, model: "nn.Module", batch: Batch) -> tuple["Tensor", "Tensor"]:
        """Return masked start and end logits, each [B, L] float32."""
        from qa_core.models.pretrained import check_positions
        from qa_core.models.span_heads import mask_span_logits

        check_positions(batch["input_ids"].shape[1], model.config)  # type: ignore[arg-type]
        output = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            token_type_ids=batch["token_type_ids"],
        )
        start_logits = mask_span_logits(output.start_logits, batch["span_mask"])
        return start_logits, mask_span_logits(output.end_logits, batch["span_mask"])

    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the encoder's layers."""
        network: Any = model
        width = network.config.hidden_size
        return [Block(layer, "window", width) for layer in network.bert.encoder.layer]

    def adapter_targets(self, model: "nn.Module") -> Mapping[str, tuple[str, ...]]:
        """Return `attention` (query and value, as in the LoRA paper) and every Linear layer of the body."""
        return {
            "attention": ("query", "value"),
            "attention_all": ("query", "key", "value", "attention.output.dense"),
            "all_linear": ("query", "key", "value", "output.dense", "intermediate.dense"),
        }

    def linear_roles(self, model: "nn.Module") -> LinearRoles:
        """Return the parts of attention and feed-forward."""
        return LinearRoles(
            queries=("query",),
            keys=("key",),
            values=("value",),
            attention_outputs=("attention.output.dense",),
            feed_forward_in=("intermediate.dense",),
            feed_forward_out=(
                "output.dense",
            ),  # ends the name of the attention's output too, which is longer
        )
