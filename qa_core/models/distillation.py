"""What a student learns from a teacher: soft answers, and hidden states of chosen layers.

Soft answers: T^2 KL(p_teacher || p_student), both softmaxes at temperature T (Hinton et al. 2015, arXiv 1503.02531,
section 2). Hidden states: mean squared distance after a learned projection (Romero et al. 2014, arXiv 1412.6550) and
cosine distance (Sanh et al. 2019, arXiv 1910.01108, section 2).

Every loss is a mean over windows of what one window gives, so that it does not depend on how a batch is cut into
micro-batches. Dimensions: B batch, L window tokens, C context tokens, T target tokens, N tokens of either kind, D
width, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qa_core.models.target_scores import IGNORED


def span_distillation(
    student: Sequence[Tensor], teacher: Sequence[Tensor], allowed: Tensor, *, temperature: float
) -> Tensor:
    """Return T^2 times the mean of the start's and the end's KL divergence, averaged over windows, a scalar.

    Args:
        student, teacher: start and end logits, each [B, L].
        allowed: [B, L] bool; positions where it is False count for nothing, whatever their logits.
    """
    divergences = [
        _divergence(_log_shares(own, allowed, temperature), _log_shares(other, allowed, temperature))
        for own, other in zip(student, teacher, strict=True)
    ]  # each [B]
    return temperature**2 * torch.stack(divergences).mean()


def target_distillation(
    student: Tensor, teacher: Tensor, target_ids: Tensor, *, temperature: float
) -> Tensor:
    """Return T^2 times the KL divergence over the vocabulary, the mean per target token, then per window, a scalar.

    Args:
        student, teacher: [B, T, V] logits of the target tokens. Vocabularies that are padded to different sizes are
            compared on the rows that both have.
        target_ids: [B, T] int64; padding is left out.
    """
    rows = min(student.shape[2], teacher.shape[2])
    own, other = (
        (logits[..., :rows].float() / temperature).log_softmax(dim=-1) for logits in (student, teacher)
    )
    return temperature**2 * _mean_per_window(_divergence(own, other), target_ids != IGNORED)


def state_distance(student: Tensor, teacher: Tensor, is_token: Tensor) -> Tensor:
    """Return the mean squared distance of states [B, N, D] over width and tokens, then windows, a scalar.

    Args:
        is_token: [B, N] bool; padding is left out.
    """
    return _mean_per_window((student.float() - teacher.float()).square().mean(dim=-1), is_token)


def state_angle(student: Tensor, teacher: Tensor, is_token: Tensor) -> Tensor:
    """Return 1 - the cosine of states [B, N, D], averaged over tokens, then windows, a scalar."""
    cosines = F.cosine_similarity(student.float(), teacher.float(), dim=-1)  # [B, N]
    return _mean_per_window(1 - cosines, is_token)


@contextmanager
def caught_outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list that the modules' outputs fill, in the order of `modules`, when they run inside the block.

    Of a tuple the first item is taken; of several runs of a module the last one.
    """
    outputs: list[Tensor] = [torch.empty(0)] * len(modules)

    def keep(index: int) -> None:
        def hook(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            outputs[index] = output[0] if isinstance(output, tuple) else output

        handles.append(modules[index].register_forward_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for index in range(len(modules)):
            keep(index)
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def token_mask(tokens: str, batch: Mapping[str, Tensor]) -> Tensor:
    """Return where states of these tokens are no padding, [B, N] bool; for the kinds see `families.base.Block`."""
    lengths = batch["attention_mask"].sum(dim=1)
    if tokens == "window":
        return batch["attention_mask"].bool()
    if tokens == "context":
        return _steps_below((batch["attention_mask"] * batch["token_type_ids"]).sum(dim=1))
    is_target = batch["target_ids"] != IGNORED
    if tokens == "target":
        return is_target
    assert tokens == "window and target", tokens
    steps = torch.arange(batch["input_ids"].shape[1] + is_target.shape[1], device=lengths.device)
    return steps < (lengths + is_target.sum(dim=1))[:, None]


def on_context(states: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the states [B, C, D] of the context side of states [B, L, D] of a window with the question first."""
    question_lengths = (batch["attention_mask"] * (1 - batch["token_type_ids"])).sum(dim=1)
    context_lengths = (batch["attention_mask"] * batch["token_type_ids"]).sum(dim=1)
    steps = torch.arange(int(context_lengths.max()), device=states.device)
    places = (question_lengths[:, None] + steps).clamp(max=states.shape[1] - 1)
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[2]))


def _log_shares(logits: Tensor, allowed: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities over the allowed positions, [B, L]; elsewhere they are finite, and the share is 0.

    Masked once more: divided by a temperature below 1, the minimum that masked logits hold would overflow.
    """
    lowest = torch.finfo(torch.float32).min
    return (logits.float() / temperature).masked_fill(~allowed, lowest).log_softmax(dim=-1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher || student) over the last dimension of log-probabilities."""
    return (teacher.exp() * (teacher - student)).sum(dim=-1)


def _mean_per_window(values: Tensor, is_token: Tensor) -> Tensor:
    """Return the mean over rows of each row's mean over its tokens, a scalar, from values and mask [B, N]."""
    return (values.masked_fill(~is_token, 0.0).sum(dim=1) / is_token.sum(dim=1)).mean()


def _steps_below(lengths: Tensor) -> Tensor:
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
