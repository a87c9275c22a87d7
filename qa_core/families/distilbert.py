"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108) as a span reader: "no answer" points at [CLS].

Its embeddings know no token types: question and context are told apart by [SEP] alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from qa_core.data.layout import WindowLayout
from qa_core.families.base import NOTHING, Batch, Block, Family, Found, LinearRoles
from qa_core.values import Setting

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class DistilBertOptions:
    """Options of `distilbert`."""

    from_bert: Annotated[
        bool,
        Setting("true: the checkpoint is a BERT, whose row 0 of token types is folded into the positions."),
    ] = False


class DistilBert(Family):
    """Start and end logits from a linear layer on DistilBERT's last hidden states."""

    name = "distilbert"
    heads = ("span",)
    base_traits = frozenset({"linear_layers", "attention", "encoder"})
    tokenizer_kind = "wordpiece"
    presets: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "micro": {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 128},
        "tiny": {"dim": 128, "n_layers": 2, "n_heads": 4, "hidden_dim": 256},
        "mini": {"dim": 192, "n_layers": 3, "n_heads": 6, "hidden_dim": 512},
    }

    Options = DistilBertOptions

    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return `[CLS] question [SEP] context [SEP]`."""
        from qa_core.models.tokens import cls_sep_layout

        return cls_sep_layout(tokenizer, family=self.name)

    def build(self, tokenizer: "PreTrainedTokenizerFast", found: Found = NOTHING) -> "nn.Module":
        """Build the network; see `Family.build`."""
        from transformers import DistilBertConfig, DistilBertForQuestionAnswering

        from qa_core.models.bert_as_distilbert import load_bert_as_distilbert
        from qa_core.models.pretrained import check_vocabulary, load_pretrained

        settings: dict[str, Any] = {
            "num_labels": 2,  # start and end; a checkpoint of a classifier may say otherwise
            "dropout": self.model.dropout,
            "qa_dropout": self.model.dropout,
            "attention_dropout": self.model.attention_dropout,
        }
        if self.is_preset:
            sizes = self.presets[self.model.checkpoint]
            settings |= {**sizes, "initializer_range": sizes["dim"] ** -0.5}  # for the reason, see `bert.py`
            config = DistilBertConfig(
                vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **settings
            )
            return DistilBertForQuestionAnswering(config)
        if self.options.from_bert:
            converted = load_bert_as_distilbert(
                self.place_of(self.model.checkpoint), presets=self.known_checkpoints, settings=settings
            )
            check_vocabulary(converted, tokenizer, self.model.checkpoint)
            return converted
        model = load_pretrained(
            DistilBertForQuestionAnswering,
            self.place_of(self.model.checkpoint),
            presets=self.known_checkpoints,
            config_changes=settings,
            new_modules=self.head_modules,
        )
        check_vocabulary(model, tokenizer, self.model.checkpoint)
        return model

    def architecture(self, model: "nn.Module") -> dict[str, Any]:
        """Return the configuration of transformers."""
        from qa_core.models.pretrained import config_as_json

        return config_as_json(model.config)  # type: ignore[arg-type]

    def plain_class(self, model: "nn.Module") -> str | None:
        """Return the reader of spans of transformers."""
        return "DistilBertForQuestionAnswering"

    def restore(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """Build the network from its configuration."""
        from transformers import DistilBertForQuestionAnswering

        from qa_core.models.pretrained import build_uninitialised

        return build_uninitialised(DistilBertForQuestionAnswering, architecture)

    def span_logits(self, model: "nn.Module", batch: Batch) -> tuple["Tensor", "Tensor"]:
        """Return masked start and end logits, each [B, L] float32."""
        from qa_core.models.pretrained import check_positions
        from qa_core.models.span_heads import mask_span_logits

        check_positions(batch["input_ids"].shape[1], model.config)  # type: ignore[arg-type]
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        start_logits = mask_span_logits(output.start_logits, batch["span_mask"])
        return start_logits, mask_span_logits(output.end_logits, batch["span_mask"])

    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the encoder's layers."""
        network: Any = model
        return [Block(layer, "window", network.config.dim) for layer in network.distilbert.transformer.layer]

    def adapter_targets(self, model: "nn.Module") -> Mapping[str, tuple[str, ...]]:
        """Return `attention` (query and value, as in the LoRA paper) and every Linear layer of the body."""
        return {
            "attention": ("q_lin", "v_lin"),
            "attention_all": ("q_lin", "k_lin", "v_lin", "out_lin"),
            "all_linear": ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
        }

    def linear_roles(self, model: "nn.Module") -> LinearRoles:
        """Return the parts of attention and feed-forward."""
        return LinearRoles(
            queries=("q_lin",),
            keys=("k_lin",),
            values=("v_lin",),
            attention_outputs=("out_lin",),
            feed_forward_in=("lin1",),
            feed_forward_out=("lin2",),
        )
