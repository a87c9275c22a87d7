"""A matrix in 16 bits: bfloat16 (the exponent of float32, 8 bits of precision) or float16 (11 bits, smaller range)."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from qa_core.models.stored.base import SLICE_ELEMENTS, StoredMatrix, product_dtype

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class HalfMatrix(StoredMatrix):
    """Values rounded to the nearest 16-bit number."""

    name = "half"
    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.shape = (values.shape[0], values.shape[1])
        self.register_buffer("values", values)

    @classmethod
    def encode(cls, matrix: Tensor, settings: Mapping[str, Any]) -> Self:
        """Round a matrix [R, C] to `settings["dtype"]`."""
        return cls(matrix.detach().to(DTYPES[settings["dtype"]]))

    @classmethod
    def empty(cls, shape: tuple[int, int], settings: Mapping[str, Any]) -> Self:
        """Return zeros."""
        return cls(torch.zeros(shape, dtype=DTYPES[settings["dtype"]]))

    @property
    def settings(self) -> dict[str, Any]:
        """The dtype's name."""
        return {"dtype": str(self.values.dtype).removeprefix("torch.")}

    def dense(self) -> Tensor:
        """Return the matrix [R, C] in float32."""
        return self.values.float()

    @property
    def rows_at_once(self) -> int:
        """All rows up to `SLICE_ELEMENTS` numbers."""
        return max(1, SLICE_ELEMENTS // max(1, self.shape[1]))

    def dense_rows(self, start: int, stop: int) -> Tensor:
        """Return rows [stop - start, C] in float32."""
        return self.values[start:stop].float()

    def rows(self, index: Tensor) -> Tensor:
        """Return rows [..., C] in float32 for row numbers [...]."""
        return F.embedding(index, self.values).float()

    def product(self, inputs: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return [..., R] of inputs [..., C]; where that is computed in 16 bits of the same kind, nothing is copied."""
        if self.values.dtype == product_dtype(inputs):
            return F.linear(inputs, self.values, None if bias is None else bias.to(self.values.dtype))
        return super().product(inputs, bias)
