"""Artifacts as folders of transformers and PEFT: opened where this project cannot be imported, with equal logits."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from qa_core import registry, seeding
from qa_core.artifact import artifact
from qa_core.artifact.manifest import WEIGHTS
from qa_core.artifact.plain_folder import CONFIG, write_tokenizer
from qa_core.config import ModelConfig, RunConfig
from qa_core.data.batches import collate
from qa_core.data.prepare import prepare
from qa_core.data.squad import load_table
from qa_core.data.tokenizers import trained_tokenizer
from qa_core.errors import ArtifactError
from qa_core.memory.artifact_size import planned_artifact_bytes
from qa_core.training.deployment import exported
from qa_core.values import from_dict

pytestmark = pytest.mark.numeric

APART, HALF = {"merge": False}, {"bits": 16, "embedding_bits": 16}
TEXT, QUESTION = "The door of Tower 31 is teal.", "What colour is the door?"
# name -> family, head, methods, checkpoint
OPENED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "bert": ("bert", "span", {}, "micro"),
    "bert-lora": ("bert", "span", {"lora": {}}, "micro"),
    "bert-lora-apart": ("bert", "span", {"lora": APART}, "micro"),
    "bert-ia3-apart": ("bert", "span", {"ia3": APART}, "micro"),
    "bert-half": ("bert", "span", {"quantize": HALF}, "micro"),
    "bert-lora-apart-half": ("bert", "span", {"lora": APART, "quantize": HALF}, "micro"),
    "distilbert": ("distilbert", "span", {}, "micro"),
    "distilbert-half": ("distilbert", "span", {"quantize": {"bits": 16, "scheme": "float16"}}, "micro"),
    "t5": ("t5", "generate", {}, "micro"),
    "t5-lora-apart": ("t5", "generate", {"lora": APART}, "micro"),
    "t5-half": ("t5", "generate", {"quantize": HALF}, "micro"),
    "mamba": ("mamba", "generate", {}, "micro"),
    "mamba-half": ("mamba", "generate", {"quantize": HALF}, "micro"),
}
FEW = ("bert-lora-apart-half", "distilbert", "t5-half", "mamba")  # each family, and all that is renamed
NOT_OPENED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "bert-int8": ("bert", "span", {"quantize": {"bits": 8}}, "micro"),
    "bert-int8-table": ("bert", "span", {"quantize": {"bits": 16, "embedding_bits": 8}}, "micro"),
    "bert-pruned": ("bert", "span", {"static_prune": {}}, "micro"),
    "t5-span": ("t5", "span", {}, "micro"),
    "mamba-span": ("mamba", "span", {}, "micro"),
    "mamba-hybrid": ("mamba", "generate", {}, "hybrid"),
    "lstm": ("lstm", "span", {}, "micro"),
    # The output layer's weight is trained in full and is the table of words too: PEFT would load one of the two.
    "t5-table-apart": ("t5", "generate", {"lora": {**APART, "also_train": ["shared"]}}, "micro"),
}
# Run where the project is absent: loads each folder, and writes logits and token ids.
SCRIPT = """
import importlib.util, json, sys
from pathlib import Path
top = sys.argv[1]
sys.path[:] = [place for place in sys.path if not (Path(place or ".") / "qa_core").is_dir()]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
assert importlib.util.find_spec("qa_core") is None, "the project can be imported"
import torch, transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file
for folder in sorted(Path(top).iterdir()):
    batch, model_folder = load_file(folder / "batch.safetensors"), folder / "artifact"
    name = json.loads((model_folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(transformers, name).from_pretrained(model_folder, output_loading_info=True)
    heads = set()
    if (model_folder / "adapter").is_dir():
        model = PeftModel.from_pretrained(model, str(model_folder / "adapter"))
        heads = {"qa_outputs.weight", "qa_outputs.bias"}
    assert set(report["missing_keys"]) <= heads, report
    assert not report["unexpected_keys"] and not report["mismatched_keys"], report
    with torch.no_grad():
        output = model.eval()(**batch)
    logits = [output.logits] if "logits" in output else [output.start_logits, output.end_logits]
    save_file({str(place): item.contiguous() for place, item in enumerate(logits)}, folder / "found.safetensors")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    (folder / "ids.json").write_text(json.dumps(tokenizer(sys.argv[2])["input_ids"]))
    if name.endswith("QuestionAnswering"):  # as anybody would: what the tokenizer returns goes into the network
        with torch.no_grad():
            output = model(**tokenizer(sys.argv[3], sys.argv[2], return_tensors="pt"))
        save_file({"0": output.start_logits, "1": output.end_logits}, folder / "asked.safetensors")
print("opened")
"""


def written(
    folder: Path, small_squad: Path, cache_dir: Path, family: str, head: str, methods: Any, checkpoint: str
) -> tuple[Any, int]:
    """Write an artifact of a network that every method has moved; returns its data and the planned bytes."""
    lengths = {"max_length": 64, "stride": 8, "max_question_length": 24}
    values = {
        "model": {"family": family, "checkpoint": checkpoint, "head": head, "vocab_size": 300},
        "methods": methods,
        "data": {"train": str(small_squad), "evaluation": str(small_squad), **lengths},
    }
    config = from_dict(RunConfig, values)
    reader, acting = registry.make_family(config), registry.make_methods(config)
    data = prepare(config, reader, cache_dir=cache_dir)
    seeding.seed_torch(1)
    model = reader.build(data.tokenizer)
    for method in acting:
        model = method.attach(model, reader)
    planned = planned_artifact_bytes(config, reader, model, acting, tokenizer=data.tokenizer)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for item in model.parameters():
            if item.requires_grad:
                item.add_(torch.randn(item.shape, generator=generator), alpha=0.05)
    model, forms = exported(model.eval(), acting)
    own = [place for method in acting if (place := method.own_folder(model)) is not None]
    artifact.write(folder, model, config=config, tokenizer=data.tokenizer, forms=forms, own_folders=own)
    return data, planned


def inputs(family: Any, batch: Any) -> dict[str, torch.Tensor]:
    """Return what the classes of transformers take of a batch, as the family hands it to its network."""
    if family.name == "mamba":
        return {"input_ids": batch["input_ids"]}  # right-padded and causal: padding changes no earlier state
    named = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if family.name == "bert":
        named["token_type_ids"] = batch["token_type_ids"]
    if family.name == "t5":
        named["decoder_input_ids"] = batch["input_ids"][:, :4].contiguous()
    return named


def asked(loaded: Any) -> list[torch.Tensor]:
    """Return the logits for the question on the text, its sides told apart by hand."""
    ids = torch.tensor([loaded.tokenizer(QUESTION, TEXT)["input_ids"]])
    question = ids[0].tolist().index(loaded.tokenizer.sep_token_id) + 1
    named = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if loaded.family.name == "bert":
        named["token_type_ids"] = (torch.arange(ids.shape[1]) >= question).long()[None]
    return expected_logits(loaded, named)


def expected_logits(loaded: Any, named: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        output = loaded.model(**named)
    return [output.logits] if "logits" in output else [output.start_logits, output.end_logits]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(FEW, id="few"),
        pytest.param(tuple(OPENED), id="all", marks=pytest.mark.long),
    ],
)
def test_transformers_and_peft_open_the_folder_where_this_project_is_absent(
    names: tuple[str, ...], small_squad: Path, cache_dir: Path, tmp_path: Path
) -> None:
    top, expected, ids = tmp_path / "opened", {}, {}
    answered = {}
    for name, case in ((name, OPENED[name]) for name in names):
        place = top / name
        place.mkdir(parents=True)
        data, planned = written(place / "artifact", small_squad, cache_dir, *case)
        loaded = artifact.load(place / "artifact")
        assert loaded.artifact_bytes == planned, name
        assert CONFIG in loaded.manifest["files"], name
        batch = collate(data.train, np.arange(5), data.tokenizer.pad_token_id)
        named = inputs(loaded.family, batch)
        save_file(named, place / "batch.safetensors")
        expected[name] = expected_logits(loaded, named)
        ids[name] = loaded.tokenizer(TEXT)["input_ids"]
        if case[1] == "span":
            answered[name] = asked(loaded)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(top), TEXT, QUESTION], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.endswith("opened\n"), done.stderr
    for name in names:
        found = load_file(top / name / "found.safetensors")
        assert len(found) == len(expected[name])
        for place, logits in enumerate(expected[name]):
            assert logits.abs().max() > 0.05, name
            # float32: a scan and merged updates may be summed in another order
            torch.testing.assert_close(found[str(place)], logits, rtol=0, atol=1e-5)
        assert json.loads((top / name / "ids.json").read_text()) == ids[name]
    for name, both in answered.items():
        found = load_file(top / name / "asked.safetensors")
        for place, logits in enumerate(both):
            torch.testing.assert_close(found[str(place)], logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("is_foreign", [False, True])
def test_a_tokenizer_is_written_with_what_the_network_reads_whatever_it_returned_before(
    family: str, is_foreign: bool, small_squad: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, BertTokenizerFast

    reader = registry.family_class(family)(ModelConfig(family, "micro"))
    table = load_table(str(small_squad), split="train")
    tokenizer = trained_tokenizer("wordpiece", table, vocab_size=300, cache_dir=tmp_path / "cache")
    if is_foreign:
        words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
        (tmp_path / "vocab.txt").write_text("\n".join(words))
        tokenizer = BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt"))
    before = tokenizer(QUESTION, TEXT)
    write_tokenizer(tmp_path / "written", tokenizer, reader)
    found = AutoTokenizer.from_pretrained(tmp_path / "written")(QUESTION, TEXT)
    assert sorted(found) == sorted(reader.tokenizer_outputs)
    assert found["input_ids"] == before["input_ids"]
    assert tokenizer(QUESTION, TEXT) == before


@pytest.mark.parametrize("name", NOT_OPENED)
def test_what_transformers_would_misread_has_no_configuration(
    name: str, small_squad: Path, cache_dir: Path, tmp_path: Path
) -> None:
    written(tmp_path / "a", small_squad, cache_dir, *NOT_OPENED[name])
    assert not (tmp_path / "a" / CONFIG).exists()
    assert artifact.load(tmp_path / "a").manifest["family"] == NOT_OPENED[name][0]


ADDED = ("README.md", "LICENSE", "license.txt", "NOTICE", "card/figure.png", "CITATION.cff", ".gitattributes")


def test_documents_of_the_user_are_no_part_of_the_model_and_all_else_is_refused(
    small_squad: Path, cache_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    written(folder, small_squad, cache_dir, *OPENED["bert"])
    before = artifact.load(folder).artifact_bytes
    for name in ADDED:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("of the user")
    assert artifact.load(folder).artifact_bytes == before
    for name in (
        "added_tokens.json",
        "vocab.txt",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "LICENSE.json",
    ):
        (folder / name).write_text("{}")
        with pytest.raises(ArtifactError, match=f"{name}: not recorded in manifest.json; allowed: .*LICENSE"):
            artifact.load(folder)
        (folder / name).unlink()
    artifact.load(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_changed_configuration_or_weight_is_refused(
    name: str, small_squad: Path, cache_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    written(folder, small_squad, cache_dir, *OPENED["bert-half"])
    artifact.load(folder)
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=f"{name}: altered"):
        artifact.load(folder)
