"""The BiLSTM reader: its LSTM against torch's packed one, and how a window becomes two texts."""

from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from qa_core.models import lstm
from qa_core.models.lstm import BiLstm, PointerReader, PointerReaderConfig
from qa_core.models.word_embedding import EmbeddingConfig

pytestmark = pytest.mark.numeric


def test_the_bilstm_equals_torchs_packed_one_in_states_and_gradients() -> None:
    torch.manual_seed(0)
    ours = BiLstm(3, 4)
    theirs = torch.nn.LSTM(3, 4, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for name, item in theirs.named_parameters():
            source = ours.backward_lstm if name.endswith("_reverse") else ours.forward_lstm
            item.copy_(source.get_parameter(name.removesuffix("_reverse")))
    inputs = torch.randn(3, 6, 3)
    lengths = torch.tensor([4, 6, 1])
    mask = torch.arange(6) < lengths[:, None]
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    states = ours(inputs, lengths)
    torch.testing.assert_close(states[mask], expected[mask])
    weights = torch.randn_like(expected[mask])
    (states[mask] * weights).sum().backward()
    (expected[mask] * weights).sum().backward()
    for name, item in theirs.named_parameters():
        source = ours.backward_lstm if name.endswith("_reverse") else ours.forward_lstm
        grad = source.get_parameter(name.removesuffix("_reverse")).grad
        torch.testing.assert_close(grad, item.grad, atol=1e-5, rtol=1e-5)


IDS = torch.tensor([[2, 7, 8, 3, 9, 7, 3, 0, 0], [2, 6, 3, 1, 6, 5, 6, 4, 3]])
TYPES = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1]])


def _texts() -> Any:
    return lstm._split(IDS, MASK.bool(), TYPES.bool())


def test_a_window_is_split_into_question_and_context_by_its_types() -> None:
    texts = _texts()
    assert texts.question_lengths.tolist() == [4, 3]
    assert texts.context_lengths.tolist() == [3, 6]
    assert texts.question_ids[texts.question_mask].tolist() == [2, 7, 8, 3, 2, 6, 3]
    assert texts.context_ids[texts.context_mask].tolist() == [9, 7, 3, 1, 6, 5, 6, 4, 3]


def test_each_window_place_knows_its_context_place() -> None:
    places = _texts().window_to_context(9)
    assert places[0, 4:7].tolist() == [0, 1, 2]
    assert places[1, 3:].tolist() == [0, 1, 2, 3, 4, 5]
    assert int(places.min()) == 0
    assert int(places.max()) == 5


def test_words_of_the_question_are_marked_in_the_context_but_unknown_words_never() -> None:
    matches = _texts().exact_match(unknown_id=1)
    assert matches[0, :3].tolist() == [False, True, True]
    assert not matches[0, 3:].any()
    assert matches[1].tolist() == [False, True, False, True, False, True]
    same_unknown = lstm._split(torch.tensor([[1, 1, 5]]), torch.ones(1, 3).bool(), TYPES[:1, 3:6].bool())
    assert not same_unknown.exact_match(unknown_id=1).any()
    assert same_unknown.exact_match(unknown_id=0).tolist() == [[True, False]]


def test_the_null_logits_are_written_at_the_null_positions() -> None:
    torch.manual_seed(0)
    config = PointerReaderConfig(
        embedding=EmbeddingConfig(vocab_size=10, pad_id=0, size=4, is_trained=True),
        unknown_id=1,
        hidden_size=3,
        attention="dot",
        exact_match=True,
        dropout=0.0,
    )
    reader = PointerReader(config).eval()
    with torch.no_grad():
        reader.null.weight.zero_()
        reader.null.bias.copy_(torch.tensor([70.0, 80.0]))
        start, end = reader(
            IDS, attention_mask=MASK, token_type_ids=TYPES, null_positions=torch.tensor([0, 2])
        )
    assert (start == 70.0).nonzero().tolist() == [[0, 0], [1, 2]]
    assert (end == 80.0).nonzero().tolist() == [[0, 0], [1, 2]]
