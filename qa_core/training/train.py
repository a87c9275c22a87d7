"""The only training loop. It names no family and no method: both act through their hooks.

AdamW, warm-up and decay over the budget, gradient clipping, accumulation over micro-batches, autocast to
bfloat16. The budget is `examples_seen`; at each rung the loop calls the hooks that evaluate and report.
For what one step costs, see `qa_core/memory/protocol.py`; for the batches, `qa_core/data/batches.py`.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qa_core import heartbeat
from qa_core.config import TrainConfig
from qa_core.data.batches import collate, plan_training_batches
from qa_core.data.windows import WindowSet
from qa_core.errors import ConfigError, NonFiniteLoss, Paused
from qa_core.families.base import Batch, Family
from qa_core.hardware import autocast_dtype, is_out_of_memory
from qa_core.methods.base import Method
from qa_core.training import checkpoint
from qa_core.training.checkpoint import TrainState
from qa_core.training.kernels import use_training_kernels
from qa_core.training.optimizers import optimizer_of
from qa_core.training.schedules import learning_rate_factor

LOSS_CHECK_INTERVAL = 8  # steps between looks at the loss: each look waits for a GPU


@dataclass(frozen=True)
class TrainTask:
    """What is trained, on what, how."""

    family: Family
    methods: Sequence[Method]
    windows: WindowSet
    pad_id: int
    config: TrainConfig
    seed: int
    device: torch.device

    @property
    def budget_examples(self) -> int:
        """Training windows to consume; one epoch when the recipe names neither budget nor epochs.

        0 when a method of the recipe trains nothing.
        """
        if not all(method.trains for method in self.methods):
            return 0
        if self.config.budget_examples is not None:
            return self.config.budget_examples
        epochs = 1.0 if self.config.epochs is None else self.config.epochs
        return max(1 if epochs > 0 else 0, round(epochs * len(self.windows)))

    @property
    def rungs(self) -> list[int]:
        """Budgets below the full one at which the trial reports."""
        return [rung for rung in self.config.rungs if rung < self.budget_examples]


@dataclass(frozen=True)
class RungHooks:
    """What happens at a rung, in this order: `evaluate`, the checkpoint is written, `report`.

    `evaluate` may append to `state.curve`; the mean loss since the last rung is `loss_sum / loss_windows`. `report`
    may end the process: the trial then resumes after this rung, which it reports again.
    """

    evaluate: Callable[[TrainState], None]
    report: Callable[[TrainState], None]
    is_to_pause: Callable[[], bool] = bool  # asked after each step; never, unless it is given


def train(
    model: torch.nn.Module,
    task: TrainTask,
    *,
    hooks: RungHooks,
    checkpoint_folder: Path | None,
    checkpoints_end: bool = False,
) -> TrainState:
    """Train `model` in place until the budget is spent.

    Args:
        model: on `task.device`, in training mode afterwards.
        hooks: called at each rung; the last stretch, up to the full budget, ends without a rung.
        checkpoint_folder: where to checkpoint at each rung, and to resume from if one is there; None for neither.
        checkpoints_end: whether to checkpoint when the budget is spent too, for what is made of the network later.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite.
        ConfigError: there is nothing to train.
        Paused: the hooks asked for it; the checkpoint is written.
    """
    if task.budget_examples == 0:
        return TrainState()
    parameters = [item for item in model.parameters() if item.requires_grad]
    if not parameters:
        raise ConfigError("methods: nothing is left to train: every parameter is frozen")
    optimizer = make_optimizer(model, task)
    use_training_kernels(model).train()
    state = checkpoint.restore(checkpoint_folder, model, optimizer) if checkpoint_folder else None
    if state is not None and state.curve:
        hooks.report(state)  # the process may have ended after this rung's checkpoint and before its report
    state = state or TrainState()
    for method in task.methods:
        method.progress(model, state.examples_seen / task.budget_examples)
    is_at_end = state.examples_seen >= task.budget_examples  # a checkpoint of the end was restored
    pending_rungs = [rung for rung in task.rungs if rung > state.examples_seen]
    losses = _LossWatch()
    started = time.perf_counter() - state.train_seconds
    while state.examples_seen < task.budget_examples:
        steps = plan_training_batches(
            task.windows.lengths,
            batch_size=task.config.batch_size,
            micro_batch_tokens=task.config.micro_batch_tokens,
            seed=task.seed,
            epoch=state.epoch,
        )
        for step in steps[state.step_in_epoch :]:
            step = _cut(step, task.budget_examples - state.examples_seen)
            windows = sum(len(micro_batch) for micro_batch in step)
            set_learning_rate(optimizer, task, state.examples_seen, windows)
            losses.add(accumulate_within_memory(model, task, step, state), windows, state)
            torch.nn.utils.clip_grad_norm_(parameters, task.config.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.examples_seen += windows
            state.step_in_epoch += 1
            mean = state.loss_sum / state.loss_windows if state.loss_windows else None
            heartbeat.steps(state.examples_seen, task.budget_examples, mean)
            for method in task.methods:
                method.progress(model, state.examples_seen / task.budget_examples)
            is_at_a_rung = pending_rungs and state.examples_seen >= pending_rungs[0]
            if is_at_a_rung and state.examples_seen < task.budget_examples:  # the end is no rung
                pending_rungs = [rung for rung in pending_rungs if rung > state.examples_seen]
                losses.settle(state)
                state.train_seconds = time.perf_counter() - started
                hooks.evaluate(state)
                state.loss_sum, state.loss_windows = 0.0, 0
                if checkpoint_folder:
                    checkpoint.save(checkpoint_folder, model, optimizer, state)
                hooks.report(state)
                started = time.perf_counter() - state.train_seconds
            if state.examples_seen >= task.budget_examples:
                break
            if hooks.is_to_pause():
                losses.settle(state)
                state.train_seconds = time.perf_counter() - started
                if checkpoint_folder:
                    checkpoint.save(checkpoint_folder, model, optimizer, state)
                raise Paused(f"paused after {state.examples_seen} of {task.budget_examples} examples")
        else:
            state.epoch, state.step_in_epoch = state.epoch + 1, 0
    losses.settle(state)
    state.train_seconds = time.perf_counter() - started
    if checkpoint_folder and checkpoints_end and not is_at_end:
        checkpoint.save(checkpoint_folder, model, optimizer, state)
    return state


def make_optimizer(model: torch.nn.Module, task: TrainTask) -> torch.optim.Optimizer:
    """Return the recipe's AdamW over the trainable parameters, grouped by learning rate and weight decay.

    Methods may give their own parameters other values; elsewhere weight decay is 0 where the family forbids it.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_rates(name, parameter, task), []).append(parameter)
    return optimizer_of(
        task.config.optimizer,
        [
            {"params": parameters, "peak_lr": learning_rate, "weight_decay": weight_decay}
            for (learning_rate, weight_decay), parameters in groups.items()
        ],
        learning_rate=task.config.learning_rate,
        device=task.device,
    )


def set_learning_rate(
    optimizer: torch.optim.Optimizer, task: TrainTask, examples_seen: int, windows: int
) -> None:
    """Set the rate of the coming step, by the recipe's schedule: see `schedules.py`."""
    factor = learning_rate_factor(
        task.config.schedule,
        before=examples_seen / task.budget_examples,
        after=(examples_seen + windows) / task.budget_examples,
        warmup=task.config.warmup_share,
    )
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def forward_loss(model: torch.nn.Module, task: TrainTask, batch: Batch) -> torch.Tensor:
    """Return the loss of one micro-batch, the family's own as changed by each method, under the recipe's precision."""
    dtype = autocast_dtype(task.config.precision, task.device)
    with torch.autocast(task.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        with ExitStack() as watches:
            for method in task.methods:
                watches.enter_context(method.watch(model))
            logits = task.family.logits(model, batch)
        loss = task.family.loss(model, batch, logits)
        for method in task.methods:
            loss = method.loss(loss, model, batch, logits)
    return loss


def accumulate(model: torch.nn.Module, task: TrainTask, step: list[np.ndarray]) -> torch.Tensor:
    """Back-propagate all micro-batches of a step; returns the mean loss over its windows, detached."""
    windows = sum(len(micro_batch) for micro_batch in step)
    total = torch.zeros((), device=task.device)
    for micro_batch in step:
        heartbeat.beat()
        batch = collate(task.windows, micro_batch, task.pad_id)
        batch = {name: tensor.to(task.device, non_blocking=True) for name, tensor in batch.items()}
        loss = forward_loss(model, task, batch) * (len(micro_batch) / windows)
        loss.backward()
        total += loss.detach()
    return total


def accumulate_within_memory(
    model: torch.nn.Module, task: TrainTask, step: list[np.ndarray], state: TrainState
) -> torch.Tensor:
    """Do as `accumulate`, in micro-batches of half the rows when the device is full, as often as that is possible.

    The effective batch stays the same, and but for rounding and the draws of dropout the gradient too. `state` keeps
    the number of parts for the steps to come.

    Raises:
        MemoryError, RuntimeError: what torch raises of a device that is full with single rows.
    """
    while True:
        parts = [part for rows in step for part in _parts(rows, state.micro_batch_parts)]
        try:
            return accumulate(model, task, parts)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or all(len(part) == 1 for part in parts):
                raise
        # Outside of the handler: its traceback holds the activations.
        model.zero_grad(set_to_none=True)
        if task.device.type == "cuda":
            torch.cuda.empty_cache()
        state.micro_batch_parts *= 2


def _parts(rows: np.ndarray, count: int) -> list[np.ndarray]:
    return [part for part in np.array_split(rows, min(count, len(rows))) if len(part)]


def _rates(name: str, parameter: torch.nn.Parameter, task: TrainTask) -> tuple[float, float]:
    """Return (learning rate, weight decay) of a parameter."""
    is_free = task.family.is_decay_free(name, tuple(parameter.shape))
    learning_rate, weight_decay = task.config.learning_rate, 0.0 if is_free else task.config.weight_decay
    for method in task.methods:
        group = method.parameter_group(name)
        if group is not None:
            learning_rate = learning_rate if group.learning_rate is None else group.learning_rate
            weight_decay = weight_decay if group.weight_decay is None else group.weight_decay
    return learning_rate, weight_decay


def _cut(step: list[np.ndarray], room: int) -> list[np.ndarray]:
    """Drop windows beyond the budget from the last step."""
    kept = []
    for micro_batch in step:
        if room > 0:
            kept.append(micro_batch[:room])
        room -= len(micro_batch)
    return kept


class _LossWatch:
    """Sums losses on the device and looks at them now and then, so that a GPU is not made to wait each step."""

    def __init__(self) -> None:
        self._pending: list[tuple[torch.Tensor, int]] = []

    def add(self, loss: torch.Tensor, windows: int, state: TrainState) -> None:
        self._pending.append((loss, windows))
        if len(self._pending) >= LOSS_CHECK_INTERVAL:
            self.settle(state)

    def settle(self, state: TrainState) -> None:
        for loss, windows in self._pending:
            value = float(loss)
            if not np.isfinite(value):
                raise NonFiniteLoss(
                    f"train: the loss is {value} after about {state.examples_seen} examples; a lower "
                    "train.learning_rate or train.precision: float32 may help"
                )
            state.loss_sum += value * windows
            state.loss_windows += windows
        self._pending.clear()
