"""The study's networks: each against a plain re-computation, their switches, penalty, loss and initial weights."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from qa_core.errors import ConfigError
from qa_core.models.position_reader import PositionReader, PositionReaderConfig, answered_span_loss
from qa_core.models.word_embedding import EmbeddingConfig

pytestmark = pytest.mark.numeric

# [CLS] question [SEP] context [SEP], right-padded: 2 and 3 question words, 4 and 2 context words
IDS = torch.tensor([[2, 7, 8, 3, 9, 7, 5, 6, 3], [2, 6, 5, 4, 3, 8, 9, 3, 0]])
TYPES = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 0]])
NULLS = torch.tensor([0, 0])
P, Q = 7, 4
CONFIG = PositionReaderConfig(
    embedding=EmbeddingConfig(vocab_size=10, pad_id=0, size=5, is_trained=True),
    hidden_size=3,
    positions=P,
    question_positions=Q,
    attention="dot",
    pooling="flatten",
    kernel_l2=0.01,
    dropout=0.0,
    mask_padding=True,
    null_slot=True,
    see_question=True,
)
AS_CODED = {"mask_padding": False, "null_slot": False}
SHAPES = [("dot", "flatten"), ("multi_head", "max"), ("self", "max")]


def _reader(**changes: Any) -> PositionReader:
    torch.manual_seed(1)
    reader = PositionReader(replace(CONFIG, **changes)).eval()
    reader.initialise()
    return reader


def _logits(reader: PositionReader, ids: torch.Tensor = IDS) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return reader(ids, attention_mask=MASK, token_type_ids=TYPES, null_positions=NULLS)


def _read(lstm: Any, words: torch.Tensor) -> torch.Tensor:
    """Return both directions' states [C, D] of one text without padding."""
    onward, _ = lstm.forward_lstm(words)
    backward, _ = lstm.backward_lstm(words.flip(0))
    return torch.cat([onward, backward.flip(0)], dim=-1)


def _expected(reader: PositionReader, question_ids: list[int], context_ids: list[int]) -> torch.Tensor:
    """Return start logits [P] of one window, layer by layer as the study describes them, without batch or mask."""
    config = reader.config
    with torch.no_grad():
        context = _read(reader.context_reader, reader.embedding(torch.tensor(context_ids)))
        attended = torch.zeros_like(context)
        if config.see_question:
            question = _read(reader.question_reader, reader.embedding(torch.tensor(question_ids)))
            if config.attention == "multi_head":
                everything = torch.ones(1, len(question), dtype=torch.bool)
                attended = context + reader.attention(context[None], question[None], everything)[0]
            else:
                attended = (context @ question.T).softmax(dim=-1) @ question
        if config.attention == "self":
            attended = attended + context + (context @ context.T).softmax(dim=-1) @ context
        fused, _ = reader.fusion(torch.cat([context, attended], dim=-1)[None])
        if config.pooling == "max":
            return reader.start(fused[0].amax(dim=0))
        padded = torch.zeros(config.positions, config.hidden_size)
        padded[: len(context)] = fused[0]
        return reader.start(padded.flatten())


@pytest.mark.parametrize(("attention", "pooling"), SHAPES)
def test_corrected_it_is_the_studys_network_on_unpadded_texts_with_a_null_slot(
    attention: str, pooling: str
) -> None:
    reader = _reader(attention=attention, pooling=pooling)
    start, _ = _logits(reader)
    first = _expected(reader, [7, 8], [3, 9, 7, 5, 6])
    torch.testing.assert_close(start[0, [0, 4, 5, 6, 7]], first[:5])
    second = _expected(reader, [6, 5, 4], [3, 8, 9])
    torch.testing.assert_close(start[1, [0, 5, 6]], second[:3])


@pytest.mark.parametrize(("attention", "pooling"), SHAPES)
def test_as_coded_it_is_the_studys_network_on_texts_padded_to_their_full_lengths(
    attention: str, pooling: str
) -> None:
    reader = _reader(attention=attention, pooling=pooling, **AS_CODED)
    start, _ = _logits(reader)
    first = _expected(reader, [7, 8, 0, 0], [9, 7, 5, 6, 0, 0, 0])
    torch.testing.assert_close(start[0, 4:8], first[:4])
    assert start[0, 0] == start[0, 4]  # no answer is the first word
    second = _expected(reader, [6, 5, 4, 0], [8, 9, 0, 0, 0, 0, 0])
    torch.testing.assert_close(start[1, 5:7], second[:2])


def test_the_question_blind_model_is_that_of_the_study_and_has_no_question_branch() -> None:
    reader = _reader(attention="self", pooling="max", see_question=False, **AS_CODED)
    start, _ = _logits(reader)
    torch.testing.assert_close(start[0, 4:8], _expected(reader, [], [9, 7, 5, 6, 0, 0, 0])[:4])
    assert not hasattr(reader, "question_reader")


def test_end_has_a_head_of_its_own() -> None:
    reader = _reader()
    start, end = _logits(reader)
    assert not torch.allclose(start, end)
    with torch.no_grad():
        reader.end.load_state_dict(reader.start.state_dict())
    start, end = _logits(reader)
    assert torch.equal(start, end)


def test_a_text_longer_than_its_places_is_refused_and_a_masked_question_has_none() -> None:
    for changes in ({"positions": 4}, {"question_positions": 2, **AS_CODED}):
        with pytest.raises(ConfigError, match=r"found a text of \d words; allowed: [24], see model\.options"):
            _logits(_reader(**changes))
    _logits(_reader(positions=5, question_positions=2))


def test_the_penalty_is_the_squares_of_the_input_kernels_and_the_heads() -> None:
    reader = _reader(attention="multi_head", pooling="max")
    lstms = [reader.context_reader, reader.question_reader]
    kernels = [
        getattr(item, side).weight_ih_l0 for item in lstms for side in ("forward_lstm", "backward_lstm")
    ]
    kernels += [reader.fusion.weight_ih_l0, reader.start.weight, reader.end.weight]
    penalty = reader.kernel_penalty()
    assert penalty is not None
    torch.testing.assert_close(penalty, 0.01 * sum(item.square().sum() for item in kernels))
    penalty.backward()
    assert {name for name, item in reader.named_parameters() if item.grad is not None} == {
        name for name, item in reader.named_parameters() if any(item is kernel for kernel in kernels)
    }
    assert _reader(kernel_l2=0.0).kernel_penalty() is None


def test_unanswerable_rows_cost_nothing_and_the_null_position_takes_no_probability() -> None:
    minimum = torch.finfo(torch.float32).min
    start = torch.tensor([[5.0, minimum, 1.0, 2.0], [9.0, minimum, 4.0, 3.0]], requires_grad=True)
    end = torch.tensor([[5.0, minimum, 0.0, 2.5], [9.0, minimum, 4.0, 3.0]], requires_grad=True)
    loss = answered_span_loss(
        start,
        end,
        start_positions=torch.tensor([2, 0]),
        end_positions=torch.tensor([3, 0]),
        null_positions=torch.tensor([0, 0]),
    )
    expected = F.cross_entropy(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    expected = expected + F.cross_entropy(torch.tensor([[0.0, 2.5]]), torch.tensor([1]))
    torch.testing.assert_close(loss, expected / 4)  # the mean of two rows, of start and end
    loss.backward()
    for item in (start, end):
        assert item.grad is not None
        assert not item.grad[1].any()
        assert not item.grad[:, :2].any()
        assert item.grad[0, 2:].all()


def test_initial_weights_are_those_of_keras() -> None:
    reader = _reader(hidden_size=8, attention="multi_head")
    for name, item in reader.named_parameters():
        if name == "embedding.weight":
            assert not item[0].any()
            assert 0.04 < item.abs().max() <= 0.05
        elif name.endswith("weight_hh_l0"):
            torch.testing.assert_close(item.T @ item, torch.eye(8), atol=1e-5, rtol=0)
        elif item.dim() == 2:
            bound = (6 / sum(item.shape)) ** 0.5
            assert 0.8 * bound < item.abs().max() <= bound
        elif name.endswith("bias_ih_l0"):
            assert item.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16
        else:
            assert not item.any()
