"""The identity of a checkpoint: hashes of a folder's files, the hub's commit, and None where nothing is known."""

import hashlib
import json
from pathlib import Path

import pytest

from qa_core.models.checkpoint_identity import checkpoint_identity

COMMIT = "1234567890abcdef1234567890abcdef12345678"


def test_of_a_folder_the_weight_and_configuration_files_are_hashed_and_nothing_else(tmp_path: Path) -> None:
    contents = {
        "config.json": b"{}",
        "model-00001-of-00002.safetensors": b"one",
        "model-00002-of-00002.safetensors": b"two",
        "model.safetensors.index.json": b"index",
    }
    for name, content in {**contents, "README.md": b"words", "pytorch_model.bin": b"pickle"}.items():
        (tmp_path / name).write_bytes(content)
    found = checkpoint_identity(str(tmp_path))
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert found == {"name": str(tmp_path), "revision": None, "sha256": expected}
    json.dumps(found, allow_nan=False)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"twp")
    assert checkpoint_identity(str(tmp_path)) != found


def test_of_a_hub_name_the_commit_is_that_of_the_snapshot_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert checkpoint_identity("some/model") == {"name": "some/model", "revision": None, "sha256": {}}
    repository = tmp_path / "models--some--model"
    for commit in ("0" * 40, COMMIT):  # an older snapshot lies there too
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    found = checkpoint_identity("some/model")
    assert found == {"name": "some/model", "revision": COMMIT, "sha256": {}}


def test_what_is_no_name_of_the_hub_has_no_commit() -> None:
    assert checkpoint_identity("no/such/place/at/all")["revision"] is None
