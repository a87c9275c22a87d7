"""How long a recipe trains for one example and answers one question on this machine; nothing of it is kept.

A few steps of the real loop, then the real evaluation of the selection split. Data, network, methods and optimiser are
those of a trial; the questions are few, and a network that a method needs trained before stands in untrained. On a CPU
the clock is that of the process, divided by its threads: other work on the machine does not lengthen it. The network
answers in the form that it trains in; then it is stored once. Measuring and a teacher's training are not timed.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from qa_core import registry, seeding
from qa_core.artifact import artifact
from qa_core.artifact.loaded import LoadedArtifact
from qa_core.config import RunConfig
from qa_core.data.prepare import TrialData, prepare, recipe_tokenizer
from qa_core.form_folder import FormFolder
from qa_core.hardware import choose_device
from qa_core.measure import Reader
from qa_core.memory.protocol import Protocol
from qa_core.run import build_network
from qa_core.scoring import evaluate
from qa_core.stored_forms import Bench, write_form
from qa_core.training.checkpoint import TrainState
from qa_core.training.train import RungHooks, TrainTask, train

QUESTIONS = 240  # of the training data: their windows have the lengths of all
STEPS_AT_MOST = 24
WARM_UP_STEPS = 2  # the first ones choose kernels and fill caches


@dataclass(frozen=True)
class Timing:
    """Seconds of one recipe: on a CPU of the process, divided by its threads, on a GPU by the clock on the wall.

    Attributes:
        train_seconds_per_example: of training for one window; 0 where nothing is trained.
        evaluation_seconds_per_question: of answering, scores included.
        storing_seconds: of writing the trained network as an artifact and reading that back, once.
    """

    train_seconds_per_example: float
    evaluation_seconds_per_question: float
    storing_seconds: float = 0.0


def timed_recipe(config: RunConfig, *, cache_dir: Path, limit_seconds: float) -> Timing:
    """Time a recipe, the first steps of training left out where there are enough others.

    Args:
        config: the recipe.
        cache_dir: the trials' cache, from which the tokenizer comes; everything else is made in a folder that is gone
            afterwards.
        limit_seconds: no step is begun after so many seconds of training; one step is always made.

    Raises:
        QaError: as `run.run` does before the first rung.
    """
    family, methods = registry.assemble(config)
    device = choose_device(config.device)
    tokenizer = recipe_tokenizer(config, family, cache_dir=cache_dir)
    with tempfile.TemporaryDirectory(prefix="qa-calibration-") as scratch:
        few = _few_questions(config)
        data = prepare(few, family, cache_dir=Path(scratch), tokenizer=tokenizer)
        family = data.family
        protocol = Protocol(family, tokenizer, config.data.max_length, config.evaluation, device)
        seeding.seed_torch(config.seed)
        model = build_network(few, data, methods, protocol)
        for method in methods:
            needed = method.prerequisite(config)
            if needed is not None:
                model = method.provide(_stand_in(needed, data), model, family)
        pad_id = tokenizer.pad_token_id
        task = TrainTask(family, methods, data.train, pad_id, few.train, config.seed, device)
        seconds = _seconds_of(device)
        trained = (
            _timed(model, task, limit_seconds=limit_seconds, clock=seconds) if task.budget_examples else 0.0
        )
        started = seconds()
        predictions = Reader(model, protocol).predict(data.selection, data.selection_table)
        evaluate.tune_threshold(predictions, data.selection_table)
        answered = seconds()
        place = FormFolder(Path(scratch) / "trial")
        write_form(model, config, methods, place, Bench(family, data, protocol, Path(scratch)))
        artifact.load(place.artifact)
        return Timing(
            trained, (answered - started) / len(data.selection_table), storing_seconds=seconds() - answered
        )


def _seconds_of(device: torch.device) -> Callable[[], float]:
    """Return the clock of a device; see `Timing`."""
    if device.type == "cuda":

        def on_the_wall() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return on_the_wall
    return lambda: time.process_time() / torch.get_num_threads()


class _Enough(Exception):
    """The time for calibration is over."""


def _timed(model: Any, task: TrainTask, *, limit_seconds: float, clock: Callable[[], float]) -> float:
    marks = [(0, clock())]  # examples seen and the time, before training and after each step

    def mark(state: TrainState) -> None:
        marks.append((state.examples_seen, clock()))
        if state.train_seconds > limit_seconds:
            raise _Enough

    try:
        state = train(
            model, task, hooks=RungHooks(evaluate=lambda state: None, report=mark), checkpoint_folder=None
        )
        marks.append((state.examples_seen, clock()))
    except _Enough:
        pass
    first_examples, first_seconds = marks[min(WARM_UP_STEPS, len(marks) - 2)]
    examples, seconds = marks[-1]
    return (seconds - first_seconds) / (examples - first_examples)


def _few_questions(config: RunConfig) -> RunConfig:
    """Return the recipe with a report after each of a few steps, on few questions."""
    questions = min(QUESTIONS, config.data.train_questions or QUESTIONS)
    data = replace(config.data, train_questions=questions, evaluation_questions=1, cross_domain=())
    budget = config.train.batch_size * STEPS_AT_MOST
    rungs = tuple(range(config.train.batch_size, budget, config.train.batch_size))
    schedule = replace(config.train, budget_examples=budget, epochs=None, rungs=rungs)
    return replace(config, data=data, train=schedule)


def _stand_in(needed: RunConfig | Path, data: TrialData) -> LoadedArtifact:
    """Return the artifact that a method needs, or an untrained network in the place of one that would be trained."""
    if isinstance(needed, Path):
        return artifact.load(needed)
    family = registry.make_family(needed)
    found = family.prepare(data.tokenizer, needed.data, cache_dir=data.cache_dir)
    return LoadedArtifact(family.build(data.tokenizer, found).eval(), family, data.tokenizer, needed, {})
