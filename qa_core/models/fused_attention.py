"""torch's fused attention on a CPU, whose backward pass is computed in float32 when the forward pass is in 16 bits.

In 16 bits torch's backward kernel takes two to three times as long as in float32 and is less exact. The copies live
for one layer's backward pass. Networks of transformers come here by the name of their attention: see `NAME`.

Dimensions: B batch, H heads, L tokens, D width of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NAME = "sdpa_float32_backward"  # among transformers' kinds of attention
HALF = (torch.bfloat16, torch.float16)

forward_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
backward_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def use_fused_attention(network: nn.Module) -> None:
    """Let every part of a network that transformers built with torch's fused attention train with this one."""
    configs = [getattr(module, "config", None) for module in network.modules()]
    chosen = [config for config in configs if getattr(config, "_attn_implementation", None) == "sdpa"]
    if not chosen:
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention_of_transformers)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    for config in chosen:
        config._attn_implementation = NAME  # type: ignore[union-attr]


def attention_of_transformers(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return attention as transformers asks for it: [B, L, H, D] of query, key and value, each [B, H, L, D]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    is_plain = not dropout and not any(options.get(name) is not None for name in ("position_bias", "cache"))
    is_causal = options.get("is_causal")
    if attention_mask is None and (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        is_plain = False
    if is_plain and takes(query, key, value, attention_mask):
        outputs = _Attention.apply(query, key, value, attention_mask, scaling)
        return outputs.transpose(1, 2).contiguous(), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
    )


def takes(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Tell whether `_Attention` is of use: in training on a CPU in 16 bits, where torch takes its fused kernel."""
    tensors = (query, key, value)
    return (
        torch.is_grad_enabled()
        and any(tensor.requires_grad for tensor in tensors)
        and all(tensor.device.type == "cpu" and tensor.dtype in HALF for tensor in tensors)
        and query.shape[:2] == key.shape[:2] == value.shape[:2]
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and all(tensor.stride(-1) == 1 for tensor in tensors)
        and (mask is None or (mask.dtype is torch.bool and mask.dim() == 4))
        and torch.backends.cuda.flash_sdp_enabled()
    )


class _Attention(torch.autograd.Function):
    """softmax(query keyᵀ scale) value, [B, H, L, D], the mask [B, 1, L, L] True where a key counts."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
    ) -> Tensor:
        added = _added(mask, query.dtype)
        outputs, log_sums = forward_kernel(query, key, value, 0.0, False, attn_mask=added, scale=scale)
        ctx.save_for_backward(query, key, value, mask, outputs, log_sums)
        ctx.scale = scale
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, outputs, log_sums = ctx.saved_tensors
        floats = [tensor.float() for tensor in (gradient, query, key, value, outputs)]
        added = _added(mask, torch.float32)
        gradients = backward_kernel(*floats, log_sums, 0.0, False, attn_mask=added, scale=ctx.scale)
        return (*[item.to(query.dtype) for item in gradients], None, None)


def _added(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return what is added to the scores: 0 where a key counts, else -inf."""
    if mask is None:
        return None
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), float("-inf"))
