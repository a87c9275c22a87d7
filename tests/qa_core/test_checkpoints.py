"""The pretrained networks of the package: found by name everywhere, small, and a start that adapters learn from."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import other_worlds
from benchmarks.finetune_sample import NAME, recipe
from benchmarks.pretrain_sample import COURSES
from qa_core import checkpoints, registry
from qa_core.artifact import artifact
from qa_core.config import ModelConfig, RunConfig
from qa_core.data.squad import load_table
from qa_core.data.tokenizers import ready_tokenizer, trained_tokenizer
from qa_core.errors import ConfigError
from qa_core.run import run
from qa_core.schema import as_json
from qa_core.values import from_dict, to_dict
from tests.ids import plain

PROJECT = Path(__file__).resolve().parents[2]
NETWORKS = (
    "bert/sample-micro",
    "bert/sample-tiny",
    "distilbert/sample-micro",
    "distilbert/sample-tiny",
    "mamba/sample-tiny",
    "t5/sample-tiny",
)
MOST_BYTES = 8_000_000
MOST_PIECES = 1.5  # for each piece of the corpus's own tokenizer


def family_of(network: str) -> Any:
    name, _, checkpoint = network.partition("/")
    return registry.family_class(name)(ModelConfig(family=name, checkpoint=checkpoint))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with a hub that must not be asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_four_families_ship_networks_and_all_of_them_are_small():
    shipped = {f"{name}/{found}" for name in registry.FAMILIES for found in checkpoints.shipped_names(name)}
    assert shipped == set(COURSES) == set(NETWORKS)
    sizes = [path.stat().st_size for path in checkpoints.FOLDER.rglob("*") if path.suffix != ".py"]
    assert sum(sizes) <= MOST_BYTES


@pytest.mark.parametrize("network", NETWORKS, ids=plain)
def test_a_network_loads_by_its_name_with_the_weights_of_its_file(network):
    family = family_of(network)
    model = family.build(ready_tokenizer(family))
    stored = load_file(checkpoints.FOLDER / network / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded = model.state_dict()
    for key, tensor in stored.items():
        (found,) = (value for there, value in loaded.items() if there == key or there.endswith("." + key))
        assert torch.equal(found, tensor.float()), key
    assert family.head == "span"
    assert "pretrained" in family.traits
    assert not family.is_preset
    assert family.checkpoint_name is None, "others know no such name"


def test_a_misspelt_name_is_answered_with_the_nearest():
    family = registry.family_class("bert")(ModelConfig(family="bert", checkpoint="sample-tinny"))
    with pytest.raises(ConfigError, match=r"(?s)sample-tinny.*did you mean.*sample-tiny"):
        family.build(ready_tokenizer(family_of(f"bert/{NAME}")))


def test_a_folder_of_the_same_name_does_not_stand_in_for_it(tmp_path):
    (tmp_path / NAME).mkdir()
    assert family_of(f"bert/{NAME}").place_of(NAME) == str(checkpoints.FOLDER / "bert" / NAME)


@pytest.mark.parametrize("network", NETWORKS, ids=plain)
def test_the_corpus_needs_at_most_half_as_many_pieces_again_as_with_its_own_tokenizer(network, tmp_path):
    family = family_of(network)
    table = load_table("sample", split="train")
    texts = [*table.contexts.to_pylist(), *table.rows.column("question").to_pylist()]
    own = trained_tokenizer(family.tokenizer_kind, table, vocab_size=2048, cache_dir=tmp_path)
    counts = [
        sum(len(found.tokens) for found in item.backend_tokenizer.encode_batch_fast(texts))
        for item in (ready_tokenizer(family), own)
    ]
    assert counts[0] <= MOST_PIECES * counts[1]


@pytest.mark.parametrize("network", NETWORKS, ids=plain)
def test_no_word_of_the_corpus_that_is_asked_for_is_a_piece_of_its_own(network):
    """A long one would tell that the tokenizer has seen the corpus; a short one is a syllable."""
    pieces = {piece.strip("▁Ġ#").lower() for piece in ready_tokenizer(family_of(network)).get_vocab()}
    long_words = {word for word in other_worlds.own_words(other_worlds.BUILT_IN) if len(word) > 6}
    assert len(long_words) > 40
    assert not pieces & long_words


def test_lora_from_it_passes_no_answer_where_random_weights_do_not(tmp_path):
    exact = {}
    for checkpoint in (NAME, "tiny"):
        config = recipe("bert", "lora", 0, checkpoint=checkpoint, windows=1600)
        place = tmp_path / checkpoint
        exact[checkpoint] = run(
            config, lambda progress: None, folder=place, cache_dir=tmp_path
        ).quality.em_percent
    no_answer = 100 * float(load_table("sample", split="dev").is_unanswerable.mean())
    assert exact[NAME] > no_answer + 15
    assert exact["tiny"] < no_answer + 5


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, small_squad: Path) -> tuple[Path, Any]:
    """A trial that distils into it from a teacher that starts from it too, 32 windows each."""
    folder = tmp_path_factory.mktemp("trial")
    values = {
        "model": {"family": "bert", "checkpoint": NAME},
        "methods": {"lora": {"rank": 2}, "distill": {}},
        "data": {
            "train": str(small_squad),
            "evaluation": "sample",
            "evaluation_questions": 20,
            "max_length": 128,
            "stride": 32,
            "max_question_length": 32,
        },
        "train": {"budget_examples": 32, "batch_size": 8, "learning_rate": 1e-3, "precision": "float32"},
        "evaluation": {"latency_runs": 1, "precision": "float32"},
    }
    config = from_dict(RunConfig, values)
    return folder, run(config, lambda progress: None, folder=folder / "0", cache_dir=folder / "cache")


def test_the_record_holds_name_and_hashes_and_no_path_of_the_package(trial):
    folder, result = trial
    found = as_json(result)
    assert found["data"]["checkpoint"]["name"] == NAME
    assert set(found["data"]["checkpoint"]["sha256"]) == {"config.json", "model.safetensors"}
    assert found["config"]["model"]["checkpoint"] == NAME
    assert str(checkpoints.FOLDER) not in json.dumps(found)
    written = list(folder.rglob("*.json"))
    assert len(written) > 5
    assert not [path for path in written if str(checkpoints.FOLDER) in path.read_text()]


def test_the_artifact_loads_and_answers_without_the_network_that_it_started_from(
    trial, monkeypatch, tmp_path
):
    folder, _ = trial
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path / "nothing")
    loaded = artifact.load(folder / "0" / "artifact")
    ids = torch.tensor([loaded.tokenizer("Who built the harp?", "The harp is red.")["input_ids"]])
    with torch.no_grad():
        output = loaded.model(input_ids=ids)
    assert torch.isfinite(output.start_logits).all()


def test_a_teacher_is_another_one_when_the_network_of_the_package_changes(trial, monkeypatch, tmp_path):
    from qa_core import prerequisites
    from qa_core.data.prepare import prepare

    _, result = trial
    config = from_dict(RunConfig, {**result.config, "methods": {}})
    data = prepare(config, family_of(f"bert/{NAME}"), cache_dir=tmp_path)
    before = prerequisites._key(config, data)["checkpoint"]
    shutil.copytree(checkpoints.FOLDER, tmp_path / "other")
    settings = tmp_path / "other" / "bert" / NAME / "config.json"
    settings.write_text(settings.read_text() + "\n")
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path / "other")
    after = prerequisites._key(config, data)["checkpoint"]
    assert set(before) == set(after) >= {"config.json", "model.safetensors"}
    assert {name for name in before if before[name] != after[name]} == {"config.json"}
    assert to_dict(config)["model"]["checkpoint"] == NAME


def test_the_wheel_has_every_file_of_the_networks(tmp_path):
    for name in ("qa_core", "sweeps", "qa_sweeps", "pyproject.toml", "README.md", "LICENSE"):
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    code = "import setuptools; setuptools.setup(script_args=['-q', 'build_py', '-d', 'built'])"
    built = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=os.environ
    )
    assert built.returncode == 0, built.stderr[-2000:]
    packed = {
        path.relative_to(tmp_path / "built" / "qa_core" / "checkpoints")
        for path in files_in(tmp_path / "built")
    }
    there = {path.relative_to(checkpoints.FOLDER) for path in files_in(checkpoints.FOLDER)}
    assert len(there) == 4 * len(NETWORKS) + 2
    assert packed == there
    assert (tmp_path / "built" / "qa_sweeps" / "__init__.py").is_file()


def files_in(folder: Path) -> list[Path]:
    below = folder / "qa_core" / "checkpoints" if folder != checkpoints.FOLDER else folder
    return [path for path in below.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
