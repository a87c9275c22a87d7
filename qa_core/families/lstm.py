"""BiLSTM readers, trained from scratch: a pointer reader, and the four models of the study as presets.

The pointer reader (`qa_core/models/lstm.py`) is the default. It differs from the study's models where those cannot
work: each token has its own logits, start and end are decoded together, and "no answer" has a slot.

`model1` to `model4` (`qa_core/models/position_reader.py`) are the study's: layers, sizes, attentions, residual
additions, pooling, dropout, L2 terms and a softmax over fixed places, so that their parameter counts are the study's
with PyTorch's second LSTM bias. The study's vectors were random for model 1, GloVe's of 100 numbers for model 2 and
fastText's of 300 for models 3 and 4, frozen where they came from a file: name the file in `vectors`.

Always corrected: gold positions come from character offsets, where the study took the first occurrence of the
answer's text; long paragraphs become several windows, where it cut off their beginning; start and end are decoded
together by the one decoder; the softmax leaves out places behind the text; and words come from the project's `word`
tokenizer, which splits punctuation off and has an unknown word, not from the Keras Tokenizer, which deletes
punctuation. Corrected unless switched back: `mask_padding`, `null_slot` and, for model 4, `see_question`; all three
False is the study as coded. What it called exact match is `index_accuracy_percent` in the record, beside the real
one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_core import files
from qa_core.config import DataConfig, ModelConfig
from qa_core.data.layout import Prompting, WindowLayout
from qa_core.errors import ConfigError, nearest, unknown
from qa_core.families.base import NOTHING, Batch, Block, Family, Found
from qa_core.models.lstm_options import (
    DEFAULT_BUCKETS,
    HASHED,
    PRESETS,
    RANDOM,
    STUDY_MODELS,
    LstmOptions,
    StudyModel,
    refuse_idle_options,
)
from qa_core.values import from_dict, to_dict

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

    from qa_core.data.vectors import FoundVectors
    from qa_core.models.word_embedding import EmbeddingConfig

OWN_TOKENS = 3  # of a window: [CLS] and two [SEP]


class Lstm(Family):
    """Start and end logits from a BiLSTM over question and context."""

    name = "lstm"
    heads = ("span",)
    base_traits = frozenset({"recurrent"})
    tokenizer_kind = "word"
    presets = PRESETS
    Options = LstmOptions

    def __init__(self, model: ModelConfig, prompting: Prompting | None = None) -> None:
        """Check the recipe.

        Raises:
            ConfigError: see `Family`; or the checkpoint is neither a preset nor a path, or an option does not act on
                it.
        """
        super().__init__(model, prompting)
        if not self.is_preset and "/" not in model.checkpoint:
            raise ConfigError(self._unknown_checkpoint())
        self.study = STUDY_MODELS.get(model.checkpoint)
        refuse_idle_options(self.options, model.checkpoint)

    def reports_index_accuracy(self, model: "nn.Module") -> bool:
        """Tell whether this is one of the study's models."""
        return _is_of_study(model)

    def layout(self, tokenizer: "PreTrainedTokenizerFast") -> WindowLayout:
        """Return `[CLS] question [SEP] context [SEP]`."""
        from qa_core.models.tokens import cls_sep_layout

        return cls_sep_layout(tokenizer, family=self.name)

    def prepare(self, tokenizer: "PreTrainedTokenizerFast", data: DataConfig, *, cache_dir: Path) -> Found:
        """Look the vocabulary up in the vectors' file, if there is one; for `model1` to `model4` check the lengths.

        Returns:
            The vectors; of the facts, `vectors`: the file's name, SHA-256 and words, and how many words of the
            vocabulary it has and lacks.
        """
        if self.study is not None:
            self._check_lengths(data)
        if not self._reads_file or not self.is_preset:  # an artifact has its vectors
            return NOTHING
        return self._look_up(tokenizer, cache_dir)

    def build(self, tokenizer: "PreTrainedTokenizerFast", found: Found = NOTHING) -> "nn.Module":
        """Build a preset's network; its weights are random but for vectors from a file, see `Family.build`."""
        from qa_core.models.lstm import PointerReader
        from qa_core.models.position_reader import PositionReader
        from qa_core.models.word_embedding import write_grams, write_vectors

        if not self.is_preset:
            raise ConfigError(self._unknown_checkpoint())
        model: Any
        if self.study is None:
            model = PointerReader(self._pointer_config(tokenizer, found.content))
        else:
            model = PositionReader(self._position_config(tokenizer, self.study, found.content))
            model.initialise()
        if found.content is not None:
            write_vectors(model.embedding, found.content)
        if self.options.vectors == HASHED:
            write_grams(model.embedding, self._grams(tokenizer))
        return model

    def architecture(self, model: "nn.Module") -> dict[str, Any]:
        """Return the sizes and switches of the network."""
        return to_dict(model.config)

    def restore(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """Build the network from its sizes; torch's generator is left as it was, and no vectors' file is read."""
        import torch

        from qa_core.models.lstm import PointerReader, PointerReaderConfig
        from qa_core.models.position_reader import PositionReader, PositionReaderConfig

        with torch.random.fork_rng(devices=[]):
            if "positions" in architecture:
                return PositionReader(from_dict(PositionReaderConfig, architecture, path="architecture"))
            return PointerReader(from_dict(PointerReaderConfig, architecture, path="architecture"))

    def loss(self, model: "nn.Module", batch: Batch, logits: "tuple[Tensor, ...] | None" = None) -> "Tensor":
        """Return the span loss; for `model1` to `model4` with their L2 term.

        The study's loss was the sum of start and end cross-entropy and the L2 term, this is half of it all.
        """
        if not _is_of_study(model):
            return super().loss(model, batch, logits)
        network: Any = model
        if network.config.null_slot:
            loss = super().loss(model, batch, logits)
        else:
            from qa_core.models.position_reader import answered_span_loss

            start_logits, end_logits = logits or self.logits(model, batch)
            names = ("start_positions", "end_positions", "null_positions")
            loss = answered_span_loss(start_logits, end_logits, **{name: batch[name] for name in names})
        penalty = network.kernel_penalty()
        return loss if penalty is None else loss + penalty / 2

    def span_logits(self, model: "nn.Module", batch: Batch) -> tuple["Tensor", "Tensor"]:
        """Return masked start and end logits, each [B, L] float32."""
        from qa_core.models.span_heads import mask_span_logits

        names = ("attention_mask", "token_type_ids", "null_positions")
        start_logits, end_logits = model(batch["input_ids"], **{name: batch[name] for name in names})
        start_logits = mask_span_logits(start_logits, batch["span_mask"])
        return start_logits, mask_span_logits(end_logits, batch["span_mask"])

    def blocks(self, model: "nn.Module") -> Sequence[Block]:
        """Return the two BiLSTMs; the first reads question and context in turn, and the context's states count.

        None for `model1` to `model4`, whose states stand at their own fixed places.
        """
        if _is_of_study(model):
            return ()
        network: Any = model
        width = 2 * network.config.hidden_size
        return [Block(lstm, "context", width) for lstm in (network.reader, network.fusion)]

    def adapter_targets(self, model: "nn.Module") -> Mapping[str, tuple[str, ...]]:
        """Return none: an LSTM's weights are not Linear layers."""
        return {}

    @property
    def _reads_file(self) -> bool:
        return self.options.vectors not in (RANDOM, HASHED)

    def _size(self, name: str) -> int:
        given = getattr(self.options, name)
        return self.presets[self.model.checkpoint][name] if given is None else given

    def _unknown_checkpoint(self) -> str:
        found = unknown("preset", self.model.checkpoint, self.presets)
        return (
            f"model.checkpoint: family {self.name!r} is trained from scratch, or goes on from the artifact folder that "
            f"a path names: {found}"
        )

    def _check_lengths(self, data: DataConfig) -> None:
        """Refuse windows that could hold more words than there are places."""
        null_slots = 0 if self.options.null_slot is False else 1
        longest = self._size("positions") + OWN_TOKENS - null_slots
        limits = {"max_length": longest}
        if self.options.mask_padding is False:
            limits["max_question_length"] = self._size("question_positions")
        for name, limit in limits.items():
            found = getattr(data, name)
            if found > limit:
                raise ConfigError(
                    f"data.{name}: found {found}; allowed: at most {limit} with the {self._size('positions')} context "
                    f"and {self._size('question_positions')} question positions of {self.model.checkpoint!r}"
                )

    def _look_up(self, tokenizer: "PreTrainedTokenizerFast", cache_dir: Path) -> Found:
        from qa_core.data.vectors import look_up

        name = self.options.vectors
        path = Path(name).expanduser()
        if not files.is_file(path):
            raise ConfigError(
                f"model.options.vectors: found {name!r}, and there is no such file{nearest(name, (RANDOM, HASHED))} "
                f"(allowed: {RANDOM}, {HASHED}, or a GloVe or fastText text file, plain or .gz)"
            )
        vectors, facts = look_up(tokenizer, path, cache_dir=cache_dir)
        if self.options.embedding_size not in (None, facts["size"]):
            raise ConfigError(
                f"model.options.embedding_size: found {self.options.embedding_size}; allowed: {facts['size']}, the "
                f"size of the vectors in {name}, or none"
            )
        return Found(vectors, {"vectors": facts})

    def _grams(self, tokenizer: "PreTrainedTokenizerFast") -> list[list[int]]:
        from qa_core.models.word_embedding import vocabulary_grams

        words = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        lists = vocabulary_grams(words, special=set(tokenizer.all_special_tokens), buckets=self._buckets)
        lists[tokenizer.pad_token_id] = []
        return lists

    @property
    def _buckets(self) -> int:
        return DEFAULT_BUCKETS if self.options.buckets is None else self.options.buckets

    def _embedding_config(
        self, tokenizer: "PreTrainedTokenizerFast", vectors: "FoundVectors | None"
    ) -> "EmbeddingConfig":
        from qa_core.models.tokens import special_token_id
        from qa_core.models.word_embedding import EmbeddingConfig

        assert vectors is not None or not self._reads_file, "`build` takes what `prepare` found"
        is_trained = self.options.train_vectors
        is_hashed = self.options.vectors == HASHED
        return EmbeddingConfig(
            vocab_size=len(tokenizer),
            pad_id=special_token_id(tokenizer, "pad", family=self.name),
            size=self._size("embedding_size") if vectors is None else vectors.vectors.shape[1],
            is_trained=not self._reads_file if is_trained is None else is_trained,
            buckets=self._buckets if is_hashed else None,
            grams=max(map(len, self._grams(tokenizer))) if is_hashed else None,
        )

    def _pointer_config(self, tokenizer: "PreTrainedTokenizerFast", vectors: "FoundVectors | None") -> Any:
        from qa_core.models.lstm import PointerReaderConfig
        from qa_core.models.tokens import special_token_id

        return PointerReaderConfig(
            embedding=self._embedding_config(tokenizer, vectors),
            unknown_id=special_token_id(tokenizer, "unk", family=self.name),
            hidden_size=self._size("hidden_size"),
            attention=self.options.attention or "dot",
            exact_match=self.options.exact_match is not False,
            dropout=self.model.dropout,
        )

    def _position_config(
        self, tokenizer: "PreTrainedTokenizerFast", study: StudyModel, vectors: "FoundVectors | None"
    ) -> Any:
        from qa_core.models.position_reader import PositionReaderConfig

        options = self.options
        return PositionReaderConfig(
            embedding=self._embedding_config(tokenizer, vectors),
            hidden_size=self._size("hidden_size"),
            positions=self._size("positions"),
            question_positions=self._size("question_positions"),
            attention=study.attention,
            pooling=study.pooling,
            kernel_l2=study.kernel_l2,
            dropout=study.head_dropout if options.head_dropout is None else options.head_dropout,
            mask_padding=options.mask_padding is not False,
            null_slot=options.null_slot is not False,
            see_question=options.see_question is not False,
        )


def _is_of_study(model: "nn.Module") -> bool:
    from qa_core.models.position_reader import PositionReader

    return isinstance(model, PositionReader)
