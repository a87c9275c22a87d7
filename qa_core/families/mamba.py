"""Mamba (Gu and Dao 2023, arXiv 2312.00752): answers as text, or as spans read off causal states.

Head `generate` reads context, then question, and writes the answer; the loss is on answer and end token
only, and "I don't know." stands for no answer. Head `span` reads the question first, so that the states of
the context know what is asked. Weights are float32: bfloat16 weights would not feel a step of a small
learning rate.

The preset `hybrid`, or the option `attention_layer` on any checkpoint, adds one block of causal self-attention.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from qa_core.config import ModelConfig
from qa_core.data.layout import Prompting, WindowLayout
from qa_core.families.base import NOTHING, Batch, Block, Family, Found, GeneratedAnswer
from qa_core.families.heads import Head, HeadedFamily, SpanHead, TextHead
from qa_core.values import Setting

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

NULL_TEXT = " I don't know."  # the space belongs to its first token, as to every answer's


@dataclass(frozen=True)
class MambaOptions:
    """Options of `mamba`."""

    attention_layer: Annotated[
        int | None,
        Setting(
            "The Mamba block, counted from 0, before which an attention block stands. null: the preset's."
        ),
    ] = None
    attention_heads: Annotated[int, Setting("Heads of that attention block.", "heads")] = 4


class MambaSpans(SpanHead["Mamba"]):
    """The states and a span head; the question stands first, so that the states of the context know it."""

    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return `question, two line breaks, context, end`; "no answer" points at the end."""
        from qa_core.models.tokens import special_token_id

        end = (special_token_id(tokenizer, "eos", family=self.family.name),)
        return WindowLayout(prefix=(), middle=_ids(tokenizer, "\n\n"), suffix=end, null_at="last")

    def body_class(self) -> Any:
        """Return the class of the body."""
        from transformers import MambaModel

        return MambaModel

    def complete(self, body: Any) -> "nn.Module":
        """Add the span head."""
        from qa_core.models.mamba import CausalSpanHead
        from qa_core.models.span_heads import SpanReader

        body.config.use_cache = False
        return SpanReader(body, CausalSpanHead(body.config.hidden_size, self.family.model.dropout))

    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the layers."""
        network: Any = model
        return [Block(layer, "window", network.config.hidden_size) for layer in network.body.layers]


class MambaText(TextHead["Mamba"]):
    """A causal language model that reads context, then question, and writes the answer."""

    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return `context, question`, demonstrations before them, and a target."""
        layout = WindowLayout(
            prefix=(),
            middle=_ids(tokenizer, "\n\nQ: "),
            suffix=_ids(tokenizer, "\nA:"),
            null_at="last",
            question_first=False,
            null_text=NULL_TEXT,
            target_end=self._target_end(tokenizer),
        )
        return self.family.prompted(layout, tokenizer)

    def body_class(self) -> Any:
        """Return the class of the language model."""
        from transformers import MambaForCausalLM

        return MambaForCausalLM

    def plain_class(self, model: "nn.Module") -> str | None:
        """Return the language model of transformers; None where there is an attention block, which it does not have."""
        return None if self.family.attention_layer is not None else super().plain_class(model)

    def target_logits(self, model: "nn.Module", batch: Batch) -> "Tensor":
        """Return the logits behind prompt and target, [B, T, V]."""
        return self._logits(model, batch, batch["target_ids"])

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
        import torch

        from qa_core.models.target_scores import (
            IGNORED,
            left_padded,
            repeat_target,
            token_log_probabilities,
            until_end,
        )

        end = self._target_end(tokenizer)
        stops = self._stops(tokenizer)
        network: Any = model
        prompts, mask = left_padded(batch["input_ids"], batch["attention_mask"])
        with torch.no_grad():
            generated = network.generate(
                input_ids=prompts,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                min_new_tokens=min_new_tokens,
                do_sample=False,
                num_beams=1,
                eos_token_id=stops,
                pad_token_id=stops[0],
            )[:, prompts.shape[1] :]
            answers = until_end(generated, *stops)
            null_ids = tokenizer(NULL_TEXT, add_special_tokens=False)["input_ids"]
            nulls = repeat_target([*null_ids, *end], generated)
            scores = [
                token_log_probabilities(self._logits(model, batch, targets), targets).sum(dim=1)
                for targets in (answers, nulls)
            ]
        written = answers.masked_fill(answers == IGNORED, stops[0])
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        return [
            GeneratedAnswer(
                "" if text.strip() == NULL_TEXT.strip() else text.strip(), float(own), float(null)
            )
            for text, own, null in zip(texts, *scores, strict=True)
        ]

    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the layers, which read window and target in one row."""
        network: Any = model
        width = network.config.hidden_size
        return [Block(layer, "window and target", width) for layer in network.backbone.layers]

    def _target_end(self, tokenizer: "PreTrainedTokenizerFast") -> tuple[int, ...]:
        """Return what ends a target: the end token, or a line break for a network that was never taught it."""
        from qa_core.models.tokens import special_token_id

        if self.family.prompting is None:
            return (special_token_id(tokenizer, "eos", family=self.family.name),)
        return tuple(tokenizer("\n", add_special_tokens=False)["input_ids"])

    def _stops(self, tokenizer: "PreTrainedTokenizerFast") -> list[int]:
        """Return the tokens that end an answer, the end token first; for a prompted network all line breaks too."""
        from qa_core.models.tokens import line_break_ids, special_token_id

        end_id = special_token_id(tokenizer, "eos", family=self.family.name)
        return [end_id] if self.family.prompting is None else [end_id, *line_break_ids(tokenizer)]

    def _logits(self, model: "nn.Module", batch: Batch, target_ids: "Tensor") -> "Tensor":
        """Return [B, T, V]: the head sees only the states that predict a target token, not the prompt's."""
        from qa_core.models.target_scores import append_targets

        network: Any = model
        ids, places = append_targets(batch["input_ids"], batch["attention_mask"], target_ids)
        states = network.backbone(input_ids=ids, use_cache=False).last_hidden_state  # [B, L + T, D]
        wanted = states.gather(1, places[:, :, None].expand(-1, -1, states.shape[2]))  # [B, T, D]
        return network.lm_head(wanted)


class Mamba(HeadedFamily):
    """Head `generate`: a causal language model; head `span`: its states and a span head.

    Mamba has no dropout of its own; `model.dropout` acts on the states that the span head reads.
    """

    name = "mamba"
    heads = ("span", "generate")
    readers: ClassVar[Mapping[str, type[Head[Any]]]] = {"span": MambaSpans, "generate": MambaText}
    base_traits = frozenset({"linear_layers", "recurrent"})
    tokenizer_kind = "bytes"
    weights_read_directly = ("dt_proj",)  # the mixer multiplies by its weight
    presets: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "micro": {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
        "tiny": {"hidden_size": 128, "num_hidden_layers": 2, "state_size": 8},
        "mini": {"hidden_size": 192, "num_hidden_layers": 3, "state_size": 16},
        "hybrid": {"hidden_size": 128, "num_hidden_layers": 2, "state_size": 8, "attention_layer": 1},
    }
    Options = MambaOptions

    def __init__(self, model: ModelConfig, prompting: Prompting | None = None) -> None:
        """Check the recipe; see `Family`."""
        super().__init__(model, prompting)
        if self.attention_layer is not None:  # adapters alone could not wake a block that starts silent
            self.head_modules = (*Family.head_modules, "self_attention")

    @property
    def attention_layer(self) -> int | None:
        """The Mamba block that the self-attention block stands before; None: there is no such block."""
        if self.options.attention_layer is not None or not self.is_preset:
            return self.options.attention_layer
        return self.presets[self.model.checkpoint].get("attention_layer")

    def build(self, tokenizer: "PreTrainedTokenizerFast", found: Found = NOTHING) -> "nn.Module":
        """Build the network; see `Family.build`."""
        body = self._build_body(tokenizer)
        body.config.attention_layer = self.attention_layer
        body.config.attention_heads = self.options.attention_heads
        return self._completed(body, starts_silent=not self.is_preset)

    def architecture(self, model: "nn.Module") -> dict[str, Any]:
        """Return the configuration of transformers."""
        from qa_core.models.pretrained import config_as_json

        return config_as_json(model.config)  # type: ignore[arg-type]

    def restore(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """Build the network from its configuration."""
        import torch

        from qa_core.models.pretrained import build_uninitialised

        body = build_uninitialised(self.reader.body_class(), architecture)
        with torch.random.fork_rng(devices=[]):
            return self._completed(body, starts_silent=False)

    def adapter_targets(self, model: "nn.Module") -> Mapping[str, tuple[str, ...]]:
        """Return what adapters may attach to.

        There is no attention: `attention` stands for the input projection, its nearest kin. PEFT refuses
        out_proj, and an adapter on dt_proj would get no gradient, because only its weight is read.
        """
        return {"attention": ("in_proj",), "all_linear": ("in_proj", "x_proj")}

    def compute_path(self, model: "nn.Module") -> str | None:
        """Return what computes the scan: "mamba-ssm", "project-scan" or "transformers"."""
        from qa_core.models.mamba import scan_path

        return scan_path(model)

    def is_decay_free(self, name: str, shape: tuple[int, ...]) -> bool:
        """Spare what sets the time scales too: A_log is a matrix; D and dt's bias have one dimension."""
        return len(shape) < 2 or name.endswith("A_log")

    def _completed(self, body: Any, *, starts_silent: bool) -> "nn.Module":
        """Add the attention block and the head to a network of transformers."""
        from qa_core.models.mamba import use_project_scan
        from qa_core.models.mamba_attention import add_attention

        layers = getattr(body, "backbone", body)  # of a language model
        add_attention(layers, dropout=self.model.attention_dropout, starts_silent=starts_silent)
        return use_project_scan(self.reader.complete(body))

    def _build_body(self, tokenizer: "PreTrainedTokenizerFast") -> Any:
        from transformers import MambaConfig

        from qa_core.models.pretrained import check_vocabulary, load_pretrained
        from qa_core.models.tokens import special_token_id

        if not self.is_preset:
            body = load_pretrained(
                self.reader.body_class(),
                self.place_of(self.model.checkpoint),
                presets=self.known_checkpoints,
                config_changes={},
            )
            check_vocabulary(body, tokenizer, self.model.checkpoint)
            return body
        end_id = special_token_id(tokenizer, "eos", family=self.name)
        preset = self.presets[self.model.checkpoint]
        sizes: dict[str, Any] = {name: size for name, size in preset.items() if name != "attention_layer"}
        config = MambaConfig(
            vocab_size=len(tokenizer),
            pad_token_id=special_token_id(tokenizer, "pad", family=self.name),
            bos_token_id=end_id,
            eos_token_id=end_id,
            **sizes,
        )
        return self.reader.body_class()(config)


def _ids(tokenizer: "PreTrainedTokenizerFast", text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
