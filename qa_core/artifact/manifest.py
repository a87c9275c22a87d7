"""The manifest of an artifact: what it must say, and that every file of the folder is the one that it records.

An artifact may come from anybody, so that nothing here trusts it: types are checked, names stay in the folder, and a
file without a recorded hash is refused. Reads JSON and hashes files; what is made of them is in `artifact.py`.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from qa_core import files
from qa_core.errors import ArtifactError, ConfigError, DataError, unknown
from qa_core.values import convert, shown

FORMAT_VERSION = 1
MANIFEST, RECIPE, WEIGHTS = "manifest.json", "recipe.json", "model.safetensors"
ENTRIES: Mapping[str, Any] = {  # entry -> its type
    "family": str,
    "architecture": Mapping[str, Any],
    "forms": Mapping[str, Mapping[str, Any]],
    "files": Mapping[str, Mapping[str, Any]],
    "weight_files": list[str],
    "null_threshold": float | None,
}
OPTIONAL_ENTRIES: Mapping[str, Any] = {  # of newer writers
    "renamed": Mapping[str, Mapping[str, Any]],
    "prompting": Mapping[str, Any] | None,
    "head": str | None,
}
OWN_HASH, NO_HASH = "manifest_sha256", "0" * 64
LONGEST_NUMBER = len("-2.2250738585072014e-308")  # characters of a float in JSON
# What a user may add: documents, which no library reads as a part of a model.
DOCUMENT_NAMES = re.compile(
    r"(README|LICEN[CS]E|NOTICE|COPYING|CITATION|CHANGELOG|AUTHORS)([-_]\w+)?(\.txt|\.cff|\.bib)?",
    re.IGNORECASE,
)
DOCUMENT_SUFFIXES = (".md", ".rst", ".pdf", ".html", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".csv")


@dataclass(frozen=True)
class OwnFolder:
    """Weights that ship in a folder of their own inside the artifact, in the layout of another library."""

    folder: str
    weights_file: str
    tensors: Mapping[str, str]  # name in the exported network -> name in the weights file
    documents: Mapping[str, Mapping[str, Any]]  # name of a file beside it -> its JSON


def verify(folder: Path) -> dict[str, Any]:
    """Check every file against its recorded size and SHA-256 and return the manifest.

    Raises:
        ArtifactError: names the first file that is missing, altered or not recorded.
    """
    manifest = read_manifest(folder)
    for name, recorded in manifest["files"].items():
        path = _inside(folder, name)
        try:
            found = fingerprint(path)
        except files.MissingFile as error:
            raise ArtifactError(f"{path}: recorded in {MANIFEST} but missing") from error
        except DataError as error:
            raise ArtifactError(str(error)) from error
        if found != recorded:
            raise ArtifactError(f"{path}: altered: found {found}, recorded {recorded}")
    read = {RECIPE, WEIGHTS, *manifest["weight_files"], *manifest["renamed"]}
    without_hash = sorted(read - manifest["files"].keys())
    if without_hash:
        raise ArtifactError(f"{folder / MANIFEST}: files without a hash: {without_hash}")
    for name in _names(folder):
        if name not in manifest["files"]:
            raise ArtifactError(
                f"{folder / name}: not recorded in {MANIFEST}; allowed: the files that it names, hidden files, and "
                f"documents (README, LICENSE, NOTICE and the like, {', '.join(DOCUMENT_SUFFIXES)})"
            )
    return manifest


def manifest_text(values: Mapping[str, Any]) -> str:
    """Return a manifest as it is written, with a hash of itself as the last entry.

    The hash is the SHA-256 of the whole text in UTF-8 with zeros in the place of its own 64 digits, so that not one bit
    of the file can change unseen. Spaces at the end make up for the digits of the threshold: how many bytes an artifact
    has does not depend on what its training came to.

    Raises:
        ValueError, TypeError: a value is not finite or not JSON.
    """
    entries = {name: value for name, value in values.items() if name != OWN_HASH}
    text = json.dumps({**entries, OWN_HASH: NO_HASH}, indent=2, allow_nan=False)
    text += " " * (LONGEST_NUMBER - len(json.dumps(values.get("null_threshold"))))
    before, _, after = text.rpartition(NO_HASH)
    return before + hashlib.sha256(text.encode()).hexdigest() + after


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what the manifest says, its types checked; no other file is looked at.

    Raises:
        ArtifactError: there is none, or it cannot be read, lacks an entry or has one of another type.
    """
    path = folder / MANIFEST
    try:
        text = files.read_text(path, inside=folder)
        manifest = files.parse_json(text)
    except files.MissingFile as error:
        raise ArtifactError(f"{folder}: not an artifact: it has no {MANIFEST}") from error
    except (DataError, ValueError) as error:
        raise ArtifactError(f"{path}: unreadable: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT_VERSION:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise ArtifactError(f"{path}: format {found!r}; allowed: {FORMAT_VERSION}")
    if missing := ENTRIES.keys() - manifest.keys():
        raise ArtifactError(f"{path}: lacks {', '.join(sorted(missing))}")
    known = {"format", OWN_HASH, *ENTRIES, *OPTIONAL_ENTRIES}
    if unknown_names := sorted(manifest.keys() - known):
        raise ArtifactError(f"{path}: {unknown('entry', unknown_names[0], known)}")
    if OWN_HASH in manifest:  # older writers had none
        _check_own_hash(path, text, manifest.pop(OWN_HASH))
    manifest.setdefault("renamed", {})
    try:
        for name, hint in {**ENTRIES, **OPTIONAL_ENTRIES}.items():
            if name in manifest:
                manifest[name] = convert(hint, manifest[name], name, strict=True)
    except ConfigError as error:
        raise ArtifactError(f"{path}: {error}") from error
    return manifest


def fingerprint(path: Path) -> dict[str, Any]:
    """Return the SHA-256 and the size of a file as the manifest records them."""
    with files.opened(path, most_bytes=files.WEIGHT_BYTES) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "bytes": file.tell()}


def _check_own_hash(path: Path, text: str, recorded: Any) -> None:
    blank = text.replace(recorded, NO_HASH) if isinstance(recorded, str) and recorded else text
    found = hashlib.sha256(blank.encode()).hexdigest()
    if found != recorded:
        raise ArtifactError(f"{path}: altered: found SHA-256 {found}, recorded {shown(recorded)}")


def _names(folder: Path) -> Iterator[str]:
    """Yield the files that a loader could read: all but the manifest, hidden files and documents."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_told = path.name.startswith(".") or is_document(path.name) or name == MANIFEST
        if not path.is_dir() and not is_told:
            yield name


def is_document(name: str) -> bool:
    """Tell whether a file of this name is one that a user may add to an artifact; none of them is read."""
    return DOCUMENT_NAMES.fullmatch(name) is not None or name.lower().endswith(DOCUMENT_SUFFIXES)


def _inside(folder: Path, name: str) -> Path:
    """Return the place of a recorded file: in the artifact's folder or one folder below.

    Raises:
        ArtifactError: the name, or a link that stands under it, leads elsewhere.
    """
    parts = PurePosixPath(name).parts
    is_plain = 1 <= len(parts) <= 2 and "/".join(parts) == name and ".." not in parts and "\\" not in name
    path = folder / name
    if not is_plain or not name.isprintable() or not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(
            f"{folder / MANIFEST}: records {name!r}; allowed: a file of this folder or one below"
        )
    return path
