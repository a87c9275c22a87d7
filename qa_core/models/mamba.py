"""What transformers' Mamba lacks: a scan that trains fast without CUDA kernels, and a span head.

`use_project_scan` changes how mixers compute, never what: outputs, gradients, weights and their names stay
the same. For the recurrence itself, see `selective_scan.py`.

Dimensions: B batch, L tokens, D width, E inner width, N state width.
"""

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.mamba.modeling_mamba import MambaMixer

from qa_core.models.selective_scan import selective_scan, selective_scan_and_state


class ScanMixer(MambaMixer):
    """transformers' mixer with the project's scan: where no CUDA kernel fits, for all but single steps.

    Generation fills a cache from the prompt with the scan and then goes on token by token with transformers' own step.
    """

    def forward(
        self,
        hidden_states: Tensor,
        cache_params: Any = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the mixed states [B, L, D] of `hidden_states` [B, L, D]; the mask is [B, L] or None."""
        is_ours = cache_params is None or self._can_fill(cache_params)
        if not is_ours or (hidden_states.is_cuda and _kernels_fit(self)):
            return super().forward(hidden_states, cache_params, attention_mask, **kwargs)
        mask = None if attention_mask is None else attention_mask[:, :, None]
        projected = self.in_proj(_masked(hidden_states, mask))  # [B, L, 2E]
        inputs, gate = projected.chunk(2, dim=-1)
        if cache_params is not None:
            before = inputs.transpose(1, 2)
            cache_params.update_conv_state(before, self.layer_idx, conv_kernel_size=self.conv_kernel_size)
        inputs = _masked(self._convolve(inputs), mask)
        widths = [self.time_step_rank, self.ssm_state_size, self.ssm_state_size]
        low_rank_steps, input_gates, output_gates = self.x_proj(inputs).split(widths, dim=-1)
        steps = F.linear(low_rank_steps, self.dt_proj.weight).float() + self.dt_proj.bias.float()
        arguments = {
            "decay": -torch.exp(self.A_log.float()),
            "input_gates": input_gates.float(),
            "output_gates": output_gates.float(),
        }
        if cache_params is None:
            scanned = selective_scan(inputs.float(), F.softplus(steps), **arguments)
        else:
            scanned, state = selective_scan_and_state(inputs.float(), F.softplus(steps), **arguments)
            cache_params.update_recurrent_state(state, self.layer_idx)
        gated = (scanned + inputs * self.D.float()) * F.silu(gate)
        return self.out_proj(gated.to(hidden_states.dtype))

    def _can_fill(self, cache: Any) -> bool:
        """Tell whether the cache is empty, so that the scan starts from nothing, and no gradient is wanted."""
        is_empty = cache.get_recurrent_state(self.layer_idx, state_idx=0) is None
        return is_empty and not torch.is_grad_enabled()

    def _convolve(self, inputs: Tensor) -> Tensor:
        padded = F.conv1d(
            inputs.transpose(1, 2),
            self.conv1d.weight,
            self.conv1d.bias,
            padding=self.conv_kernel_size - 1,
            groups=self.intermediate_size,
        )
        return self.act(padded[:, :, : inputs.shape[1]]).transpose(1, 2)


def use_project_scan(model: nn.Module) -> nn.Module:
    """Turn every Mamba mixer of the model into a `ScanMixer`, in place, and return the model."""
    for module in model.modules():
        if type(module) is MambaMixer:
            module.__class__ = ScanMixer
    return model


def scan_path(model: nn.Module) -> str:
    """Name what computes the scan of a model as it stands: "mamba-ssm", "project-scan" or "transformers"."""
    mixers = [module for module in model.modules() if isinstance(module, MambaMixer)]
    on_cuda = any(parameter.is_cuda for mixer in mixers for parameter in mixer.parameters())
    if on_cuda and all(_kernels_fit(mixer) for mixer in mixers):
        return "mamba-ssm"
    is_ours = bool(mixers) and all(isinstance(mixer, ScanMixer) for mixer in mixers)
    return "project-scan" if is_ours else "transformers"


class CausalSpanHead(nn.Module):
    """Start and end logits from states that see only what stands before them.

    A token's own state cannot know what follows it, so each is read beside the state of the last token,
    which has seen question and context whole.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.token = nn.Linear(width, width)
        self.summary = nn.Linear(width, width, bias=False)
        self.match = nn.Linear(width, width, bias=False)
        self.outputs = nn.Linear(width, 2)

    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits [B, L, 2] of states [B, L, D] and the right-padded mask [B, L]."""
        states = self.dropout(states)
        last = attention_mask.sum(dim=1) - 1  # [B]
        summary = states[torch.arange(len(states), device=states.device), last][:, None]  # [B, 1, D]
        hidden = self.token(states) + self.summary(summary) + self.match(states * summary)
        return self.outputs(F.gelu(hidden))


def _masked(states: Tensor, mask: Tensor | None) -> Tensor:
    return states if mask is None else states * mask.to(states.dtype)


def _kernels_fit(mixer: nn.Module) -> bool:
    """Tell whether the CUDA kernels are there and may read this mixer's weights.

    The fused kernel takes the weights of x_proj and out_proj as they are: it would pass by an adapter and
    fail on a quantised layer.
    """
    is_plain = all(type(getattr(mixer, name)) is nn.Linear for name in ("x_proj", "dt_proj", "out_proj"))
    return is_plain and importlib.util.find_spec("mamba_ssm") is not None
