"""The training loop: exact resume, the schedule's values, accumulation equal to one large batch, guards."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qa_core import registry, seeding
from qa_core.config import RunConfig
from qa_core.data.batches import plan_training_batches
from qa_core.data.prepare import prepare
from qa_core.errors import CheckpointError, ConfigError, NonFiniteLoss, Paused
from qa_core.training.checkpoint import TrainState
from qa_core.training.train import (
    RungHooks,
    TrainTask,
    accumulate,
    accumulate_within_memory,
    make_optimizer,
    set_learning_rate,
    train,
)
from qa_core.values import from_dict

pytestmark = pytest.mark.numeric

RUNG_1, RUNG_2 = 47, 94  # the first steps at or past the rungs 40 and 88: an epoch of 47 windows ends with 7
SILENT = RungHooks(evaluate=lambda state: None, report=lambda state: None)


def _recipe(small_squad: Path, **changes) -> RunConfig:
    values = {
        "model": {"family": "bert", "checkpoint": "micro", "vocab_size": 200, "dropout": 0.1},
        "data": {
            "train": str(small_squad),
            "evaluation": str(small_squad),
            "max_length": 64,
            "stride": 8,
            "max_question_length": 24,
        },
        "train": {"budget_examples": 130, "batch_size": 8, "learning_rate": 1e-3, "precision": "float32"},
        "seed": 3,
    }
    for key, change in changes.items():
        values[key] = {**values.get(key, {}), **change}
    return from_dict(RunConfig, values)


def _task(config: RunConfig, cache_dir: Path) -> tuple[torch.nn.Module, TrainTask]:
    family, methods = registry.make_family(config), registry.make_methods(config)
    data = prepare(config, family, cache_dir=cache_dir)
    seeding.seed_torch(config.seed)
    model = family.build(data.tokenizer)
    for method in methods:
        model = method.attach(model, family)
    pad_id = data.tokenizer.pad_token_id
    return model, TrainTask(
        family, methods, data.train, pad_id, config.train, config.seed, torch.device("cpu")
    )


class _Killed(Exception):
    pass


def _kill_at(examples: int) -> RungHooks:
    def report(state) -> None:
        if state.examples_seen >= examples:
            raise _Killed

    return RungHooks(evaluate=lambda state: state.curve.append({"seen": state.examples_seen}), report=report)


@pytest.mark.parametrize(
    ("family", "methods", "optimizer"),
    [
        ("bert", {}, "adamw"),
        ("bert", {"lora": {"rank": 2, "dropout": 0.2}}, "adamw"),
        ("bert", {"ia3": {"variant": "study"}}, "adamw"),
        ("bert", {"qlora": {"rank": 2, "dropout": 0.2}}, "adamw"),
        ("bert", {"qlora": {"rank": 2, "double_quantisation": False}}, "paged_adamw_32bit"),
        ("bert", {"lora_int8": {"rank": 2}}, "adamw"),
        ("bert", {"static_prune": {"density": 0.3, "criterion": "smp_s"}}, "adamw"),
        ("bert", {"static_prune": {"density": 0.3, "criterion": "movement"}}, "adamw"),
        ("lstm", {}, "adamw"),
        ("bert", {}, "adamw_8bit"),
        ("bert", {}, "paged_adamw_32bit"),
        ("bert", {}, "paged_adamw_8bit"),
    ],
)
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_a_killed_and_resumed_trial_ends_with_the_same_bits(
    family, methods, optimizer, small_squad, cache_dir, tmp_path
):
    train_changes = {"rungs": [40, 88], "optimizer": optimizer}
    changes = {"model": {"family": family}, "train": train_changes, "methods": methods}
    config = _recipe(small_squad, **changes)
    model, task = _task(config, cache_dir)
    undisturbed = train(model, task, hooks=_kill_at(10**9), checkpoint_folder=tmp_path / "a")
    expected = model.state_dict()

    folder = tmp_path / "b"
    for kill_at in (40, 88):
        victim, task = _task(config, cache_dir)
        with pytest.raises(_Killed):
            train(victim, task, hooks=_kill_at(kill_at), checkpoint_folder=folder)
    torch.manual_seed(999)  # a new process: the random state must come from the checkpoint
    survivor, task = _task(config, cache_dir)
    resumed = train(survivor, task, hooks=_kill_at(10**9), checkpoint_folder=folder)

    assert resumed.examples_seen == undisturbed.examples_seen == 130
    assert resumed.curve == undisturbed.curve
    assert [point["seen"] for point in resumed.curve] == [RUNG_1, RUNG_2]
    assert (resumed.loss_sum, resumed.loss_windows) == (undisturbed.loss_sum, undisturbed.loss_windows)
    found = survivor.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    start, _ = _task(config, cache_dir)
    assert any(not torch.equal(start.state_dict()[name], tensor) for name, tensor in expected.items())


def test_a_step_that_ends_the_budget_is_no_rung(small_squad, cache_dir):
    changes = {"budget_examples": 60, "rungs": [40, 59], "batch_size": 20}
    model, task = _task(_recipe(small_squad, train=changes), cache_dir)
    reported = []
    hooks = RungHooks(evaluate=lambda state: None, report=lambda state: reported.append(state.examples_seen))
    state = train(model, task, hooks=hooks, checkpoint_folder=None)
    assert state.examples_seen == 60
    assert len(reported) == 1
    assert 40 <= reported[0] < 59


def test_a_restored_trial_reports_its_rung_again_before_it_trains_on(small_squad, cache_dir, tmp_path):
    """The process may have ended after the checkpoint and before its report was heard."""
    model, task = _task(_recipe(small_squad, train={"rungs": [40, 88]}), cache_dir)
    with pytest.raises(_Killed):
        train(model, task, hooks=_kill_at(40), checkpoint_folder=tmp_path / "c")
    model, task = _task(_recipe(small_squad, train={"rungs": [40, 88]}), cache_dir)
    reported: list[tuple[int, bool]] = []
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def report(state) -> None:
        is_start = all(torch.equal(start[name], tensor) for name, tensor in model.state_dict().items())
        reported.append((state.examples_seen, is_start))

    train(model, task, hooks=RungHooks(lambda state: None, report), checkpoint_folder=tmp_path / "c")
    assert [seen for seen, _ in reported] == [RUNG_1, RUNG_2]
    assert not reported[0][1]  # the weights are those of the checkpoint


@pytest.mark.parametrize("family", ["bert", "lstm"])
def test_a_trial_that_was_paused_in_the_middle_ends_with_the_same_bits(
    family, small_squad, cache_dir, tmp_path
):
    """After the first step, before any rung, and again between two rungs."""
    config = _recipe(small_squad, model={"family": family}, train={"rungs": [40, 88]})
    model, task = _task(config, cache_dir)
    undisturbed = train(model, task, hooks=_kill_at(10**9), checkpoint_folder=tmp_path / "a")
    expected = model.state_dict()
    for steps in (1, 8):
        left = iter([False] * (steps - 1) + [True])
        model, task = _task(config, cache_dir)
        hooks = replace(_kill_at(10**9), is_to_pause=lambda left=left: next(left))
        with pytest.raises(Paused, match=r"paused after \d+ of 130 examples"):
            train(model, task, hooks=hooks, checkpoint_folder=tmp_path / "b")
    torch.manual_seed(999)
    model, task = _task(config, cache_dir)
    resumed = train(model, task, hooks=_kill_at(10**9), checkpoint_folder=tmp_path / "b")
    assert [point["seen"] for point in resumed.curve] == [RUNG_1, RUNG_2]
    assert (resumed.loss_sum, resumed.loss_windows) == (undisturbed.loss_sum, undisturbed.loss_windows)
    for name, tensor in expected.items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_a_checkpoint_of_another_recipe_is_refused(small_squad, cache_dir, tmp_path):
    model, task = _task(_recipe(small_squad, train={"rungs": [40]}), cache_dir)
    with pytest.raises(_Killed):
        train(model, task, hooks=_kill_at(40), checkpoint_folder=tmp_path / "c")
    other, task = _task(_recipe(small_squad, model={"checkpoint": "tiny"}), cache_dir)
    with pytest.raises(CheckpointError, match="another recipe"):
        train(other, task, hooks=SILENT, checkpoint_folder=tmp_path / "c")


def test_a_damaged_checkpoint_is_named(small_squad, cache_dir, tmp_path):
    model, task = _task(_recipe(small_squad, train={"rungs": [40]}), cache_dir)
    with pytest.raises(_Killed):
        train(model, task, hooks=_kill_at(40), checkpoint_folder=tmp_path / "c")
    weights = tmp_path / "c" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        train(model, task, hooks=SILENT, checkpoint_folder=tmp_path / "c")


@pytest.mark.parametrize(
    ("warmup_share", "seen", "factor"),
    [
        (0.1, 0, 0.08),
        (0.1, 92, 1.0),
        (0.1, 550, 0.5),
        (0.1, 992, 0.008 / 0.9),
        (0.0, 0, 1.0),
        (0.0, 500, 0.5),
    ],
)
def test_the_learning_rate_rises_and_falls_linearly(warmup_share, seen, factor, small_squad, cache_dir):
    changes = {"budget_examples": 1000, "warmup_share": warmup_share, "learning_rate": 0.01}
    model, task = _task(_recipe(small_squad, train=changes), cache_dir)
    optimizer = make_optimizer(model, task)
    set_learning_rate(optimizer, task, seen, 8)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.01 * factor] * 2)


def test_accumulated_gradients_equal_those_of_one_large_batch(small_squad, cache_dir):
    """Dropout off; the sum over micro-batches is taken in another order, so equal to float32 rounding."""
    gradients = []
    for micro_batch_tokens, expected in ((16384, 1), (80, 4)):
        train_changes = {"micro_batch_tokens": micro_batch_tokens}
        config = _recipe(small_squad, model={"dropout": 0.0}, train=train_changes)
        model, task = _task(config, cache_dir)
        step = plan_training_batches(
            task.windows.lengths, batch_size=8, micro_batch_tokens=micro_batch_tokens, seed=3, epoch=0
        )[0]
        assert len(step) == expected
        accumulate(model.train(), task, step)
        gradients.append(
            {name: item.grad for name, item in model.named_parameters() if item.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-6)


def test_micro_batches_of_unequal_sizes_count_by_their_windows(small_squad, cache_dir):
    """Five, two and one window: weighted alike, the one would count five times as much."""
    config = _recipe(small_squad, model={"dropout": 0.0})
    rows = np.arange(8)
    losses, gradients = [], []
    for step in ([rows], [rows[:5], rows[5:7], rows[7:]]):
        model, task = _task(config, cache_dir)
        losses.append(accumulate(model.train(), task, step))
        gradients.append({name: item.grad for name, item in model.named_parameters()})
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-6)


def test_the_budget_is_met_exactly_and_the_loss_falls(small_squad, cache_dir):
    losses = []

    def evaluate(state) -> None:
        losses.append(state.loss_sum / state.loss_windows)

    changes = {"budget_examples": 1003, "rungs": [100, 900], "learning_rate": 3e-3}
    model, task = _task(_recipe(small_squad, train=changes), cache_dir)
    hooks = RungHooks(evaluate=evaluate, report=lambda state: None)
    state = train(model, task, hooks=hooks, checkpoint_folder=None)
    assert state.examples_seen == 1003
    assert len(losses) == 2
    assert losses[1] < 0.8 * losses[0]


def test_decay_spares_biases_and_norms(small_squad, cache_dir):
    model, task = _task(_recipe(small_squad, train={"weight_decay": 0.3}), cache_dir)
    decayed, free = make_optimizer(model, task).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {parameter.ndim for parameter in decayed["params"]} == {2}
    assert {parameter.ndim for parameter in free["params"]} == {1}


def test_a_loss_that_is_not_finite_ends_the_trial(small_squad, cache_dir):
    model, task = _task(_recipe(small_squad), cache_dir)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(NonFiniteLoss, match="nan after about"):
        train(model, task, hooks=SILENT, checkpoint_folder=None)


def test_a_model_with_nothing_to_train_is_refused(small_squad, cache_dir):
    model, task = _task(_recipe(small_squad), cache_dir)
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing is left to train"):
        train(model, task, hooks=SILENT, checkpoint_folder=None)


def test_gradient_checkpointing_changes_no_gradient_and_is_refused_where_it_cannot_be(small_squad, cache_dir):
    gradients = []
    for enabled in (False, True):
        config = _recipe(small_squad, model={"dropout": 0.0}, train={"gradient_checkpointing": enabled})
        model, task = _task(config, cache_dir)
        if enabled:
            task.family.enable_gradient_checkpointing(model)
            assert model.is_gradient_checkpointing
        steps = plan_training_batches(
            task.windows.lengths, batch_size=8, micro_batch_tokens=9999, seed=3, epoch=0
        )
        accumulate(model.train(), task, steps[0])
        gradients.append(
            {name: item.grad for name, item in model.named_parameters() if item.grad is not None}
        )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-8)
    lstm, task = _task(_recipe(small_squad, model={"family": "lstm"}), cache_dir)
    with pytest.raises(ConfigError, match=r"gradient_checkpointing: family 'lstm'"):
        task.family.enable_gradient_checkpointing(lstm)


def _full_above(rows: int, monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """Let the device be full when a micro-batch has more rows; returns the rows of those that went through."""
    from qa_core.training import train as module

    through: list[int] = []
    original = module.forward_loss

    def forward_loss(model, task, batch):
        if len(batch["input_ids"]) > rows:
            raise error
        through.append(len(batch["input_ids"]))
        return original(model, task, batch)

    monkeypatch.setattr(module, "forward_loss", forward_loss)
    return through


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
    ],
)
def test_a_full_device_halves_the_micro_batches_and_keeps_the_effective_batch(
    error, small_squad, cache_dir, monkeypatch
):
    """Dropout off; gradients are summed in another order, so equal to float32 rounding."""
    config = _recipe(small_squad, model={"dropout": 0.0}, train={"budget_examples": 40})
    undisturbed, task = _task(config, cache_dir)
    step = plan_training_batches(
        task.windows.lengths, batch_size=8, micro_batch_tokens=16384, seed=3, epoch=0
    )[0]
    expected_loss = accumulate(undisturbed.train(), task, step)
    model, task = _task(config, cache_dir)
    through = _full_above(3, monkeypatch, error)
    state = TrainState()
    loss = accumulate_within_memory(model.train(), task, step, state)
    assert (state.micro_batch_parts, through) == (4, [2, 2, 2, 2])
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=0)
    gradients = {name: item.grad for name, item in undisturbed.named_parameters()}
    for name, item in model.named_parameters():
        torch.testing.assert_close(item.grad, gradients[name], rtol=1e-3, atol=1e-6)

    through.clear()
    state = train(model, task, hooks=SILENT, checkpoint_folder=None)
    assert (state.examples_seen, state.micro_batch_parts, sum(through), max(through)) == (40, 4, 40, 2)


def test_a_device_that_is_full_with_one_row_ends_the_trial(small_squad, cache_dir, monkeypatch):
    model, task = _task(_recipe(small_squad), cache_dir)
    assert _full_above(0, monkeypatch, torch.OutOfMemoryError("CUDA out of memory")) == []
    with pytest.raises(torch.OutOfMemoryError):
        train(model, task, hooks=SILENT, checkpoint_folder=None)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_another_error_is_not_taken_for_a_full_device(small_squad, cache_dir, monkeypatch):
    model, task = _task(_recipe(small_squad), cache_dir)
    _full_above(3, monkeypatch, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(model, task, hooks=SILENT, checkpoint_folder=None)
