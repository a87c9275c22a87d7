"""The inference peak of a network, found by running the protocol step on tensors that have no memory.

A `ShapeTensor` says that it is on the CPU, so that autocast casts it and torch picks the kernels that it would pick
there; the arithmetic is left to torch's kernels for the meta device, which compute shapes alone. Neither weights nor
their time are needed, and no formula for a family: under the storage tracker of `protocol.py` the prediction is equal
to the measurement as long as the network's memory depends on shapes.

Networks also read three kinds of values. Integers and Booleans that follow from the known inputs (is the mask all ones,
how long is the longest question) are computed for real beside the shapes. Generated tokens are made up: the protocol
writes a fixed number of tokens, whatever they are. Scores of generated tokens decide nothing and read as 0. Reading any
other value ends the prediction.

Kernels are those of a CPU for every trial; on a GPU the CUDA allocator and its kernels need other amounts, which no
machine has been at hand to compare.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch._meta_registrations  # shapes of what only a CPU computes, such as its LSTM and its fused attention
from torch import Tensor
from torch._C import DispatchKey

from qa_core.hardware import autocast_dtype
from qa_core.memory.protocol import MEMORY_ROWS, Protocol, StorageTracker, held_tensors

CPU, META = torch.device("cpu"), torch.device("meta")


class NotPredictable(Exception):
    """The memory of a network depends on what only a real run knows; the message says on what."""


def predicted_inference_peak_bytes(
    skeleton: torch.nn.Module,
    protocol: Protocol,
    *,
    rows: int = MEMORY_ROWS,
    beside: Iterable[Tensor] = (),
) -> int:
    """Return the peak that `cost.inference_peak_bytes` finds for this network on a CPU, in bytes.

    Args:
        skeleton: the network on the meta device; its parameters and buffers are replaced.
        protocol: its own device decides only what the precision `auto` means.
        rows: windows in the batch.
        beside: tensors of the meta device that are held too; those that the network shares count once.

    Raises:
        NotPredictable: the step looks at a computed value, or uses an operator whose shapes torch does not know.
    """
    return predicted_inference_peaks(skeleton, protocol, [rows], beside=beside)[0]


def predicted_inference_peaks(
    skeleton: torch.nn.Module, protocol: Protocol, rows: Sequence[int], *, beside: Iterable[Tensor] = ()
) -> list[int]:
    """Return the peak for each number of windows in the batch; arguments and errors as in the singular."""
    network = with_shape_tensors(skeleton).eval()
    held = [*beside, *held_tensors(network)]
    return [_step_peak_bytes(network, protocol, count, held) for count in rows]


def _step_peak_bytes(network: torch.nn.Module, protocol: Protocol, rows: int, held: Iterable[Tensor]) -> int:
    tracker = ShapeTracker(held, written_token=written_token(protocol))
    batch = tracker.know(protocol.batch(CPU, rows=rows))
    try:
        with tracker:
            _on_cpu(protocol).step(network, batch, whole_length=True)
    except NotImplementedError as error:
        raise NotPredictable(str(error).splitlines()[0]) from error
    return tracker.peak_bytes


class ShapeTensor(Tensor):
    """A tensor with shape, strides, dtype and a device, whose storage is that of a tensor on the meta device."""

    on_meta: Tensor
    known: Tensor | None  # what it would hold, where that is known: integers and Booleans alone

    @staticmethod
    def __new__(cls, on_meta: Tensor, known: Tensor | None = None) -> "ShapeTensor":
        """Wrap a tensor of the meta device."""
        # A view of a weight is no inference tensor, even under inference mode, and torch checks that it is none.
        with torch.inference_mode(on_meta.is_inference()):
            wrapped = Tensor._make_wrapper_subclass(
                cls,
                on_meta.shape,
                strides=on_meta.stride(),
                storage_offset=on_meta.storage_offset(),
                dtype=on_meta.dtype,
                device=CPU,
            )
        wrapped.on_meta, wrapped.known = on_meta, known
        return wrapped

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse: only a `ShapeTracker` knows how to compute with these."""
        raise AssertionError(f"{func} outside of a tracker")

    def __repr__(self) -> str:  # type: ignore[override]
        """Name what there is; torch's own reads memory."""
        return f"ShapeTensor({tuple(self.shape)}, {self.dtype})"

    def tolist(self) -> Any:
        """Return the values as nested lists; torch's own reads memory."""
        return _known(self).tolist()


# How a Python program reads a tensor's value; the composite two are seen under inference mode only.
_LOOKS = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.item.default,
)


class ShapeTracker(StorageTracker):
    """Runs operators on the meta tensors inside shape tensors and counts the storages of those.

    Operators that torch composes of others are taken apart as on the CPU, since the choice among kernels is inside
    them; what they hold for themselves is not counted, as it is not in a measurement.

    Args:
        written_token: what a network that writes is told to have chosen; None: it does not write.
    """

    def __init__(self, held: Iterable[Tensor], *, written_token: int | None) -> None:
        self._written_token = written_token
        self._inside = 0  # composite operators
        self._layouts: dict[Any, Any] = {}  # of results, by operator and operands
        super().__init__(held)

    def know(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return shape tensors whose values are those of the given tensors, and count them."""
        known = {name: ShapeTensor(tensor.to(META), tensor) for name, tensor in tensors.items()}
        for tensor in known.values():
            self._see(tensor)
        return dict(known)

    def _see(self, tensor: Tensor) -> None:
        super()._see(tensor.on_meta if isinstance(tensor, ShapeTensor) else tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LOOKS:
            return self._look(func, args[0])
        if _is_composite(func):
            self._inside += 1
            with self:
                result = func._op_dk(DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
            self._inside -= 1
        else:
            result = self._computed(func, args, kwargs)
        if not self._inside:
            for leaf in _tensors(result):
                self._see(leaf)
        if isinstance(result, ShapeTensor) and not result.is_floating_point():
            self._pass_values_on(func, args, kwargs, result)
        return result

    def _computed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator on the meta device, or repeat what it gave for operands laid out alike."""
        if _writes_in_place(func):
            return args[0]
        operands = [leaf for leaf in _tensors((args, kwargs)) if isinstance(leaf, ShapeTensor)]
        layout_of = _signature(func, args, kwargs)
        if layout_of in self._layouts:
            shape, strides, dtype = self._layouts[layout_of]
            return ShapeTensor(torch.empty_strided(shape, strides, dtype=dtype, device=META))
        own = {id(operand.on_meta): operand for operand in operands}
        args, kwargs = _mapped(_on_meta, args), _mapped(_on_meta, kwargs)
        if _takes_device(func) and not operands and kwargs.get("device") is None:
            kwargs["device"] = META

        def wrapped(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return (
                own[id(leaf)] if id(leaf) in own else ShapeTensor(leaf)
            )  # changed in place: the same tensor

        found = func(*args, **kwargs)
        if layout_of is not None and isinstance(found, Tensor):
            storages = {id(operand.on_meta.untyped_storage()) for operand in operands}
            if id(found.untyped_storage()) not in storages:
                self._layouts[layout_of] = (found.shape, found.stride(), found.dtype)
        return _mapped(wrapped, found)

    def _look(self, func: Any, tensor: Tensor) -> Any:
        is_score = tensor.is_floating_point() and self._written_token is not None
        if is_score and isinstance(tensor, ShapeTensor) and func is not torch.ops.aten.is_nonzero.default:
            return 0.0
        return func(_known(tensor))

    def _pass_values_on(self, func: Any, args: Any, kwargs: Any, result: ShapeTensor) -> None:
        operands = _tensors((args, kwargs))
        if all(not isinstance(leaf, ShapeTensor) or leaf.known is not None for leaf in operands):
            result.known = func(*_mapped(_value, args), **_mapped(_value, kwargs))
        elif func is torch.ops.aten.argmax.default and self._written_token is not None:
            result.known = torch.full(result.shape, self._written_token)
        else:
            result.known = None  # it may be a known one that something unknown was written over


def with_shape_tensors(skeleton: torch.nn.Module) -> torch.nn.Module:
    """Replace parameters and buffers, shared ones by shared ones."""
    replaced: dict[int, tuple[Tensor, ShapeTensor]] = {}  # by identity, which holds while the tensor lives
    for module in skeleton.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None:
                continue
            if id(tensor) not in replaced:
                shaped = ShapeTensor(tensor.detach())
                shaped._is_param = isinstance(tensor, torch.nn.Parameter)
                replaced[id(tensor)] = (tensor, shaped)
            # Not into the dictionary: an LSTM keeps a list of its weights, which it renews when one is set.
            setattr(module, name, replaced[id(tensor)][1])
    return skeleton


def _on_cpu(protocol: Protocol) -> Protocol:
    """Return the protocol on a CPU, in the precision that it has on its own device."""
    is_cast = autocast_dtype(protocol.evaluation.precision, protocol.device) is not None
    evaluation = replace(protocol.evaluation, precision="bfloat16" if is_cast else "float32")
    return replace(protocol, evaluation=evaluation, device=CPU)


def written_token(protocol: Protocol) -> int | None:
    """Return a token of an ordinary word, which ends no answer; None where nothing is written."""
    if protocol.family.head != "generate":
        return None
    return protocol.tokenizer("a", add_special_tokens=False)["input_ids"][-1]


def _known(tensor: Tensor) -> Tensor:
    values = tensor.known if isinstance(tensor, ShapeTensor) else tensor
    if values is None:
        raise NotPredictable("the network looks at a value that only a real run knows")
    return values


def _value(leaf: Any) -> Any:
    return leaf.known if isinstance(leaf, ShapeTensor) else leaf


def _on_meta(leaf: Any) -> Any:
    if isinstance(leaf, ShapeTensor):
        return leaf.on_meta
    if isinstance(leaf, Tensor):  # a constant of a module
        return leaf.to(META)
    return META if isinstance(leaf, torch.device) else leaf


@cache
def _is_composite(func: Any) -> bool:
    return func.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd)


@cache
def _writes_in_place(func: Any) -> bool:
    """Tell whether an operator returns its first operand, written over but laid out as before."""
    name = func._schema.name.partition("::")[2]
    return name.endswith("_") and not name.endswith("__") and torch.Tag.inplace_view not in func.tags


@cache
def _takes_device(func: Any) -> bool:
    return any(argument.name == "device" for argument in func._schema.arguments)


def _signature(func: Any, args: Any, kwargs: Any) -> Any:
    """Return what decides how the result is laid out; None where it is no tensor of its own, or more decides."""
    if func.is_view or func._schema.is_mutable:
        return None
    try:
        signature = (func, _laid_out(args), _laid_out(kwargs))
        hash(signature)
    except TypeError:
        return None
    return signature


def _laid_out(value: Any) -> Any:
    if isinstance(value, ShapeTensor):
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, list | tuple):
        return tuple([_laid_out(item) for item in value])
    if isinstance(value, dict):
        return tuple([(name, _laid_out(item)) for name, item in value.items()])
    if isinstance(value, Tensor):
        raise TypeError("a constant of a module")
    return (type(value), value)  # 1 is True and 1.0, of which each gives another dtype


# torch's own walk over nested values took a third of the time: it serves any container, operators know few.


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)([_mapped(function, item) for item in value])
    if isinstance(value, dict):
        return {name: _mapped(function, item) for name, item in value.items()}
    return function(value)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for item in value for tensor in _tensors(item)]
