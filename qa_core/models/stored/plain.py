"""A matrix in float32, unchanged: the kept values of a sparse matrix that nothing has quantised."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from qa_core.models.stored.base import StoredMatrix


class PlainMatrix(StoredMatrix):
    """Values in float32, bit by bit."""

    name = "plain"
    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.shape = (values.shape[0], values.shape[1])
        self.register_buffer("values", values)

    @classmethod
    def encode(cls, matrix: Tensor, settings: Mapping[str, Any]) -> Self:
        """Copy a matrix [R, C]; there are no settings."""
        return cls(matrix.detach().to(torch.float32, copy=True))

    @classmethod
    def empty(cls, shape: tuple[int, int], settings: Mapping[str, Any]) -> Self:
        """Return zeros."""
        return cls(torch.zeros(shape, dtype=torch.float32))

    @property
    def settings(self) -> dict[str, Any]:
        """None are needed."""
        return {}

    def dense(self) -> Tensor:
        """Return the matrix [R, C] itself, not a copy."""
        return self.values
