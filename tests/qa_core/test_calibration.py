"""Seconds of training for one example and of one answer: the real loop, a few steps, nothing left behind."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from qa_core import calibration
from qa_core.calibration import Timing, timed_recipe
from qa_core.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from qa_core.training.checkpoint import TrainState

pytestmark = pytest.mark.numeric


def recipe(small_squad: Path, methods: dict, **model) -> RunConfig:
    return RunConfig(
        ModelConfig(**{"family": "bert", "checkpoint": "micro", "vocab_size": 300, **model}),
        methods=methods,
        data=DataConfig(
            train=str(small_squad),
            evaluation=str(small_squad),
            max_length=48,
            stride=8,
            max_question_length=16,
            selection_share=0.3,
        ),
        train=TrainConfig(budget_examples=10**6, batch_size=4),
    )


def timed(config: RunConfig, cache_dir: Path, limit_seconds: float = 0.0) -> Timing:
    return timed_recipe(config, cache_dir=cache_dir, limit_seconds=limit_seconds)


@pytest.mark.parametrize(
    ("methods", "model"),
    [
        ({}, {}),
        ({"qlora": {}}, {"family": "t5"}),
        ({"static_prune": {}, "distill": {"hidden_weight": 1.0}}, {}),
    ],
    ids=["full", "qlora", "pruned-distilled"],
)
def test_a_recipe_is_timed_and_leaves_nothing_behind(
    methods, model, small_squad, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    timing = timed(recipe(small_squad, methods, **model), cache_dir)
    assert 1e-5 < timing.train_seconds_per_example < 5
    assert 1e-5 < timing.evaluation_seconds_per_question < 5
    assert list(tmp_path.iterdir()) == []


def test_what_trains_nothing_takes_no_time(small_squad, cache_dir):
    config = recipe(small_squad, {"few_shot": {"shots": 0}}, family="mamba", head="generate")
    timing = timed(config, cache_dir)
    assert timing.train_seconds_per_example == 0.0
    assert timing.evaluation_seconds_per_question > 0.0


def test_the_clock_of_a_cpu_is_that_of_the_process_and_not_of_the_wall(monkeypatch):
    spent = iter([1.0, 3.0])
    monkeypatch.setattr(calibration.time, "process_time", lambda: next(spent))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    clock = calibration._seconds_of(torch.device("cpu"))
    assert -(clock() - clock()) == (3.0 - 1.0) / 2


def _clocked(monkeypatch, seconds: list[float], *, limit: float) -> tuple[float, int]:
    """Time a loop whose steps of 4 examples end at the given seconds; returns the result and the steps made."""
    made = []
    now = [100.0]  # what the clock shows

    def train(model, task, *, hooks, checkpoint_folder):
        for step, end in enumerate(seconds, start=1):
            made.append(step)
            state = TrainState(examples_seen=4 * step, train_seconds=end)
            now[0] = 100.0 + end
            if step < len(seconds):  # the last stretch ends without a rung
                hooks.evaluate(state)
                hooks.report(state)
        return state

    monkeypatch.setattr(calibration, "train", train)
    timed = calibration._timed(None, SimpleNamespace(), limit_seconds=limit, clock=lambda: now[0])
    return timed, len(made)


def test_the_first_steps_are_left_out(monkeypatch):
    assert _clocked(monkeypatch, [9.0, 10.0, 12.0, 14.0], limit=100) == (4.0 / 8, 4)


def test_no_step_is_begun_after_the_limit(monkeypatch):
    assert _clocked(monkeypatch, [1.0, 3.0, 6.0, 90.0], limit=5) == (3.0 / 4, 3)


def test_one_step_is_made_however_long_it_takes(monkeypatch):
    assert _clocked(monkeypatch, [8.0, 9.0, 10.0], limit=5) == (8.0 / 4, 1)
