"""Artifacts that are refused: what stands in the manifest, in the recipe, in the weights and in the tokenizer.

Each case damages a whole, valid artifact in the folder `bad`. Where a refusal must come from what a file says, not from
its hash, the manifest is written anew after the damage, as somebody would who hands on an artifact of their own.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from qa_core.artifact.manifest import MANIFEST, OWN_HASH, RECIPE, WEIGHTS, fingerprint, manifest_text
from tests.malformed.cases import OUT, Case, changed, write_good

Damage = Callable[[Path], None]
PREDICT = ("predict", "bad", "--input", "good.json", "--output", OUT)
MARKER = "unpickled"  # a file that only code from a pickle would make
# Protocol 0 of os.mkdir("unpickled"): whatever loads this makes the folder.
PICKLE = b"cos\nmkdir\n(S'unpickled'\ntR."
WORD = "embeddings.word_embeddings.weight"  # the end of a tensor's name
AUTO_MAP = {"AutoTokenizer": ["own.Tokenizer", None], "AutoConfig": "own.Config"}


def write_manifest(folder: Path, values: dict[str, Any]) -> None:
    """Write a manifest with a hash of itself that is right, or without one where a value is not JSON."""
    try:
        text = manifest_text(values)
    except ValueError:
        text = json.dumps(values)
    (folder / MANIFEST).write_text(text)


def rehash(folder: Path) -> None:
    """Write the hashes of all files into the manifest."""
    values = json.loads((folder / MANIFEST).read_text())
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    values["files"] = {path.relative_to(folder).as_posix(): fingerprint(path) for path in found}
    write_manifest(folder, values)


def content(name: str, data: bytes | str, *, is_rehashed: bool = True) -> Damage:
    """Put other content into a file."""

    def damage(folder: Path) -> None:
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        if is_rehashed:
            rehash(folder)

    return damage


def entry(name: str, *path: str, to: Any) -> Damage:
    """Set a value in a JSON file; `...` takes it away."""

    def damage(folder: Path) -> None:
        values = changed(json.loads((folder / name).read_text()), path, to)
        if name == MANIFEST:
            write_manifest(folder, values)
        else:
            (folder / name).write_text(json.dumps(values))
            rehash(folder)

    return damage


def recorded(name: str) -> Damage:
    """Record a file under another name, with the hash of one that is there."""

    def damage(folder: Path) -> None:
        (folder.parent / "secret").write_text("s")
        values = json.loads((folder / MANIFEST).read_text())
        values["files"][name] = fingerprint(folder.parent / "secret")
        write_manifest(folder, values)

    return damage


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """Change the tensors of the weight file."""

    def damage(folder: Path) -> None:
        tensors = {key: item.clone() for key, item in load_file(folder / WEIGHTS).items()}  # off the map
        change(tensors)
        save_file(tensors, folder / WEIGHTS)
        rehash(folder)

    return damage


def header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change the header of the weight file and nothing behind it."""

    def damage(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        values = json.loads(data[8 : 8 + length])
        change(values)
        text = json.dumps(values).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        rehash(folder)

    return damage


def removed(name: str, *, is_rehashed: bool = False) -> Damage:
    """Take a file away."""

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        if is_rehashed:
            rehash(folder)

    return damage


def _cut(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    content(WEIGHTS, data[:-64])(folder)


def _flip(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-5] ^= 1
    content(WEIGHTS, bytes(data), is_rehashed=False)(folder)


def _linked(name: str) -> Damage:
    def damage(folder: Path) -> None:
        outside = folder.parent / "outside"
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return damage


def _linked_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "w.json").write_text("{}")
    (folder / "apart").symlink_to(outside)
    values = json.loads((folder / MANIFEST).read_text())
    values["files"]["apart/w.json"] = fingerprint(outside / "w.json")
    write_manifest(folder, values)


def _a_folder_of_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def _pickled_weights(name: str) -> Damage:
    def damage(folder: Path) -> None:
        tensors = {key: item.clone() for key, item in load_file(folder / WEIGHTS).items()}  # off the map
        torch.save(tensors, folder / name)
        rehash(folder)

    return damage


def _only_pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(PICKLE)
    values = json.loads((folder / MANIFEST).read_text())
    values["weight_files"] = ["pytorch_model.bin"]
    write_manifest(folder, values)
    rehash(folder)


def _code(folder: Path) -> None:
    """A tokenizer whose code comes along; running it would make the marker."""
    (folder / "own.py").write_text(
        f"import os\nos.mkdir({MARKER!r})\nclass Tokenizer: pass\nclass Config: pass\n"
    )
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text()) | {"auto_map": AUTO_MAP, "tokenizer_class": "Tokenizer"}
    path.write_text(json.dumps(values))
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": AUTO_MAP}))
    (folder / "tokenizer.json").unlink()
    rehash(folder)


def _larger_vocabulary(folder: Path) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    vocabulary = values["model"]["vocab"]
    for number in range(400):
        vocabulary[f"zz{number}"] = len(vocabulary)
    path.write_text(json.dumps(values))
    rehash(folder)


def _first(values: dict[str, Any]) -> dict[str, Any]:
    return next(item for name, item in sorted(values.items()) if name != "__metadata__")


def _named(tensors: dict[str, Any], end: str) -> str:
    return next(name for name in tensors if name.endswith(end))


def _overlap(values: dict[str, Any]) -> None:
    first, second = [item for name, item in sorted(values.items()) if name != "__metadata__"][:2]
    second["data_offsets"] = first["data_offsets"]


def _replace(change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    def in_place(tensors: dict[str, torch.Tensor]) -> None:
        name = _named(tensors, WORD)
        tensors[name] = change(tensors[name]).contiguous()

    return weights(in_place)


def _deep_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[" * 50_000)


def _manifest_link(target: str) -> Damage:
    """Put a link in the place of the manifest; "outside" is a whole manifest beside the folder."""

    def damage(folder: Path) -> None:
        shutil.move(folder / MANIFEST, folder.parent / "outside")
        (folder / MANIFEST).symlink_to(folder.parent / target if target == "outside" else target)

    return damage


def _manifest_pipe(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)


def _endless_threshold(folder: Path) -> None:
    """Of an older writer, without a hash of the manifest itself."""
    values = json.loads((folder / MANIFEST).read_text())
    del values[OWN_HASH]
    text = json.dumps(values)
    (folder / MANIFEST).write_text(text.replace('"null_threshold": null', '"null_threshold": 1e999'))


def _changed_by_hand(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"null_threshold": null', '"null_threshold": 12.5'))


def _empty_tensors(folder: Path) -> None:
    entry = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = ("{" + ",".join(entry % number for number in range(600_000)) + "}").encode()
    content(WEIGHTS, struct.pack("<Q", len(text)) + text)(folder)


def tokenizer(**parts: Any) -> Damage:
    """Replace parts of tokenizer.json."""

    def damage(folder: Path) -> None:
        values = json.loads((folder / "tokenizer.json").read_text()) | parts
        content("tokenizer.json", json.dumps(values))(folder)

    return damage


TWICE = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
# Fails on each text in a number of steps that grows with a power of its length; the library gives up by a panic.
PANICS = {
    "type": "Split",
    "pattern": {"Regex": "([a-zA-Z ]+[a-zA-Z ]+)+(?=[~^])"},
    "behavior": "Isolated",
    "invert": False,
}
PARAGRAPH = {"Sequence": {"id": "A", "type_id": 0}}
REPEATS = {
    "type": "TemplateProcessing",
    "single": [PARAGRAPH] * 1000,
    "pair": [PARAGRAPH],
    "special_tokens": {},
}
# name, damage, what the refusal says
BAD: list[tuple[str, Damage, tuple[str, ...]]] = [
    ("no manifest", removed(MANIFEST), ("bad", "not an artifact")),
    ("an empty manifest", content(MANIFEST, "", is_rehashed=False), ("manifest.json", "unreadable")),
    (
        "a manifest of bytes",
        content(MANIFEST, b"\xff\xfe", is_rehashed=False),
        ("manifest.json", "unreadable"),
    ),
    (
        "a manifest that is cut",
        content(MANIFEST, '{"format": 1,', is_rehashed=False),
        ("manifest.json", "line 1"),
    ),
    ("a manifest that is nested deeply", _deep_manifest, ("manifest.json", "unreadable")),
    ("a manifest that is a list", content(MANIFEST, "[]", is_rehashed=False), ("manifest.json", "'list'")),
    ("no format", entry(MANIFEST, "format", to=...), ("manifest.json", "format None", "allowed: 1")),
    ("a format of tomorrow", entry(MANIFEST, "format", to=99), ("manifest.json", "format 99")),
    ("a format of text", entry(MANIFEST, "format", to="1"), ("manifest.json", "format '1'")),
    *(
        (f"no {name}", entry(MANIFEST, name, to=...), ("manifest.json", f"lacks {name}"))
        for name in ("family", "architecture", "forms", "files", "weight_files", "null_threshold")
    ),
    *(
        (f"{name} that are a number", entry(MANIFEST, name, to=7), ("manifest.json", name, "found 7"))
        for name in ("family", "architecture", "forms", "files", "weight_files", "renamed", "prompting")
    ),
    (
        "a threshold of text",
        entry(MANIFEST, "null_threshold", to="0"),
        ("manifest.json", "null_threshold", "'0'"),
    ),
    (
        "a threshold of NaN",
        entry(MANIFEST, "null_threshold", to=float("nan")),
        ("manifest.json", "found NaN"),
    ),
    (
        "a file's entry of text",
        entry(MANIFEST, "files", WEIGHTS, to="x"),
        ("manifest.json", WEIGHTS, "found 'x'"),
    ),
    (
        "a file's hash of another",
        entry(MANIFEST, "files", WEIGHTS, "sha256", to="0" * 64),
        (WEIGHTS, "altered"),
    ),
    ("a file's length of another", entry(MANIFEST, "files", WEIGHTS, "bytes", to=1), (WEIGHTS, "altered")),
    ("a file above the folder", recorded("../secret"), ("manifest.json", "'../secret'", "this folder")),
    ("a file by its absolute name", recorded("/etc/passwd"), ("manifest.json", "'/etc/passwd'")),
    ("a file two folders below", recorded("a/b/secret"), ("manifest.json", "'a/b/secret'")),
    ("a file over a detour", recorded("a/../../secret"), ("manifest.json", "'a/../../secret'")),
    ("a file with a backslash", recorded("..\\secret"), ("manifest.json", r"'..\\secret'")),
    ("a file without a name", recorded(""), ("manifest.json", "''")),
    ("a file that is the folder", recorded("."), ("manifest.json", "'.'")),
    ("a file with a NUL byte", recorded("a\0b"), ("manifest.json", r"'a\x00b'")),
    ("weights that are a link out", _linked(WEIGHTS), ("manifest.json", WEIGHTS, "this folder")),
    ("a recipe that is a link out", _linked(RECIPE), ("manifest.json", RECIPE, "this folder")),
    ("a folder that is a link out", _linked_folder, ("manifest.json", "'apart/w.json'", "this folder")),
    ("weights without a hash", entry(MANIFEST, "files", WEIGHTS, to=...), (WEIGHTS, "without a hash")),
    ("a recipe without a hash", entry(MANIFEST, "files", RECIPE, to=...), (RECIPE, "without a hash")),
    ("weights of another name", entry(MANIFEST, "weight_files", to=["w"]), ("without a hash", "'w'")),
    (
        "a file that nobody recorded",
        content("added_tokens.json", '{"x": 9}', is_rehashed=False),
        ("added_tokens",),
    ),
    (
        "an unknown method",
        entry(MANIFEST, "forms", to={"os:system": {}}),
        ("bad", "unknown method 'os:system'"),
    ),
    (
        "a form that is a list",
        entry(MANIFEST, "forms", to={"quantize": []}),
        ("forms.quantize", "found []"),
    ),
    (
        "a form without its parts",
        entry(MANIFEST, "forms", to={"static_prune": {}}),
        ("bad", "cannot be loaded"),
    ),
    (
        "a form of no module",
        entry(MANIFEST, "forms", to={"lora": {"low_rank": ["x"], "rank": 1, "scale": 1}}),
        ("bad", "x"),
    ),
    ("another family", entry(MANIFEST, "family", to="lstm"), ("bad", "'lstm'", "'bert'")),
    ("a recipe of another family", entry(RECIPE, "model", "family", to="lstm"), ("bad", "'lstm'")),
    ("a recipe of no family", entry(RECIPE, "model", "family", to="gpt"), ("bad", "unknown family 'gpt'")),
    ("a recipe of an unknown setting", entry(RECIPE, "model", "famly", to="x"), ("bad", "model.famly")),
    ("a recipe of a wrong type", entry(RECIPE, "seed", to="x"), ("bad", "seed", "'x'")),
    ("a recipe that is cut", content(RECIPE, '{"model"'), ("bad", "recipe.json", "line 1")),
    ("a recipe that is a list", content(RECIPE, "[]"), ("bad", "allowed: a mapping")),
    ("a recipe that is nested deeply", content(RECIPE, "[" * 50_000), (RECIPE, "cannot be read")),
    ("no recipe", removed(RECIPE), (RECIPE, "missing")),
    (
        "an architecture of text",
        entry(MANIFEST, "architecture", "hidden_size", to="x"),
        ("bad", "cannot be loaded"),
    ),
    (
        "an architecture of 0",
        entry(MANIFEST, "architecture", "hidden_size", to=0),
        ("bad", "cannot be loaded"),
    ),
    (
        "an architecture below 0",
        entry(MANIFEST, "architecture", "vocab_size", to=-5),
        ("bad", "cannot be loaded"),
    ),
    (
        "a huge architecture",
        entry(MANIFEST, "architecture", "hidden_size", to=2**40),
        ("architecture.hidden_size", "found 1099511627776"),
    ),
    (
        "endless layers",
        entry(MANIFEST, "architecture", "num_hidden_layers", to=10**30),
        ("manifest.json", "architecture.num_hidden_layers", "allowed: at most"),
    ),
    (
        "an adapter of a huge rank",
        entry(MANIFEST, "forms", to={"lora": {"low_rank": ["qa_outputs"], "rank": 10**9, "scale": 1}}),
        ("manifest.json", "forms.lora.rank", "found 1000000000"),
    ),
    (
        "an architecture that shows only in use",
        entry(MANIFEST, "architecture", "output_hidden_states", to=["x"]),
        ("bad", "cannot answer", "TypeError"),
    ),
    ("another architecture", entry(MANIFEST, "architecture", "num_hidden_layers", to=3), ("bad", "missing")),
    (
        "a smaller architecture",
        entry(MANIFEST, "architecture", "vocab_size", to=20),
        ("bad", WORD, "allowed: torch.float32 [20, ", "as the network has it"),
    ),
    ("no weights", removed(WEIGHTS), (WEIGHTS, "missing")),
    ("no weights and no record of them", removed(WEIGHTS, is_rehashed=True), (WEIGHTS, "without a hash")),
    ("weights that are a folder", _a_folder_of_weights, (WEIGHTS, "found a folder")),
    ("a flipped bit", _flip, (WEIGHTS, "altered")),
    ("empty weights", content(WEIGHTS, b""), ("bad", "cannot be loaded")),
    ("cut weights", _cut, ("bad", "cannot be loaded")),
    ("a header alone", content(WEIGHTS, struct.pack("<Q", 2) + b"{}"), ("bad", "in 0 tensors")),
    ("a header of 2^63 bytes", content(WEIGHTS, b"\xff" * 8 + b"{}"), ("bad", "cannot be loaded")),
    ("a header of no JSON", content(WEIGHTS, struct.pack("<Q", 4) + b"{{{{"), ("bad", "cannot be loaded")),
    ("a header that is a list", content(WEIGHTS, struct.pack("<Q", 2) + b"[]"), ("bad", "cannot be loaded")),
    ("overlapping tensors", header(_overlap), ("bad", "cannot be loaded")),
    (
        "a tensor behind the end",
        header(lambda values: _first(values).update(data_offsets=[0, 2**50])),
        ("bad",),
    ),
    ("a tensor below 0", header(lambda values: _first(values).update(data_offsets=[-4, 0])), ("bad",)),
    (
        "a tensor of an unknown dtype",
        header(lambda values: _first(values).update(dtype="F99")),
        ("bad", "F99"),
    ),
    ("a tensor of another shape", header(lambda values: _first(values).update(shape=[1])), ("bad",)),
    (
        "a tensor of a huge shape",
        header(lambda values: _first(values).update(shape=[2**62, 2**62])),
        ("bad",),
    ),
    (
        "weights of another dtype",
        _replace(lambda item: item.to(torch.float16)),
        ("bad", "float16", "float32"),
    ),
    ("weights of 64 bits", _replace(lambda item: item.double()), ("bad", WORD, "float64", "float32")),
    ("weights of integers", _replace(lambda item: item.to(torch.int8)), ("bad", WORD, "int8", "float32")),
    ("transposed weights", _replace(lambda item: item.T), ("bad", WORD, "as the network has it")),
    ("a tensor too few", weights(lambda tensors: tensors.pop(_named(tensors, WORD))), ("missing", WORD)),
    ("a tensor too many", weights(lambda tensors: tensors.update(more=torch.zeros(2))), ("too many", "more")),
    (
        "weights of NaN",
        _replace(lambda item: torch.full_like(item, float("nan"))),
        ("question 'q0'", "not finite"),
    ),
    (
        "a manifest that is a link out",
        _manifest_link("outside"),
        ("manifest.json", "a link that leads elsewhere"),
    ),
    (
        "a manifest that is a link to zeros",
        _manifest_link("/dev/zero"),
        ("manifest.json", "a link that leads"),
    ),
    ("a manifest that is a pipe", _manifest_pipe, ("manifest.json", "found a pipe", "a regular file")),
    ("a threshold beyond a float", _endless_threshold, ("manifest.json", "found 1e999", "finite")),
    ("a threshold changed by hand", _changed_by_hand, ("manifest.json", "altered: found SHA-256")),
    ("an unknown entry", entry(MANIFEST, "treshold", to=1), ("manifest.json", "unknown entry 'treshold'")),
    ("600,000 empty tensors", _empty_tensors, ("bad", "a header of", "allowed: at most 8388608")),
    (
        "a tokenizer that doubles text 30 times",
        tokenizer(normalizer={"type": "Sequence", "normalizers": [TWICE] * 30}),
        ("bad", "1.07e+09 characters of one", "allowed: at most 500"),
    ),
    (
        "a tokenizer that repeats text a thousand times",
        tokenizer(post_processor=REPEATS),
        ("bad", "template has 1000 pieces", "allowed: at most 64"),
    ),
    ("a tokenizer whose library panics", tokenizer(pre_tokenizer=PANICS), ("cannot be used", "panicked")),
    (
        "a file whose name is a command to a terminal",
        content("a\x1b[2Jb", "x", is_rehashed=False),
        (r"a\x1b[2Jb", "not recorded"),
    ),
    ("a pickle for weights", content(WEIGHTS, PICKLE), ("bad", "cannot be loaded")),
    ("torch's own file for weights", _pickled_weights(WEIGHTS), ("bad", "cannot be loaded")),
    ("weights of a pickle alone", _only_pickled, (WEIGHTS, "without a hash")),
    ("a pickle for the tokenizer", content("tokenizer.json", PICKLE), ("bad", "cannot be loaded")),
    ("a tokenizer that is cut", content("tokenizer.json", '{"version": "1.0"'), ("bad", "cannot be loaded")),
    ("a tokenizer of an empty object", content("tokenizer.json", "{}"), ("bad", "cannot be loaded")),
    ("no tokenizer", removed("tokenizer.json", is_rehashed=True), ("bad", "cannot be loaded")),
    (
        "a tokenizer with a length that is a mapping",
        entry("tokenizer_config.json", "model_max_length", to={}),
        ("bad", "cannot be loaded", "dict"),
    ),
    (
        "a tokenizer without padding",
        entry("tokenizer_config.json", "pad_token", to=...),
        ("bad", "no padding token"),
    ),
    ("a tokenizer of its own code", _code, ("bad", "cannot be loaded")),
    ("a tokenizer with more words than weights", _larger_vocabulary, ("bad", "tokens")),
]
CASES = [
    Case(f"artifact: {name}", PREDICT, lambda folder, damage=damage: damage(folder / "bad"), says)
    for name, damage, says in BAD
]


def make_all(artifact: Path, folder: Path) -> None:
    """Put a whole artifact into `bad`, for a case to damage, and valid data beside it."""
    write_good(folder)
    shutil.copytree(artifact, folder / "bad")
