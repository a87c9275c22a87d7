"""T5 (Raffel et al. 2019, arXiv 1910.10683): answers as text, or as spans read off the encoder's states.

Windows are `question </s> context </s>`, without the task words of the original. T5 takes dropout for
attention from the same setting as everything else; here the two are separate, as in the other families.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from qa_core.config import ModelConfig
from qa_core.data.layout import WindowLayout
from qa_core.families.base import Batch, Block, Family, GeneratedAnswer, LinearRoles

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

NULL_TEXT = "unanswerable"


class T5(Family):
    """Head `generate`: the encoder-decoder; head `span`: the encoder and one linear layer."""

    name = "t5"
    heads = ("span", "generate")
    base_traits = frozenset({"linear_layers", "attention", "encoder"})
    tokenizer_kind = "unigram"
    weights_read_directly = ("wo",)  # its input is cast to the dtype of its weight, whatever that is
    presets: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "micro": {"d_model": 64, "num_layers": 2, "num_heads": 2, "d_kv": 32, "d_ff": 128},
        "tiny": {"d_model": 128, "num_layers": 2, "num_heads": 4, "d_kv": 32, "d_ff": 256},
        "mini": {"d_model": 192, "num_layers": 3, "num_heads": 6, "d_kv": 32, "d_ff": 512},
    }

    def __init__(self, model: ModelConfig) -> None:
        """Check the recipe; see `Family`."""
        super().__init__(model)
        self._feed_forward: tuple[str, ...] = (
            "wi",
            "wo",
        )  # of a gated checkpoint: wi_0, wi_1, wo; known once it is built

    def default_head(self) -> str:
        """Return `span` for a preset, which is too small to learn to write, else `generate`."""
        return "span" if self.is_preset else "generate"

    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return `question </s> context </s>`; "no answer" points at the last token."""
        from qa_core.models.tokens import special_token_id

        end = (special_token_id(tokenizer, "eos", family=self.name),)
        layout = WindowLayout(prefix=(), middle=end, suffix=end, null_at="last")
        if self.head == "span":
            return layout
        return self.prompted(replace(layout, null_text=NULL_TEXT, target_end=end), tokenizer)

    def build(self, tokenizer: "PreTrainedTokenizerFast") -> "nn.Module":
        """Build the network; see `Family.build`."""
        from qa_core.models.span_heads import SpanReader, TokenSpanHead

        body = self._build_body(tokenizer)
        self._set_attention_dropout(body)
        if body.config.is_gated_act:
            self._feed_forward = ("wi_0", "wi_1", "wo")
        return SpanReader(body, TokenSpanHead(body.config.d_model)) if self.head == "span" else body

    def architecture(self, model: "nn.Module") -> dict[str, Any]:
        """Return the configuration of transformers."""
        from qa_core.models.pretrained import config_as_json

        return config_as_json(model.config)  # type: ignore[arg-type]

    def restore(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """Build the network from its configuration."""
        import torch

        from qa_core.models.pretrained import build_uninitialised
        from qa_core.models.span_heads import SpanReader, TokenSpanHead

        body = build_uninitialised(self._body_class(), architecture)
        self._set_attention_dropout(body)
        if self.head != "span":
            return body
        with torch.random.fork_rng(devices=[]):
            return SpanReader(body, TokenSpanHead(body.config.d_model))

    def logits(self, model: "nn.Module", batch: Batch) -> tuple["Tensor", ...]:
        """Return start and end logits, or the logits of the target tokens."""
        if self.head == "generate":
            return (self._target_logits(model, batch["target_ids"], batch, encoded=None),)
        return super().logits(model, batch)

    def loss(self, model: "nn.Module", batch: Batch, logits: "tuple[Tensor, ...] | None" = None) -> "Tensor":
        """Return the span loss, or the mean over windows of the loss per target token."""
        if self.head == "generate":
            from qa_core.models.target_scores import target_loss

            (target_logits,) = logits or self.logits(model, batch)
            return target_loss(target_logits, batch["target_ids"])
        return super().loss(model, batch, logits)

    def span_logits(self, model: "nn.Module", batch: Batch) -> tuple["Tensor", "Tensor"]:
        """Return masked start and end logits, each [B, L] float32; only for the head `span`."""
        if self.head != "span":
            return super().span_logits(model, batch)
        from qa_core.models.span_heads import mask_span_logits

        start_logits, end_logits = model(batch["input_ids"], attention_mask=batch["attention_mask"])
        start_logits = mask_span_logits(start_logits, batch["span_mask"])
        return start_logits, mask_span_logits(end_logits, batch["span_mask"])

    def generate(
        self,
        model: "nn.Module",
        batch: Batch,
        tokenizer: "PreTrainedTokenizerFast",
        *,
        max_new_tokens: int,
        min_new_tokens: int = 0,
    ) -> list[GeneratedAnswer]:
        """Return greedy answers; they and the text that means "no answer" are scored by a second pass."""
        if self.head != "generate":
            return super().generate(model, batch, tokenizer, max_new_tokens=max_new_tokens)
        import torch

        from qa_core.models.target_scores import repeat_target, token_log_probabilities, until_end

        end_id = tokenizer.eos_token_id
        network: Any = model
        with torch.no_grad():
            encoded = network.get_encoder()(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            )
            generated = network.generate(
                encoder_outputs=encoded,
                attention_mask=batch["attention_mask"],
                max_new_tokens=max_new_tokens,
                min_new_tokens=min_new_tokens,
                do_sample=False,
                num_beams=1,
            )[:, 1:]  # without the decoder's start token
            answers = until_end(generated, end_id)
            null_ids = tokenizer(NULL_TEXT, add_special_tokens=False)["input_ids"]
            nulls = repeat_target([*null_ids, end_id], generated)
            scores = [
                token_log_probabilities(
                    self._target_logits(model, targets, batch, encoded=encoded), targets
                ).sum(dim=1)
                for targets in (answers, nulls)
            ]
        texts = tokenizer.batch_decode(generated, skip_special_tokens=True)
        return [
            GeneratedAnswer("" if text.strip() == NULL_TEXT else text.strip(), float(own), float(null))
            for text, own, null in zip(texts, *scores, strict=True)
        ]

    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the encoder's blocks, then those of the decoder where there is one."""
        network: Any = model
        width = network.config.d_model
        if self.head == "span":
            return [Block(block, "window", width) for block in network.body.encoder.block]
        encoder = [Block(block, "window", width) for block in network.encoder.block]
        return [*encoder, *(Block(block, "target", width) for block in network.decoder.block)]

    def adapter_targets(self) -> Mapping[str, tuple[str, ...]]:
        """Return `attention` (query and value, as in the LoRA paper) and every Linear layer of the body."""
        attention_all = ("q", "k", "v", "o")
        return {
            "attention": ("q", "v"),
            "attention_all": attention_all,
            "all_linear": (*attention_all, *self._feed_forward),
        }

    def linear_roles(self) -> LinearRoles:
        """Return the parts of attention and feed-forward."""
        return LinearRoles(
            queries=("q",),
            keys=("k",),
            values=("v",),
            attention_outputs=("o",),
            feed_forward_in=self._feed_forward[:-1],
            feed_forward_out=self._feed_forward[-1:],
        )

    def _body_class(self) -> Any:
        from transformers import T5EncoderModel, T5ForConditionalGeneration

        return T5ForConditionalGeneration if self.head == "generate" else T5EncoderModel

    def _build_body(self, tokenizer: "PreTrainedTokenizerFast") -> Any:
        from transformers import T5Config

        from qa_core.models.pretrained import check_vocabulary, load_pretrained
        from qa_core.models.tokens import special_token_id

        dropout: dict[str, Any] = {"dropout_rate": self.model.dropout}
        if not self.is_preset:
            body = load_pretrained(
                self._body_class(),
                self.model.checkpoint,
                presets=self.presets,
                config_changes=dropout,
            )
            check_vocabulary(body, tokenizer, self.model.checkpoint)
            return body
        pad_id = special_token_id(tokenizer, "pad", family=self.name)
        sizes: dict[str, Any] = {**self.presets[self.model.checkpoint], "decoder_start_token_id": pad_id}
        config = T5Config(
            vocab_size=len(tokenizer),
            pad_token_id=pad_id,
            eos_token_id=special_token_id(tokenizer, "eos", family=self.name),
            **sizes,
            **dropout,
        )
        return self._body_class()(config)

    def _set_attention_dropout(self, body: "nn.Module") -> None:
        from transformers.models.t5.modeling_t5 import T5Attention

        for module in body.modules():
            if isinstance(module, T5Attention):
                module.dropout = self.model.attention_dropout

    def _target_logits(
        self, model: "nn.Module", target_ids: "Tensor", batch: Batch, *, encoded: Any
    ) -> "Tensor":
        """Return [B, T, V]; `encoded` is the encoder's output, or None to compute it."""
        network: Any = model
        output = network(
            input_ids=None if encoded is not None else batch["input_ids"],
            encoder_outputs=encoded,
            attention_mask=batch["attention_mask"],
            decoder_input_ids=network.prepare_decoder_input_ids_from_labels(target_ids),
            use_cache=False,
        )
        return output.logits
