"""Networks without memory: built on the meta device, where shapes are all there is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

DRAWS = frozenset(
    getattr(torch.Tensor, name)
    for name in ("normal_", "uniform_", "exponential_", "log_normal_", "random_", "bernoulli_")
)


class _WithoutDraws(TorchFunctionMode):
    """Leaves tensors as they are where they would be filled at random.

    For a tensor without memory torch works out step by step what the draw would give, and loads its compiler for it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in DRAWS or getattr(func, "__module__", None) == torch.nn.init.__name__:
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


@contextmanager
def without_memory() -> Iterator[None]:
    """Build networks without memory within the block; generators are left alone."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _WithoutDraws():
        yield
