"""The study's four BiLSTM models: they name the answer by its place in the context, not by its token.

Question and context are read by BiLSTMs, the context attends, one LSTM reads [context; attended], its states are
pooled into one vector, and two Linear layers give a logit for each of a fixed number of places. Keras' layers, sizes,
initial values and L2 terms are kept; each LSTM has the second bias vector of PyTorch. `PositionReaderConfig` says
what is corrected and what can be switched back.

Two limits are the design's own and stay. What is learnt about one place says nothing about the next, so that every
place needs examples of its own. After a maximum over all positions (models 3 and 4) the place of a word is gone from
the pooled vector, except for what the LSTM's states carry of it.

Dimensions: B batch, L tokens of a window, C context words, Q question words, P places, H hidden, D = 2 H.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qa_core.errors import ConfigError
from qa_core.models.attention import MultiHeadAttention, dot_attention
from qa_core.models.lstm import BiLstm, masked_max, open_forget_gates
from qa_core.models.lstm_states import lstm_states
from qa_core.models.word_embedding import EmbeddingConfig, make_embedding

HEADS = 8  # of multi-head attention, each as wide as one direction of the BiLSTM
IGNORED = -100  # label of a row that costs nothing


@dataclass(frozen=True)
class PositionReaderConfig:
    """Sizes and switches of a `PositionReader`; all plain values.

    The three switches are True in the corrected form and False as the study coded it:

    `mask_padding`: padding is read by no layer. As coded, both texts are padded to their full lengths and the padding
    goes through LSTMs, attention and pooling like words; its vector stays zero.

    `null_slot`: place 0 means "no answer", and the text begins with the separator in front of the context. As coded,
    place 0 is the first word and is the label of unanswerable questions as well, without a loss: see
    `answered_span_loss`.

    `see_question`: the context attends to the question. False is model 4 as coded: its question branch is connected
    to nothing. Corrected, [C; C + self] becomes [C; C + self + dot], which takes no weights but the question's BiLSTM.
    """

    embedding: EmbeddingConfig
    hidden_size: int  # H, of one direction
    positions: int  # P; the null slot is one of them
    question_positions: int  # words that a question is padded to without `mask_padding`
    attention: str  # dot, multi_head or self
    pooling: str  # flatten or max
    kernel_l2: float  # 0 for none
    dropout: float  # of the pooled vector
    mask_padding: bool
    null_slot: bool
    see_question: bool


class PositionReader(nn.Module):
    """Start and end logits for fixed places of the context, written onto the tokens of a window."""

    def __init__(self, config: PositionReaderConfig) -> None:
        super().__init__()
        self.config = config
        hidden, width = config.hidden_size, 2 * config.hidden_size
        self.embedding = make_embedding(config.embedding)
        self.context_reader = BiLstm(config.embedding.size, hidden)
        if config.see_question:
            self.question_reader = BiLstm(config.embedding.size, hidden)
        if config.attention == "multi_head":
            self.attention = MultiHeadAttention(width, heads=HEADS, key_size=hidden)
        self.fusion = nn.LSTM(2 * width, hidden, batch_first=True)
        pooled = hidden * (config.positions if config.pooling == "flatten" else 1)
        self.dropout = nn.Dropout(config.dropout)
        self.start = nn.Linear(pooled, config.positions)
        self.end = nn.Linear(pooled, config.positions)

    def initialise(self) -> None:
        """Draw Keras' initial weights: uniform tables, Glorot kernels, orthogonal recurrences, open forget gates."""
        for name, parameter in self.named_parameters():
            if name == "embedding.weight":
                nn.init.uniform_(parameter, -0.05, 0.05)
                with torch.no_grad():
                    parameter[self.config.embedding.pad_id].zero_()
            elif name.endswith("weight_hh_l0"):
                nn.init.orthogonal_(parameter)
            elif parameter.dim() == 2 and not name.startswith("embedding."):
                nn.init.xavier_uniform_(parameter)
            elif parameter.dim() == 1:
                nn.init.zeros_(parameter)
        for module in self.modules():
            if isinstance(module, nn.LSTM):
                open_forget_gates(module)

    def kernel_penalty(self) -> Tensor | None:
        """Return `kernel_l2` times the sum of squares of the LSTMs' input weights and the heads' weights, a scalar.

        None without a penalty. Only parameters count: weights that are stored in another form are not trained.
        """
        kernels = [
            parameter.float().square().sum()
            for name, parameter in self.named_parameters()
            if name.endswith("weight_ih_l0") or name in ("start.weight", "end.weight")
        ]
        if not self.config.kernel_l2 or not kernels:
            return None
        return self.config.kernel_l2 * torch.stack(kernels).sum()

    def forward(
        self, input_ids: Tensor, *, attention_mask: Tensor, token_type_ids: Tensor, null_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return unmasked start and end logits, each [B, L]; tokens that are no context word share some place's.

        Args:
            input_ids, attention_mask: [B, L] int64, right-padded, laid out as `[CLS] question [SEP] context [SEP]`.
            token_type_ids: [B, L] int64, 0 up to the first separator, 1 after it.
            null_positions: [B] int64, where the logits of place 0 are written.

        Raises:
            ConfigError: a window has more context words than there are places, or, without `mask_padding`, more
                question words than `question_positions`.
        """
        config = self.config
        sides = (attention_mask * (1 - token_type_ids)).sum(dim=1)  # [B] tokens up to the first separator
        context_starts = sides - 1 if config.null_slot else sides
        context_text = (context_starts, attention_mask.sum(dim=1) - 1)
        context_ids, context_mask = self._text(input_ids, context_text, config.positions)
        context = self._read(self.context_reader, context_ids, context_mask)  # [B, C, D]
        question, question_mask = context, context_mask
        if config.see_question:
            question_text = (torch.ones_like(sides), sides - 1)
            width = input_ids.shape[1] if config.mask_padding else config.question_positions
            question_ids, question_mask = self._text(input_ids, question_text, width)
            question = self._read(self.question_reader, question_ids, question_mask)  # [B, Q, D]
        attended = self._attend(context, context_mask, question, question_mask)
        fused = lstm_states(self.fusion, torch.cat([context, attended], dim=-1))  # [B, C, H]
        pooled = self.dropout(self._pool(fused, context_mask))
        steps = torch.arange(input_ids.shape[1], device=input_ids.device)
        places = (steps - context_starts[:, None]).clamp(0, config.positions - 1)  # [B, L]
        places = places.scatter(1, null_positions[:, None], 0)
        return self.start(pooled).gather(1, places), self.end(pooled).gather(1, places)

    def _text(self, input_ids: Tensor, bounds: tuple[Tensor, Tensor], width: int) -> tuple[Tensor, Tensor]:
        """Cut one text out of each row, from its first token to before its last bound; returns ids and mask.

        Padded to the longest text; to `width` without `mask_padding`, and then all of it counts as text.
        """
        starts, ends = bounds
        counts = (ends - starts).clamp(min=1)
        longest = int(counts.max())
        if longest > width:
            raise ConfigError(
                f"data.max_length, data.max_question_length: found a text of {longest} words; allowed: {width}, "
                "see model.options.positions and model.options.question_positions"
            )
        steps = torch.arange(longest if self.config.mask_padding else width, device=input_ids.device)
        mask = steps < counts[:, None]
        places = (starts[:, None] + steps).clamp(max=input_ids.shape[1] - 1)
        ids = input_ids.gather(1, places).masked_fill(~mask, self.config.embedding.pad_id)
        return ids, mask if self.config.mask_padding else torch.ones_like(mask)

    def _read(self, reader: BiLstm, token_ids: Tensor, mask: Tensor) -> Tensor:
        return reader(self.embedding(token_ids), mask.sum(dim=1))

    def _attend(
        self, context: Tensor, context_mask: Tensor, question: Tensor, question_mask: Tensor
    ) -> Tensor:
        if self.config.attention == "multi_head":
            return context + self.attention(context, question, question_mask)
        if self.config.attention == "dot":
            return dot_attention(context, question, question_mask, scale=1.0)
        attended = context + dot_attention(context, context, context_mask, scale=1.0)
        if self.config.see_question:
            attended = attended + dot_attention(context, question, question_mask, scale=1.0)
        return attended

    def _pool(self, fused: Tensor, mask: Tensor) -> Tensor:
        if self.config.pooling == "max":
            return masked_max(fused, mask)
        fused = fused.masked_fill(~mask[..., None], 0.0)
        return F.pad(fused, (0, 0, 0, self.config.positions - fused.shape[1])).flatten(1)  # [B, P * H]


def answered_span_loss(
    start_logits: Tensor,
    end_logits: Tensor,
    *,
    start_positions: Tensor,
    end_positions: Tensor,
    null_positions: Tensor,
) -> Tensor:
    """Return the loss without a null slot: rows without an answer are labelled with zeros alone and cost nothing.

    The mean over all rows of the mean of start and end cross-entropy, over the context words: the null position
    holds a copy of the first word's logit. The study's softmax ran over all places, those behind the text too.

    Args:
        start_logits, end_logits: [B, L] float32, masked.
        start_positions, end_positions, null_positions: [B] int64; a gold position at the null position: no answer.
    """
    has_answer = start_positions != null_positions
    total = start_logits.new_zeros(())
    for logits, positions in ((start_logits, start_positions), (end_logits, end_positions)):
        over_words = logits.scatter(1, null_positions[:, None], torch.finfo(logits.dtype).min)
        labels = positions.masked_fill(~has_answer, IGNORED)
        total = total + F.cross_entropy(over_words, labels, ignore_index=IGNORED, reduction="sum")
    return total / (2 * len(labels))
