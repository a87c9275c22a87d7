"""Matrices kept in fewer bytes than float32, and layers that compute with them.

A `StoredMatrix` holds one weight matrix in some encoding (16-bit, int8, NF4, a mask and what it keeps) as buffers, so
that the bytes in memory are the bytes in the file. `StoredLinear` and `StoredEmbedding` decode one matrix at a time,
use it and let it go: beside the encoded weights, at most one dense matrix is alive, and of a large one (a table of
words that is an output layer too) a slice. Where weights are read directly (Mamba's time steps, T5's feed-forward),
the property `weight` decodes. LSTM layers are in `lstm.py`.

Encodings live in one file each beside this one and are named in `ENCODINGS`. Dimensions: R rows (outputs), C columns
(inputs), B batch, L tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qa_core.errors import ArtifactError, unknown
from qa_core.models.stored.lazy_weight import LazyWeight

ENCODINGS = {
    "half": "qa_core.models.stored.half:HalfMatrix",
    "plain": "qa_core.models.stored.plain:PlainMatrix",
    "sparse": "qa_core.models.stored.sparse:SparseMatrix",
    "int4": "qa_core.models.stored.int4:Int4Matrix",
    "int8": "qa_core.models.stored.int8:Int8Matrix",
    "nf4": "qa_core.models.stored.nf4:Nf4Matrix",
}
SLICE_ELEMENTS = 2**22  # a larger matrix is decoded in slices of about so many numbers
CACHED_ELEMENTS = 2**18  # numbers in float32 that stay in a core's cache until they are rounded to 16 bits


class StoredMatrix(nn.Module, ABC):
    """A matrix [R, C] in an encoding; all of its state are buffers.

    `encode(x).dense()` is what the encoding makes of x; encoding that once more changes nothing, unless the encoding
    says so.
    """

    name: ClassVar[str]
    shape: tuple[int, int]

    @classmethod
    @abstractmethod
    def encode(cls, matrix: Tensor, settings: Mapping[str, Any]) -> Self:
        """Encode a float matrix [R, C] on its own device."""

    @classmethod
    @abstractmethod
    def empty(cls, shape: tuple[int, int], settings: Mapping[str, Any]) -> Self:
        """Return a matrix whose buffers have the right shapes and dtypes and can be decoded; on meta too."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings with which `empty` gives buffers of the same shapes and dtypes, as JSON values."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the decoded matrix [R, C], float32 unless the encoding says otherwise."""

    def rows(self, index: Tensor) -> Tensor:
        """Return decoded rows [..., C] for row numbers [...] int64, without decoding the others where possible."""
        return F.embedding(index, self.dense())

    @property
    def rows_at_once(self) -> int:
        """How many rows `product` decodes at a time: all, unless the encoding can decode a slice by itself."""
        return self.shape[0]

    def dense_rows(self, start: int, stop: int) -> Tensor:
        """Return decoded rows [stop - start, C]; `start` is a multiple of `rows_at_once`."""
        return self.dense()[start:stop]

    def dense_as(self, dtype: torch.dtype) -> Tensor:
        """Return the decoded matrix [R, C] in a dtype: in 16 bits slice by slice, where the encoding can."""
        rows, step = self.shape[0], self.decoded_at_once
        if dtype is torch.float32 or step >= rows:
            return self.dense().to(dtype)
        matrix = torch.empty(self.shape, dtype=dtype, device=next(self.buffers()).device)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            matrix[start:stop] = self.dense_rows(start, stop)
        return matrix

    @property
    def decoded_at_once(self) -> int:
        """How many rows are float32 together on the way to 16 bits: all, unless a slice can be decoded by itself."""
        return self.shape[0]

    def product(self, inputs: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return inputs [..., C] times the matrix transposed, plus a bias [R], as a dense layer does.

        The result [..., R] has the dtype of the inputs or of autocast.
        """
        rows, step, dtype = self.shape[0], self.rows_at_once, product_dtype(inputs)
        bias = None if bias is None else bias.to(dtype)
        if step >= rows:
            return F.linear(inputs, self.dense_as(dtype), bias)
        outputs = inputs.new_empty(*inputs.shape[:-1], rows, dtype=dtype)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            part = None if bias is None else bias[start:stop]
            outputs[..., start:stop] = F.linear(inputs, self.dense_rows(start, stop).to(dtype), part)
        return outputs

    def recoded(self, form: Mapping[str, Any]) -> "StoredMatrix":
        """Return the decoded matrix in the encoding that a form names; a packed matrix recodes its values alone."""
        return encoding(form["encoding"]).encode(self.dense(), form["settings"])

    @classmethod
    def recoded_form(cls, form: Mapping[str, Any], encoding_form: Mapping[str, Any]) -> dict[str, Any]:
        """Return the form that `recoded(encoding_form)` of a matrix of this form has, to plan it without data."""
        settings = dict(encoding_form["settings"])
        return {"encoding": encoding_form["encoding"], "shape": list(form["shape"]), "settings": settings}


class StoredLinear(nn.Module):
    """A Linear layer whose weight is a `StoredMatrix`; the bias stays as it is."""

    def __init__(self, matrix: StoredMatrix, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.matrix = matrix
        self.bias = bias
        self.out_features, self.in_features = matrix.shape

    @property
    def weight(self) -> Tensor:
        """The weight [R, C], decoded anew whenever something computes with it."""
        return lazy_weight(self.matrix)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., R] of inputs [..., C]."""
        return self.matrix.product(inputs, self.bias)


class StoredEmbedding(nn.Module):
    """An Embedding whose table is a `StoredMatrix`; rows are decoded when they are looked up."""

    def __init__(self, matrix: StoredMatrix, padding_idx: int | None) -> None:
        super().__init__()
        self.matrix = matrix
        self.num_embeddings, self.embedding_dim = matrix.shape
        self.padding_idx = padding_idx

    @property
    def weight(self) -> Tensor:
        """The table [R, C], decoded anew whenever something computes with it."""
        return lazy_weight(self.matrix)

    def forward(self, index: Tensor) -> Tensor:
        """Return rows [..., C] for row numbers [...] int64."""
        return self.matrix.rows(index)


def encoding(name: str) -> type[StoredMatrix]:
    """Return the class of an encoding.

    Raises:
        ArtifactError: there is none of this name.
    """
    if name not in ENCODINGS:
        raise ArtifactError(unknown("encoding", name, ENCODINGS))
    module, _, attribute = ENCODINGS[name].partition(":")
    return getattr(import_module(module), attribute)


def matrix_form(matrix: StoredMatrix) -> dict[str, Any]:
    """Return what `empty_matrix` needs, as JSON values."""
    return {"encoding": matrix.name, "shape": list(matrix.shape), "settings": matrix.settings}


def empty_matrix(form: Mapping[str, Any]) -> StoredMatrix:
    """Return a matrix of a form, its values unwritten."""
    rows, columns = form["shape"]
    return encoding(form["encoding"]).empty((rows, columns), form["settings"])


def lazy_weight(matrix: StoredMatrix) -> Tensor:
    """Return what stands for the decoded matrix until something computes with it."""
    return LazyWeight(matrix.dense, shape=matrix.shape, device=next(matrix.buffers()).device)


def product_dtype(inputs: Tensor) -> torch.dtype:
    """Return the dtype in which a matrix product of these inputs comes out: autocast's, where it is on."""
    kind = inputs.device.type
    is_cast = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if is_cast else inputs.dtype


def set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one with this dotted name."""
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)
