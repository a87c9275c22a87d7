"""Mamba's selective scan in plain torch: exact gradients, little memory, fast on a CPU.

    h_t = exp(dt_t * A) * h_{t-1} + dt_t * B_t * u_t        y_t = sum over the state of C_t * h_t

Source: Gu and Dao 2023, arXiv 2312.00752, section 3.2 and algorithm 2. The default training path of
transformers without CUDA kernels differentiates through slices of one large tensor, which costs O(L^2). Here
forward and backward each walk once over time, in chunks that stay in a core's cache. Only the states are
kept for the backward pass; exp(dt * A) is computed again.

Dimensions: B batch, L tokens, D inner width, N state width. Inside, tensors are laid out [L, B, N, D], so
that a step is contiguous and every sum over N or D is a batched matrix product.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements of [chunk, B, N, D]: 1 MiB of float32 stays in a core's cache; a GPU wants fewer, larger launches.
CHUNK_ELEMENTS = {"cpu": 2**18, "cuda": 2**24}


def selective_scan(
    inputs: Tensor,
    steps: Tensor,
    *,
    decay: Tensor,
    input_gates: Tensor,
    output_gates: Tensor,
) -> Tensor:
    """Return y, [B, L, D], differentiable once in every argument.

    Args:
        inputs: u, [B, L, D].
        steps: dt, [B, L, D], positive.
        decay: A, [D, N], negative.
        input_gates: B, [B, L, N].
        output_gates: C, [B, L, N].
    """
    tensors = _arranged(inputs, steps, decay, input_gates, output_gates)
    if torch.is_grad_enabled() and any(item.requires_grad for item in tensors):
        outputs = _SelectiveScan.apply(*tensors)
    else:
        outputs, _, _ = _scan(*tensors, keep_states=False)
    return outputs.transpose(0, 1)


@torch.no_grad()
def selective_scan_and_state(
    inputs: Tensor,
    steps: Tensor,
    *,
    decay: Tensor,
    input_gates: Tensor,
    output_gates: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return y, [B, L, D], and the state after the last token, [B, D, N], both without gradients.

    The arguments are those of `selective_scan`; generation goes on from the state.
    """
    tensors = _arranged(inputs, steps, decay, input_gates, output_gates)
    outputs, _, state = _scan(*tensors, keep_states=False)
    return outputs.transpose(0, 1), state.transpose(1, 2)


def selective_scan_reference(
    inputs: Tensor,
    steps: Tensor,
    *,
    decay: Tensor,
    input_gates: Tensor,
    output_gates: Tensor,
) -> Tensor:
    """Return the same as `selective_scan`, written as the recurrence reads: for tests, and to read first."""
    state = inputs.new_zeros(inputs.shape[0], *decay.shape)  # [B, D, N]
    outputs = []
    for t in range(inputs.shape[1]):
        kept = torch.exp(steps[:, t, :, None] * decay) * state
        added = (steps[:, t] * inputs[:, t])[:, :, None] * input_gates[:, t, None, :]
        state = kept + added
        outputs.append((state * output_gates[:, t, None, :]).sum(dim=-1))
    return torch.stack(outputs, dim=1)


def _arranged(
    inputs: Tensor, steps: Tensor, decay: Tensor, input_gates: Tensor, output_gates: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return u, dt [L, B, D]; a [N, D]; b, c [L, B, N]."""
    return (
        inputs.transpose(0, 1).contiguous(),
        steps.transpose(0, 1).contiguous(),
        decay.T.contiguous(),
        input_gates.transpose(0, 1).contiguous(),
        output_gates.transpose(0, 1).contiguous(),
    )


def _scan(
    u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, *, keep_states: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Walk forward over the tensors of `_arranged`.

    Returns:
        y [L, B, D]; the states [L, B, N, D], None unless kept; the last state [B, N, D].
    """
    length, batch, width = u.shape
    state_width = a.shape[0]
    outputs = torch.empty_like(u)
    states = u.new_empty(length, batch, state_width, width) if keep_states else None
    scaled = dt * u
    previous = u.new_zeros(batch, state_width, width)
    for chunk in _chunks(length, previous):
        decay = torch.exp_(dt[chunk, :, None, :] * a)
        part = b[chunk, :, :, None] * scaled[chunk, :, None, :] if states is None else states[chunk]
        if states is not None:
            torch.mul(b[chunk, :, :, None], scaled[chunk, :, None, :], out=part)
        for state, kept in zip(part.unbind(), decay.unbind(), strict=True):
            previous = state.addcmul_(kept, previous)
        del kept  # a view of `decay`, which would live on while the next one is made
        rows = part.view(-1, state_width, width)
        outputs[chunk] = torch.bmm(c[chunk].reshape(-1, 1, state_width), rows).view_as(outputs[chunk])
    return outputs, states, previous


class _SelectiveScan(torch.autograd.Function):
    """The scan with its gradient: g_t = C_t * dy_t + exp(dt_{t+1} * A) * g_{t+1} is the gradient of h_t."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        outputs, states, _ = _scan(u, dt, a, b, c, keep_states=True)
        ctx.save_for_backward(u, dt, a, b, c, states)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        u, dt, a, b, c, states = ctx.saved_tensors
        dy = dy.contiguous()
        length, batch, width = u.shape
        state_width = a.shape[0]
        scaled = dt * u
        d_scaled, d_dt, d_a = torch.empty_like(u), torch.empty_like(dt), torch.zeros_like(a)
        d_b, d_c = torch.empty_like(b), torch.empty_like(c)
        from_later = u.new_zeros(batch, state_width, width)
        for chunk in reversed(_chunks(length, from_later)):
            decay = torch.exp_(dt[chunk, :, None, :] * a)
            d_states = c[chunk, :, :, None] * dy[chunk, :, None, :]
            for t in reversed(range(d_states.shape[0])):
                d_states[t].add_(from_later)
                from_later = decay[t] * d_states[t]
            rows = d_states.view(-1, state_width, width)
            d_scaled[chunk] = torch.bmm(b[chunk].reshape(-1, 1, state_width), rows).view_as(u[chunk])
            d_b[chunk] = torch.bmm(rows, scaled[chunk].reshape(-1, width, 1)).view_as(b[chunk])
            d_c[chunk] = torch.bmm(states[chunk].view_as(rows), dy[chunk].reshape(-1, width, 1)).view_as(
                b[chunk]
            )
            d_exponent = decay.mul_(_previous(states, chunk)).mul_(d_states)  # of dt_t * A
            d_a += (d_exponent * dt[chunk, :, None, :]).sum(dim=(0, 1))
            d_dt[chunk] = (d_exponent * a).sum(dim=2)
        return d_scaled * dt, d_dt.addcmul_(d_scaled, u), d_a, d_b, d_c


def _chunks(length: int, state: Tensor) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS.get(state.device.type, CHUNK_ELEMENTS["cpu"]) // max(1, state.numel()))
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _previous(states: Tensor, chunk: slice) -> Tensor:
    """Return the states one step before each of the chunk; zeros before the first."""
    if chunk.start > 0:
        return states[chunk.start - 1 : chunk.stop - 1]
    return torch.cat([torch.zeros_like(states[:1]), states[: chunk.stop - 1]])
