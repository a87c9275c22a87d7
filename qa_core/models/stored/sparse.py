"""A pruned matrix, packed: where the kept weights stand and their values, never the zeros.

Stored and resident are two things. Stored, in the file, is always this form. Resident, in memory, is either this form
too (each matrix is unpacked when it is used, and let go) or a dense one that `unpacked_linear` makes once after
loading, faster and larger: see `resident` of the method `static_prune`.

The values are themselves a `StoredMatrix` of shape [1, kept], so that they can be 16-bit or quantised like any other.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from qa_core.models.stored.base import StoredLinear, StoredMatrix, empty_matrix, encoding
from qa_core.models.stored.derived import DerivedMatrix
from qa_core.models.stored.plain import PlainMatrix
from qa_core.models.stored.positions import PositionCode, top_mask

# Encoding of kept values -> that of the unpacked matrix; one that is not named is unpacked to float32. Fewer bits never
# take more memory: values of 4 bits are unpacked to 8, whose rounding is a tenth of what they have lost already, where
# a second one to 4 bits would lose as much again.
GROUPS_OF_8_BITS = {"granularity": "group", "group_size": 128, "dynamic": False}
DENSE_FORMS: Mapping[str, tuple[str, Mapping[str, Any] | None]] = {  # None: the settings of the values
    "half": ("half", None),
    "int8": ("int8", None),
    "int4": ("int8", GROUPS_OF_8_BITS),
    "nf4": ("int8", GROUPS_OF_8_BITS),
}


class SparseMatrix(StoredMatrix):
    """Positions of the kept weights, as a bit mask or Elias-Fano coded, whichever is smaller, and their values."""

    name = "sparse"

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        code: PositionCode,
        position_buffers: Mapping[str, Tensor],
        values: StoredMatrix,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.code = code
        self.values = values
        for name, buffer in position_buffers.items():
            self.register_buffer(name, buffer)

    @classmethod
    def pack(cls, weight: Tensor, mask: Tensor, values: Mapping[str, Any], *, borrowed: bool = False) -> Self:
        """Pack a matrix, both [R, C], mask bool.

        Args:
            values: the encoding of the kept values and its settings.
            borrowed: values that would be copied as they are, are read from `weight` when they are used.
        """
        rows, columns = weight.shape
        code = PositionCode.smallest(weight.numel(), int(mask.sum()))
        positions = torch.nonzero_static(mask.flatten(), size=code.kept).view(-1)
        buffers = code.written(positions)
        if borrowed and values["encoding"] == PlainMatrix.name:
            stored: StoredMatrix = _read_when_used(weight, code, buffers)
        else:
            kept = weight.detach().flatten()[positions][None]  # [1, kept]
            stored = encoding(values["encoding"]).encode(kept, values["settings"])
        return cls((rows, columns), code=code, position_buffers=buffers, values=stored)

    @classmethod
    def encode(cls, matrix: Tensor, settings: Mapping[str, Any]) -> Self:
        """Keep the `settings["kept"]` entries of the largest magnitude, those that come first among equals."""
        return cls.pack(matrix, top_mask(matrix.abs(), settings["kept"]), settings["values"])

    @classmethod
    def empty(cls, shape: tuple[int, int], settings: Mapping[str, Any]) -> Self:
        """Return a matrix that keeps its first entries, with empty values."""
        code = PositionCode.from_settings(shape[0] * shape[1], settings)
        values = empty_matrix({**settings["values"], "shape": [1, code.kept]})
        written = code.written(torch.arange(code.kept))
        return cls(shape, code=code, position_buffers=written, values=values)

    @property
    def settings(self) -> dict[str, Any]:
        """The number of kept weights, the code of their positions and the encoding of their values."""
        return self.code.settings | {
            "values": {"encoding": self.values.name, "settings": self.values.settings}
        }

    def dense(self) -> Tensor:
        """Return the matrix [R, C] float32, zeros where nothing is kept."""
        buffers = dict(self.named_buffers(recurse=False))
        values = self.values.dense().view(-1)
        flat = values.new_zeros(self.code.size)
        if self.code.low_bits is None:
            return flat.masked_scatter_(self.code.mask(buffers), values).view(self.shape)
        return flat.scatter_(0, self.code.positions(buffers), values).view(self.shape)

    def recoded(self, form: Mapping[str, Any]) -> StoredMatrix:
        """Return the same positions with values in another encoding; itself when nothing is kept."""
        if self.code.kept == 0:
            return self
        return type(self)(
            self.shape,
            code=self.code,
            position_buffers=dict(self.named_buffers(recurse=False)),
            values=self.values.recoded(form),
        )

    @classmethod
    def recoded_form(cls, form: Mapping[str, Any], encoding_form: Mapping[str, Any]) -> dict[str, Any]:
        """Return the form of what `recoded` returns."""
        settings = form["settings"]
        if settings["kept"] == 0:
            return dict(form)
        values = {"encoding": encoding_form["encoding"], "settings": dict(encoding_form["settings"])}
        return {**form, "settings": {**settings, "values": values}}


def sparse_form(shape: tuple[int, int], kept: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `matrix_form` of a matrix of this shape that keeps so many entries, without making one."""
    code = PositionCode.smallest(shape[0] * shape[1], kept)
    settings = code.settings | {"values": {name: values[name] for name in ("encoding", "settings")}}
    return {"encoding": SparseMatrix.name, "shape": list(shape), "settings": settings}


def packed_plan(
    weight: Tensor, kept: int, values: Mapping[str, Any], *, borrowed: bool = False
) -> SparseMatrix:
    """Return what `SparseMatrix.pack` makes of a matrix [R, C] on the meta device that keeps so many entries."""
    rows, columns = weight.shape
    with torch.device("meta"):
        planned = SparseMatrix.empty((rows, columns), sparse_form((rows, columns), kept, values)["settings"])
    if borrowed and values["encoding"] == PlainMatrix.name:
        buffers = dict(planned.named_buffers(recurse=False))
        planned.values = _read_when_used(weight, planned.code, buffers)
    return planned


def _read_when_used(weight: Tensor, code: PositionCode, buffers: Mapping[str, Tensor]) -> DerivedMatrix:
    """Return the kept values [1, kept] of a matrix in training."""

    def values(*, weight: Tensor, **buffers: Tensor) -> Tensor:
        return weight.flatten()[code.positions(buffers)][None]

    return DerivedMatrix((1, code.kept), values, {"weight": weight, **buffers})


def unpacked_linear(layer: StoredLinear) -> nn.Module:
    """Return the dense layer of a packed one: an ordinary Linear, or a StoredLinear where the values are smaller.

    A layer whose values are read from a network in training is returned as it is: its dense matrix would be a copy.
    """
    matrix = layer.matrix
    assert isinstance(matrix, SparseMatrix)
    if isinstance(matrix.values, DerivedMatrix):
        return layer
    dense = matrix.dense()
    if matrix.values.name in DENSE_FORMS:
        name, settings = DENSE_FORMS[matrix.values.name]
        return StoredLinear(encoding(name).encode(dense, settings or matrix.values.settings), layer.bias)
    with torch.device("meta"):  # both weights are replaced
        linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    linear.weight = nn.Parameter(dense)
    if layer.bias is not None:
        linear.bias = layer.bias
    return linear
