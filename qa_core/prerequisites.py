"""Recipes that must be trained before another one, such as its teacher: once on a machine, for all its trials.

    CACHE/teachers/KEY/       artifact/ and, written last, result.json: its presence means that all is there
                              checkpoint/ while it is trained; a killed training resumes from it
                              failure.json if it diverged, as the same recipe would do again
    CACHE/teachers/KEY.lock   held by the one process that trains it; the others wait

`run` passes itself in and trains what is needed. The methods say which recipe they need.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from qa_core import files, heartbeat, registry
from qa_core.artifact import artifact
from qa_core.artifact.loaded import LoadedArtifact
from qa_core.config import CHOOSE, RunConfig
from qa_core.data.prepare import TrialData, prepare
from qa_core.data.tokenizers import tokenizer_hash
from qa_core.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    NonFiniteLoss,
    PrerequisiteFailed,
    QaError,
    StorageError,
)
from qa_core.families.base import Family
from qa_core.hardware import choose_device
from qa_core.schema import RunResult, as_json
from qa_core.values import to_dict

FORMAT = 2  # raise it when the folder or the training of a recipe changes: older teachers are then left alone
RESULT, FAILURE = "result.json", "failure.json"
DIGEST = "sha256"  # in both: of all else in the file
Train = Callable[..., RunResult]  # `run.run`


@dataclass(frozen=True)
class Prerequisite:
    """An artifact that a method needs, and what the trial's record says of it.

    `facts` are JSON values: `recipe`, `weights_sha256` by file, and for a recipe that was trained here `key`,
    `versions`, `examples_seen`, `quality`, `cost` and its own `prerequisites`; these are None for an artifact that
    the user named, whose training is not known.
    """

    artifact: LoadedArtifact
    facts: dict[str, Any]


def obtain(
    needed: RunConfig | Path, *, owner: str, family: Family, data: TrialData, cache_dir: Path, train: Train
) -> Prerequisite:
    """Return the artifact of a recipe, trained now if no trial of this machine has done so, or that of a folder.

    torch's generators are left as they were.

    Args:
        needed: the recipe, or an artifact's folder.
        owner: the setting that needs it, for messages.
        family, data: of the trial; what is needed must read the same windows.
        cache_dir: shared by all trials of the machine.
        train: `run.run`.

    Raises:
        ConfigError: its head, tokenizer or window layout is another; found before it is trained.
        ArtifactError: the folder holds no whole artifact.
        PrerequisiteFailed: its training failed.
        StorageError: the cache folder cannot be written to.
    """
    if isinstance(needed, Path):
        loaded = artifact.load(needed)
        _check_windows(loaded.family, loaded.tokenizer, owner=owner, family=family, data=data)
        return Prerequisite(loaded, _facts(loaded, {}))
    # One teacher for all trials, those that confirm a front on other questions included.
    needed = replace(needed, evaluation=replace(needed.evaluation, part=CHOOSE))
    own_family = registry.make_family(needed)
    own_data = prepare(needed, own_family, cache_dir=cache_dir)
    _check_windows(own_data.family, own_data.tokenizer, owner=owner, family=family, data=data)
    content = _key(needed, own_data)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
    folder = cache_dir / "teachers" / digest
    found = _read(folder, owner)
    if found is None:
        with _locked(folder):
            found = _read(folder, owner) or _train(needed, folder, owner, train=train, cache_dir=cache_dir)
    loaded, result = found
    return Prerequisite(loaded, _facts(loaded, {"key": digest, "versions": content["versions"], **result}))


def _check_windows(
    other: Family, other_tokenizer: Any, *, owner: str, family: Family, data: TrialData
) -> None:
    """Refuse what does not read the windows of the trial."""
    if other.head != family.head:
        raise ConfigError(
            f"{owner}: it has head {other.head!r}; allowed: {family.head!r}, the head of this recipe"
        )
    found, wanted = tokenizer_hash(other_tokenizer), tokenizer_hash(data.tokenizer)
    if found != wanted:
        raise ConfigError(
            f"{owner}: its tokenizer has hash {found}; allowed: {wanted}, the tokenizer of this recipe; "
            "`model.tokenizer` can name one for both"
        )
    layout = other.layout(other_tokenizer)
    if layout != data.layout:
        raise ConfigError(
            f"{owner}: family {other.name!r} lays its windows out as {layout}; allowed: as family {family.name!r} "
            f"does, {data.layout}"
        )


def _key(recipe: RunConfig, data: TrialData) -> dict[str, Any]:
    """Return all that decides the trained weights and their scores, as JSON values.

    Rungs are left out: where training pauses to checkpoint changes none of its numbers.
    """
    values = to_dict(recipe)
    del values["train"]["rungs"]
    return {
        "format": FORMAT,
        "recipe": values,
        "checkpoint": _content(Path(registry.make_family(recipe).place_of(recipe.model.checkpoint))),
        "data": {part: data.facts[part]["data_hash"] for part in ("train", "selection", "evaluation")},
        "tokenizer": data.facts["tokenizer_hash"],
        "device": choose_device(recipe.device).type,
        "versions": {name: _version(name) for name in ("torch", "transformers", "qa-sweeps")},
    }


def _content(checkpoint: Path) -> dict[str, str] | None:
    """Return the SHA-256 of a local checkpoint's configuration and weights; None for a preset or a hub name."""
    if not files.is_folder(checkpoint):
        return None
    hashes = {}
    for path in sorted([*checkpoint.glob("*.json"), *checkpoint.glob("*.safetensors")]):
        with files.opened(path, most_bytes=files.WEIGHT_BYTES) as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return None


def _read(folder: Path, owner: str) -> tuple[LoadedArtifact, dict[str, Any]] | None:
    """Return a finished training, or None when it is not there, not whole or damaged."""
    reason = _failure(folder / FAILURE)
    if reason is not None:
        raise PrerequisiteFailed(f"{owner}: its training failed in an earlier trial ({folder}): {reason}")
    try:
        return artifact.load(folder / "artifact"), _sealed(folder / RESULT)
    except (ArtifactError, DataError):
        return None


def _failure(path: Path) -> str | None:
    """Return why the training failed; None when there is no such note, or a damaged one: it is then trained again."""
    try:
        return str(_sealed(path)["reason"])
    except (DataError, KeyError):
        return None


def _sealed(path: Path) -> dict[str, Any]:
    """Read what `_write` wrote; raises DataError when it is not there or is damaged."""
    values = files.read_object(path)
    if values.pop(DIGEST, None) != files.digest(values):
        raise DataError(f"{path}: damaged: it does not have the digest that was written with it")
    return values


def _locked(folder: Path) -> AbstractContextManager[Any]:
    files.make_folder(folder)
    try:
        return heartbeat.acquire(FileLock(folder.with_name(folder.name + ".lock")))
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error}") from error


def _train(
    recipe: RunConfig, folder: Path, owner: str, *, train: Train, cache_dir: Path
) -> tuple[LoadedArtifact, dict[str, Any]]:
    """Train the recipe; called by one process at a time."""
    (folder / RESULT).unlink(missing_ok=True)
    shutil.rmtree(folder / "artifact", ignore_errors=True)  # damaged, or of a run killed just before its end
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            result = train(recipe, lambda progress: None, folder=folder, cache_dir=cache_dir)
    except (QaError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, NonFiniteLoss):
            _write(folder / FAILURE, {"reason": reason})
        raise PrerequisiteFailed(f"{owner}: its training failed ({folder}): {reason}") from error
    _write(folder / RESULT, _summary(result))
    found = _read(folder, owner)
    assert found is not None, folder
    return found


def _summary(result: RunResult) -> dict[str, Any]:
    values = as_json(result)
    chosen = {name: values[name] for name in ("quality", "cost", "prerequisites")}
    return {**chosen, "examples_seen": values["curve"][-1]["examples_seen"]}


def _facts(loaded: LoadedArtifact, training: dict[str, Any]) -> dict[str, Any]:
    known = ("key", "versions", "examples_seen", "quality", "cost", "prerequisites")
    return {
        "recipe": to_dict(loaded.config),
        "weights_sha256": loaded.weights_sha256,
        **{name: training.get(name) for name in known},
    }


def _write(path: Path, values: dict[str, Any]) -> None:
    """Write JSON with its digest, whole or not at all."""
    values = json.loads(json.dumps(values))
    files.write_json(path, {**values, DIGEST: files.digest(values)})
