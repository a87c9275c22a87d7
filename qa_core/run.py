"""The spine: one recipe from data to a measured artifact.

Read `run` top to bottom; each line is a module of its own. What a sweep adds around it is in
`sweeps/trials/worker.py`; how the finished artifact is written, and
stored in other forms, in `qa_core/stored_forms.py`; how it is scored and measured, in `qa_core/measure.py`.
"""

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from qa_core import files, prerequisites, registry, seeding
from qa_core.artifact import artifact
from qa_core.config import Form, RunConfig
from qa_core.data.prepare import TrialData, prepare
from qa_core.errors import OverMemoryBudget
from qa_core.families.base import Family
from qa_core.form_folder import FormFolder
from qa_core.hardware import choose_device
from qa_core.measure import Reader
from qa_core.memory import protocol as cost
from qa_core.memory.artifact_size import planned_artifact_bytes
from qa_core.memory.forms import FormMemory, form_memory
from qa_core.memory.protocol import Protocol
from qa_core.memory.training import full_evaluation_rows, full_micro_batch_rows
from qa_core.methods.base import Method
from qa_core.models.checkpoint_identity import checkpoint_identity
from qa_core.prerequisites import Prerequisite
from qa_core.schema import FormResult, Progress, RunResult, as_json
from qa_core.scoring import evaluate
from qa_core.stored_forms import (
    Bench,
    Plan,
    forget_forms,
    forms_at_rungs,
    from_training,
    keep_twin,
    make_forms,
    measure_form,
    plan_forms,
    read_twin,
    write_form,
)
from qa_core.training.checkpoint import TrainState
from qa_core.training.deployment import deployed_copy, scores_a_copy
from qa_core.training.kernels import use_training_kernels
from qa_core.training.train import RungHooks, TrainTask, forward_loss, make_optimizer, train
from qa_core.turns import ALONE, Turns
from qa_core.values import to_dict

Report = Callable[[Progress], None]


def run(
    config: RunConfig,
    report: Report,
    *,
    folder: Path,
    cache_dir: Path,
    max_memory_mb: float | None = None,
    is_to_pause: Callable[[], bool] = bool,
    turns: Turns = ALONE,
    forms: Sequence[Form] = (),
    skips_as_good: bool = True,
    reports_forms: bool = False,
) -> RunResult:
    """Train, write, load back and measure one recipe, and store it in other forms where these are asked for.

    Args:
        config: the recipe.
        report: called at each rung with every objective; it may end the trial by raising.
        folder: the trial's own folder: `checkpoint/` while it runs (resumed from if it is there), `artifact/` and
            `answers.parquet` at the end.
        cache_dir: tokenised windows, tokenizers, measured forms and teachers, shared by all trials of a machine.
        max_memory_mb: a recipe whose deployed form, or smallest stored form, needs more for one window at a time is
            refused before it is trained; None for no limit.
        is_to_pause: asked after each step and before each form; True checkpoints the trial and raises `Paused`.
        turns: with other trials on the device; the caller stands in `turns.working()`.
        forms: in which the trained network is stored too, see `stored_forms.py`. The checkpoint then stays until all
            are made, and what an earlier call has made of them is taken as it is.
        skips_as_good: whether a form is skipped when a smaller one loses nothing; only where nothing but exact match
            and what is planned of a form decides about it.
        reports_forms: whether reports name the stored forms, by which a sweep with forms compares trainings; also where
            no form applies to this recipe.

    Raises:
        QaError: the recipe, the data or the machine is at fault; NonFiniteLoss when training diverges;
            OverMemoryBudget; PrerequisiteFailed.
    """
    family, methods = registry.assemble(config)
    device = choose_device(config.device)
    data = prepare(config, family, cache_dir=cache_dir)
    family = data.family
    protocol = Protocol(family, data.tokenizer, config.data.max_length, config.evaluation, device)

    seeding.seed_torch(config.seed)
    model = build_network(config, data, methods, protocol)
    if not family.is_preset:
        named = config.model.checkpoint
        data.facts["checkpoint"] = checkpoint_identity(named, place=family.place_of(named))
    memory = form_memory(family, model, methods, protocol=protocol, cache_dir=cache_dir, turns=turns)
    planned_bytes = planned_artifact_bytes(config, family, model, methods, tokenizer=data.tokenizer)
    memory = replace(memory, artifact_bytes=planned_bytes)
    bench = Bench(family, data, protocol, cache_dir, turns)
    plans = plan_forms(config, forms, bench)
    _check_budget(memory, plans, max_memory_mb)
    with turns.resting():  # a teacher may be another trial's at the moment
        obtained = _obtained(config, methods, data=data, family=family, cache_dir=cache_dir, turns=turns)
    model = _provide(model, methods, obtained, protocol=protocol)
    task = TrainTask(
        family, methods, data.train, data.tokenizer.pad_token_id, config.train, config.seed, device
    )
    training = {
        "train_peak_bytes": _train_peak_bytes(model, task, protocol),
        "trainable_parameters": cost.parameter_count(model, trainable_only=True),
    }
    at_rungs = forms_at_rungs(plans, methods, memory, max_memory_mb) if reports_forms else None
    hooks = _rung_hooks(
        Reader(model, protocol), task, data, report=report, memory=memory, forms=as_json(at_rungs)
    )
    hooks = replace(hooks, is_to_pause=_after_a_step(is_to_pause, turns))
    if plans and task.budget_examples and not files.is_folder(folder / "checkpoint"):
        forget_forms(folder)  # of another training: this one begins anew
    state = train(
        model, task, hooks=hooks, checkpoint_folder=folder / "checkpoint", checkpoints_end=bool(plans)
    )
    if device.type == "cuda" and task.budget_examples:
        training["train_peak_bytes"] = torch.cuda.max_memory_allocated(device)

    twin = read_twin(config, folder) if plans else None
    if twin is None:
        if plans:  # of a worker that was killed before it had measured them
            forget_forms(folder)
        write_form(copy.deepcopy(model) if plans else model, config, methods, FormFolder(folder), bench)
        if not plans:
            del model, hooks
        twin = measure_form(FormFolder(folder), bench, memory=memory, state=state, training=training)
        if plans:
            keep_twin(config, twin, folder)
    else:
        data.count_windows()
    state.curve.append(_progress(state, task, memory, twin.selection))
    stored: tuple[FormResult, ...] = ()
    if plans:
        stored = make_forms(
            from_training(model, methods, bench),
            plans,
            twin,
            folder=folder,
            bench=bench,
            state=state,
            max_memory_mb=max_memory_mb,
            skips_as_good=skips_as_good,
            is_to_pause=is_to_pause,
        )
    result = RunResult(
        config=to_dict(config),
        quality=twin.quality,
        cost=twin.cost,
        curve=tuple(Progress(**point) for point in state.curve),
        artifact=str(folder / "artifact"),
        data=data.facts,
        cross_domain=twin.cross_domain,
        forms=stored,
        prerequisites={name: item.facts for name, item in obtained.items()},
    )
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return result


def build_network(
    config: RunConfig, data: TrialData, methods: list[Method], protocol: Protocol
) -> torch.nn.Module:
    """Return the network to train on the protocol's device, every method attached, none provided for yet."""
    source = Path(protocol.family.place_of(config.model.checkpoint))
    if not protocol.family.is_preset and artifact.is_artifact(source):
        start = artifact.load_plain(source, protocol.family)
        data.facts["start_weights_sha256"] = start.weights_sha256
        model = start.model
    else:
        model = protocol.family.build(data.tokenizer, data.found)
    model = model.to(protocol.device)  # before the methods, of which some quantise where the weights are
    for method in methods:
        model = method.attach(model, protocol.family)
    if config.train.gradient_checkpointing:
        protocol.family.enable_gradient_checkpointing(model)
    return model


def _obtained(
    config: RunConfig,
    methods: list[Method],
    *,
    data: TrialData,
    family: Family,
    cache_dir: Path,
    turns: Turns,
) -> dict[str, Prerequisite]:
    """Return method name -> what it needs trained before, trained now if nobody has; called in `turns.resting()`."""

    def train_in_turn(*args: Any, **options: Any) -> RunResult:
        with turns.working():
            return run(*args, **options, turns=turns)

    needed = {method.name: method.prerequisite(config) for method in methods}
    return {
        name: prerequisites.obtain(
            item,
            owner=f"methods.{name}",
            family=family,
            data=data,
            cache_dir=cache_dir,
            train=train_in_turn,
        )
        for name, item in needed.items()
        if item is not None
    }


def _provide(
    model: torch.nn.Module,
    methods: list[Method],
    obtained: Mapping[str, Prerequisite],
    *,
    protocol: Protocol,
) -> torch.nn.Module:
    """Hand each method what it needs trained before; returns the network, on its device."""
    model = model.to(protocol.device)
    for method in methods:
        if method.name in obtained:
            model = method.provide(obtained[method.name].artifact, model, protocol.family)
    return model


def _check_budget(memory: FormMemory, plans: Sequence[Plan], max_memory_mb: float | None) -> None:
    """Refuse a recipe of which nothing that is asked for fits."""
    what, needed = "the deployed form", memory.measured_bytes
    if plans:
        smallest = min((plan for plan in plans if plan.why_not is None), key=lambda plan: plan.sizes)
        what, needed = f"the smallest stored form, {smallest.form.label},", smallest.sizes[0]
    if max_memory_mb is not None and needed / 1e6 > max_memory_mb:
        raise OverMemoryBudget(
            f"max_memory_mb: {what} needs {needed / 1e6:.1f} MB; allowed: {max_memory_mb:g} MB"
        )


def _train_peak_bytes(model: torch.nn.Module, task: TrainTask, protocol: Protocol) -> int | None:
    """Return the CPU peak of training, found on a copy of the model; None when the recipe trains nothing.

    It is that of one optimiser step on a full-length micro-batch, or of scoring a full batch at a rung where that is of
    a copy in the deployed form. The networks that methods keep beside it count, weights and activations.
    """
    if task.budget_examples == 0:
        return None
    if task.device.type == "cuda":
        # The peak of training starts from what is on the device: the network and its companions.
        torch.cuda.reset_peak_memory_stats(task.device)
        return 0
    network = use_training_kernels(copy.deepcopy(model)).train()
    optimizer = make_optimizer(network, task)
    batch = protocol.batch("cpu", rows=full_micro_batch_rows(task.config, protocol.max_length))

    for method in task.methods:
        method.progress(network, 0.0)

    def step() -> None:
        forward_loss(network, task, batch).backward()
        optimizer.step()

    # The state dict too: it has the scales of bitsandbytes' layers.
    networks = [network, *(companion for method in task.methods for companion in method.companions())]
    held = [tensor for item in networks for tensor in (*cost.held_tensors(item), *item.state_dict().values())]
    peak = cost.tracked_step_peak_bytes(step, [*held, *batch.values()])
    if not scores_a_copy(task.methods):
        return peak
    optimizer.zero_grad(set_to_none=True)
    scored = deployed_copy(network, task.methods)
    rows = full_evaluation_rows(protocol.evaluation, protocol.max_length)
    scored_batch = protocol.batch("cpu", rows=rows)
    states = (item for state in optimizer.state.values() for item in state.values())
    kept = [item for item in states if isinstance(item, torch.Tensor)]
    at_a_rung = cost.tracked_step_peak_bytes(
        lambda: protocol.step(scored, scored_batch, whole_length=True),
        [*held, *kept, *cost.held_tensors(scored), *scored_batch.values()],
    )
    return max(peak, at_a_rung)


def _rung_hooks(
    reader: Reader,
    task: TrainTask,
    data: TrialData,
    *,
    report: Report,
    memory: FormMemory,
    forms: Sequence[Mapping[str, Any]] | None,
) -> RungHooks:
    floors: list[evaluate.Floor] = []  # of the selection questions, once it is needed

    def close_rung(state: TrainState) -> None:
        started = time.perf_counter()
        deployed = replace(reader, model=deployed_copy(reader.model, task.methods))
        predictions = deployed.predict(data.selection, data.selection_table)
        threshold = evaluate.tune_threshold(predictions, data.selection_table)
        scores = evaluate.scores_by_question(predictions, data.selection_table, threshold)
        if not floors:
            floors.append(evaluate.Floor.of(data.selection_table))
        means, gain = evaluate.mean_scores(scores), floors[0].gain(scores)
        state.rung_seconds += time.perf_counter() - started
        state.curve.append({**_progress(state, task, memory, means), **gain, "forms": forms})

    return RungHooks(evaluate=close_rung, report=lambda state: report(Progress(**state.curve[-1])))


def _after_a_step(is_to_pause: Callable[[], bool], turns: Turns) -> Callable[[], bool]:
    def let_others_then_ask() -> bool:
        turns.between_steps()
        return is_to_pause()

    return let_others_then_ask


def _progress(
    state: TrainState, task: TrainTask, memory: FormMemory, selection: tuple[float, float]
) -> dict[str, Any]:
    em_percent, f1_percent = selection
    assert memory.artifact_bytes is not None, "it is planned before training"
    return as_json(
        Progress(
            examples_seen=state.examples_seen,
            budget_examples=task.budget_examples,
            train_loss=state.loss_sum / state.loss_windows if state.loss_windows else None,
            selection_em_percent=em_percent,
            selection_f1_percent=f1_percent,
            memory_mb=memory.measured_bytes / 1e6,
            memory_batch8_mb=memory.measured_batch8_bytes / 1e6,
            inference_peak_bytes=memory.measured_bytes,
            weights_bytes=memory.weights_bytes,
            artifact_bytes=memory.artifact_bytes,
            train_seconds=state.train_seconds,
        )
    )
