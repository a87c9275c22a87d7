"""Random weights whose attention finds equal and neighbouring tokens from the first step.

A small network that answers questions has to learn two things before all else: to find the words of the question in
the passage, and to look from there to a neighbouring word. From the usual random weights that takes longer than all the
rest. Here one half of the heads begins with the first, the other half with the second. All of it is trained afterwards.

After Trockman and Kolter 2023 (arXiv 2305.09828), who begin with products of queries and keys near the identity; that
heads divide tokens and places between them is ours. Networks without attention are left as they are.

Dimensions: D width, H heads, E width of a head.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from qa_core.families.base import Family

LONGEST_WAVE = 100.0  # tokens, divided by 2 pi: windows have up to 128
TOKENS_IN_PLACES = 0.1  # how much of a token's vector lies in the half that is for places
OFFSETS = (
    (1, 3),
    (2, 4),
)  # tokens back that the heads for places look, in layers 0 and 1; again from layer 2 on
BIAS = 4.0  # of T5, to the attention's logits
PLACES_SCALE = 0.3  # of T5: how much the tokens still count in the heads for places


def start_matching(family: Family, model: nn.Module) -> None:
    """Change a network's random weights in place; `family` names its queries and keys."""
    pairs = _queries_and_keys(family, model)
    for query, key in pairs:
        key.weight.data.copy_(query.weight * (key.weight.norm() / query.weight.norm()))
    for name, module in model.named_modules():
        if name.endswith("position_embeddings"):
            _divide_tokens_and_places(model, module, pairs, heads=_heads(model))
        if name.endswith("relative_attention_bias"):
            _place_heads(module, pairs)


def _queries_and_keys(family: Family, model: nn.Module) -> list[tuple[nn.Linear, nn.Linear]]:
    """Return the pairs in the order of the layers."""
    modules: dict[str, Any] = dict(model.named_modules())
    roles = family.linear_roles(model)
    return [
        (module, modules[name.removesuffix(query) + key])
        for query, key in zip(roles.queries, roles.keys, strict=True)
        for name, module in modules.items()
        if name.endswith(f".{query}")
    ]


def _heads(model: Any) -> int:
    return int(model.config.num_attention_heads)


@torch.no_grad()
def _divide_tokens_and_places(
    model: Any, positions: Any, pairs: list[tuple[nn.Linear, nn.Linear]], *, heads: int
) -> None:
    """Give places the second half of the width, as waves, and let each head read one half."""
    words = model.get_input_embeddings().weight  # [V, D]
    half = words.shape[1] // 2
    frequencies = LONGEST_WAVE ** -(torch.arange(half // 2) / (half // 2))  # [D / 4]
    angles = torch.arange(len(positions.weight))[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [positions, D / 2], each of norm sqrt(D / 4)
    words[:, half:] *= TOKENS_IN_PLACES
    positions.weight.zero_()
    positions.weight[:, half:] = waves / math.sqrt(half / 2)
    for layer, (query, key) in enumerate(pairs):
        norm = query.weight.norm()
        by_head = query.weight.view(heads, -1, 2 * half)  # [H, E, D]
        by_head[: heads // 2, :, half:] = 0.0
        by_head[heads // 2 :, :, :half] = 0.0
        query.weight *= norm / query.weight.norm()
        key.weight.copy_(query.weight)
        turned = key.weight.view(heads, -1, 2 * half)
        for number in range(heads // 2, heads):
            offset = OFFSETS[layer % 2][(number - heads // 2) % 2]
            turned[number, :, half:] = _turned(turned[number, :, half:], frequencies * offset)


def _turned(rows: Tensor, angles: Tensor) -> Tensor:
    """Return weights [E, D / 2] that make of the waves of a place what `rows` make of those `angles` further on."""
    sines, cosines = rows.chunk(2, dim=1)
    return torch.cat(
        [
            sines * angles.cos() - cosines * angles.sin(),
            sines * angles.sin() + cosines * angles.cos(),
        ],
        dim=1,
    )


@torch.no_grad()
def _place_heads(bias: Any, pairs: list[tuple[nn.Linear, nn.Linear]]) -> None:
    """Let T5's heads for places prefer a few tokens back, and those for tokens look back past the token itself.

    One table [buckets, H] serves all layers; its first half is for what stands before, a small distance its own bucket.
    T5 tells question from context by nothing else than their order, so that a token which may find itself learns
    nothing from an equal one in the question.
    """
    buckets, heads = bias.weight.shape
    bias.weight.zero_()
    bias.weight[0, : heads // 2] = -2 * BIAS
    bias.weight[buckets // 2 :, : heads // 2] = -BIAS
    for number in range(heads // 2, heads):
        bias.weight[OFFSETS[0][(number - heads // 2) % 2], number] = BIAS
    for query, key in pairs:
        for layer in (query, key):
            layer.weight.view(heads, -1, layer.weight.shape[1])[heads // 2 :] *= PLACES_SCALE
