"""The manifest's hash of itself, and that no bit of an artifact changes unseen."""

import json
from pathlib import Path

import pytest

from qa_core.artifact.manifest import (
    MANIFEST,
    OWN_HASH,
    RECIPE,
    WEIGHTS,
    fingerprint,
    manifest_text,
    read_manifest,
    verify,
)
from qa_core.errors import ArtifactError


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder that `verify` takes, with a manifest of each kind of value; no loader would."""
    folder = tmp_path / "a"
    (folder / "own").mkdir(parents=True)
    for name, content in {RECIPE: b"{}", WEIGHTS: bytes(range(64)), "own/w.json": b"[1]"}.items():
        (folder / name).write_bytes(content)
    values = {
        "format": 1,
        "family": "bert",
        "head": "span",
        "architecture": {"eps": 1e-12, "dropout": 0.1, "name": "Malm\u00f6", "flags": [True, None, -3]},
        "forms": {},
        "prompting": None,
        "null_threshold": 1.25,
        "weight_files": [WEIGHTS],
        "renamed": {},
        "files": {name: fingerprint(folder / name) for name in (RECIPE, WEIGHTS, "own/w.json")},
    }
    (folder / MANIFEST).write_text(manifest_text(values))
    return folder


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("name", [MANIFEST, RECIPE, WEIGHTS, "own/w.json"])
def test_a_flip_of_any_single_bit_is_refused(small: Path, name: str) -> None:
    assert verify(small)["null_threshold"] == 1.25
    content = (small / name).read_bytes()
    taken = []
    for bit in range(8 * len(content)):
        (small / name).write_bytes(flipped(content, bit))
        try:
            verify(small)
        except ArtifactError:
            continue
        taken.append(bit)
    assert not taken
    (small / name).write_bytes(content)
    assert verify(small)["null_threshold"] == 1.25


def test_an_older_manifest_has_no_hash_and_is_checked_as_before(small: Path) -> None:
    values = json.loads((small / MANIFEST).read_text())
    del values[OWN_HASH]
    (small / MANIFEST).write_text(json.dumps(values))
    assert verify(small)["null_threshold"] == 1.25
    (small / WEIGHTS).write_bytes(bytes(64))
    with pytest.raises(ArtifactError, match="altered"):
        verify(small)


def test_the_hash_is_no_entry_that_readers_see_and_is_written_once(small: Path) -> None:
    manifest = read_manifest(small)
    assert OWN_HASH not in manifest
    text = manifest_text(json.loads((small / MANIFEST).read_text()))
    assert text == (small / MANIFEST).read_text()
    assert text.count(OWN_HASH) == 1
