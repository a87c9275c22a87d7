"""Write, verify and load what ships: the folder that a finished trial leaves.

    manifest.json         format, family, architecture, deployed forms, demonstrations of a prompted network, null
                          threshold, SHA-256 and size of every file
    config.json           where transformers can open the folder: its configuration (`plain_folder.py`)
    recipe.json           the recipe, every default filled in
    model.safetensors     the weights in their deployed form
    tokenizer.json ...    the tokenizer
    NAME/ ...             weights that a method keeps apart, in the layout of another library; none is in two files

Nothing in it is pickled and nothing of it is executed. It loads without the checkpoint that it was trained from. What
the manifest must say and how files are verified is in `manifest.py`.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from qa_core import files, registry
from qa_core.artifact.loaded import LoadedArtifact
from qa_core.artifact.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    RECIPE,
    WEIGHTS,
    OwnFolder,
    fingerprint,
    manifest_text,
    read_manifest,
    verify,
)
from qa_core.artifact.plain_folder import CONFIG, plain_folder, write_tokenizer
from qa_core.artifact.weight_file import check_numbers, check_tensors, fill, tensor_names, write_network
from qa_core.config import RunConfig
from qa_core.data.foreign_tokenizers import check_files, check_growth, panics_refused
from qa_core.data.layout import Prompting
from qa_core.errors import ArtifactError, ConfigError, DataError, StorageError
from qa_core.families.base import Family
from qa_core.values import from_dict, to_dict

__all__ = [
    "MANIFEST",
    "RECIPE",
    "WEIGHTS",
    "copy",
    "is_artifact",
    "load",
    "load_plain",
    "load_stored",
    "set_null_threshold",
    "verify",
    "write",
]


def write(
    folder: Path,
    model: torch.nn.Module,
    *,
    config: RunConfig,
    tokenizer: Any,
    forms: Mapping[str, Any],
    own_folders: Sequence[OwnFolder] = (),
    prompting: Prompting | None = None,
) -> None:
    """Write the artifact of a trained, exported model; the folder appears whole or not at all.

    Args:
        forms: method name -> what its `restore` needs, for the methods whose deployed form is not the plain network,
            in the order in which they acted.
        own_folders: weights that are written into folders of their own instead.
        prompting: the demonstrations of a network that was prompted instead of trained.

    Raises:
        StorageError: the folder exists already, or the disk is full.
    """
    if files.is_there(folder):
        raise StorageError(f"{folder}: exists already; an artifact is never overwritten")
    family = registry.make_family(config)
    architecture = family.architecture(model)
    plain = plain_folder(family, model, architecture, own_folders)
    with files.written_folder(folder) as target:
        for own in own_folders:
            _write_own_folder(target, own, model)
        apart = [name for own in own_folders for name in own.tensors]
        with _hidden(model, _with_shared(model, apart)):
            names = write_network(target / WEIGHTS, model, {} if plain is None else plain.names)
        if plain is not None:
            (target / CONFIG).write_text(plain.config)
        write_tokenizer(target, tokenizer, family)
        (target / RECIPE).write_text(recipe_text(config))
        recorded = {
            item.relative_to(target).as_posix(): fingerprint(item)
            for item in sorted(target.rglob("*"))
            if item.is_file()
        }
        manifest = manifest_values(
            family,
            architecture=architecture,
            forms=forms,
            prompting=prompting,
            own_folders=own_folders,
            names=names,
            recorded=recorded,
        )
        (target / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")


def manifest_values(
    family: Family,
    *,
    architecture: Mapping[str, Any],
    forms: Mapping[str, Any],
    prompting: Prompting | None,
    own_folders: Sequence[OwnFolder],
    names: Mapping[str, str],
    recorded: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what the manifest of a new artifact says, its threshold not tuned yet.

    Args:
        names: name in the network -> name in `model.safetensors`, where the two differ.
        recorded: path in the folder -> size and hash, of all files but the manifest.
    """
    renamed = {f"{own.folder}/{own.weights_file}": dict(own.tensors) for own in own_folders}
    return {
        "format": FORMAT_VERSION,
        "family": family.name,
        "head": family.head,
        "architecture": architecture,
        "forms": dict(forms),
        "prompting": None if prompting is None else to_dict(prompting),
        "null_threshold": None,
        "weight_files": [WEIGHTS, *renamed],
        "renamed": {**({WEIGHTS: dict(names)} if names else {}), **renamed},
        "files": dict(recorded),
    }


def recipe_text(config: RunConfig) -> str:
    """Return a recipe as the artifact holds it."""
    return json.dumps(to_dict(config), indent=2)


def document_text(document: Mapping[str, Any]) -> str:
    """Return a document of a method's own folder as it is written."""
    return json.dumps(document, indent=2, sort_keys=True)


def set_null_threshold(folder: Path, threshold: float | None) -> None:
    """Record the threshold tuned on the loaded artifact; the hashed files stay as they are."""
    manifest = {**read_manifest(folder), "null_threshold": threshold}
    files.write_text(folder / MANIFEST, manifest_text(manifest))


def load(folder: Path) -> LoadedArtifact:
    """Verify the artifact and read it back.

    Raises:
        ArtifactError: a file is missing or altered, or the weights do not fit the architecture.
    """
    manifest = verify(folder)
    try:
        loaded = _load(folder, manifest)
    except ArtifactError:
        raise
    # Networks and tokenizers are built from what the files say, and libraries raise what comes of it, from
    # ZeroDivisionError to bare Exception.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{folder}: cannot be loaded: {type(error).__name__}: {reason}") from error
    return loaded


def load_stored(folder: Path) -> tuple[torch.nn.Module, Mapping[str, Mapping[str, Any]], RunConfig]:
    """Return the network as the files hold it, its methods' forms and its recipe; not what answers, see `load`.

    Raises:
        ArtifactError: as `load`.
    """
    manifest = verify(folder)
    try:
        config, family = _of_the_recipe(folder, manifest)
        return _filled(folder, manifest, family), manifest["forms"], config
    except ArtifactError:
        raise
    except Exception as error:  # as in `load`
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{folder}: cannot be loaded: {type(error).__name__}: {reason}") from error


def _load(folder: Path, manifest: Mapping[str, Any]) -> LoadedArtifact:
    config, family = _of_the_recipe(folder, manifest)
    model = _filled(folder, manifest, family)
    for name, form in manifest["forms"].items():
        model = registry.method_class(name).settle(model, form)
    tokenizer = _read_tokenizer(folder, manifest["architecture"])
    return LoadedArtifact(model.eval(), family, tokenizer, config, manifest, folder)


def _of_the_recipe(folder: Path, manifest: Mapping[str, Any]) -> tuple[RunConfig, Family]:
    config = _read_recipe(folder / RECIPE)
    family = registry.make_family(config)
    named = (manifest["family"], manifest.get("head", family.head))
    if named != (family.name, family.head):
        raise ArtifactError(
            f"{folder / MANIFEST}: family and head: found {named}; allowed: {(family.name, family.head)}, as in "
            f"{RECIPE}"
        )
    if manifest.get("prompting") is not None:
        family = family.with_prompting(from_dict(Prompting, manifest["prompting"], path="prompting"))
    return config, family


def _filled(folder: Path, manifest: Mapping[str, Any], family: Family) -> torch.nn.Module:
    """Return the network in its stored forms, weights read."""
    check_numbers(folder, manifest)
    model = family.restore(manifest["architecture"])
    for name, form in manifest["forms"].items():
        model = registry.method_class(name).restore(model, form)
    _load_weights(folder, model, manifest["renamed"])
    return model


def _read_recipe(path: Path) -> RunConfig:
    try:
        return from_dict(RunConfig, files.read_json(path, inside=path.parent))
    except (DataError, ConfigError) as error:
        raise ArtifactError(f"{path}: cannot be read as a recipe: {error}") from error


def _read_tokenizer(folder: Path, architecture: Mapping[str, Any]) -> Any:
    from transformers import AutoTokenizer

    check_files(folder)
    with panics_refused():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not getattr(tokenizer, "is_fast", False):
        raise ArtifactError(f"{folder}: the tokenizer has no fast form; allowed: one with tokenizer.json")
    check_growth(tokenizer)
    with panics_refused():
        tokenizer("one text")  # a setting of another type shows in its first use
    if tokenizer.pad_token_id is None:
        raise ArtifactError(f"{folder}: the tokenizer has no padding token; allowed: one with `pad_token`")
    sections = (architecture, *(item for item in architecture.values() if isinstance(item, Mapping)))
    rows = next((item["vocab_size"] for item in sections if "vocab_size" in item), len(tokenizer))
    if len(tokenizer) > rows:
        raise ArtifactError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens; allowed: {rows}, those with weights"
        )
    return tokenizer


def is_artifact(folder: Path) -> bool:
    """Tell whether a folder is an artifact, whole or not, rather than a checkpoint of transformers."""
    return files.is_file(folder / MANIFEST)


def load_plain(folder: Path, family: Family) -> LoadedArtifact:
    """Load an artifact that a recipe starts from, in place of a pretrained checkpoint.

    Raises:
        ArtifactError: a file is missing or altered.
        ConfigError: the artifact is of another family or head, was trained with other options, or its weights are
            compressed.
    """
    loaded = load(folder)
    _check_plain(folder, loaded.manifest, family)
    return loaded


def plain_architecture(folder: Path, family: Family) -> dict[str, Any]:
    """Return what `family.restore` needs for an artifact that a recipe starts from; no weight is read or verified.

    Raises:
        ArtifactError, ConfigError: as for `load_plain`, but for the files beside the manifest.
    """
    manifest = read_manifest(folder)
    _check_plain(folder, manifest, family)
    return dict(manifest["architecture"])


def _check_plain(folder: Path, manifest: Mapping[str, Any], family: Family) -> None:
    found = (manifest["family"], manifest.get("head", family.head))
    if found != (family.name, family.head):
        raise ConfigError(
            f"model.checkpoint: {str(folder)!r} holds family {found[0]!r} with head {found[1]!r}; allowed: family "
            f"{family.name!r} with head {family.head!r}"
        )
    if manifest["forms"]:
        raise ConfigError(
            f"model.checkpoint: {str(folder)!r} is compressed ({', '.join(manifest['forms'])}); allowed: an "
            "artifact with plain weights"
        )
    _check_options(folder, family)


def _check_options(folder: Path, family: Family) -> None:
    """Refuse options beside an artifact that it was not trained with: they would change nothing."""
    trained = _read_recipe(folder / RECIPE).model.options
    for name, value in family.model.options.items():
        found = trained.get(name, getattr(type(family.options)(), name))
        if value != found:
            raise ConfigError(
                f"model.options.{name}: found {value!r}; allowed: {found!r}, with which the artifact {str(folder)!r} "
                "was trained, or none"
            )


def copy(folder: Path, to: Path, *, documents: Mapping[str, str] | None = None) -> None:
    """Copy a verified artifact to a new folder, which appears whole or not at all.

    Args:
        folder: of the artifact.
        to: the new folder.
        documents: texts to put beside it, by names that `is_document` takes; none of them is recorded or read.

    Raises:
        ArtifactError: the source is altered. StorageError: the target exists or cannot be written.
    """
    if files.is_there(to):
        raise StorageError(f"{to}: exists already; choose a new folder")
    manifest = verify(folder)
    with files.written_folder(to) as target:
        for name in [MANIFEST, *manifest["files"]]:
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, target / name)
        for name, text in (documents or {}).items():
            (target / name).write_text(text, encoding="utf-8")
    verify(to)


def _write_own_folder(target: Path, own: OwnFolder, model: torch.nn.Module) -> None:
    place = target / own.folder
    place.mkdir()
    state = model.state_dict()
    tensors = {there: state[here].contiguous() for here, there in own.tensors.items()}
    save_file(tensors, place / own.weights_file, metadata={"format": "pt"})
    for name, document in own.documents.items():
        (place / name).write_text(document_text(document))


def _load_weights(folder: Path, model: torch.nn.Module, renamed: Mapping[str, Mapping[str, str]]) -> None:
    """Fill a network from all weight files; every tensor must come from exactly one of them."""
    state = model.state_dict()
    missing, unexpected = set(state), []
    for file in (WEIGHTS, *(name for name in renamed if name != WEIGHTS)):
        names = dict(renamed.get(file, {}))
        tensors = tensor_names(folder / file)
        if file == WEIGHTS:  # it renames some of its tensors, other files all
            names |= {name: name for name in tensors - set(names.values())}
        unexpected += sorted(tensors - set(names.values()))
        unexpected += sorted(names.keys() - state.keys())
        check_tensors(folder / file, names, state)
        fill(folder / file, names, state)
        unexpected += _filled_twice(state, names, filled=state.keys() - missing)
        missing -= _with_shared(model, names)
    if missing or unexpected:
        raise ArtifactError(f"{folder}: weights that are missing {sorted(missing)} or too many {unexpected}")


def _filled_twice(
    state: Mapping[str, torch.Tensor], names: Collection[str], *, filled: Collection[str]
) -> list[str]:
    """Return the names whose tensor, or one that shares its memory, is filled already or by an earlier name."""
    twice, places = [], set()
    for name in sorted(names):
        if name in state and state[name].numel():
            place = state[name].data_ptr()
            if name in filled or place in places:
                twice.append(name)
            places.add(place)
    return twice


def _with_shared(model: torch.nn.Module, names: Collection[str]) -> set[str]:
    """Return the names and those of all tensors that share memory with theirs."""
    state = model.state_dict()
    places = {state[name].data_ptr() for name in names if name in state}
    return {*names, *(name for name, tensor in state.items() if tensor.data_ptr() in places)}


@contextmanager
def _hidden(model: torch.nn.Module, names: Collection[str]) -> Iterator[None]:
    """Leave some tensors out of the model's state dict for a while."""

    def leave_out(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for name in names:
            del state[name]

    handle = model.register_state_dict_post_hook(leave_out)
    try:
        yield
    finally:
        handle.remove()
