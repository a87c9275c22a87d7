"""k-shot prompting: nothing is trained, the demonstrations travel with the artifact, the front has a point more."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qa_core import registry
from qa_core.artifact import artifact
from qa_core.config import ModelConfig, RunConfig
from qa_core.data.layout import Prompting
from qa_core.data.squad import load_table
from qa_core.data.tokenizers import trained_tokenizer
from qa_core.errors import ConfigError, DataError, IllegalCombination
from qa_core.families.base import Family
from qa_core.methods.base import Claim, Method
from qa_core.methods.few_shot import FewShot
from qa_core.models.checkpoint_identity import checkpoint_identity
from qa_core.run import run
from qa_core.schema import as_json
from qa_core.scoring import evaluate
from qa_core.values import from_dict
from sweeps.commands.predict import answer
from tests.contracts.method import HEADS

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def checkpoint(small_squad: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small Mamba that writes at random and its tokenizer: what a hub name would bring."""
    folder = tmp_path_factory.mktemp("mamba")
    table = load_table(str(small_squad), split="train")
    tokenizer = trained_tokenizer("bytes", table, vocab_size=300, cache_dir=folder / "cache")
    torch.manual_seed(1)
    family = registry.family_class("mamba")(ModelConfig("mamba", "micro", head="generate"))
    model: Any = family.build(tokenizer)
    with torch.no_grad():  # tied outputs of this size would only echo the last token
        model.backbone.norm_f.weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def recipe(small_squad: Path, checkpoint: Path | str, shots: int = 2, **changes: Any) -> RunConfig:
    values = {
        "model": {"family": "mamba", "checkpoint": str(checkpoint)},
        "methods": {"few_shot": {"shots": shots, "max_demonstration_tokens": 100}},
        "data": {
            "train": str(small_squad),
            "evaluation": str(small_squad),
            "max_length": 320,
            "stride": 8,
            "max_question_length": 24,
        },
        "train": {"precision": "float32", "rungs": [20, 50], "budget_examples": 90},
        "evaluation": {"precision": "float32", "latency_runs": 2, "max_new_tokens": 5},
        "seed": 5,
    }
    return from_dict(RunConfig, {**values, **changes})


def test_it_is_legal_where_a_family_writes_and_refused_elsewhere() -> None:
    assert len(HEADS) == 7
    legal = set()
    for name, head in HEADS:
        family = registry.family_class(name)(ModelConfig(name, "micro", head=head))
        try:
            registry.check_combination(family, [FewShot.from_options({})])
        except IllegalCombination:
            continue
        legal.add((name, head))
    assert legal == {("mamba", "generate"), ("t5", "generate")}


def test_methods_that_train_are_refused_beside_it_and_storage_is_not(checkpoint: Path) -> None:
    class Pack(Method):
        name = "quantize"
        claims = frozenset({Claim.STORED_BASE})

    family = registry.family_class("mamba")(ModelConfig("mamba", str(checkpoint)))
    registry.check_combination(family, [FewShot.from_options({}), Pack.from_options({})])
    with pytest.raises(IllegalCombination, match="'few_shot' cannot be combined with lora"):
        registry.check_combination(
            family, [FewShot.from_options({}), registry.method_class("lora").from_options({})]
        )


def test_impossible_options_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"methods\.few_shot\.shots: found -1; allowed: 0 or more"):
        FewShot.from_options({"shots": -1})
    with pytest.raises(ConfigError, match=r"methods\.few_shot\.max_demonstration_tokens: found 0"):
        FewShot.from_options({"max_demonstration_tokens": 0})


def test_a_prompted_recipe_leaves_a_measured_artifact_that_answers_alone(
    small_squad: Path, checkpoint: Path, cache_dir: Path, tmp_path: Path
) -> None:
    config = recipe(small_squad, checkpoint)
    reports: list[Any] = []
    result = run(config, reports.append, folder=tmp_path / "t", cache_dir=cache_dir)
    assert reports == []
    (point,) = result.curve
    assert (point.examples_seen, point.budget_examples, point.train_loss) == (0, 0, None)
    assert (result.cost.train_peak_bytes, result.cost.trainable_parameters) == (None, 0)
    assert result.cost.form_inference_peak_bytes == result.cost.inference_peak_bytes
    assert result.cost.compute_path == "project-scan"
    assert len(result.data["demonstrations"]["question_ids"]) == 2
    assert result.data["checkpoint"] == checkpoint_identity(str(checkpoint))
    assert set(result.data["checkpoint"]["sha256"]) == {"config.json", "model.safetensors"}
    json.dumps(as_json(result), allow_nan=False)

    loaded = artifact.load(Path(result.artifact))
    table = load_table(str(small_squad), split="dev")
    predictions = answer(loaded, table, device="cpu")
    assert evaluate.quality(predictions, table, loaded.null_threshold) == result.quality
    shown = [example.question_id for example in loaded.family.prompting.demonstrations]
    assert shown == result.data["demonstrations"]["question_ids"]
    weights = registry.family_class("mamba")(config.model).build(loaded.tokenizer).state_dict()
    assert all(torch.equal(item, weights[name]) for name, item in loaded.model.state_dict().items())

    bare = loaded.family.with_prompting(Prompting(shots=0, max_tokens=100))
    without = answer(replace(loaded, family=bare), table, device="cpu")
    assert [item.null_odds for item in without] != [item.null_odds for item in predictions]
    assert len({item.text for item in predictions}) > 3


@pytest.mark.long
def test_the_seed_draws_the_demonstrations_and_0_shots_are_the_prompt_alone(
    small_squad: Path, checkpoint: Path, cache_dir: Path, tmp_path: Path
) -> None:
    shown = []
    for name, shots, seed in (("a", 1, 5), ("b", 1, 6), ("c", 0, 5)):
        config = recipe(small_squad, checkpoint, shots, seed=seed)
        result = run(config, lambda report: None, folder=tmp_path / name, cache_dir=cache_dir)
        shown.append(result.data["demonstrations"])
    assert shown[0]["question_ids"] != shown[1]["question_ids"]
    assert shown[2] == {"question_ids": [], "tokens": 0}


def test_a_trained_recipe_has_no_demonstrations(small_squad: Path, cache_dir: Path, tmp_path: Path) -> None:
    config = recipe(small_squad, "micro", methods={}, train={"budget_examples": 0, "precision": "float32"})
    result = run(config, lambda report: None, folder=tmp_path / "t", cache_dir=cache_dir)
    assert (result.curve[-1].budget_examples, result.cost.train_peak_bytes) == (0, None)
    assert result.data["demonstrations"] is None
    assert artifact.load(Path(result.artifact)).family.prompting is None


def test_t5_is_prompted_through_its_encoder(small_squad: Path, cache_dir: Path, tmp_path: Path) -> None:
    model = {"family": "t5", "checkpoint": "micro", "head": "generate", "vocab_size": 300}
    config = recipe(small_squad, "micro", 1, model=model)
    result = run(config, lambda report: None, folder=tmp_path / "t", cache_dir=cache_dir)
    assert (result.curve[-1].examples_seen, result.cost.train_peak_bytes) == (0, None)
    assert result.cost.compute_path is None
    loaded = artifact.load(Path(result.artifact))
    (shown,) = loaded.family.prompting.demonstrations
    prefix = loaded.tokenizer.decode(loaded.family.layout(loaded.tokenizer).prefix)
    assert prefix.startswith(f"{shown.question}</s>")
    assert len(loaded.family.layout(loaded.tokenizer).prefix) == result.data["demonstrations"]["tokens"]


def test_demonstrations_that_do_not_exist_are_refused_with_the_settings_named(
    small_squad: Path, checkpoint: Path, cache_dir: Path, tmp_path: Path
) -> None:
    config = recipe(small_squad, checkpoint, shots=60)
    with pytest.raises(DataError, match=r"methods\.few_shot\.shots"):
        run(config, lambda report: None, folder=tmp_path / "t", cache_dir=cache_dir)


def test_an_artifact_of_a_prompted_network_is_a_starting_point_like_any_other(
    small_squad: Path, checkpoint: Path, cache_dir: Path, tmp_path: Path
) -> None:
    first = run(
        recipe(small_squad, checkpoint), lambda report: None, folder=tmp_path / "a", cache_dir=cache_dir
    )
    family: Family = registry.family_class("mamba")(ModelConfig("mamba", first.artifact))
    model = artifact.load_plain(Path(first.artifact), family).model
    assert family.prompting is None
    assert all(item.requires_grad for item in model.parameters())
