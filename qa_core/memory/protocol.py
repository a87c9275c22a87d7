"""The memory and latency protocol: what a recipe costs, measured.

Protocol: one window at the recipe's maximum length, and eight beside it as a figure of its own, random token ids, the
deployed precision; latency is that of one window. On a GPU the peak is the CUDA allocator's. On a CPU it is that of a
tracker of live tensor storages: it counts every tensor that an operator returns, from its creation until its memory is
given back, and is the same in every run; scratch memory inside one operator is not seen. The process's resident set is
logged beside it.

The same protocol on tensors without memory is the prediction: see `shapes.py`. Bytes are bytes; `memory_mb`
(one window) and `memory_batch8_mb` (eight) divide by 10**6.
"""

import resource
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qa_core.config import EvaluationConfig
from qa_core.families.base import Batch, Family
from qa_core.hardware import autocast_dtype
from qa_core.models.stored.base import StoredMatrix

# Raised by hand when a recorded number comes to mean something else; results of two versions are not compared. Version
# 1, which records do not name, measured `inference_peak_bytes` with eight windows.
PROTOCOL_VERSION = 2
MEMORY_ROWS, LARGE_MEMORY_ROWS = 1, 8  # windows in the batch whose peak is measured
PROTOCOL_QUESTION_TOKENS = 16
LATENCY_WARMUP_RUNS = 3
FORM_VERSION = 5  # raise it when the protocol or the prediction changes: what was stored before is left alone


@dataclass(frozen=True)
class Protocol:
    """The fixed inference step whose peak is a memory axis of the front."""

    family: Family
    tokenizer: Any
    max_length: int
    evaluation: EvaluationConfig
    device: torch.device

    def step(self, model: torch.nn.Module, batch: Batch, *, whole_length: bool = False) -> None:
        """Run one inference step, as the evaluator does.

        Args:
            whole_length: write answers of `max_new_tokens`, whatever the weights would say: memory must not depend
                on when a network stops.
        """
        dtype = autocast_dtype(self.evaluation.precision, self.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            if self.family.head == "span":
                self.family.span_logits(model, batch)
            else:
                limit = self.evaluation.max_new_tokens
                self.family.generate(
                    model,
                    batch,
                    self.tokenizer,
                    max_new_tokens=limit,
                    min_new_tokens=limit if whole_length else 0,
                )

    def batch(self, device: torch.device | str, *, rows: int = MEMORY_ROWS) -> Batch:
        """Return `rows` windows of random tokens at the maximum length, the same in every run."""
        generator = torch.Generator().manual_seed(0)
        length = self.max_length
        question = min(PROTOCOL_QUESTION_TOKENS, length // 2)
        token_ids = torch.randint(0, len(self.tokenizer), (rows, length), generator=generator)
        on_context = (torch.arange(length) >= question).expand(rows, length)
        span_mask = on_context.clone()
        span_mask[:, 0] = True
        tensors = {
            "input_ids": token_ids,
            "attention_mask": torch.ones_like(token_ids),
            "token_type_ids": on_context.long(),
            "span_mask": span_mask,
            "null_positions": torch.zeros(rows, dtype=torch.long),
            "start_positions": torch.full((rows,), question + 1),
            "end_positions": torch.full((rows,), question + 1),
            "target_ids": token_ids[:, :8].clone(),
        }
        return {name: tensor.to(device) for name, tensor in tensors.items()}


class StorageTracker(TorchDispatchMode):
    """Counts the bytes of tensor storages that are alive, and their peak, while the mode is active.

    Args:
        held: tensors that exist already and count from the start, such as a model's weights.
    """

    def __init__(self, held: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.current_bytes = 0
        self.peak_bytes = 0
        self._alive: set[int] = set()
        for tensor in held:
            self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._alive:
            return
        size = storage.nbytes()
        self._alive.add(key)
        self.current_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.current_bytes)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.current_bytes -= size


def weights_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of all parameters and buffers, each storage counted once, quantisation state included."""
    storages = {id(item.untyped_storage()): item.untyped_storage().nbytes() for item in held_tensors(model)}
    return sum(storages.values())


def held_tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    """Return every parameter and buffer, buffers that are not part of the state dict included."""
    return [*model.parameters(), *model.buffers()]


def parameter_count(model: torch.nn.Module, *, trainable_only: bool = False) -> int:
    """Return the number of parameters, shared ones counted once; numbers of stored matrices count, zeros do not."""
    count = sum(item.numel() for item in model.parameters() if item.requires_grad or not trainable_only)
    if trainable_only:
        return count
    matrices = [module for module in model.modules() if isinstance(module, StoredMatrix)]
    inner = [
        matrix for matrix in matrices if not any(isinstance(item, StoredMatrix) for item in matrix.children())
    ]
    return count + sum(matrix.shape[0] * matrix.shape[1] for matrix in inner)


def inference_peak_bytes(model: torch.nn.Module, protocol: Protocol, *, rows: int = MEMORY_ROWS) -> int:
    """Return weights plus peak activations over the protocol step, in bytes, on the protocol's device.

    Args:
        rows: windows in the batch.
    """
    was_training = model.training
    model.eval()
    device = protocol.device
    with torch.random.fork_rng(devices=[]):
        if device.type == "cuda":
            batch = protocol.batch(device, rows=rows)
            torch.cuda.synchronize(device)
            other = torch.cuda.memory_allocated(device) - weights_bytes(model)
            torch.cuda.reset_peak_memory_stats(device)
            protocol.step(model, batch, whole_length=True)
            torch.cuda.synchronize(device)
            peak = torch.cuda.max_memory_allocated(device) - max(0, other)
        else:
            batch = protocol.batch("cpu", rows=rows)
            held = [*held_tensors(model), *batch.values()]
            peak = tracked_step_peak_bytes(lambda: protocol.step(model, batch, whole_length=True), held)
    model.train(was_training)
    return peak


def latencies_ms(model: torch.nn.Module, protocol: Protocol, batches: Iterable[Batch]) -> list[float]:
    """Return the wall-clock milliseconds of one inference step for each batch, after a warm-up."""
    batches = list(batches)
    model.eval()
    times = []
    for batch in [*batches[:LATENCY_WARMUP_RUNS], *batches]:
        on_device = {name: tensor.to(protocol.device) for name, tensor in batch.items()}
        started = time.perf_counter()
        protocol.step(model, on_device)
        if protocol.device.type == "cuda":
            torch.cuda.synchronize(protocol.device)
        times.append((time.perf_counter() - started) * 1e3)
    return times[min(LATENCY_WARMUP_RUNS, len(batches)) :]


def rss_peak_bytes() -> int:
    """Return the largest resident set of this process so far. With reused workers it includes earlier trials."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values lie, linear between neighbours."""
    return float(torch.tensor(values, dtype=torch.float64).quantile(share))


def form_key(architecture: Mapping[str, Any], forms: Mapping[str, Any], protocol: Protocol) -> dict[str, Any]:
    """Return what distinguishes one deployed form from another, as JSON values: the key of its measured memory."""
    return {
        "family": protocol.family.name,
        "head": protocol.family.head,
        "architecture": dict(architecture),
        "forms": dict(forms),
        "max_length": protocol.max_length,
        "max_new_tokens": protocol.evaluation.max_new_tokens if protocol.family.head == "generate" else None,
        "vocabulary": len(protocol.tokenizer),
        "precision": str(autocast_dtype(protocol.evaluation.precision, protocol.device)),
        "device": protocol.device.type,
        "torch": torch.__version__,
        "version": FORM_VERSION,
    }


def tracked_step_peak_bytes(step: Callable[[], None], held: Iterable[torch.Tensor]) -> int:
    """Return the peak of live CPU tensor storages while `step()` runs, `held` counted from the start, in bytes."""
    tracker = StorageTracker(held)
    with torch.random.fork_rng(devices=[]), tracker:
        step()
    return tracker.peak_bytes
