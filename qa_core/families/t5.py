"""T5 (Raffel et al. 2019, arXiv 1910.10683): answers as text, or as spans read off the encoder's states.

Windows are `question </s> context </s>`, without the task words of the original. T5 takes dropout for
attention from the same setting as everything else; here the two are separate, as in the other families.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from qa_core.data.layout import WindowLayout
from qa_core.families.base import NOTHING, Batch, Block, Found, GeneratedAnswer, LinearRoles
from qa_core.families.heads import Head, HeadedFamily, SpanHead, TextHead

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

NULL_TEXT = "unanswerable"
ATTENTION = ("q", "k", "v", "o")


class T5Spans(SpanHead["T5"]):
    """The encoder and one linear layer."""

    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return `question </s> context </s>`; "no answer" points at the last token."""
        return _windows(tokenizer)

    def body_class(self) -> Any:
        """Return the encoder's class."""
        from transformers import T5EncoderModel

        return T5EncoderModel

    def complete(self, body: Any) -> "nn.Module":
        """Add the span head."""
        from qa_core.models.span_heads import SpanReader, TokenSpanHead

        return SpanReader(body, TokenSpanHead(body.config.d_model))

    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the encoder's blocks."""
        network: Any = model
        return [Block(block, "window", network.config.d_model) for block in network.body.encoder.block]


class T5Text(TextHead["T5"]):
    """The encoder-decoder."""

    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return `question </s> context </s>`, demonstrations before it, and a target."""
        layout = _windows(tokenizer)
        return self.family.prompted(replace(layout, null_text=NULL_TEXT, target_end=layout.suffix), tokenizer)

    def body_class(self) -> Any:
        """Return the class of the encoder-decoder."""
        from transformers import T5ForConditionalGeneration

        return T5ForConditionalGeneration

    def target_logits(self, model: "nn.Module", batch: Batch) -> "Tensor":
        """Return the decoder's logits, [B, T, V]."""
        return self._logits(model, batch["target_ids"], batch, encoded=None)

    def generate(
        self,
        model: "nn.Module",
        batch: Batch,
        tokenizer: "PreTrainedTokenizerFast",
        *,
        max_new_tokens: int,
        min_new_tokens: int,
    ) -> list[GeneratedAnswer]:
        """Return greedy answers and their scores; the text that means "no answer" is scored by a short second pass."""
        import torch

        from qa_core.models.target_scores import repeat_target, token_log_probabilities, until_end

        end_id = tokenizer.eos_token_id
        network: Any = model
        with torch.no_grad():
            encoded = network.get_encoder()(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            )
            written = network.generate(
                encoder_outputs=encoded,
                attention_mask=batch["attention_mask"],
                max_new_tokens=max_new_tokens,
                min_new_tokens=min_new_tokens,
                do_sample=False,
                num_beams=1,
                return_dict_in_generate=True,
                output_logits=True,
            )
            generated = written.sequences[:, 1:]  # without the decoder's start token
            answers = until_end(generated, end_id)
            token_scores = [  # one by one: together the logits would be there twice
                token_log_probabilities(logits[:, None], answers[:, place, None])
                for place, logits in enumerate(written.logits)
            ]
            own_score = torch.cat(token_scores, dim=1).sum(dim=1)
            null_ids = tokenizer(NULL_TEXT, add_special_tokens=False)["input_ids"]
            nulls = repeat_target([*null_ids, end_id], generated)
            read = _only_what_was_read(written.past_key_values)
            null_logits = self._logits(model, nulls, batch, encoded=encoded, read=read)
            null_score = token_log_probabilities(null_logits, nulls).sum(dim=1)
        texts = tokenizer.batch_decode(generated, skip_special_tokens=True)
        return [
            GeneratedAnswer("" if text.strip() == NULL_TEXT else text.strip(), float(own), float(null))
            for text, own, null in zip(texts, own_score, null_score, strict=True)
        ]

    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the encoder's blocks, then the decoder's."""
        network: Any = model
        width = network.config.d_model
        encoder = [Block(block, "window", width) for block in network.encoder.block]
        return [*encoder, *(Block(block, "target", width) for block in network.decoder.block)]

    def _logits(
        self, model: "nn.Module", target_ids: "Tensor", batch: Batch, *, encoded: Any, read: Any = None
    ) -> "Tensor":
        """Return [B, T, V].

        Args:
            encoded: the encoder's output, or None to compute it.
            read: what the decoder's attention to it has computed of it already; None: nothing.
        """
        network: Any = model
        output = network(
            input_ids=None if encoded is not None else batch["input_ids"],
            encoder_outputs=encoded,
            attention_mask=batch["attention_mask"],
            decoder_input_ids=network.prepare_decoder_input_ids_from_labels(target_ids),
            past_key_values=read,
            use_cache=read is not None,
        )
        return output.logits


class T5(HeadedFamily):
    """Head `generate`: the encoder-decoder; head `span`: the encoder and one linear layer."""

    name = "t5"
    heads = ("span", "generate")
    readers: ClassVar[Mapping[str, type[Head[Any]]]] = {"span": T5Spans, "generate": T5Text}
    base_traits = frozenset({"linear_layers", "attention", "encoder"})
    tokenizer_kind = "unigram"
    weights_read_directly = ("wo",)  # its input is cast to the dtype of its weight, whatever that is
    presets: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "micro": {"d_model": 64, "num_layers": 2, "num_heads": 2, "d_kv": 32, "d_ff": 128},
        "tiny": {"d_model": 128, "num_layers": 2, "num_heads": 4, "d_kv": 32, "d_ff": 256},
        "mini": {"d_model": 192, "num_layers": 3, "num_heads": 6, "d_kv": 32, "d_ff": 512},
    }

    def build(self, tokenizer: "PreTrainedTokenizerFast", found: Found = NOTHING) -> "nn.Module":
        """Build the network; see `Family.build`."""
        body = self._build_body(tokenizer)
        self._set_attention_dropout(body)
        return self.reader.complete(body)

    def architecture(self, model: "nn.Module") -> dict[str, Any]:
        """Return the configuration of transformers."""
        from qa_core.models.pretrained import config_as_json

        return config_as_json(model.config)  # type: ignore[arg-type]

    def restore(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """Build the network from its configuration."""
        import torch

        from qa_core.models.pretrained import build_uninitialised

        body = build_uninitialised(self.reader.body_class(), architecture)
        self._set_attention_dropout(body)
        with torch.random.fork_rng(devices=[]):
            return self.reader.complete(body)

    def adapter_targets(self, model: "nn.Module") -> Mapping[str, tuple[str, ...]]:
        """Return `attention` (query and value, as in the LoRA paper) and every Linear layer of the body."""
        return {
            "attention": ("q", "v"),
            "attention_all": ATTENTION,
            "all_linear": (*ATTENTION, *_feed_forward(model)),
        }

    def linear_roles(self, model: "nn.Module") -> LinearRoles:
        """Return the parts of attention and feed-forward."""
        *first, last = _feed_forward(model)
        return LinearRoles(
            queries=("q",),
            keys=("k",),
            values=("v",),
            attention_outputs=("o",),
            feed_forward_in=tuple(first),
            feed_forward_out=(last,),
        )

    def _build_body(self, tokenizer: "PreTrainedTokenizerFast") -> Any:
        from transformers import T5Config

        from qa_core.models.pretrained import check_vocabulary, load_pretrained
        from qa_core.models.tokens import special_token_id

        dropout: dict[str, Any] = {"dropout_rate": self.model.dropout}
        if not self.is_preset:
            body = load_pretrained(
                self.reader.body_class(),
                self.place_of(self.model.checkpoint),
                presets=self.known_checkpoints,
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
        return self.reader.body_class()(config)

    def _set_attention_dropout(self, body: "nn.Module") -> None:
        from transformers.models.t5.modeling_t5 import T5Attention

        for module in body.modules():
            if isinstance(module, T5Attention):
                module.dropout = self.model.attention_dropout


def _windows(tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
    from qa_core.models.tokens import special_token_id

    end = (special_token_id(tokenizer, "eos", family=T5.name),)
    return WindowLayout(prefix=(), middle=end, suffix=end, null_at="last")


def _only_what_was_read(cache: Any) -> Any:
    """Return the keys and values of the encoder's states in a decoder's cache, without those of what it wrote."""
    from transformers import DynamicCache, EncoderDecoderCache

    return EncoderDecoderCache(DynamicCache(), cache.cross_attention_cache)


def _feed_forward(model: "nn.Module") -> tuple[str, ...]:
    """Return the Linear layers of a feed-forward part, its last one at the end."""
    config: Any = model.config
    return ("wi_0", "wi_1", "wo") if config.is_gated_act else ("wi", "wo")
