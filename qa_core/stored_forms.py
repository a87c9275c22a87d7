"""From one trained network to each of its stored forms: planned before training, then written, read back and measured.

The twin, the network as its recipe stores it, always comes first: every form is compared with it. Forms follow from
the smallest up. Each is exported from a copy of the trained network, written, verified, loaded and scored like any
artifact, so that it is to the last digit what another recipe would make of the twin's artifact. Its outcome is written
last: of a worker that was killed only the missing forms are made again. `qa_core/run.py` calls what stands here.
"""

import copy
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from qa_core import files, heartbeat, registry
from qa_core.artifact import artifact
from qa_core.config import Form, RunConfig
from qa_core.data.prepare import TrialData, prepare
from qa_core.errors import ArtifactError, ConfigError, DataError, Paused, StorageError
from qa_core.families.base import Family
from qa_core.form_folder import FORMS_FOLDER, TWIN_FILE, FormFolder
from qa_core.form_kinds import form_at_rung, kind_of
from qa_core.hardware import choose_device, describe_device, precision_name
from qa_core.measure import Reader, cross_domain_scores, measured_cost, scored_quality
from qa_core.memory.artifact_size import planned_artifact_bytes
from qa_core.memory.forms import FormMemory, form_memory, planned_forms, training_skeleton
from qa_core.memory.protocol import Protocol
from qa_core.methods.base import Method
from qa_core.schema import (
    Cost,
    CrossDomainScore,
    FormAtRung,
    FormResult,
    Quality,
    TwinDifference,
    as_json,
)
from qa_core.scoring import evaluate
from qa_core.scoring.answer_file import read_scores
from qa_core.training.checkpoint import TrainState
from qa_core.training.deployment import exported
from qa_core.turns import ALONE, Turns
from qa_core.values import from_dict, to_dict

OVER_BUDGET, AS_GOOD = "over budget", "a smaller form is as good"  # why a form is skipped
# A form is skipped when one that is smaller in all that is planned reaches the twin's exact match on the selection
# split plus this. 0: what reaches the network that was trained leaves nothing to gain; above 0 hardly any form would be
# skipped, as a form seldom answers better than its twin, and below 0 real losses would pass for none.
AS_GOOD_MARGIN_PERCENT = 0.0


@dataclass(frozen=True)
class Plan:
    """A form before training: its methods, attached to a network without memory, and what it will need.

    `why_not` says why its methods refuse this network; None: they take it.
    """

    form: Form
    methods: Sequence[Method] = ()
    memory: FormMemory | None = None
    why_not: str | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """All that is planned, in bytes, the peak with one window first."""
        memory = self.memory
        assert memory is not None, "its methods refuse it"
        assert memory.artifact_bytes is not None, "it is planned of a whole recipe"
        peaks = (memory.measured_bytes, memory.measured_batch8_bytes)
        return (*peaks, memory.weights_bytes, memory.artifact_bytes)


@dataclass(frozen=True)
class Bench:
    """What every form of one training is written, read back and measured with."""

    family: Family
    data: TrialData
    protocol: Protocol
    cache_dir: Path
    turns: Turns = ALONE


@dataclass(frozen=True)
class Stored:
    """What one artifact came to. `selection` is (EM, F1) in percent on the selection split."""

    quality: Quality
    cost: Cost
    selection: tuple[float, float]
    cross_domain: Mapping[str, CrossDomainScore] = field(default_factory=dict)
    against_twin: TwinDifference | None = None


def plan_forms(config: RunConfig, forms: Sequence[Form], bench: Bench) -> list[Plan]:
    """Return the plan of each form, in their order; of two that are stored alike the first, or the twin.

    Raises:
        ConfigError: no form is left: the methods refuse them all.
    """
    plans: dict[str, Plan] = {}  # by what is stored
    refused = []
    for form in sorted(forms, key=lambda form: not form.is_twin):  # stable
        heartbeat.beat()
        try:
            layout, plan = _plan(form, bench)
        except ConfigError as error:
            refused.append(Plan(form, why_not=str(error)))
        else:
            plans.setdefault(layout, plan)
    if refused and not plans:
        raise ConfigError(f"forms: none can be made of this recipe: {refused[0].why_not}")
    kept = {plan.form.label: plan for plan in (*plans.values(), *refused)}
    return [kept[form.label] for form in forms if form.label in kept]


def forms_at_rungs(
    plans: Sequence[Plan], trained: Sequence[Method], memory: FormMemory, max_memory_mb: float | None
) -> tuple[FormAtRung, ...]:
    """Return what reports say of the stored forms: of those that will be made, unless a smaller one is as good.

    Args:
        plans: () for a recipe that no form of the sweep applies to: it is stored as it says.
        trained, memory: methods of the recipe that is trained, and what its own stored form needs.
        max_memory_mb: as for `make_forms`.
    """
    if not plans:
        return (form_at_rung(None, kind_of(trained, trained), memory),)
    return tuple(
        form_at_rung(plan.form.label, kind_of(plan.methods, trained), plan.memory)
        for plan in plans
        if plan.memory is not None and not is_over(plan, max_memory_mb)
    )


def _plan(form: Form, bench: Bench) -> tuple[str, Plan]:
    """Return what tells how a form is stored, and its plan."""
    family, tokenizer = bench.family, bench.data.tokenizer
    methods = registry.make_methods(form.recipe)
    registry.check_combination(family, methods)
    network = training_skeleton(form.recipe, family, methods, tokenizer=tokenizer, found=bench.data.found)
    layout = files.digest(planned_forms(family, family.architecture(network), methods))
    memory = form_memory(
        family, network, methods, protocol=bench.protocol, cache_dir=bench.cache_dir, turns=bench.turns
    )
    size = planned_artifact_bytes(form.recipe, family, network, methods, tokenizer=tokenizer)
    return layout, Plan(form, methods, replace(memory, artifact_bytes=size))


def write_form(
    network: torch.nn.Module, recipe: RunConfig, methods: Sequence[Method], place: FormFolder, bench: Bench
) -> None:
    """Export a network, which is consumed, and write its artifact.

    Raises:
        StorageError: the artifact exists already, or the disk is full.
    """
    network, forms = exported(network, methods)
    _write_artifact(network, forms, recipe, methods, place, bench)


def _write_artifact(
    network: torch.nn.Module,
    forms: Mapping[str, Any],
    recipe: RunConfig,
    methods: Sequence[Method],
    place: FormFolder,
    bench: Bench,
) -> None:
    own_folders = [own for method in methods if (own := method.own_folder(network)) is not None]
    artifact.write(
        place.artifact,
        network,
        config=recipe,
        tokenizer=bench.data.tokenizer,
        forms=forms,
        own_folders=own_folders,
        prompting=bench.family.prompting,
    )


def measure_form(
    place: FormFolder,
    bench: Bench,
    *,
    memory: FormMemory,
    state: TrainState,
    training: Mapping[str, Any],
    is_twin: bool = True,
) -> Stored:
    """Verify an artifact, load it back, tune its threshold, score and measure it.

    Args:
        memory: as planned.
        state, training: of the training; see `measured_cost`.
        is_twin: also score it on the sets of other domains.
    """
    loaded = artifact.load(place.artifact)
    reader = Reader(loaded.model.to(bench.protocol.device), bench.protocol)
    quality, selection = scored_quality(reader, bench.data, answers_path=place.answers)
    artifact.set_null_threshold(place.artifact, quality.null_threshold)
    cross_domain = cross_domain_scores(reader, bench.data, quality.null_threshold) if is_twin else {}
    with bench.turns.measuring():
        cost = measured_cost(reader, loaded, bench.data, memory=memory, state=state, training=training)
    return Stored(quality, cost, selection, cross_domain)


def read_twin(config: RunConfig, folder: Path) -> Stored | None:
    """Return what the twin came to in a worker that was killed later; None where it is not whole."""
    return _read(_twin_file(folder), config, folder / "artifact")


def keep_twin(config: RunConfig, twin: Stored, folder: Path) -> None:
    """Note what the twin came to, now that its artifact and answers are there."""
    _write(_twin_file(folder), config, twin)


def forget_forms(folder: Path) -> None:
    """Remove all that an earlier training left of twin and forms."""
    place = FormFolder(folder)
    for path in (folder / FORMS_FOLDER, place.artifact):
        files.remove_leftovers(path)
        files.remove_folder(path, inside=folder)


WriteForm = Callable[[Plan, FormFolder], None]


def from_training(network: torch.nn.Module, trained: Sequence[Method], bench: Bench) -> WriteForm:
    """Return what writes forms of a network that has just been trained, and leaves it as it is.

    Args:
        network: methods attached.
        trained: the methods of its recipe.
    """

    def write(plan: Plan, place: FormFolder) -> None:
        methods = _export_methods(plan.form, plan.methods, trained)
        write_form(copy.deepcopy(network), plan.form.recipe, methods, place, bench)

    return write


def from_artifact(folder: Path, bench: Bench) -> WriteForm:
    """Return what writes forms of a trained network of which only the twin's artifact is left.

    Methods that are added act on what the artifact stores, those that it holds bring that into their other form
    (`Method.stored_anew`); the result is to the last digit what `from_training` writes.
    """

    def write(plan: Plan, place: FormFolder) -> None:
        network, held, recipe = artifact.load_stored(folder)
        network = network.to(bench.protocol.device)
        changed = {path.split(".")[1] for path in plan.form.settings}
        forms: dict[str, dict[str, Any]] = {}
        for method in plan.methods:
            form: Mapping[str, Any] | None
            if method.name in changed and method.name in recipe.methods:
                network, form = method.stored_anew(network, held.get(method.name))
            elif method.name in changed:  # added, and so the last
                method.attach(network, bench.family)
                network, added = exported(network, [method])
                form = added.get(method.name)
            else:
                form = held.get(method.name)
            if form is not None:
                forms[method.name] = dict(form)
        _write_artifact(network, forms, plan.form.recipe, plan.methods, place, bench)

    return write


def make_forms(
    write: WriteForm,
    plans: Sequence[Plan],
    twin: Stored,
    *,
    folder: Path,
    bench: Bench,
    state: TrainState,
    max_memory_mb: float | None,
    skips_as_good: bool,
    is_to_pause: Callable[[], bool],
) -> tuple[FormResult, ...]:
    """Make every planned form that is missing, from the smallest up; returns what each came to, in that order.

    Args:
        write: `from_training` or `from_artifact`.
        twin: what the network came to as its recipe stores it.
        folder: of the trial.
        max_memory_mb: a form that is planned to need more for one window is skipped.
        skips_as_good: whether a form is skipped when a smaller one loses nothing.
        is_to_pause: asked before each form.

    Raises:
        Paused: it was asked for. StorageError: the disk is full; both leave the forms that are made.
    """
    results = []
    smaller: list[tuple[Plan, Stored]] = []  # those that are there
    order = sorted(plans, key=lambda plan: (plan.why_not is not None, plan.why_not is None and plan.sizes))
    for plan in order:
        form = plan.form
        why = plan.why_not or _why_skipped(plan, smaller, twin, max_memory_mb, skips_as_good=skips_as_good)
        if why is not None:
            results.append(FormResult(form.label, form.settings, "skipped", why))
            continue
        if form.is_twin:
            smaller.append((plan, twin))
            results.append(_result(form, twin, folder / "artifact"))
            continue
        if is_to_pause():
            raise Paused(f"paused before the form {form.label}")
        place = FormFolder(folder / FORMS_FOLDER / form.label)
        stored = _read(place.outcome, form.recipe, place.artifact)
        if stored is None:
            found = _made(write, plan, twin, place, folder=folder, bench=bench, state=state)
            if isinstance(found, FormResult):
                results.append(found)
                continue
            stored = found
        smaller.append((plan, stored))
        results.append(_result(form, stored, place.artifact))
    return tuple(results)


def more_forms(
    config: RunConfig,
    forms: Sequence[Form],
    twin: Stored,
    *,
    folder: Path,
    cache_dir: Path,
    state: TrainState,
    facts: Mapping[str, Any],
    max_memory_mb: float | None = None,
    skips_as_good: bool = True,
) -> tuple[FormResult, ...]:
    """Store a training that has ended in more forms, from the artifact that it left; see `make_forms`.

    Args:
        config: the recipe that was trained.
        folder: of the trial; the artifact and the answers of the twin are there.
        state: of the end of the training.
        facts: `TrialData.facts` of the training: the same questions must be there.

    Raises:
        DataError: the questions or the tokenizer are others. ConfigError: this is another device, or computes in
            another precision. ArtifactError: the artifact is altered.
    """
    family, _ = registry.assemble(config)
    device = choose_device(config.device)
    found = (describe_device(device), precision_name(config.evaluation.precision, device))
    if found != (twin.cost.device, twin.cost.precision):
        raise ConfigError(
            f"device: found {', '.join(found)}; allowed: {twin.cost.device}, {twin.cost.precision}, on which the trial "
            "was measured"
        )
    data = prepare(config, family, cache_dir=cache_dir)
    _check_same_data(data.facts, facts)
    protocol = Protocol(data.family, data.tokenizer, config.data.max_length, config.evaluation, device)
    bench = Bench(data.family, data, protocol, cache_dir)
    return make_forms(
        from_artifact(FormFolder(folder).artifact, bench),
        plan_forms(config, forms, bench),
        twin,
        folder=folder,
        bench=bench,
        state=state,
        max_memory_mb=max_memory_mb,
        skips_as_good=skips_as_good,
        is_to_pause=bool,
    )


def _check_same_data(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for part in ("selection", "evaluation"):
        hashes = [facts[part]["data_hash"] for facts in (found, wanted)]
        if hashes[0] != hashes[1]:
            raise DataError(
                f"data.{part}: found questions with hash {hashes[0]}; allowed: {hashes[1]}, those of the training"
            )
    if found["tokenizer_hash"] != wanted["tokenizer_hash"]:
        raise DataError(
            f"model.tokenizer: found one with hash {found['tokenizer_hash']}; allowed: {wanted['tokenizer_hash']}, "
            "that of the training"
        )


def _why_skipped(
    plan: Plan,
    smaller: Sequence[tuple[Plan, Stored]],
    twin: Stored,
    max_memory_mb: float | None,
    *,
    skips_as_good: bool,
) -> str | None:
    """Return why a form is not made; None when it is. It depends on this training alone, never on other trials."""
    if is_over(plan, max_memory_mb):
        return OVER_BUDGET
    if plan.form.is_twin or not skips_as_good:
        return None
    enough = twin.selection[0] + AS_GOOD_MARGIN_PERCENT
    for other, stored in smaller:
        is_smaller = all(size <= own for size, own in zip(other.sizes, plan.sizes, strict=True))
        if is_smaller and stored.selection[0] >= enough:
            return AS_GOOD
    return None


def is_over(plan: Plan, max_memory_mb: float | None) -> bool:
    """Tell whether a form is planned to need more than it may, for one window at a time."""
    return max_memory_mb is not None and plan.sizes[0] / 1e6 > max_memory_mb


def _made(
    write: WriteForm,
    plan: Plan,
    twin: Stored,
    place: FormFolder,
    *,
    folder: Path,
    bench: Bench,
    state: TrainState,
) -> Stored | FormResult:
    """Make one form; a failure of it alone is its result."""
    form = plan.form
    heartbeat.beat()
    files.remove_folder(place.path, inside=folder)  # of a worker that was killed half-way
    try:
        assert plan.memory is not None
        write(plan, place)
        training = {
            "train_peak_bytes": twin.cost.train_peak_bytes,
            "trainable_parameters": twin.cost.trainable_parameters,
        }
        stored = measure_form(place, bench, memory=plan.memory, state=state, training=training, is_twin=False)
        stored = replace(stored, against_twin=_difference(place, folder, stored, twin))
        _write(place.outcome, form.recipe, stored)
        return stored
    except (Paused, StorageError):  # of the sweep or the disk, not of the form
        raise
    except Exception as error:  # of this form alone: the training and its other forms stand
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        result = FormResult(form.label, form.settings, "failed", reason, traceback=traceback.format_exc())
    # Outside of the handler: its traceback holds what filled the device.
    if bench.protocol.device.type == "cuda":
        torch.cuda.empty_cache()
    files.remove_folder(place.artifact, inside=folder)
    return result


def _export_methods(form: Form, planned: Sequence[Method], trained: Sequence[Method]) -> list[Method]:
    """Return the methods that export a form: those of the training, but for those whose options the form sets."""
    own = {method.name: method for method in trained}
    changed = {path.split(".")[1] for path in form.settings}
    return [method if method.name in changed else own[method.name] for method in planned]


def _difference(place: FormFolder, folder: Path, stored: Stored, twin: Stored) -> TwinDifference:
    ids, scores, clusters = read_scores(place.answers)
    twin_ids, twin_scores, _ = read_scores(FormFolder(folder).answers)
    assert ids == twin_ids, "both answer the evaluation set in its order"
    found = evaluate.score_differences(scores, twin_scores, clusters)["em_percent"]
    return TwinDifference(
        em_difference_percent=found.estimate,
        low=found.low,
        high=found.high,
        confidence=found.confidence,
        unit=found.unit,
        clusters=found.clusters,
        selection_em_difference_percent=stored.selection[0] - twin.selection[0],
    )


def _result(form: Form, stored: Stored, place: Path) -> FormResult:
    return FormResult(
        form.label,
        form.settings,
        "ok",
        quality=stored.quality,
        cost=stored.cost,
        against_twin=stored.against_twin,
        artifact=str(place),
    )


def _twin_file(folder: Path) -> Path:
    return folder / FORMS_FOLDER / TWIN_FILE


def _write(path: Path, recipe: RunConfig, stored: Stored) -> None:
    files.make_folder(path.parent)
    files.write_json(path, {"recipe": files.digest(to_dict(recipe)), "stored": as_json(stored)})


def _read(path: Path, recipe: RunConfig, folder: Path) -> Stored | None:
    """Return the outcome of an artifact; None where one of the two is missing, damaged or of another recipe."""
    try:
        found = files.read_object(path)
        if found["recipe"] != files.digest(to_dict(recipe)):
            return None
        artifact.verify(folder)
        return from_dict(Stored, found["stored"], strict=True)
    except (DataError, ConfigError, ArtifactError, KeyError):
        return None
