"""A weight that is decoded when something computes with it, and not when it is merely asked for its dtype.

transformers looks at `layer.weight.dtype` and `.device` before it calls a layer (T5's feed-forward does so three times,
Mamba's output layer once): decoding a whole matrix for each look would cost more than the product.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

LOOKS = frozenset(
    {
        Tensor.device.__get__,
        Tensor.dtype.__get__,  # type: ignore[attr-defined]
        Tensor.is_cuda.__get__,  # type: ignore[attr-defined]
        Tensor.is_meta.__get__,  # type: ignore[attr-defined]
        Tensor.ndim.__get__,  # type: ignore[attr-defined]
        Tensor.requires_grad.__get__,  # type: ignore[attr-defined]
        Tensor.shape.__get__,  # type: ignore[attr-defined]
        Tensor.dim,
        Tensor.is_floating_point,
        Tensor.numel,
        Tensor.size,
    }
)


class LazyWeight(Tensor):
    """Stands for the float32 tensor that `decode` returns; every operation gets that tensor instead.

    Args:
        decode: returns the tensor, made anew at each call.
        shape, device: of that tensor.
    """

    decode: Callable[[], Tensor]

    @staticmethod
    def __new__(
        cls, decode: Callable[[], Tensor], *, shape: tuple[int, ...], device: torch.device
    ) -> "LazyWeight":
        """Make a tensor without memory."""
        weight = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32, device=device)
        weight.decode = decode
        return weight

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer a look at what is known; else decode and go on without this class."""
        if func in LOOKS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        return cls.__torch_dispatch__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Go on with the decoded tensor; torch asks for this method, most calls come from the one above."""
        args, kwargs = tree_map(_decoded, (args, kwargs or {}))
        return func(*args, **kwargs)


def _decoded(leaf: Any) -> Any:
    return leaf.decode() if isinstance(leaf, LazyWeight) else leaf
