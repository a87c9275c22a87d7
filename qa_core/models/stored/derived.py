"""A matrix that is computed from other tensors whenever it is used, and a copy of a network that shares its tensors.

With both, the form that a recipe deploys can be made of a network that goes on training: nothing of that network is
written to, and of what would be a second float copy of it (merged adapters, kept weights), one matrix at a time is
alive. For who asks for it, see `qa_core/training/deployment.py`.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from qa_core.models.stored.base import StoredMatrix


class DerivedMatrix(StoredMatrix):
    """A float32 matrix [R, C] = function(**sources), made anew at each use. It is never written to a file.

    Args:
        shape: R and C.
        function: takes the sources by name.
        sources: tensors of the network that trains; they are shared, not copied.
    """

    name = "plain"

    def __init__(
        self, shape: tuple[int, int], function: Callable[..., Tensor], sources: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.shape = shape
        self.function = function
        for name, tensor in sources.items():
            self.register_buffer(name, tensor.detach())

    @classmethod
    def encode(cls, matrix: Tensor, settings: Mapping[str, Any]) -> Self:
        """Refuse: a matrix that exists is no derived one."""
        raise TypeError("a derived matrix is computed from other tensors: it is never encoded")

    @classmethod
    def empty(cls, shape: tuple[int, int], settings: Mapping[str, Any]) -> Self:
        """Refuse: it is in no file that could be read."""
        raise TypeError("a derived matrix is computed from other tensors: it is in no file")

    @property
    def settings(self) -> dict[str, Any]:
        """None: it stands for a matrix in float32."""
        return {}

    def dense(self) -> Tensor:
        """Return the matrix [R, C] in float32."""
        return self.function(**dict(self.named_buffers()))


def sharing_copy(model: nn.Module) -> nn.Module:
    """Return a copy of the modules that shares every tensor with them: replacing a module of it changes one alone."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in _tensors(model)})


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield parameters, buffers, and tensors that a module keeps otherwise, as bitsandbytes' layers do."""
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        for value in vars(module).values():
            inner = vars(value).values() if hasattr(value, "__dict__") and not callable(value) else ()
            yield from (item for item in (value, *inner) if isinstance(item, torch.Tensor))
