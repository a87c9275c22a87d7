"""Artifacts: whole or not at all, verified by hash, loaded back bit-equal, tampering named."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qa_core import registry, seeding
from qa_core.artifact import artifact
from qa_core.artifact.manifest import OwnFolder, manifest_text
from qa_core.config import RunConfig
from qa_core.data.prepare import prepare
from qa_core.errors import ArtifactError, StorageError
from qa_core.values import from_dict
from tests.malformed.artifact_cases import rehash

pytestmark = pytest.mark.numeric

HEADS = [(name, head) for name in sorted(registry.FAMILIES) for head in registry.family_class(name).heads]


def _write(
    folder: Path,
    small_squad: Path,
    cache_dir: Path,
    family: str = "bert",
    head: str = "span",
    own_folders: Sequence[OwnFolder] = (),
):
    config = from_dict(
        RunConfig,
        {
            "model": {"family": family, "checkpoint": "micro", "head": head, "vocab_size": 300},
            "data": {
                "train": str(small_squad),
                "evaluation": str(small_squad),
                "max_length": 64,
                "stride": 8,
                "max_question_length": 24,
            },
        },
    )
    reader = registry.make_family(config)
    data = prepare(config, reader, cache_dir=cache_dir)
    seeding.seed_torch(1)
    model = reader.build(data.tokenizer).eval()
    artifact.write(folder, model, config=config, tokenizer=data.tokenizer, forms={}, own_folders=own_folders)
    return config, model, data.tokenizer


def test_every_family_and_head_is_loaded_back_bit_equal(small_squad, cache_dir, tmp_path):
    assert len(HEADS) == 7
    for family, head in HEADS:
        folder = tmp_path / f"{family}-{head}"
        config, model, tokenizer = _write(folder, small_squad, cache_dir, family, head)
        loaded = artifact.load(folder)
        assert loaded.config == config
        assert loaded.family.head == head
        expected = model.state_dict()
        found = loaded.model.state_dict()
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), (family, head, name)
        text = "The door of Tower 31 is teal."
        assert loaded.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert not loaded.model.training


def _bytes_on_disk(folder):
    return sum(item.stat().st_size for item in folder.rglob("*") if item.is_file())


def test_artifact_bytes_are_those_of_the_whole_folder(small_squad, cache_dir, tmp_path):
    _, model, _ = _write(tmp_path / "a", small_squad, cache_dir)
    loaded = artifact.load(tmp_path / "a")
    assert loaded.artifact_bytes == _bytes_on_disk(tmp_path / "a")
    assert loaded.artifact_bytes > 4 * sum(item.numel() for item in model.parameters())


def test_the_threshold_is_recorded_without_touching_hashed_files(small_squad, cache_dir, tmp_path):
    _write(tmp_path / "a", small_squad, cache_dir)
    before = artifact.verify(tmp_path / "a")["files"]
    artifact.set_null_threshold(tmp_path / "a", 1.25)
    loaded = artifact.load(tmp_path / "a")
    assert loaded.null_threshold == 1.25
    assert loaded.manifest["files"] == before


def test_an_existing_folder_is_never_overwritten(small_squad, cache_dir, tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageError, match="exists already"):
        _write(tmp_path / "a", small_squad, cache_dir)
    assert list((tmp_path / "a").iterdir()) == []


def test_a_failed_write_leaves_nothing(small_squad, cache_dir, tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact, "write_network", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        _write(tmp_path / "a", small_squad, cache_dir)
    assert list(tmp_path.iterdir()) == []


OWN = OwnFolder(
    folder="apart",
    weights_file="head.safetensors",
    tensors={"qa_outputs.weight": "w", "qa_outputs.bias": "b"},
    documents={"about.json": {"of": "the head"}},
)


def test_weights_of_an_own_folder_are_in_it_under_its_names_and_nowhere_else(
    small_squad, cache_dir, tmp_path
):
    _, model, _ = _write(tmp_path / "a", small_squad, cache_dir, own_folders=[OWN])
    head = load_file(tmp_path / "a" / "apart" / "head.safetensors")
    assert torch.equal(head["w"], model.qa_outputs.weight)
    assert head.keys() == {"w", "b"}
    assert json.loads((tmp_path / "a" / "apart" / "about.json").read_text()) == {"of": "the head"}
    body = load_file(tmp_path / "a" / "model.safetensors")
    assert body.keys() == model.state_dict().keys() - set(OWN.tensors)
    loaded = artifact.load(tmp_path / "a")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    assert "apart/head.safetensors" in loaded.manifest["files"]
    assert "apart/about.json" in loaded.manifest["files"]
    assert loaded.artifact_bytes == _bytes_on_disk(tmp_path / "a")
    assert artifact.load(tmp_path / "a").manifest["forms"] == {}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: _flip_a_byte(folder / "apart" / "head.safetensors"), r"head\.safetensors: altered"),
        (lambda folder: _flip_a_byte(folder / "apart" / "about.json"), r"about\.json: altered"),
        (lambda folder: (folder / "apart" / "about.json").unlink(), r"about\.json: recorded .* but missing"),
        (
            lambda folder: _manifest_with(folder, renamed={"apart/head.safetensors": {"nowhere": "w"}}),
            r"missing \['qa_outputs\.bias', 'qa_outputs\.weight'\] or too many \['b', 'nowhere'\]",
        ),
        (lambda folder: _manifest_with(folder, renamed={}), r"weights that are missing \['qa_outputs\.bias'"),
        (lambda folder: _manifest_with(folder, renamed={"../w": {}}), r"without a hash: \['\.\./w'\]"),
        (lambda folder: _manifest_with(folder, weight_files=["/w"]), r"without a hash: \['/w'\]"),
    ],
)
def test_damage_to_an_own_folder_is_refused_with_the_file_named(
    damage, words, small_squad, cache_dir, tmp_path
):
    _write(tmp_path / "a", small_squad, cache_dir, own_folders=[OWN])
    damage(tmp_path / "a")
    with pytest.raises(ArtifactError, match=words):
        artifact.load(tmp_path / "a")


@pytest.mark.parametrize(
    "name", ["../x", "a/../x", "a/b/x", "/etc/hostname", "a/./x", "a//x", "", ".", "..", "a\\x", "out/x"]
)
def test_a_recorded_name_that_is_no_file_of_the_folder_or_one_below_is_refused(
    name, small_squad, cache_dir, tmp_path
):
    _write(tmp_path / "a", small_squad, cache_dir)
    (tmp_path / "x").write_text("outside")
    (tmp_path / "a" / "out").symlink_to(tmp_path, target_is_directory=True)
    recorded = {"sha256": hashlib.sha256(b"outside").hexdigest(), "bytes": 7}
    _manifest_with(tmp_path / "a", files={**artifact.verify(tmp_path / "a")["files"], name: recorded})
    with pytest.raises(ArtifactError, match="allowed: a file of this folder or one below"):
        artifact.verify(tmp_path / "a")
    with pytest.raises(ArtifactError, match="allowed: a file of this folder or one below"):
        artifact.copy(tmp_path / "a", tmp_path / "b")


def test_an_artifact_from_before_own_folders_is_still_read(small_squad, cache_dir, tmp_path):
    _write(tmp_path / "a", small_squad, cache_dir)
    path = tmp_path / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest.pop("renamed") == {}
    manifest.pop("manifest_sha256")  # it came later still
    path.write_text(json.dumps(manifest))
    artifact.load(tmp_path / "a")


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def _manifest_with(folder: Path, **changes) -> None:
    path = folder / "manifest.json"
    path.write_text(manifest_text({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: _flip_a_byte(folder / "model.safetensors"), r"model\.safetensors: altered"),
        (lambda folder: (folder / "recipe.json").write_text("{}"), r"recipe\.json: altered"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json: recorded .* but missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "not an artifact"),
        (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest\.json: unreadable"),
        (lambda folder: _manifest_with(folder, format=99), "format 99; allowed: 1"),
        (
            lambda folder: _manifest_with(folder, architecture={"vocab_size": 3}),
            r"allowed: torch\.float32 \[.*\], as",
        ),
        (
            lambda folder: _manifest_with(folder, files={"../../x": {"sha256": "", "bytes": 0}}),
            r"records '\.\./\.\./x'; allowed: a file of this folder or one below",
        ),
    ],
)
def test_damage_is_refused_with_the_file_named(damage, words, small_squad, cache_dir, tmp_path):
    _write(tmp_path / "a", small_squad, cache_dir)
    artifact.load(tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(ArtifactError, match=words):
        artifact.load(tmp_path / "a")


def test_a_copy_is_verified_and_equal(small_squad, cache_dir, tmp_path):
    _write(tmp_path / "a", small_squad, cache_dir)
    artifact.copy(tmp_path / "a", tmp_path / "b")
    assert artifact.verify(tmp_path / "b") == artifact.verify(tmp_path / "a")
    with pytest.raises(StorageError, match="exists already"):
        artifact.copy(tmp_path / "a", tmp_path / "b")
    _flip_a_byte(tmp_path / "a" / "model.safetensors")
    with pytest.raises(ArtifactError, match="altered"):
        artifact.copy(tmp_path / "a", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_tensor_that_stands_in_the_file_under_two_of_its_names_is_refused(small_squad, cache_dir, tmp_path):
    """T5's table of words is its output layer too: a file with both names does not say which of the two it is."""
    folder = tmp_path / "a"
    _write(folder, small_squad, cache_dir, "t5", "generate")
    tensors = load_file(folder / "model.safetensors")
    (name,) = tensors.keys() & {"shared.weight", "lm_head.weight", "decoder.embed_tokens.weight"}
    other = "shared.weight" if name != "shared.weight" else "lm_head.weight"
    save_file(tensors | {other: tensors[name].clone()}, folder / "model.safetensors")
    rehash(folder)
    with pytest.raises(ArtifactError, match=rf"missing \[\] or too many \['{other}'\]"):
        artifact.load(folder)
