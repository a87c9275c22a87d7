"""One self-attention block among Mamba blocks: a hybrid of the two.

A recurrent state forgets what an attention block can look up. The block stands before one of the Mamba blocks,
on the residual stream, without positions: the Mamba blocks below tell it the order of tokens. Names and weights
of everything else stay those of transformers, so that a plain checkpoint can be given such a block.

Dimensions: B batch, L tokens of this pass, S tokens so far, D width, H heads.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import LinearAttentionAndFullAttentionLayer
from transformers.models.mamba.modeling_mamba import MambaBlock, MambaRMSNorm

from qa_core.errors import ConfigError


def add_attention(body: nn.Module, *, dropout: float, starts_silent: bool) -> nn.Module:
    """Give a `MambaModel` the block that its configuration names, in place; without one, change nothing.

    Args:
        body: its `config.attention_layer` says before which Mamba block, counted from 0, and
            `config.attention_heads` how many heads; None or absent: no block.
        dropout: on attention weights.
        starts_silent: the block adds nothing until it is trained, as beside pretrained weights.

    Raises:
        ConfigError: there is no such Mamba block, or the heads do not divide the width.
    """
    config: Any = body.config
    layer = getattr(config, "attention_layer", None)
    if layer is None:
        return body
    if not 0 <= layer < config.num_hidden_layers:
        raise ConfigError(
            f"model.options.attention_layer: found {layer}; allowed: 0 to {config.num_hidden_layers - 1}, the "
            "Mamba block that it stands before"
        )
    if config.attention_heads < 1 or config.hidden_size % config.attention_heads:
        raise ConfigError(
            f"model.options.attention_heads: found {config.attention_heads}; allowed: a divisor of the width "
            f"{config.hidden_size}"
        )
    layers: Any = body.layers
    block: Any = layers[layer]
    block.__class__ = AttentionMambaBlock
    block.self_attention = CausalSelfAttention(config, dropout)
    if starts_silent:
        nn.init.zeros_(block.self_attention.o_proj.weight)
    return body


class AttentionMambaBlock(MambaBlock):
    """transformers' block with a self-attention block before it."""

    self_attention: "CausalSelfAttention"

    def forward(
        self,
        hidden_states: Tensor,
        cache_params: Any = None,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the states [B, L, D] after both blocks; the mask is a tensor [B, L] or None."""
        past = None if cache_params is None else _Past.of(cache_params, self.layer_idx)
        attended = self.self_attention(hidden_states, attention_mask, past)
        return super().forward(
            hidden_states + attended, cache_params=cache_params, attention_mask=attention_mask, **kwargs
        )


class CausalSelfAttention(nn.Module):
    """Pre-normalised multi-head attention of each token to itself and to what stands before it."""

    def __init__(self, config: Any, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = config.attention_heads, dropout
        self.norm = MambaRMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, states: Tensor, mask: Tensor | None, past: "_Past | None") -> Tensor:
        """Return what the block adds to `states`, [B, L, D].

        Args:
            states: [B, L, D].
            mask: [B, L], 1 on tokens and 0 on padding, which no token sees; None: all are tokens.
            past: keys, values and mask of the tokens before these, which it extends; None: there are none.
        """
        projected = self.qkv_proj(self.norm(states)).unflatten(-1, (3, self.heads, -1))  # [B, L, 3, H, D/H]
        query, key, value = projected.permute(2, 0, 3, 1, 4)  # each [B, H, L, D/H]
        if past is not None:
            key, value, mask = past.extended(key, value, mask)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if mask is None else _allowed(mask, query.shape[2]),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None,
        )
        return self.o_proj(attended.transpose(1, 2).flatten(2))


class _Past(LinearAttentionAndFullAttentionLayer):
    """One layer of a cache: Mamba's states, and keys, values and mask of the attention block."""

    mask: Tensor | None = None  # [B, S] bool

    @staticmethod
    def of(cache: Any, layer: int) -> "_Past":
        """Return the cache's own entry for the layer; transformers makes one for Mamba's states alone."""
        if not isinstance(cache.layers[layer], _Past):
            cache.layers[layer] = _Past()
        return cache.layers[layer]

    def extended(self, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Add keys and values [B, H, L, D/H] and the mask; return them all, [B, H, S, D/H] and [B, S].

        transformers passes the prompt's mask with the prompt only; what is generated has no padding.
        """
        if mask is None:
            mask = torch.ones(key.shape[0], key.shape[2], device=key.device)
        mask = mask.bool()
        self.mask = mask if self.mask is None else torch.cat([self.mask, mask], dim=1)
        key, value = self.update(key, value)
        return key, value, self.mask


def _allowed(mask: Tensor, queries: int) -> Tensor:
    """Return which keys the last `queries` tokens may see, [B, 1, L, S] bool.

    Padding sees itself, because attention to nothing is not a number.
    """
    place = torch.arange(mask.shape[1], device=mask.device)
    query, key = place[-queries:, None], place[None, :]
    return (((key <= query) & mask.bool()[:, None, :]) | (key == query))[:, None]
