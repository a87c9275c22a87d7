"""Frozen Linear layers of bitsandbytes, for training adapters on a base in fewer bits.

They hold what bitsandbytes' layers hold and multiply with its kernels, but differ where those would hurt a training
loop that evaluates in between, all seen with version 0.50:
- its Linear4bit repacks its weight at the first evaluation on a CPU with AVX512-BF16: training then fails, odd sizes
  fail at once, and saving without double quantisation damages the weight in memory and in the file;
- both its layers cast their bias to the dtype of the inputs, for good;
- its Linear4bit keeps computing in the dtype of its first input; here autocast decides each time;
- its Linear8bitLt computes otherwise in evaluation than in training on a CPU, and logs a line for each layer each time.

What they become in an artifact is a `StoredMatrix`, which needs no bitsandbytes; here it is made of their state as it
is, never quantised anew. Dimensions: R rows (outputs), C columns (inputs).
"""

import logging
from collections.abc import Callable, Collection
from typing import Any

import torch
from bitsandbytes import matmul, matmul_4bit
from bitsandbytes.functional import int8_vectorwise_quant
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from torch import Tensor, nn

from qa_core.models.stored.base import StoredLinear, StoredMatrix, product_dtype, set_module
from qa_core.models.stored.int8 import Int8Matrix
from qa_core.models.stored.nf4 import BLOCK, Nf4Matrix

INT8_SETTINGS = {"granularity": "row", "group_size": None, "dynamic": False}


class Nf4Linear(Linear4bit):
    """A Linear layer in NF4, blocks of 64; the bias stays as it is.

    Of a layer on the meta device it is a plan: it has the sizes alone, of codes and of products.
    """

    def __init__(self, linear: nn.Linear, *, double_quantisation: bool) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        is_plan = linear.weight.is_meta
        weight: Any = Params4bit(
            _empty_codes(linear) if is_plan else linear.weight.detach(),
            requires_grad=False,
            blocksize=BLOCK,
            compress_statistics=double_quantisation,
            quant_type="nf4",
            module=self,
            bnb_quantized=is_plan,
        )
        self.weight = weight if is_plan else weight.to(linear.weight.device)  # which quantises
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., R] of inputs [..., C], computed in the dtype of autocast, else in that of the inputs."""
        dtype = product_dtype(inputs)
        weight: Any = self.weight
        state = getattr(weight, "quant_state", None)
        if state is None:
            outputs = _PlannedProduct.apply(inputs.to(dtype), (self.out_features, self.in_features))
        else:
            outputs = matmul_4bit(inputs.to(dtype), weight, quant_state=state)
        return outputs if self.bias is None else outputs + self.bias.to(dtype)

    def stored(self) -> StoredMatrix:
        """Return the weight as it is, in the encoding of artifacts."""
        weight: Any = self.weight
        shape = (self.out_features, self.in_features)
        state = getattr(weight, "quant_state", None)
        if state is None:
            return _planned_matrix(weight, shape, double_quantisation=weight.compress_statistics)
        buffers = {"packed": weight.detach().as_subclass(Tensor).view(-1), "absmax": state.absmax}
        if state.nested:
            buffers |= {"nested_absmax": state.state2.absmax, "offset": state.offset}
        return Nf4Matrix(shape, buffers)


def _planned_matrix(codes: Tensor, shape: tuple[int, int], *, double_quantisation: bool) -> Nf4Matrix:
    """Return the matrix of a plan, its codes in the plan's own memory."""
    with torch.device("meta"):
        planned = Nf4Matrix.empty(shape, {"double_quantisation": double_quantisation})
    planned.packed = codes.detach().as_subclass(Tensor).view(-1)[: len(planned.packed)]
    return planned


def _empty_codes(linear: nn.Linear) -> Tensor:
    """Return room for the codes, two in a byte, and for the scales in float32: a little more than nested ones take."""
    size = linear.weight.numel() // 2 + 4 * linear.weight.numel() // BLOCK
    return torch.empty(size, 1, dtype=torch.uint8, device="meta")


class _PlannedProduct(torch.autograd.Function):
    """Takes the memory of a product with an NF4 weight, which is decoded once in each direction and never kept."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.shape = shape
        return inputs @ inputs.new_empty(shape).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ gradient.new_empty(ctx.shape), None


class Int8Linear(Linear8bitLt):
    """A Linear layer in int8, one absmax for each row; the bias stays as it is.

    On a GPU it computes LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339): inputs are quantised token by token, but for
    the columns in which a magnitude exceeds `threshold`. On a CPU, as bitsandbytes does in training there, it
    multiplies float inputs with the decoded weight, and so does every artifact.
    """

    def __init__(self, linear: nn.Linear, *, threshold: float) -> None:
        super().__init__(
            linear.in_features,
            linear.out_features,
            bias=False,
            has_fp16_weights=False,
            threshold=threshold,
            device="meta",
        )
        # It warns at each product on a GPU that inputs are cast to float16, which is how LLM.int8 quantises them.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        codes, absmax, _ = int8_vectorwise_quant(linear.weight.detach().to(torch.float16))
        self.weight = Int8Params(codes, requires_grad=False, has_fp16_weights=False)
        self.state.CB, self.state.SCB = codes, absmax
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., R] of inputs [..., C], in the dtype of autocast, else in that of the inputs."""
        dtype = product_dtype(inputs)
        self.state.is_training = self.training or not inputs.is_cuda
        outputs = matmul(inputs.to(dtype), self.weight, state=self.state)
        return outputs if self.bias is None else outputs + self.bias.to(dtype)

    def stored(self) -> StoredMatrix:
        """Return the weight as it is, in the encoding of artifacts."""
        state: Any = self.state
        return Int8Matrix(state.CB, state.SCB.view(-1, 1), INT8_SETTINGS)


def quantise_body(
    model: nn.Module,
    make: Callable[[nn.Linear], nn.Module],
    *,
    keep: Collection[str],
    keep_endings: Collection[str],
) -> dict[str, tuple[int, int]]:
    """Replace the Linear layers of a network, in place, by what `make` makes of them.

    Output layers over the vocabulary, tied to a table or not, stay as they are.

    Args:
        keep: modules that stay, with all below them, by a dotted part of their name.
        keep_endings: layers that stay, by the end of their name.

    Returns:
        name -> shape [R, C] of every replaced layer.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    find_output_layer = getattr(model, "get_output_embeddings", None)
    output_layer = find_output_layer() if find_output_layer else None
    replaced = {}
    for name, module in list(model.named_modules()):
        is_kept = set(name.split(".")) & set(keep) or name.endswith(tuple(f".{end}" for end in keep_endings))
        is_output = module is output_layer or id(getattr(module, "weight", None)) in tables
        if type(module) is nn.Linear and not is_kept and not is_output:
            set_module(model, name, make(module).train(module.training))
            replaced[name] = (module.out_features, module.in_features)
    return replaced


def store_quantised(model: nn.Module) -> nn.Module:
    """Put a `StoredLinear` with the same codes in the place of every layer of this file, and return the model."""
    for name, module in list(model.named_modules()):
        layer: Any = module
        if isinstance(module, Nf4Linear | Int8Linear):
            set_module(model, name, StoredLinear(layer.stored(), layer.bias).train(module.training))
    return model
