"""Linear layers behind a mask: the weight is M * W, and what M keeps is decided by trained scores or by |W|.

Sources: static model pruning, arXiv 2210.06210; movement pruning, Sanh et al. 2020, arXiv 2005.07683. Masks are buffers
that change once per optimiser step, never within a forward pass. For the schedules and what decides, see
`qa_core/methods/static_prune.py`; for the packed form, `qa_core/models/stored/sparse.py`.

Dimensions: R rows (outputs), C columns (inputs), n = R * C.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from qa_core.models.stored.positions import top_mask


class MaskedLinear(nn.Module):
    """A Linear layer whose weight is mask * weight; the bias is never masked.

    Args:
        base_layer: the layer to mask; its weight stays what it is, all of it.
        scored: True adds the trained scores, 0 at the start; False: the magnitude of the weight decides.
    """

    mask: Tensor

    def __init__(self, base_layer: nn.Linear, *, scored: bool) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        weight = base_layer.weight
        self.scores = nn.Parameter(torch.zeros_like(weight)) if scored else None
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    @property
    def bias(self) -> nn.Parameter | None:
        """The base layer's own."""
        return self.base_layer.bias

    @property
    def weight(self) -> Tensor:
        """The masked weight [R, C], made anew at each look; gradients reach scores and base weight through it."""
        return _Masked.apply(self.base_layer.weight, self.scores, self.mask)

    @property
    def importance(self) -> Tensor:
        """What decides which weights are kept, [R, C], detached: the larger, the safer."""
        if self.scores is None:
            return self.base_layer.weight.detach().abs()
        return self.scores.detach()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., R] of inputs [..., C]."""
        return F.linear(inputs, self.weight, self.bias)


def masked_layers(model: nn.Module) -> dict[str, MaskedLinear]:
    """Return name -> masked layer, in the model's order."""
    return {name: item for name, item in model.named_modules() if isinstance(item, MaskedLinear)}


def masks_within_each(layers: Iterable[MaskedLinear], shares: Iterable[float]) -> Iterator[Tensor]:
    """Yield for each layer the mask of the top floor(share * n) of its own importance, made when it is asked for."""
    for layer, share in zip(layers, shares, strict=True):
        yield top_mask(layer.importance, kept_count(share, layer.mask.numel()))


def masks_within_all(layers: Sequence[MaskedLinear], share: float) -> Iterator[Tensor]:
    """Yield for each layer the mask of the top floor(share * n) of the importance of all layers together."""
    values = torch.cat([layer.importance.flatten() for layer in layers])
    masks = top_mask(values, kept_count(share, values.numel())).split(
        [layer.mask.numel() for layer in layers]
    )
    del values
    for layer, mask in zip(layers, masks, strict=True):
        yield mask.view_as(layer.mask)


def kept_count(share: float, size: int) -> int:
    """Return floor(share * size), the product taken as a decimal number: 0.29 of 100 is 29."""
    return min(size, math.floor(round(share * size, 6)))


def mean_score(layers: Sequence[MaskedLinear], temperature: float = 1.0) -> Tensor:
    """Return R, the mean over layers of the mean of sigmoid(S / temperature), a scalar with gradient."""
    return torch.stack([_MeanSigmoid.apply(layer.scores, temperature) for layer in layers]).mean()


def score_levels(layers: Sequence[MaskedLinear], temperature: float) -> list[float]:
    """Return the mean of sigmoid(S / temperature) of each layer: r_l."""
    with torch.no_grad():
        return torch.stack([_MeanSigmoid.apply(layer.scores, temperature) for layer in layers]).tolist()


class _Masked(torch.autograd.Function):
    """mask * weight; straight through for the scores: dL/dS = dL/d(mask * weight) * weight, pruned ones too."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor | None, mask: Tensor) -> Tensor:
        ctx.save_for_backward(weight, mask)
        return torch.where(mask, weight, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, mask = ctx.saved_tensors
        of_weight = torch.where(mask, gradient, 0.0) if ctx.needs_input_grad[0] else None
        of_scores = gradient * weight if ctx.needs_input_grad[1] else None
        return of_weight, of_scores, None


class _MeanSigmoid(torch.autograd.Function):
    """mean(sigmoid(S / p)), computed again in the backward pass: kept, it would be one more tensor of S's size."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(scores)
        ctx.temperature = temperature
        return (scores / temperature).sigmoid_().mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (scores,) = ctx.saved_tensors
        level = (scores / ctx.temperature).sigmoid_()
        slope = level * (1 - level)
        return slope.mul_(gradient / (scores.numel() * ctx.temperature)), None
