"""The memory of a deployed form, known before training ends: predicted without memory, measured once and cached.

Memory depends on the recipe, not on what training does to the values. The form is therefore planned on a network
without memory, built with arbitrary weights and measured by the protocol of `protocol.py` before the first rung; all
trials of the same form share the result.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from qa_core import files, registry
from qa_core.artifact import artifact
from qa_core.config import RunConfig
from qa_core.errors import ConfigError, DataError
from qa_core.families.base import NOTHING, Family, Found
from qa_core.memory import protocol as cost
from qa_core.memory.protocol import Protocol
from qa_core.memory.shapes import NotPredictable, predicted_inference_peaks
from qa_core.memory.skeleton import without_memory
from qa_core.methods.base import Method
from qa_core.turns import ALONE, Turns
from qa_core.values import from_dict

DIGEST = "sha256"  # in a cached file: of all else in it
ROWS = (cost.MEMORY_ROWS, cost.LARGE_MEMORY_ROWS)


@dataclass(frozen=True)
class FormMemory:
    """Inference peak of one deployed form in bytes, with one window and with eight; predicted: None where it cannot be.

    `weights_bytes` are those of `cost.weights_bytes`; `artifact_bytes`, of the whole recipe, is planned by
    `artifact_size.py`.
    """

    measured_bytes: int
    measured_batch8_bytes: int
    predicted_bytes: int | None
    predicted_batch8_bytes: int | None
    weights_bytes: int
    artifact_bytes: int | None = None  # None: of a form alone


def form_memory(
    family: Family,
    model: torch.nn.Module,
    methods: Sequence[Method],
    *,
    protocol: Protocol,
    cache_dir: Path,
    turns: Turns = ALONE,
) -> FormMemory:
    """Return prediction and measurement of the form that `model` will be deployed in.

    Args:
        model: the network in training; only its architecture is read.
        methods: of the recipe, in the order in which they act.
        cache_dir: where the measurements of a machine are shared.
        turns: on the device that is measured.
    """
    architecture = family.architecture(model)
    forms = planned_forms(family, architecture, methods)
    key = cost.form_key(architecture, forms, protocol)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    path = cache_dir / "forms" / f"{digest}.json"
    found = _read(path, key)
    if found is not None:
        return found
    with torch.random.fork_rng(devices=[]):
        predicted = _predicted_or_none(family, architecture, forms, protocol=protocol)
        network = deployed(family, architecture, forms).to(protocol.device)
        with turns.measuring():
            measured = [cost.inference_peak_bytes(network, protocol, rows=rows) for rows in ROWS]
    (one, eight), (predicted_one, predicted_eight) = measured, predicted
    memory = FormMemory(one, eight, predicted_one, predicted_eight, cost.weights_bytes(network))
    files.make_folder(path.parent)
    values = {"memory": asdict(memory), "key": key}
    files.write_json(path, {**values, DIGEST: files.digest(values)})
    return memory


def _read(path: Path, key: Mapping[str, Any]) -> FormMemory | None:
    """Return a measurement of this machine; None when there is none, or its file is damaged and to be made again."""
    try:
        found = files.read_object(path)
        if found.pop(DIGEST) != files.digest(found) or files.digest(found["key"]) != files.digest(key):
            return None
        return from_dict(FormMemory, found["memory"])
    except (DataError, ConfigError, KeyError):
        return None


@dataclass(frozen=True)
class PlannedForm:
    """The deployed form of a recipe, as JSON values: the network's architecture, and method -> what it makes of it."""

    architecture: Mapping[str, Any]
    forms: Mapping[str, Mapping[str, Any]]


def planned_form(
    config: RunConfig, family: Family, methods: Sequence[Method], *, tokenizer: Any, found: Found = NOTHING
) -> PlannedForm:
    """Return what a recipe deploys, without weights: of a checkpoint only the configuration is read.

    Args:
        family, methods: of the recipe.
        tokenizer, found: that the network reads, and what `family.prepare` found for it.

    Raises:
        ConfigError, ArtifactError: the checkpoint or an option is at fault, as when the network is built.
    """
    model = training_skeleton(config, family, methods, tokenizer=tokenizer, found=found)
    architecture = family.architecture(model)
    return PlannedForm(architecture, planned_forms(family, architecture, methods))


def training_skeleton(
    config: RunConfig, family: Family, methods: Sequence[Method], *, tokenizer: Any, found: Found = NOTHING
) -> torch.nn.Module:
    """Return the network that a recipe trains, methods attached, without memory: on the meta device.

    Args and raises as `planned_form`.
    """
    source = Path(family.place_of(config.model.checkpoint))
    with without_memory():
        if not family.is_preset and artifact.is_artifact(source):
            model = family.restore(artifact.plain_architecture(source, family))
        else:
            model = family.build(tokenizer, found)
        for method in methods:
            model = method.attach(model, family)
    return model


def planned_forms(
    family: Family, architecture: Mapping[str, Any], methods: Sequence[Method]
) -> dict[str, dict[str, Any]]:
    """Return method name -> the form that it will deploy, planned on a network without memory."""
    forms = {}
    with without_memory():
        network = family.restore(architecture)
        for method in methods:
            form = method.deployed_form(network)
            if form is not None:
                forms[method.name] = form
                network = type(method).restore(network, form)
    return forms


def predicted_form_bytes(
    family: Family,
    architecture: Mapping[str, Any],
    forms: Mapping[str, Any],
    *,
    protocol: Protocol,
    rows: Sequence[int] = (cost.MEMORY_ROWS,),
) -> list[int]:
    """Return the predicted inference peak of a planned form for each number of windows in the batch, in bytes.

    Raises:
        NotPredictable: see `shapes.py`.
    """
    with torch.random.fork_rng(devices=[]):
        skeleton = deployed_skeleton(family, architecture, forms)
        return predicted_inference_peaks(skeleton, protocol, rows)


def _predicted_or_none(
    family: Family, architecture: Mapping[str, Any], forms: Mapping[str, Any], *, protocol: Protocol
) -> Sequence[int | None]:
    try:
        return predicted_form_bytes(family, architecture, forms, protocol=protocol, rows=ROWS)
    except NotPredictable:
        return [None] * len(ROWS)


def deployed_skeleton(
    family: Family, architecture: Mapping[str, Any], forms: Mapping[str, Any]
) -> torch.nn.Module:
    """Build the network of a planned form without memory: on the meta device."""
    with without_memory():
        return deployed(family, architecture, forms)


def deployed(family: Family, architecture: Mapping[str, Any], forms: Mapping[str, Any]) -> torch.nn.Module:
    """Build the network of a planned form with arbitrary weights, on torch's default device."""
    network = family.restore(architecture)
    for name, form in forms.items():
        network = registry.method_class(name).restore(network, form)
    for name, form in forms.items():
        network = registry.method_class(name).settle(network, form)
    return network
