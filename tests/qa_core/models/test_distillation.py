"""What a student learns from: the study's toy values, agreement with torch's own divergence, padding left out."""

import pytest
import torch
from torch.nn import functional as F

from qa_core.models.distillation import (
    caught_outputs,
    on_context,
    span_distillation,
    state_angle,
    state_distance,
    target_distillation,
    token_mask,
)
from qa_core.models.lstm import _split
from qa_core.models.span_heads import mask_span_logits, span_loss

pytestmark = pytest.mark.numeric

STUDENT = (torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.0, 1.0, 3.0]]))
TEACHER = (torch.tensor([[0.0, 3.0, 0.0]]), torch.tensor([[1.0, 0.0, 2.0]]))
EVERYWHERE = torch.ones(1, 3, dtype=torch.bool)
IGNORED = -100


def _logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.facts
def test_the_toy_vectors_give_the_values_of_the_study():
    soft = span_distillation(STUDENT, TEACHER, EVERYWHERE, temperature=2.0)
    hard = span_loss(*STUDENT, start_positions=torch.tensor([1]), end_positions=torch.tensor([2]))
    found = [float(soft), float(hard), float(0.5 * soft + 0.5 * hard)]
    assert found == pytest.approx(
        [0.342325, 0.288726, 0.315525], abs=1e-6
    )  # float32, the study gives six digits


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0, 7.0])
def test_the_span_loss_equals_torchs_divergence_over_the_allowed_positions_alone(temperature):
    student, teacher = ((_logits(seed, 4, 9), _logits(seed + 1, 4, 9)) for seed in (0, 2))
    allowed = torch.rand(4, 9, generator=torch.Generator().manual_seed(4)) > 0.4
    allowed[:, 0] = True
    masked = [tuple(mask_span_logits(item, allowed) for item in pair) for pair in (student, teacher)]
    found = span_distillation(*masked, allowed, temperature=temperature)
    total = torch.zeros(())
    for own, other in zip(student, teacher, strict=True):
        for row in range(4):
            kept_own, kept_other = own[row][allowed[row]], other[row][allowed[row]]
            total += F.kl_div(
                (kept_own / temperature).log_softmax(0),
                (kept_other / temperature).log_softmax(0),
                reduction="sum",
                log_target=True,
            )
    torch.testing.assert_close(found, temperature**2 * total / (2 * 4))
    assert float(found) > 0.1


@pytest.mark.parametrize("temperature", [0.25, 2.0])
def test_masked_positions_give_neither_nan_nor_gradient_whatever_they_hold(temperature):
    allowed = torch.tensor([[True, False, True, True, False]])
    losses, gradients = [], []
    for filler in (torch.finfo(torch.float32).min, 3.0e4, -torch.inf):
        student = _logits(1, 1, 5).masked_fill(~allowed, filler).requires_grad_()
        teacher = _logits(2, 1, 5).masked_fill(~allowed, filler)
        loss = span_distillation((student, student), (teacher, teacher), allowed, temperature=temperature)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(student.grad)
    assert torch.isfinite(losses[0])
    assert torch.equal(torch.stack(losses), losses[0].expand(3))
    for gradient in gradients:
        assert torch.equal(gradient, gradients[0])
        assert not gradient[~allowed].any()
        assert gradient[allowed].all()


def test_a_gradient_pulls_the_students_shares_towards_the_teachers():
    """d(T^2 KL)/d logits = T (p_student - p_teacher), halved between start and end and meaned over the batch."""
    start, end = (_logits(seed, 2, 6).requires_grad_() for seed in (0, 1))
    teacher = (_logits(2, 2, 6), _logits(3, 2, 6))
    allowed = torch.ones(2, 6, dtype=torch.bool)
    span_distillation((start, end), teacher, allowed, temperature=3.0).backward()
    for own, other in zip((start, end), teacher, strict=True):
        expected = 3.0 * ((own / 3).softmax(-1) - (other / 3).softmax(-1)) / (2 * 2)
        torch.testing.assert_close(own.grad, expected.detach())


def test_the_divergence_from_itself_is_zero():
    logits = (_logits(0, 3, 7), _logits(1, 3, 7))
    assert float(span_distillation(logits, logits, torch.ones(3, 7, dtype=torch.bool), temperature=2.0)) == 0
    targets = torch.tensor([[4, 2, IGNORED]])
    written = _logits(2, 1, 3, 11)
    assert float(target_distillation(written, written, targets, temperature=2.0)) == 0


def test_the_target_loss_is_an_explicit_sum_over_vocabulary_tokens_and_windows():
    student, teacher = _logits(0, 2, 3, 5), _logits(1, 2, 3, 5)
    targets = torch.tensor([[4, 1, 2], [3, IGNORED, IGNORED]])
    found = target_distillation(student, teacher, targets, temperature=1.5)
    windows = []
    for row, length in ((0, 3), (1, 1)):
        tokens = []
        for place in range(length):
            own, other = ((item[row, place] / 1.5).softmax(0) for item in (student, teacher))
            tokens.append(sum(p * (p / q).log() for p, q in zip(other, own, strict=True)))
        windows.append(sum(tokens) / length)
    torch.testing.assert_close(found, 1.5**2 * sum(windows) / 2)


def test_what_is_written_at_padded_targets_changes_nothing_and_padded_vocabularies_are_cut_to_the_shared_rows():
    student, teacher = _logits(0, 2, 3, 5), _logits(1, 2, 3, 5)
    targets = torch.tensor([[4, 1, 2], [3, IGNORED, IGNORED]])
    expected = target_distillation(student, teacher, targets, temperature=2.0)
    junk = teacher.clone()
    junk[1, 1:] = 1e6
    assert torch.equal(target_distillation(student, junk, targets, temperature=2.0), expected)
    wider = torch.cat([teacher, _logits(2, 2, 3, 8)], dim=-1)
    cut = target_distillation(student, wider, targets, temperature=2.0)
    torch.testing.assert_close(cut, expected)  # rows of other strides: another kernel may add them
    assert not torch.equal(
        target_distillation(wider, _logits(5, 2, 3, 13), targets, temperature=2.0), expected
    )


def test_state_losses_leave_padding_out_and_count_each_window_once():
    student, teacher = _logits(0, 2, 4, 6), _logits(1, 2, 4, 6)
    is_token = torch.tensor([[True] * 4, [True, False, False, False]])
    distances = [F.mse_loss(student[0], teacher[0]), F.mse_loss(student[1, :1], teacher[1, :1])]
    torch.testing.assert_close(state_distance(student, teacher, is_token), sum(distances) / 2)
    angles = [
        F.cosine_embedding_loss(student[0], teacher[0], torch.ones(4)),
        F.cosine_embedding_loss(student[1, :1], teacher[1, :1], torch.ones(1)),
    ]
    torch.testing.assert_close(state_angle(student, teacher, is_token), sum(angles) / 2)
    alone = state_distance(student[1:, :1], teacher[1:, :1], is_token[1:, :1])
    torch.testing.assert_close(alone, distances[1])


def _batch() -> dict[str, torch.Tensor]:
    lengths, questions = torch.tensor([7, 9, 5]), torch.tensor([3, 2, 3])
    steps = torch.arange(9)
    return {
        "input_ids": torch.randint(1, 50, (3, 9), generator=torch.Generator().manual_seed(0)),
        "attention_mask": (steps < lengths[:, None]).long(),
        "token_type_ids": ((steps >= questions[:, None]) & (steps < lengths[:, None])).long(),
        "target_ids": torch.tensor([[1, 2, IGNORED], [3, 4, 5], [6, IGNORED, IGNORED]]),
    }


def test_masks_follow_the_tokens_that_states_stand_on():
    batch = _batch()
    counts = {
        "window": [7, 9, 5],
        "context": [4, 7, 2],
        "target": [2, 3, 1],
        "window and target": [9, 12, 6],
    }
    widths = {"window": 9, "context": 7, "target": 3, "window and target": 12}
    for tokens, expected in counts.items():
        mask = token_mask(tokens, batch)
        assert mask.shape == (3, widths[tokens])
        assert torch.equal(mask, torch.arange(widths[tokens]) < torch.tensor(expected)[:, None]), tokens


def test_the_context_of_a_window_is_the_context_that_the_bilstm_reads():
    batch = _batch()
    texts = _split(batch["input_ids"], batch["attention_mask"].bool(), batch["token_type_ids"].bool())
    found = on_context(batch["input_ids"][..., None], batch).squeeze(-1)
    mask = token_mask("context", batch)
    assert torch.equal(mask, texts.context_mask)
    assert torch.equal(found[mask], texts.context_ids[mask])
    window = batch["input_ids"][batch["token_type_ids"].bool()]
    assert torch.equal(found[mask], window)


def test_outputs_are_caught_in_the_asked_order_and_inside_the_block_alone():
    layers = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))
    inputs = torch.ones(1, 2)
    with caught_outputs([layers[2], layers[0]]) as outputs:
        for layer in layers:
            expected = layer(inputs)
    last, first = outputs
    assert torch.equal(last, expected)
    assert torch.equal(first, layers[0](inputs))
    layers[0](torch.zeros(1, 2))
    assert torch.equal(outputs[1], first)
    assert not any(layer._forward_hooks for layer in layers)
