"""A BiLSTM that reads a question and a context and points at the answer.

One BiLSTM reads both texts, each context token attends to the question, a second BiLSTM reads the fused
states, and two pointers give logits for each token. The end pointer sees where the start pointer looks (the
boundary model of Wang and Jiang 2016, arXiv 1608.07905); the fusion is [c; a; c * a], after Seo et al. 2016,
arXiv 1611.01603, section 2. "No answer" has a slot of its own. Every step respects the lengths: padding
reaches no result.

Dimensions: B batch, L tokens of a window, Q question tokens, C context tokens, D width of both directions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qa_core.models.attention import MultiHeadAttention, dot_attention
from qa_core.models.lstm_states import lstm_states
from qa_core.models.word_embedding import EmbeddingConfig, make_embedding

HEADS = 4  # of multi-head attention; together as wide as the states


@dataclass(frozen=True)
class PointerReaderConfig:
    """Sizes and switches of a `PointerReader`; all plain values.

    `attention` is how the context reads the question: `dot` (bilinear), `multi_head`, or `none`, where every context
    token gets the question's mean. `self` is `dot` and, after question and context are fused, attention of the
    context to itself, added to the fused states (self-matching: Wang et al. 2017, R-Net, section 3.3).
    """

    embedding: EmbeddingConfig
    unknown_id: int
    hidden_size: int  # of one direction: D is twice this
    attention: str  # dot, multi_head, self or none
    exact_match: bool  # tell each context token whether it occurs in the question
    dropout: float


class BiLstm(nn.Module):
    """A bidirectional LSTM over right-padded rows; states at padding are garbage.

    The backward direction runs forward over rows that are reversed by their lengths. `pack_padded_sequence`
    gives the same numbers, six times slower in training on a CPU (114 ms against 18 ms for 32 x 96 x 64).
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(input_size, hidden_size)
        self.backward_lstm = nn.LSTM(input_size, hidden_size)
        for lstm in (self.forward_lstm, self.backward_lstm):
            open_forget_gates(lstm)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the states of both directions, [B, L, 2 * hidden], of [B, L, input] and lengths [B]."""
        steps = torch.arange(inputs.shape[1], device=inputs.device)
        reversal = (lengths[:, None] - 1 - steps).clamp(min=0).T[..., None]  # [L, B, 1]
        inputs = inputs.transpose(0, 1)
        onward = lstm_states(self.forward_lstm, inputs)
        backward = lstm_states(self.backward_lstm, inputs.gather(0, reversal.expand(-1, -1, inputs.shape[2])))
        backward = backward.gather(0, reversal.expand(-1, -1, backward.shape[2]))
        return torch.cat([onward, backward], dim=-1).transpose(0, 1)


def open_forget_gates(lstm: nn.LSTM) -> None:
    """Let an LSTM start by remembering: Jozefowicz et al. 2015, section 2.1."""
    with torch.no_grad():
        lstm.get_parameter("bias_ih_l0")[lstm.hidden_size : 2 * lstm.hidden_size].fill_(1.0)


class PointerReader(nn.Module):
    """Start and end logits for each token of a window that holds a question and then a context."""

    def __init__(self, config: PointerReaderConfig) -> None:
        super().__init__()
        self.config = config
        width = 2 * config.hidden_size
        self.embedding = make_embedding(config.embedding)
        self.reader = BiLstm(config.embedding.size, config.hidden_size)
        if config.attention in ("dot", "self"):
            self.alignment = nn.Linear(width, width, bias=False)
        if config.attention in ("multi_head", "self"):
            self.attention = MultiHeadAttention(width, heads=HEADS, key_size=-(-width // HEADS))
        self.fusion = BiLstm(3 * width + int(config.exact_match), config.hidden_size)
        self.start = nn.Linear(width, 1)
        self.end_hidden = nn.Linear(2 * width, width)
        self.end = nn.Linear(width, 1)
        self.null_hidden = nn.Linear(2 * width, width)
        self.null = nn.Linear(width, 2)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, input_ids: Tensor, *, attention_mask: Tensor, token_type_ids: Tensor, null_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return unmasked start and end logits, each [B, L].

        Args:
            input_ids, attention_mask: [B, L] int64, right-padded.
            token_type_ids: [B, L] int64, 0 on the question side, which comes first, 1 on the context side.
            null_positions: [B] int64, where the logits of "no answer" are written.
        """
        texts = _split(input_ids, attention_mask.bool(), token_type_ids.bool())
        question = self._read(texts.question_ids, texts.question_lengths)  # [B, Q, D]
        context = self._read(texts.context_ids, texts.context_lengths)  # [B, C, D]
        aligned = self._align(context, question, texts.question_mask)
        fused = self.dropout(self._fuse(context, aligned, texts))  # [B, C, D]
        if self.config.attention == "self":
            fused = fused + self.dropout(self.attention(fused, fused, texts.context_mask))
        start, end = self._point(fused, texts.context_mask)
        null = self._null_logits(fused, question, texts)  # [B, 2]
        places = texts.window_to_context(input_ids.shape[1])  # [B, L]
        slots = null_positions[:, None]
        start_logits = start.gather(1, places).scatter(1, slots, null[:, :1].to(start.dtype))
        end_logits = end.gather(1, places).scatter(1, slots, null[:, 1:].to(end.dtype))
        return start_logits, end_logits

    def _read(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        return self.dropout(self.reader(self.dropout(self.embedding(token_ids)), lengths))

    def _align(self, context: Tensor, question: Tensor, question_mask: Tensor) -> Tensor:
        if self.config.attention == "none":
            return _masked_mean(question, question_mask)[:, None].expand_as(context)
        if self.config.attention == "multi_head":
            return self.attention(context, question, question_mask)
        return dot_attention(self.alignment(context), question, question_mask)

    def _fuse(self, context: Tensor, aligned: Tensor, texts: "_Texts") -> Tensor:
        parts = [context, aligned, context * aligned]
        if self.config.exact_match:
            parts.append(texts.exact_match(self.config.unknown_id)[..., None].to(context.dtype))
        return self.fusion(torch.cat(parts, dim=-1), texts.context_lengths)

    def _point(self, fused: Tensor, context_mask: Tensor) -> tuple[Tensor, Tensor]:
        start = self.start(fused).squeeze(-1)  # [B, C]
        weights = start.float().masked_fill(~context_mask, torch.finfo(torch.float32).min).softmax(dim=-1)
        summary = torch.bmm(weights.to(fused.dtype)[:, None], fused).expand_as(fused)
        end = self.end(torch.tanh(self.end_hidden(torch.cat([fused, summary], dim=-1))))
        return start, end.squeeze(-1)

    def _null_logits(self, fused: Tensor, question: Tensor, texts: "_Texts") -> Tensor:
        best = masked_max(fused, texts.context_mask)
        evidence = torch.cat([best, _masked_mean(question, texts.question_mask)], dim=-1)
        return self.null(torch.tanh(self.null_hidden(evidence)))


@dataclass(frozen=True)
class _Texts:
    """The two texts of each window, right-padded on their own."""

    question_ids: Tensor  # [B, Q]
    context_ids: Tensor  # [B, C]
    question_lengths: Tensor  # [B]
    context_lengths: Tensor  # [B]
    question_mask: Tensor  # [B, Q] bool
    context_mask: Tensor  # [B, C] bool

    def exact_match(self, unknown_id: int) -> Tensor:
        """Tell which context tokens occur in the question, [B, C] bool; unknown words match nothing."""
        same = self.context_ids[:, :, None] == self.question_ids[:, None, :]
        known = self.context_ids != unknown_id
        return (same & self.question_mask[:, None, :]).any(dim=2) & known & self.context_mask

    def window_to_context(self, length: int) -> Tensor:
        """Return the context index of each window position, [B, L], clamped outside the context."""
        positions = torch.arange(length, device=self.context_ids.device)
        return (positions - self.question_lengths[:, None]).clamp(0, self.context_ids.shape[1] - 1)


def masked_max(states: Tensor, mask: Tensor) -> Tensor:
    """Return the largest value of each feature, [B, D], of states [B, C, D] where the mask [B, C] is True."""
    return states.masked_fill(~mask[..., None], torch.finfo(states.dtype).min).amax(dim=1)


def _split(input_ids: Tensor, is_token: Tensor, is_context: Tensor) -> _Texts:
    question_lengths = (is_token & ~is_context).sum(dim=1)
    context_lengths = (is_token & is_context).sum(dim=1)
    steps = torch.arange(input_ids.shape[1], device=input_ids.device)
    question_steps, context_steps = steps[: int(question_lengths.max())], steps[: int(context_lengths.max())]
    places = (question_lengths[:, None] + context_steps).clamp(max=input_ids.shape[1] - 1)
    return _Texts(
        question_ids=input_ids[:, : len(question_steps)],
        context_ids=input_ids.gather(1, places),
        question_lengths=question_lengths,
        context_lengths=context_lengths,
        question_mask=question_steps < question_lengths[:, None],
        context_mask=context_steps < context_lengths[:, None],
    )


def _masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(states.dtype)[..., None]
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
